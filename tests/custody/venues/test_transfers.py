"""Coins to a venue and back on a scripted chain: what is posted, once, and only when both sides show it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from custody.payout_model import PayoutState
from custody.venues import store
from custody.venues.model import VenueDepositState, WithdrawalState
from tests.custody.payout_world import ETH, STRANGER
from tests.custody.venues.transfer_world import (
    ETHEREUM,
    FEE,
    HELD,
    OTHER_ADDRESS,
    PLACE,
    ROUTE_IN,
    ROUTE_OUT,
    TransferWorld,
    make_transfer_world,
    payment,
)
from venues.treasury_model import DepositStatus

W, D = WithdrawalState, VenueDepositState


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[TransferWorld]:
    async with make_transfer_world(engine, tmp_path) as made:
        yield made


async def test_coins_for_a_venue_are_in_transit_until_both_sides_show_them(
    world: TransferWorld,
) -> None:
    before = await world.balance("custody:house-hot")
    payout = await world.send_and_mine(3 * ETH)

    assert await world.balance(ROUTE_OUT) == 3 * ETH
    assert await world.balance(PLACE.path) == HELD
    await world.desk.assert_rule_two()

    world.treasury.show_deposit(payout.tx_hash or "", "ETH", ETHEREUM, 3 * ETH)
    early = await world.work()
    row = await world.outward(payout)
    assert (row.state, early.waiting[row.id]) == (
        D.OPEN,
        "the venue shows it; the payout is not confirmed yet",
    )

    await world.confirm()
    done = await world.work()
    row = await world.outward(payout)
    assert (row.state, done.credited) == (D.CREDITED, [row.id])
    paid = await world.desk.get(payout)
    assert paid.state is PayoutState.CONFIRMED
    assert await world.balance(PLACE.path) == HELD + 3 * ETH
    fee = paid.fee_paid or 0
    assert await world.balance("custody:house-hot") == before - 3 * ETH - fee
    assert await world.balance("expense:network-fee") == fee
    await world.assert_at_rest()
    await world.desk.assert_rule_two()


async def test_what_the_venue_shows_as_pending_is_not_credited(world: TransferWorld) -> None:
    payout = await world.send_and_mine()
    await world.confirm()
    ref = world.treasury.show_deposit(
        payout.tx_hash or "", "ETH", ETHEREUM, 3 * ETH, status=DepositStatus.PENDING
    )
    waiting = await world.work()
    row = await world.outward(payout)
    assert waiting.waiting[row.id] == "the venue shows it as pending"

    world.treasury.show_deposit(payout.tx_hash or "", "ETH", ETHEREUM, 3 * ETH, venue_ref=ref)
    await world.work()
    assert (await world.outward(payout)).state is D.CREDITED
    await world.assert_at_rest()


async def test_one_credit_of_the_venue_is_the_credit_of_one_transfer(world: TransferWorld) -> None:
    first, second = await world.send_and_mine(ETH), await world.send_and_mine(ETH)
    await world.confirm()
    world.treasury.show_deposit(second.tx_hash or "", "ETH", ETHEREUM, ETH)
    for _ in range(3):
        await world.work()

    assert (await world.outward(first)).state is D.OPEN
    assert (await world.outward(second)).state is D.CREDITED
    assert await world.balance(PLACE.path) == HELD + ETH
    assert await world.balance(ROUTE_OUT) == ETH


@pytest.mark.parametrize(
    ("amount", "network", "address", "said"),
    [
        (2 * ETH, ETHEREUM, None, "not the 3000000000000000000 ETH on ETH of ours"),
        (3 * ETH, "BSC", None, "on BSC for"),
        (3 * ETH, ETHEREUM, OTHER_ADDRESS, "at another address"),
    ],
)
async def test_a_deposit_that_is_not_what_was_sent_is_nobodys_credit(
    world: TransferWorld, amount: int, network: str, address: str | None, said: str
) -> None:
    payout = await world.send_and_mine()
    await world.confirm()
    if network != ETHEREUM:
        world.treasury.offer("ETH", network, OTHER_ADDRESS)
    world.treasury.show_deposit(payout.tx_hash or "", "ETH", network, amount, address=address)
    report = await world.work()

    row = await world.outward(payout)
    assert row.state is D.OPEN
    assert said in report.waiting[row.id]
    assert await world.balance(ROUTE_OUT) == 3 * ETH


async def test_a_reorganisation_of_the_sending_takes_the_credit_back_until_it_is_sent_again(
    world: TransferWorld,
) -> None:
    payout = await world.send_and_mine()
    await world.confirm()
    world.treasury.show_deposit(payout.tx_hash or "", "ETH", ETHEREUM, 3 * ETH)
    await world.work()
    await world.assert_at_rest()

    world.desk.gateway.reorg(4, [[], [], [], [], []])
    await world.desk.follow()
    report = await world.work()
    row = await world.outward(payout)
    assert (row.state, report.reopened) == (D.OPEN, [row.id])
    assert await world.balance(PLACE.path) == HELD
    await world.desk.assert_rule_two()

    for _ in range(2):
        await world.desk.advance()
    await world.desk.mine()
    await world.confirm()
    await world.work()
    row = await world.outward(payout)
    assert (row.state, row.epoch) == (D.CREDITED, 2)
    await world.assert_at_rest()
    await world.desk.assert_rule_two()


async def test_a_transfer_that_is_rejected_ends_without_a_trace_in_the_books(
    world: TransferWorld,
) -> None:
    payout, _ = await world.send(10**6 * ETH)
    report = await world.work()

    assert payout.state is PayoutState.REJECTED
    row = await world.outward(payout)
    assert (row.state, report.ended) == (D.ENDED, [row.id])
    await world.assert_at_rest()


async def test_coins_from_a_venue_are_in_transit_until_they_are_in_our_wallet(
    world: TransferWorld,
) -> None:
    before = await world.balance("custody:house-hot")
    item = await world.approved(2 * ETH)
    assert await world.balance(PLACE.path) == HELD
    report = await world.work()
    item = await world.get(item)
    assert (report.submitted, item.state) == ([item.id], W.DEBITED)
    assert await world.balance(ROUTE_IN) == 2 * ETH - FEE
    assert await world.balance("expense:venue-fee") == FEE
    assert await world.balance(PLACE.path) == HELD - 2 * ETH

    assert item.venue_ref is not None
    await world.venue_pays(item.venue_ref)
    await world.work()
    assert (await world.get(item)).state is W.SENT
    await world.confirm()
    await world.work()

    assert (await world.get(item)).state is W.ARRIVED
    assert await world.balance("custody:house-hot") == before + 2 * ETH - FEE
    await world.assert_at_rest()
    await world.desk.assert_rule_two()
    assert len(world.treasury.requests) == 1


async def test_what_a_venue_sends_is_an_own_transfer_from_its_block_on_and_never_a_deposit(
    world: TransferWorld,
) -> None:
    item = await world.approved()
    await world.work()
    item = await world.get(item)
    assert item.venue_ref is not None
    tx = payment(item.address, item.sent or 0, salt="in")
    world.treasury.pay(item.venue_ref, tx.hash)
    await world.work()
    world.desk.gateway.mine(tx)
    await world.desk.follow()

    books = await world.desk.books()
    assert books[ROUTE_IN, "ETH"] == (2 * ETH - FEE, 0, 2 * ETH - FEE)
    assert not [path for path, _ in books if path.startswith("suspense:")]
    await world.confirm()
    await world.work()
    assert (await world.get(item)).state is W.ARRIVED
    await world.assert_at_rest()


async def test_a_strangers_payment_of_the_same_amount_is_not_the_venues(
    world: TransferWorld,
) -> None:
    item = await world.approved()
    await world.work()
    item = await world.get(item)
    stranger = payment(item.address, item.sent or 0, sender=STRANGER, salt="stranger")
    world.desk.gateway.fund(STRANGER, 10 * ETH)
    world.desk.gateway.mine(stranger)
    await world.confirm()
    await world.work()

    assert (await world.get(item)).state is W.DEBITED
    assert await world.balance("suspense:unattributed:evm") == 2 * ETH - FEE
    assert await world.balance(ROUTE_IN) == 2 * ETH - FEE


async def test_a_credit_that_is_undone_is_found_among_however_many(
    world: TransferWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    for _ in range(2):
        payout = await world.send_and_mine(ETH)
        await world.confirm()
        world.treasury.show_deposit(payout.tx_hash or "", "ETH", ETHEREUM, ETH)
        await world.work()
        sent.append(payout)
    assert [(await world.outward(payout)).state for payout in sent] == [D.CREDITED, D.CREDITED]
    world.desk.gateway.reorg(4, [[], [], [], [], []])
    await world.desk.follow()
    with monkeypatch.context() as patch:
        patch.setattr(store, "PAGE_MAX", 1)
        report = await world.work()

    assert [(await world.outward(payout)).state for payout in sent] == [D.CREDITED, D.OPEN]
    assert report.reopened == [(await world.outward(sent[1])).id]


async def test_a_reorganisation_of_the_arrival_puts_the_coins_back_into_transit(
    world: TransferWorld,
) -> None:
    item = await world.approved()
    await world.work()
    item = await world.get(item)
    assert item.venue_ref is not None
    tx = payment(item.address, item.sent or 0, salt="in")
    world.treasury.pay(item.venue_ref, tx.hash)
    world.desk.gateway.mine(tx)
    await world.desk.follow()
    await world.confirm()
    for _ in range(2):
        await world.work()
    assert (await world.get(item)).state is W.ARRIVED

    world.desk.gateway.reorg(4, [[], [], [], [], []])
    await world.desk.follow()
    await world.work()
    assert (await world.get(item)).state is W.SENT
    assert await world.balance(ROUTE_IN) == 2 * ETH - FEE
    await world.desk.assert_rule_two()

    world.desk.gateway.mine(tx)
    await world.confirm()
    await world.work()
    assert (await world.get(item)).state is W.ARRIVED
    await world.assert_at_rest()
    await world.desk.assert_rule_two()


async def test_a_withdrawal_that_the_venue_does_not_pay_is_reversed(world: TransferWorld) -> None:
    item = await world.approved()
    await world.work()
    item = await world.get(item)
    assert item.venue_ref is not None
    world.treasury.fail(item.venue_ref)
    await world.work()

    assert (await world.get(item)).state is W.RETURNED
    assert await world.balance(PLACE.path) == HELD
    assert await world.balance("expense:venue-fee") == 0
    await world.assert_at_rest()


async def test_a_fee_above_the_one_that_was_named_is_posted_in_full(world: TransferWorld) -> None:
    item = await world.approved()
    world.treasury.offer(
        "ETH", ETHEREUM, world.treasury.addresses["ETH", ETHEREUM].address, fee=5 * FEE
    )
    await world.work()

    assert (await world.get(item)).state is W.DEBITED
    assert await world.balance("expense:venue-fee") == 5 * FEE
    assert await world.balance(ROUTE_IN) == 2 * ETH - 5 * FEE
    assert await world.balance(PLACE.path) == HELD - 2 * ETH


async def test_what_is_late_is_told_once_and_stays_open(world: TransferWorld) -> None:
    payout = await world.send_and_mine()
    item = await world.approved()
    await world.work()
    late = max(world.policy.deposit_within, world.policy.withdrawal_within)
    report = await world.work((late + timedelta(minutes=1)).total_seconds())
    again = await world.work()

    row, item = await world.outward(payout), await world.get(item)
    assert {row.id, item.id} <= {alarm.subject for alarm in report.alarms}
    assert {row.id, item.id} <= {alarm.subject for alarm in again.alarms}
    assert (row.state, item.state) == (D.OPEN, W.DEBITED)
    assert row.late_since is not None
    assert item.late_since is not None
