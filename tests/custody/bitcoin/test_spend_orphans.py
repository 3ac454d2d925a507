"""Blocks that vanish under a cancellation, and payments that come back after one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.bitcoin.blocks import FINAL_DEPTH
from chain.bitcoin.transactions import Transaction, decode
from custody.bitcoin.spend_model import SpendState
from custody.bitcoin.spend_moves import Carried
from custody.bitcoin.spend_rescue import resume_spend, spend_resume_bytes
from custody.errors import NotPossible
from custody.freezes import find_freeze
from custody.payout_model import AttemptKind, Payout
from custody.payout_model import PayoutState as P
from registry.testing import operator_keypair
from tests.custody.bitcoin.spend_world import BTC, DEPOSITS, SpendWorld, make_spend_world

DEEP = 2 * FINAL_DEPTH


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[SpendWorld]:
    async with make_spend_world(engine, tmp_path) as made:
        yield made


def bytes_of(carried: Carried, number: int = 1) -> Transaction:
    raw = carried.attempts[number - 1].raw
    assert raw is not None
    return decode(raw)


async def cancelling(world: SpendWorld) -> list[Payout]:
    """Return payouts that were sent, and that a signed cancellation competes with."""
    payouts = await world.several(BTC, 50_000)
    await world.advance()
    await world.cancel((await world.only()).spend)
    await world.advance()
    one = await world.only()
    assert (one.spend.state, one.current.kind) == (SpendState.CANCELLING, AttemptKind.CANCEL)
    assert world.node.pool == {one.current.tx_id}
    return payouts


async def reorg(world: SpendWorld, depth: int) -> None:
    """Let a longer branch without any of our transactions take over."""
    world.node.rollback(depth)
    for _ in range(depth + 1):
        world.node.mine()
    await world.follow(reorg_depth_max=DEEP)


async def test_a_cancellation_whose_block_is_orphaned_is_sent_again(world: SpendWorld) -> None:
    payouts = await cancelling(world)
    await world.mine()
    assert await world.states(payouts) == {"mined"}

    await reorg(world, 1)

    one = await world.only()
    assert (one.spend.state, one.current.kind) == (SpendState.CANCELLING, AttemptKind.CANCEL)
    assert await world.states(payouts) == {"cancelling"}
    await world.assert_exact()
    await world.advance()
    await world.mine(1 + FINAL_DEPTH)
    assert {item.state for item in await world.confirm()} == {P.CANCELLED}
    assert (await world.books())["client:acme"] == (sum(DEPOSITS), 0, 0)
    await world.assert_exact()


async def test_a_payment_that_was_mined_first_is_being_cancelled_again_when_orphaned(
    world: SpendWorld,
) -> None:
    payouts = await cancelling(world)
    world.node.mine(bytes_of(await world.only()))
    await world.follow()
    assert await world.states(payouts) == {"mined"}

    await reorg(world, 1)

    assert await world.states(payouts) == {"cancelling"}
    await world.assert_exact()
    # Whichever of the two is mined now counts, and only that one.
    world.node.mine(bytes_of(await world.only()))
    await world.follow()
    await world.mine(2)
    assert {item.state for item in await world.confirm()} == {P.CONFIRMED}
    await world.assert_exact()


async def test_a_payment_under_another_id_that_was_confirmed_while_cancelled_is_orphaned(
    world: SpendWorld,
) -> None:
    payouts = await cancelling(world)
    world.node.mine(replace(bytes_of(await world.only()), lock_time=1))
    await world.follow()
    await world.mine(2)
    assert {item.state for item in await world.confirm()} == {P.CONFIRMED}

    await reorg(world, 3)

    assert (await world.only()).spend.state is SpendState.CANCELLING
    assert await world.states(payouts) == {"cancelling"}
    await world.assert_exact()
    await world.advance()
    await world.mine(1 + FINAL_DEPTH)
    assert {item.state for item in await world.confirm()} == {P.CANCELLED}
    await world.assert_exact()


async def test_a_final_cancellation_that_is_orphaned_is_a_hold_and_nobody_sends_it_again(
    world: SpendWorld,
) -> None:
    payouts = await cancelling(world)
    await world.mine(1 + FINAL_DEPTH)
    assert {item.state for item in await world.confirm()} == {P.CANCELLED}

    await reorg(world, 1 + FINAL_DEPTH)

    one = await world.only()
    assert (one.spend.state, one.spend.claims_returned) == (SpendState.SECURITY_HOLD, True)
    assert await world.states(payouts) == {"security_hold"}
    assert await world.run(lambda conn: find_freeze(conn, wallet=one.spend.wallet)) is not None
    assert (await world.books())["client:acme"] == (sum(DEPOSITS), 0, 0)
    await world.assert_exact()
    await world.advance()
    assert world.node.pool == frozenset()
    payload = spend_resume_bytes(one.spend.id, "on with it")
    signatures = {code: operator_keypair(code).sign(payload) for code in ("ada", "ben")}
    with pytest.raises(NotPossible, match="have their money back"):
        await world.run(
            lambda conn: resume_spend(
                conn,
                one.spend.id,
                signatures=signatures,
                reason="on with it",
                now=world.clock.now(),
            )
        )

    # The payees are paid after all: the claims are not debited, and the loss stands itemised.
    world.node.mine(bytes_of(one))
    await world.follow()
    books = await world.books()
    assert books["client:acme"] == (sum(DEPOSITS), 0, 0)
    assert books["suspense:unattributed:bitcoin"][0] == -(BTC + 50_000)
    assert await world.states(payouts) == {"security_hold"}
    await world.assert_exact()
