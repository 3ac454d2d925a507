"""Many small coins become one while blocks are cheap."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.bitcoin.consolidation import is_consolidation, request_consolidation
from custody.bitcoin.spend_plan import Market, SpendPolicy
from custody.bitcoin.testing import POOL
from custody.payout_model import Payout
from custody.payout_model import PayoutState as P
from tests.custody.bitcoin.spend_world import BOOK, CAPITAL, DEPOSITS, SpendWorld, make_spend_world

SMALL = 100_000
COUNT = 15


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[SpendWorld]:
    async with make_spend_world(engine, tmp_path) as made:
        made.node.mine(*(made.node.pay((made.acme, SMALL + n)) for n in range(COUNT)))
        await made.mine(3)
        await made.credit()
        yield made


async def ask(world: SpendWorld, rate: int) -> Payout | None:
    async def work(conn: AsyncConnection) -> Payout | None:
        return await request_consolidation(
            conn,
            POOL,
            market=Market(rate, 1_000, 1_000),
            policy=SpendPolicy(),
            below=SMALL * 2,
            requested_by="dan",
            book=BOOK,
            now=world.clock.now(),
        )

    return await world.run(work)


async def test_small_coins_become_one_and_only_the_fee_is_gone(world: SpendWorld) -> None:
    world.node.rate = 2_000
    asked = await ask(world, 2_000)
    assert asked is not None
    assert is_consolidation(asked)
    again = await ask(world, 2_000)
    assert again is not None
    assert again.id == asked.id
    await world.approve(asked)

    report = await world.advance()

    assert report.waiting == {}
    one = await world.only()
    assert len(one.current.coins) == COUNT
    assert {coin.amount // 1_000 for coin in one.current.coins} == {SMALL // 1_000}
    await world.mine(3)
    await world.confirm()
    assert (await world.get(asked)).state is P.CONFIRMED
    total = sum(DEPOSITS) + CAPITAL + sum(SMALL + n for n in range(COUNT))
    assert (await world.books())["custody:btc-pool"] == (total - one.current.fee, 0, 0)
    await world.assert_exact()


async def test_nothing_is_consolidated_while_blocks_are_dear(world: SpendWorld) -> None:
    assert await ask(world, 6_000) is None
