"""What is asked again at the moment of sending, both ways: registrations, switches, windows, the venue's words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.testing import ScriptedTransaction, ScriptedTransfer
from custody.control_messages import ScopeKind
from custody.errors import NotPossible
from custody.freezes import Scope, close_automatically
from custody.payout_model import PayoutState
from custody.policy_model import VENUE, PolicyRule
from custody.testing import set_policy
from custody.venues import store
from custody.venues.addresses import revoke_address
from custody.venues.arrivals import find_expected
from custody.venues.model import AddressState, VenueDepositState, WithdrawalState
from custody.venues.tables import venue_withdrawal
from custody.venues.withdrawals import cancel_withdrawal
from registry.testing import TOKEN
from tests.custody.payout_world import BOOK, ETH, USDT
from tests.custody.venues.test_decisions import give_up
from tests.custody.venues.transfer_world import (
    ETHEREUM,
    FEE,
    PLACE,
    ROUTE_IN,
    ROUTE_OUT,
    TransferWorld,
    make_transfer_world,
    payment,
)
from tests.custody.venues.transfer_world import (
    VENUE as PAYER,
)
from venues.treasury_testing import Answer

W, D = WithdrawalState, VenueDepositState
HOUR = 3_600
SWITCHES = [
    Scope(ScopeKind.GLOBAL),
    Scope(ScopeKind.CHAIN, "evm"),
    Scope(ScopeKind.ASSET, "ETH"),
    Scope(ScopeKind.WALLET, "house-hot"),
]


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[TransferWorld]:
    async with make_transfer_world(engine, tmp_path) as made:
        yield made


async def freeze(world: TransferWorld, scope: Scope) -> None:
    now = world.desk.clock.now()
    await world.desk.run(
        lambda c: close_automatically(c, scope, by="system:test", reason="a test", now=now)
    )


async def revoke(world: TransferWorld) -> None:
    (item,) = await world.desk.run(
        partial(store.list_addresses, place=PLACE, states={AddressState.ACTIVE})
    )
    now = world.desk.clock.now()
    await world.desk.run(lambda c: revoke_address(c, item.id, by="ben", reason="closed", now=now))


async def test_what_was_approved_before_the_registration_was_revoked_is_not_sent(
    world: TransferWorld,
) -> None:
    item = await world.approved()
    payout, _ = await world.send()
    await world.desk.approve(payout)
    await revoke(world)
    report = await world.work()
    for _ in range(3):
        await world.desk.advance()

    assert "is registered" in report.waiting[item.id]
    assert (await world.get(item)).state is W.APPROVED
    assert world.treasury.requests == []
    stopped = await world.desk.get(payout)
    assert stopped.state is PayoutState.APPROVED
    assert "is not a registered address" in stopped.waiting_for


@pytest.mark.parametrize("scope", SWITCHES, ids=lambda scope: scope.kind)
async def test_a_switch_that_is_closed_after_the_approval_stops_both_ways(
    world: TransferWorld, scope: Scope
) -> None:
    item = await world.approved()
    payout, _ = await world.send()
    await world.desk.approve(payout)
    await freeze(world, scope)
    report = await world.work()
    for _ in range(3):
        await world.desk.advance()

    assert "frozen" in report.waiting[item.id]
    assert (await world.get(item)).state is W.APPROVED
    assert world.treasury.requests == []
    assert (await world.desk.get(payout)).state is PayoutState.APPROVED
    with pytest.raises(NotPossible, match="frozen"):
        await world.request()


async def test_a_withdrawal_counts_in_its_window_until_it_is_given_back_or_the_window_is_over(
    world: TransferWorld,
) -> None:
    rules = (PolicyRule(claim=VENUE, amount_max=5 * ETH, window_s=HOUR),)
    await world.desk.run(lambda c: set_policy(c, now=world.desk.clock.now(), rules=rules))
    world.treasury.answers = [Answer.REFUSE]
    refused = await world.approved(3 * ETH)
    assert (await world.request(3 * ETH)).state is W.REJECTED

    await world.work()
    assert (await world.get(refused)).state is W.REFUSED
    taken_back = await world.request(3 * ETH)
    now = world.desk.clock.now()
    await world.desk.run(
        lambda c: cancel_withdrawal(c, taken_back.id, by="dan", reason="other plans", now=now)
    )
    made = await world.approved(3 * ETH)
    await world.work()
    assert (await world.get(made)).state is W.DEBITED
    assert (await world.request(3 * ETH)).state is W.REJECTED
    assert (await world.send(3 * ETH))[0].state is PayoutState.REJECTED

    world.desk.clock.advance(timedelta(seconds=HOUR))
    assert (await world.request(3 * ETH)).state is W.PENDING_APPROVAL


async def test_a_token_goes_to_the_venue_and_comes_back_and_nothing_is_left_on_the_way(
    world: TransferWorld,
) -> None:
    gateway = world.desk.gateway
    gateway.fund(PAYER, 10_000 * USDT, TOKEN)
    await world.register("USDT")
    payout = await world.send_and_mine(700 * USDT, asset="USDT")
    assert await world.balance(ROUTE_OUT, "USDT") == 700 * USDT
    await world.desk.assert_rule_two()
    await world.confirm()
    world.treasury.show_deposit(payout.tx_hash or "", "USDT", ETHEREUM, 700 * USDT)
    await world.work()
    assert (await world.outward(payout)).state is D.CREDITED
    await world.assert_at_rest("USDT")
    await world.desk.assert_rule_two()

    item = await world.approved(500 * USDT, asset="USDT")
    await world.work()
    item = await world.get(item)
    assert (item.state, item.text, item.sent, item.fee) == (W.DEBITED, "500", 499 * USDT, USDT)
    assert await world.balance(ROUTE_IN, "USDT") == 499 * USDT
    moved = ScriptedTransfer(TOKEN, PAYER, item.address, 499 * USDT)
    tx = ScriptedTransaction(sender=PAYER, recipient=TOKEN, transfers=(moved,), salt="back")
    world.treasury.pay(item.venue_ref or "", tx.hash)
    await world.work()
    gateway.mine(tx)
    await world.confirm()
    await world.work()

    assert (await world.get(item)).state is W.ARRIVED
    assert await world.balance("custody:house-hot", "USDT") == (900 - 700 + 499) * USDT
    assert await world.balance("expense:venue-fee", "USDT") == USDT
    assert await world.balance(PLACE.path, "USDT") == 200 * USDT
    await world.assert_at_rest("USDT")
    await world.desk.assert_rule_two()


async def test_the_same_amount_of_ether_is_not_the_token_that_the_venue_sent(
    world: TransferWorld,
) -> None:
    item = await world.approved(2 * ETH)
    await world.work()
    item = await world.get(item)
    world.desk.gateway.fund(PAYER, 10 * ETH, TOKEN)
    moved = ScriptedTransfer(TOKEN, PAYER, item.address, item.sent or 0)
    tx = ScriptedTransaction(sender=PAYER, recipient=TOKEN, transfers=(moved,), salt="other")
    world.treasury.pay(item.venue_ref or "", tx.hash)
    await world.work()
    world.desk.gateway.mine(tx)
    await world.confirm()
    await world.work()

    assert (await world.get(item)).state is W.SENT
    assert await world.balance(ROUTE_IN) == 2 * ETH - FEE


async def test_a_venue_that_names_another_transaction_than_the_block_has_is_not_followed(
    world: TransferWorld,
) -> None:
    item = await world.approved()
    await world.work()
    item = await world.get(item)
    ref = item.venue_ref or ""
    first = payment(item.address, item.sent or 0, salt="first")
    world.treasury.pay(ref, first.hash)
    await world.work()
    world.desk.gateway.mine(first)
    await world.desk.follow()
    world.treasury.pay(ref, payment(item.address, item.sent or 0, salt="second").hash)
    report = await world.work()

    waiting = await world.get(item)
    assert (waiting.state, waiting.tx_id) == (W.SENT, first.hash)
    assert "a block has the coins" in report.waiting[item.id]
    with pytest.raises(NotPossible, match="a block has the coins"):
        await give_up(world, item)
    await world.confirm()
    await world.work()
    assert (await world.get(item)).state is W.ARRIVED
    await world.assert_at_rest()


@pytest.mark.parametrize(("sent", "fee"), [(-1, 2 * ETH + 1), (2 * ETH, -1)])
async def test_figures_below_zero_go_to_people_and_hold_up_nothing_else(
    world: TransferWorld, sent: int, fee: int
) -> None:
    odd, good = await world.approved(), await world.approved(ETH)
    world.treasury.down = True
    await world.work()
    world.treasury.down = False
    ref = (await world.get(odd)).venue_ref or ""
    record = world.treasury.withdrawals[ref]
    world.treasury.withdrawals[ref] = replace(record, sent=sent, fee=fee)
    await world.work()

    assert (await world.get(odd)).state is W.ESCALATED
    assert (await world.get(good)).state is W.DEBITED


async def test_one_id_of_the_venue_for_two_withdrawals_ends_no_worker(
    world: TransferWorld,
) -> None:
    first, second = await world.approved(), await world.approved()
    await world.work()
    known = await world.get(first)
    with pytest.raises(NotPossible, match="another one's"):
        await world.desk.run(
            lambda c: store.update_withdrawal(
                c, second.id, fence=known.fence, venue_ref=known.venue_ref
            )
        )


async def test_a_list_longer_than_a_statement_takes_parameters_is_read(
    world: TransferWorld,
) -> None:
    refs = {f"w-{number}" for number in range(40_000)}
    found = await world.desk.run(lambda c: store.list_venue_refs(c, PLACE, refs, but=None))
    credited = await world.desk.run(lambda c: store.list_credited_refs(c, PLACE, refs))
    ours = await world.desk.run(lambda c: store.list_by_own_id(c, PLACE, refs))
    assert (found, credited, ours) == (set(), set(), {})


async def test_a_withdrawal_that_cannot_be_worked_on_is_told_and_holds_up_no_other(
    world: TransferWorld, owner_engine: AsyncEngine
) -> None:
    bad, good = await world.approved(), await world.approved(ETH)
    world.treasury.down = True
    await world.work()
    world.treasury.down = False
    # The ledger refuses what this one posts: its hold is not there any more.
    async with owner_engine.begin() as conn:
        moved = update(venue_withdrawal).values(requested_at=world.desk.clock.now())
        await conn.execute(moved.where(venue_withdrawal.c.id == bad.id))
    report = await world.work()

    assert bad.id in {alarm.subject for alarm in report.alarms}
    assert (await world.get(bad)).state is W.ACKED
    assert (await world.get(good)).state is W.DEBITED


async def test_nothing_is_written_off_while_a_block_is_being_read_that_has_it(
    world: TransferWorld,
) -> None:
    item = await world.approved()
    await world.work()
    item = await world.get(item)
    tx = payment(item.address, item.sent or 0, salt="in")
    world.treasury.pay(item.venue_ref or "", tx.hash)
    await world.work()
    async with world.desk.engine.begin() as conn:
        await find_expected(conn, "evm", [tx.hash], book=BOOK)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await give_up(world, item)
    world.desk.gateway.mine(tx)
    await world.desk.follow()
    with pytest.raises(NotPossible, match="a block has the coins"):
        await give_up(world, item)
