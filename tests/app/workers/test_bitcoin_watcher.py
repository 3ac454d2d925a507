"""The watcher of a Bitcoin chain: from a deposit to a payment that is final, and the comparison."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.workers.bitcoin_watcher import BitcoinWatcher
from app.workers.house_file import BitcoinSection, parse_house
from chain.errors import NodeUnavailable
from custody.bitcoin.testing import CHAIN
from custody.policy import ConfirmationPolicy
from kernel.errors import BadInput
from tests.custody.bitcoin.spend_world import BOOK, BTC, CONFIRMATIONS, SpendWorld, make_spend_world

HOUSE: dict[str, Any] = {
    "chain": "evm",
    "book": 1,
    "signer_socket": "signer.sock",
    "confirmations": "confirmations.json",
    "payout_depth": 6,
    "start_height": 0,
}
SECTION: dict[str, Any] = {"chain": "bitcoin", "payout_depth": 3, "start_height": 870_000}


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[SpendWorld]:
    async with make_spend_world(engine, tmp_path) as made:
        yield made


@pytest.fixture
def watcher(world: SpendWorld) -> BitcoinWatcher:
    return BitcoinWatcher(
        engine=world.engine,
        node=world.node,
        signer=world.vault,
        clock=world.clock,
        chain=CHAIN,
        book=BOOK,
        policy=ConfirmationPolicy.uniform(3),
        payout_requirement=CONFIRMATIONS,
    )


async def test_a_turn_credits_what_is_deep_enough_and_takes_payouts_to_the_chain(
    world: SpendWorld, watcher: BitcoinWatcher
) -> None:
    paid = world.node.pay((world.acme, BTC))
    world.node.submit(paid)
    await watcher.turn()
    payout = await world.approved(amount=BTC // 10)
    turn = await watcher.turn()
    assert len(turn.work.sent) == 1
    assert len(world.node.pool) == 2

    world.node.mine_pool()
    world.node.mine()
    world.node.mine()
    turn = await watcher.turn()

    assert [str(item.state) for item in turn.deposits] == ["credited"]
    assert [item.id for item in turn.payouts] == [payout.id]
    assert turn.tip == world.node.blocks[-1]
    # The ledger, the coins and the node agree after deposits, payments, change and fees.
    assert await watcher.reconcile() == {"differences": 0}


async def test_a_chain_that_was_never_read_is_not_compared(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    async with make_spend_world(engine, tmp_path) as world:
        watcher = BitcoinWatcher(
            engine=world.engine,
            node=world.node,
            signer=world.vault,
            clock=world.clock,
            chain="elsewhere",
            book=BOOK,
            policy=ConfirmationPolicy.uniform(3),
            payout_requirement=CONFIRMATIONS,
        )
        assert await watcher.reconcile() == {}


async def test_a_pool_that_is_not_shown_keeps_nothing_waiting(
    world: SpendWorld, watcher: BitcoinWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pending(self: object, watch: object) -> None:
        raise NodeUnavailable("the pool is not shown")

    monkeypatch.setattr(type(world.node), "pending", pending)
    world.node.mine(world.node.pay((world.acme, BTC)))
    world.node.mine()
    world.node.mine()

    assert len((await watcher.turn()).deposits) == 1


# The house file.


def test_the_house_file_may_name_a_chain_of_bitcoin() -> None:
    house = parse_house({**HOUSE, "bitcoin": SECTION}, Path("house.toml"))

    section = BitcoinSection(
        reconcile_minutes=360,
        chain="bitcoin",
        payout_depth=3,
        payout_finalized=False,
        start_height=870_000,
        reorg_depth_max=100,
    )
    assert house.bitcoin == section
    assert parse_house(HOUSE, Path("house.toml")).bitcoin is None


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ([SECTION], r"write \[bitcoin\]"),
        ({**SECTION, "nodes": 3}, "other keys than"),
        ({"chain": "bitcoin"}, "other keys than"),
        ({**SECTION, "payout_depth": 0}, "payout_depth is 0"),
        ({**SECTION, "chain": 7}, "chain is 7"),
    ],
)
def test_a_bitcoin_section_that_is_wrong_is_named(section: object, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        parse_house({**HOUSE, "bitcoin": section}, Path("house.toml"))
