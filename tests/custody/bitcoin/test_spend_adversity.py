"""What the chain, the node and strangers do to payouts on Bitcoin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.addresses import address_of
from chain.bitcoin.blocks import FINAL_DEPTH
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.scripts import witness_script
from chain.bitcoin.transactions import Output, Transaction, decode
from custody.bitcoin.spend_model import SpendState, SpentCoin
from custody.bitcoin.spend_moves import SPEND, Carried
from custody.bitcoin.spend_steps import list_free_coins
from custody.bitcoin.testing import CHAIN, POOL
from custody.control_messages import ScopeKind
from custody.freezes import Scope, close_automatically, find_freeze
from custody.payout_model import AttemptKind, AttemptState
from custody.payout_model import PayoutState as P
from kernel.events import list_history
from tests.custody.bitcoin.spend_world import BTC, SpendWorld, make_spend_world

STRANGER = address_of(witness_script(0, bytes(32)), REGTEST) or ""


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[SpendWorld]:
    async with make_spend_world(engine, tmp_path) as made:
        yield made


def bytes_of(carried: Carried) -> Transaction:
    raw = carried.current.raw
    assert raw is not None
    return decode(raw)


async def test_an_answer_that_is_lost_sends_the_same_bytes_again(world: SpendWorld) -> None:
    payout = await world.approved()
    world.node.lose_broadcasts = 1
    report = await world.advance()
    assert report.sent == []
    one = await world.only()
    assert one.current.state is AttemptState.AMBIGUOUS
    before = one.current.raw

    await world.advance()

    one = await world.only()
    assert (one.current.raw, one.current.broadcasts) == (before, 2)
    assert one.current.state is AttemptState.BROADCAST
    await world.mine(3)
    assert [item.id for item in await world.confirm()] == [payout.id]


async def test_a_transaction_that_a_pool_forgot_is_offered_again(world: SpendWorld) -> None:
    await world.approved()
    await world.advance()
    one = await world.only()
    assert world.node.drop(one.current.tx_id)

    await world.advance(after=timedelta(seconds=31))

    assert world.node.pool == {one.current.tx_id}


async def test_a_fee_spike_is_outbid_out_of_the_change_and_spends_the_anchor(
    world: SpendWorld,
) -> None:
    payout = await world.approved()
    await world.advance()
    first = (await world.only()).current
    world.node.rate = 50_000

    report = await world.advance(after=timedelta(minutes=11))

    assert report.bumped == [payout.id]
    one = await world.only()
    assert one.current.number == 2
    assert world.node.pool == {one.current.tx_id}
    assert one.spend.anchor in {coin.outpoint for coin in one.current.coins}
    assert one.current.rate >= 50_000
    assert one.current.change == first.change - (one.current.fee - first.fee)
    assert (await world.get(payout)).fee_cap == one.current.fee
    await world.assert_exact()
    await world.mine(3)
    await world.confirm()
    assert [item.state for item in (await world.only()).attempts] == ["superseded", "final"]
    await world.assert_exact()


async def test_when_change_is_not_enough_a_bump_adds_coins(world: SpendWorld) -> None:
    # All but a little of one coin: its change cannot pay a fee that is six times higher.
    await world.approved(amount=3 * BTC - 2_500)
    await world.advance()
    first = (await world.only()).current
    assert len(first.coins) == 1
    world.node.rate = 30_000

    await world.advance(after=timedelta(minutes=11))

    one = await world.only()
    assert one.current.number == 2
    assert len(one.current.coins) > 1
    assert one.spend.anchor in {coin.outpoint for coin in one.current.coins}
    assert world.node.pool == {one.current.tx_id}
    await world.assert_exact()


async def test_above_the_rules_cap_people_are_called(world: SpendWorld) -> None:
    await world.approved()
    await world.advance()
    world.node.rate = 400_000

    report = await world.advance(after=timedelta(minutes=11))

    assert report.bumped == []
    assert "may not offer more" in report.alarms[0].reason
    assert (await world.only()).current.number == 1


async def test_people_are_told_of_a_spend_that_no_block_takes_by_one_event(
    world: SpendWorld,
) -> None:
    await world.approved()
    await world.advance()
    spend = (await world.only()).spend

    for _ in range(3):
        report = await world.advance(after=timedelta(hours=3))
        assert "no block has it" in report.alarms[0].reason

    history = await world.run(lambda conn: list_history(conn, SPEND, spend.id))
    told = [item for item in history if item.name == "SpendBlocked"]
    assert len(told) == 1
    assert told[0].payload["anchor"] == str(spend.anchor)
    assert [item.version for item in history] == list(range(1, len(history) + 1))


async def test_an_absurd_rate_allocates_nothing(world: SpendWorld) -> None:
    world.node.rate = 600_000
    payout = await world.approved()

    report = await world.advance()

    assert "600000 sat/kvB is more than" in report.waiting[payout.id]
    assert await world.spends() == []


async def test_a_fee_above_half_of_what_is_paid_waits(world: SpendWorld) -> None:
    world.node.rate = 50_000
    payout = await world.approved(amount=10_000)

    report = await world.advance()

    assert "the fee would be" in report.waiting[payout.id]
    assert await world.spends() == []


async def test_a_payment_is_cancelled_by_what_returns_everything(world: SpendWorld) -> None:
    payouts = await world.several(BTC, BTC // 4)
    before = (await world.books())["client:acme"][0]
    await world.advance()
    spend = (await world.only()).spend

    await world.cancel(spend)
    await world.advance()

    one = await world.only()
    assert one.spend.state is SpendState.CANCELLING
    assert one.current.kind is AttemptKind.CANCEL
    assert world.node.pool == {one.current.tx_id}
    assert len(bytes_of(one).outputs) == 1
    await world.assert_exact()
    await world.mine(3)
    assert await world.confirm() == []  # the money goes back only when the chain itself is final
    await world.mine(FINAL_DEPTH)
    done = await world.confirm()

    assert {item.state for item in done} == {P.CANCELLED}
    assert {item.id for item in done} == {item.id for item in payouts}
    books = await world.books()
    assert books["client:acme"] == (before, 0, 0)
    await world.assert_exact()


async def test_a_payment_that_is_mined_first_is_paid_though_it_was_being_cancelled(
    world: SpendWorld,
) -> None:
    payout = await world.approved()
    await world.advance()
    first = (await world.only()).current
    await world.cancel((await world.only()).spend)
    assert first.raw is not None
    world.node.mine(decode(first.raw))
    await world.follow()
    await world.mine(2)

    (done,) = await world.confirm()

    assert (done.id, done.state) == (payout.id, P.CONFIRMED)
    assert [a.state for a in (await world.only()).attempts] == ["final", "superseded"]
    await world.assert_exact()


async def test_a_reorganisation_takes_a_mined_payment_back_and_it_is_sent_again(
    world: SpendWorld,
) -> None:
    payouts = await world.several(BTC, 50_000)
    await world.advance()
    await world.mine()
    mined = (await world.only()).current

    world.node.rollback(1)
    world.node.mine()
    world.node.mine()
    await world.follow()

    assert await world.states(payouts) == {"signed"}
    await world.assert_exact()
    await world.advance(after=timedelta(minutes=1))
    assert world.node.pool == {mined.tx_id}
    await world.mine(3)
    assert {item.state for item in await world.confirm()} == {P.CONFIRMED}
    await world.assert_exact()


async def test_a_deep_reorganisation_takes_a_confirmed_payout_back_and_its_coins_are_locked_again(
    world: SpendWorld,
) -> None:
    payout = await world.approved()
    await world.advance()
    await world.mine(3)
    await world.confirm()
    one = await world.only()
    assert one.spend.state is SpendState.FINAL
    await world.assert_exact()

    world.node.rollback(3)
    for _ in range(4):
        world.node.mine()
    await world.follow()

    one = await world.only()
    assert (one.spend.state, one.current.state) == (SpendState.SIGNED, AttemptState.AMBIGUOUS)
    assert (await world.get(payout)).state is P.SIGNED
    await world.assert_exact()
    await world.advance(after=timedelta(minutes=1))
    await world.mine(3)
    await world.confirm()
    assert (await world.get(payout)).state is P.CONFIRMED
    await world.assert_exact()


async def test_an_older_attempt_that_is_mined_is_the_payment(world: SpendWorld) -> None:
    payout = await world.approved()
    await world.advance()
    old = bytes_of(await world.only())
    world.node.rate = 50_000
    await world.advance(after=timedelta(minutes=11))

    world.node.mine(old)
    await world.follow()
    await world.mine(2)

    (done,) = await world.confirm()
    assert (done.id, done.tx_hash) == (payout.id, old.tx_id)
    assert done.fee_paid == (await world.only()).attempts[0].fee
    await world.assert_exact()


async def test_a_payment_under_another_id_is_recognised_by_outpoint_and_payee(
    world: SpendWorld,
) -> None:
    payout = await world.approved()
    await world.advance()
    ours = bytes_of(await world.only())

    world.node.mine(replace(ours, lock_time=1))
    await world.follow()
    await world.mine(2)

    (done,) = await world.confirm()
    assert (done.id, done.state) == (payout.id, P.CONFIRMED)
    assert done.tx_hash not in {None, ours.tx_id}
    assert [a.state for a in (await world.only()).attempts] == ["superseded"]
    await world.assert_exact()


async def test_a_foreign_spend_of_our_coin_holds_the_payouts_and_freezes_the_wallet(
    world: SpendWorld,
) -> None:
    payouts = await world.several(BTC, 50_000)
    await world.advance()
    one = await world.only()
    coin = one.current.coins[0]
    stolen = world.node.pay((STRANGER, coin.amount - 1_000), spend=[coin.outpoint])

    world.node.mine(stolen)
    await world.follow()

    assert await world.states(payouts) == {"security_hold"}
    books = await world.books()
    assert books["suspense:unattributed:bitcoin"][0] == -(coin.amount - 1_000)
    assert books["expense:network-fee"][0] == 1_000
    await world.assert_exact()
    frozen = await world.run(lambda conn: find_freeze(conn, wallet="btc-pool"))
    assert frozen is not None
    assert stolen.tx_id in frozen.closed_reason
    with pytest.raises(Exception, match="btc-pool is frozen"):
        await world.approved(client_ref="another")

    world.node.rollback(1)
    world.node.mine()
    world.node.mine()
    await world.follow()
    assert (await world.books()).get("suspense:unattributed:bitcoin") is None
    await world.assert_exact()


async def test_a_foreign_spend_of_a_free_coin_freezes_the_wallet_too(world: SpendWorld) -> None:
    coins = await world.run(_list_free)
    stolen = world.node.pay((STRANGER, coins[0].amount - 500), spend=[coins[0].outpoint])

    world.node.mine(stolen)
    await world.follow()

    await world.assert_exact()
    assert await world.run(lambda conn: find_freeze(conn, wallet="btc-pool")) is not None


async def test_a_transaction_that_pays_the_payee_less_is_foreign(world: SpendWorld) -> None:
    payout = await world.approved()
    await world.advance()
    ours = bytes_of(await world.only())
    less = tuple(
        Output(o.amount - 1, o.script) if o.amount == payout.amount else o for o in ours.outputs
    )

    world.node.mine(replace(ours, outputs=less))
    await world.follow()

    assert (await world.get(payout)).state is P.SECURITY_HOLD
    await world.assert_exact()


async def test_a_frozen_wallet_sends_nothing_again(world: SpendWorld) -> None:
    payout = await world.approved()
    world.node.refuse_broadcasts = 1
    await world.advance()
    await world.run(lambda conn: _freeze(conn, world))

    report = await world.advance(after=timedelta(minutes=1))

    assert "is frozen" in report.waiting[payout.id]
    assert world.node.pool == frozenset()


async def test_coins_that_the_node_calls_spent_are_not_signed_for(world: SpendWorld) -> None:
    coins = await world.run(_list_free)
    for coin in coins:
        world.node.submit(world.node.pay((STRANGER, coin.amount - 500), spend=[coin.outpoint]))
    payout = await world.approved()

    report = await world.advance()

    assert "in its pool" in report.waiting[payout.id]
    assert (await world.only()).signed == ()
    assert (await world.get(payout)).state is P.ALLOCATED


async def _list_free(conn: AsyncConnection) -> tuple[SpentCoin, ...]:
    return await list_free_coins(conn, CHAIN, POOL)


async def _freeze(conn: AsyncConnection, world: SpendWorld) -> None:
    scope = Scope(ScopeKind.WALLET, POOL)
    await close_automatically(conn, scope, by="system:test", reason="test", now=world.clock.now())
