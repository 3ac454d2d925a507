"""Where evidence contradicts or never comes, two people have a way out; one person alone has none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from custody.errors import NotPossible
from custody.venues.decisions import (
    decide_deposit,
    decide_escalated,
    decision_bytes,
    deposit_decision_bytes,
    write_off,
    write_off_bytes,
)
from custody.venues.model import VenueDeposit, VenueDepositState, VenueWithdrawal, WithdrawalState
from registry.errors import NotAuthorised
from registry.testing import operator_keypair
from tests.custody.payout_world import ETH
from tests.custody.venues.test_unknown_withdrawals import ELSEWHERE, available, sent
from tests.custody.venues.transfer_world import (
    ETHEREUM,
    FEE,
    HELD,
    PLACE,
    ROUTE_IN,
    ROUTE_OUT,
    TransferWorld,
    make_transfer_world,
)
from venues.treasury_model import WithdrawalStatus
from venues.treasury_testing import BY_LIST, Answer

W, D = WithdrawalState, VenueDepositState
WHY = "the venue's statement"


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[TransferWorld]:
    async with make_transfer_world(engine, tmp_path) as made:
        yield made


def signed(payload: bytes, *codes: str) -> dict[str, Any]:
    first, second = [(code, operator_keypair(code).sign(payload)) for code in codes]
    return {"first": first, "second": second}


async def decide(
    world: TransferWorld,
    item: VenueWithdrawal,
    venue_ref: str | None,
    moved: tuple[int, int] | None = None,
    people: dict[str, Any] | None = None,
) -> VenueWithdrawal:
    item = await world.get(item)
    payload = decision_bytes(item, venue_ref, WHY, moved)
    return await world.desk.run(
        partial(
            decide_escalated,
            withdrawal_id=item.id,
            venue_ref=venue_ref,
            reason=WHY,
            now=world.desk.clock.now(),
            moved=moved,
            **(people or signed(payload, "ben", "cleo")),
        )
    )


async def give_up(world: TransferWorld, item: VenueWithdrawal, *codes: str) -> VenueWithdrawal:
    item = await world.get(item)
    people = signed(write_off_bytes(item, WHY), *(codes or ("ben", "cleo")))
    return await world.desk.run(
        partial(write_off, withdrawal_id=item.id, reason=WHY, now=world.desk.clock.now(), **people)
    )


async def say_credited(
    world: TransferWorld, row: VenueDeposit, venue_ref: str, amount: int, *codes: str
) -> VenueDeposit:
    payload = deposit_decision_bytes(row, venue_ref, amount, WHY)
    people = signed(payload, *(codes or ("ben", "cleo")))
    return await world.desk.run(
        partial(
            decide_deposit,
            deposit_id=row.id,
            venue_ref=venue_ref,
            amount=amount,
            reason=WHY,
            now=world.desk.clock.now(),
            **people,
        )
    )


async def contradicted(world: TransferWorld, **changes: Any) -> VenueWithdrawal:
    """Have the venue do something else than it was asked."""
    item = await sent(world)
    record = replace(world.treasury.withdrawals["w-1"], **changes)
    world.treasury.withdrawals["w-1"] = record
    world.treasury.balances["ETH"] = HELD - record.sent - record.fee
    await world.work()
    item = await world.get(item)
    assert item.state is W.ESCALATED
    return item


async def test_what_the_venue_really_sent_is_posted_once_two_people_say_so_and_then_arrives(
    world: TransferWorld,
) -> None:
    item = await contradicted(world, sent=ETH, fee=FEE)
    decided = await decide(world, item, "w-1", (ETH, FEE))
    assert decided.state is W.DEBITED
    await world.venue_pays("w-1")
    await world.work()
    await world.confirm()
    await world.work()

    assert (await world.get(item)).state is W.ARRIVED
    assert await world.balance(PLACE.path) == HELD - ETH - FEE
    await world.assert_at_rest()


async def test_coins_that_a_venue_paid_to_a_stranger_are_written_off_by_two_people(
    world: TransferWorld,
) -> None:
    item = await contradicted(world, address=ELSEWHERE)
    await decide(world, item, "w-1", (2 * ETH - FEE, FEE))
    report = await world.work()
    assert f"the venue pays {ELSEWHERE}" in " ".join(alarm.reason for alarm in report.alarms)
    with pytest.raises(NotAuthorised, match="twice"):
        await give_up(world, item, "ben", "ben")
    lost = await give_up(world, item)

    assert lost.state is W.LOST
    assert await world.balance("expense:loss") == 2 * ETH - FEE
    await world.assert_at_rest()


async def test_what_a_block_of_ours_has_is_not_written_off(world: TransferWorld) -> None:
    item = await sent(world)
    await world.work()
    await world.venue_pays("w-1")
    await world.work()
    with pytest.raises(NotPossible, match="a block has the coins"):
        await give_up(world, item)


async def test_an_accepted_withdrawal_that_is_never_listed_goes_to_people(
    world: TransferWorld,
) -> None:
    item = await sent(world)
    world.treasury.withheld = {"w-1"}
    await world.work()
    assert (await world.get(item)).state is W.ACKED
    await world.work(world.policy.escalate_after.total_seconds())
    assert (await world.get(item)).state is W.ESCALATED

    ended = await decide(world, item, None)
    assert (ended.state, ended.venue_ref) == (W.NOT_PLACED, None)
    assert await available(world) == HELD


async def test_what_people_gave_up_and_the_venue_lists_all_the_same_is_followed(
    world: TransferWorld,
) -> None:
    item = await contradicted(world, sent=ETH)
    await decide(world, item, None)
    report = await world.work()
    assert [alarm.reason for alarm in report.alarms] == [
        "the venue lists w-1, which was not_placed"
    ]
    await world.work()
    assert (await world.get(item)).state is W.ESCALATED
    # What was given back once is not given back again.
    await decide(world, item, None)
    assert await available(world) == HELD


async def test_a_decision_that_was_signed_for_one_moment_does_not_hold_at_another(
    world: TransferWorld,
) -> None:
    item = await contradicted(world, sent=ETH)
    people = signed(decision_bytes(item, None, WHY), "ben", "cleo")
    await decide(world, item, None, people=people)
    for _ in range(2):
        await world.work()
    assert (await world.get(item)).state is W.ESCALATED
    with pytest.raises(NotAuthorised, match="not of this"):
        await decide(world, item, None, people=people)


async def test_people_name_the_withdrawal_that_a_venue_without_our_ids_made_after_all(
    world: TransferWorld,
) -> None:
    world.treasury.capabilities = BY_LIST
    world.treasury.withheld = {"w-1"}
    item = await sent(world, Answer.LOSE_AFTER)
    for _ in range(4):
        await world.work()
    assert (await world.get(item)).state is W.NOT_PLACED
    world.treasury.withheld = set()
    report = await world.work()
    assert any("which is none of ours" in alarm.reason for alarm in report.alarms)

    await decide(world, item, "w-1")
    await world.work()
    assert (await world.get(item)).state is W.DEBITED
    assert await world.balance(PLACE.path) == HELD - 2 * ETH


@pytest.mark.parametrize("amount", [2 * ETH, 0])
async def test_a_credit_of_less_than_was_sent_ends_by_two_people_and_the_rest_is_a_loss(
    world: TransferWorld, amount: int
) -> None:
    payout = await world.send_and_mine()
    await world.confirm()
    if amount:
        world.treasury.show_deposit(
            payout.tx_hash or "", "ETH", ETHEREUM, amount, venue_ref="d-less"
        )
    report = await world.work()
    assert any("no transfer of ours" in alarm.reason for alarm in report.alarms) == bool(amount)
    row = await world.outward(payout)
    with pytest.raises(NotAuthorised, match="twice"):
        await say_credited(world, row, "d-less", amount, "ben", "ben")
    done = await say_credited(world, row, "d-less", amount)

    assert (done.state, done.credited) == (D.CREDITED, amount)
    assert await world.balance("expense:loss") == 3 * ETH - amount
    await world.assert_at_rest()
    assert (await world.work()).alarms == []

    world.desk.gateway.reorg(4, [[], [], [], [], []])
    await world.desk.follow()
    await world.work()
    assert (await world.outward(payout)).state is D.OPEN
    assert await world.balance("expense:loss") == 0
    assert await world.balance(PLACE.path) == HELD
    assert await world.balance(ROUTE_OUT) == 0


async def test_a_credit_under_another_transaction_ends_by_two_people_in_full(
    world: TransferWorld,
) -> None:
    payout = await world.send_and_mine()
    await world.confirm()
    world.treasury.show_deposit("0x" + "9" * 64, "ETH", ETHEREUM, 3 * ETH, venue_ref="d-x")
    report = await world.work()
    assert any("no transfer of ours" in alarm.reason for alarm in report.alarms)
    await say_credited(world, await world.outward(payout), "d-x", 3 * ETH)
    await world.assert_at_rest()


async def test_nobody_says_credited_before_the_sending_is_final(world: TransferWorld) -> None:
    payout = await world.send_and_mine()
    with pytest.raises(NotPossible, match="its payout mined"):
        await say_credited(world, await world.outward(payout), "d-1", 3 * ETH)


async def test_a_venue_that_takes_back_what_a_block_of_ours_has_is_not_believed(
    world: TransferWorld,
) -> None:
    item = await sent(world)
    await world.work()
    await world.venue_pays("w-1")
    await world.work()
    record = world.treasury.withdrawals["w-1"]
    world.treasury.withdrawals["w-1"] = replace(record, status=WithdrawalStatus.FAILED)
    report = await world.work()

    assert (await world.get(item)).state is W.SENT
    assert (
        report.waiting[item.id] == "the venue says that it did not pay, and a block has the coins"
    )
    await world.confirm()
    await world.work()
    assert (await world.get(item)).state is W.ARRIVED
    assert await world.balance(ROUTE_IN) == 0


async def test_an_equal_withdrawal_that_somebody_else_made_is_never_taken_for_ours(
    world: TransferWorld,
) -> None:
    item = await sent(world, Answer.LOSE_AFTER)
    ours = world.treasury.withdrawals.pop("w-1")
    hand = replace(ours, venue_ref="by-hand", withdrawal_id="")
    world.treasury.withdrawals["by-hand"] = hand
    report = await world.work()
    assert (await world.get(item)).state is W.UNKNOWN
    assert any("by-hand" in alarm.reason for alarm in report.alarms)

    world.treasury.withdrawals["w-1"] = ours
    world.treasury.withdrawals["again"] = replace(ours, venue_ref="again")
    await world.work()
    assert (await world.get(item)).state is W.ESCALATED


async def test_an_id_of_ours_that_the_venue_lists_twice_is_told(world: TransferWorld) -> None:
    item = await sent(world)
    ours = world.treasury.withdrawals["w-1"]
    world.treasury.withdrawals["again"] = replace(ours, venue_ref="again")
    report = await world.work()
    assert (await world.get(item)).state is W.DEBITED
    assert [a.subject for a in report.alarms if "again" in a.reason] == [item.id]


async def test_an_older_equal_withdrawal_is_not_the_one_that_was_just_sent(
    world: TransferWorld,
) -> None:
    world.treasury.capabilities = BY_LIST
    item = await sent(world, Answer.LOSE_AFTER)
    ours = world.treasury.withdrawals.pop("w-1")
    world.treasury.withdrawals["old"] = replace(
        ours, venue_ref="old", at=ours.at - world.policy.verified_for
    )
    for _ in range(4):
        await world.work()
    assert (await world.get(item)).state is W.NOT_PLACED


async def test_a_venue_that_credits_twice_is_told_and_posted_once(world: TransferWorld) -> None:
    payout = await world.send_and_mine()
    await world.confirm()
    for _ in range(2):
        world.treasury.show_deposit(payout.tx_hash or "", "ETH", ETHEREUM, 3 * ETH)
    report = await world.work()
    assert any("as d-2 under" in alarm.reason for alarm in report.alarms)
    assert await world.balance(PLACE.path) == HELD + 3 * ETH


async def test_a_fee_above_the_most_that_was_allowed_is_told(world: TransferWorld) -> None:
    item = await sent(world)
    record = world.treasury.withdrawals["w-1"]
    world.treasury.withdrawals["w-1"] = replace(record, sent=2 * ETH, fee=9 * FEE)
    report = await world.work()
    assert (await world.get(item)).state is W.DEBITED
    assert any(f"more than the {FEE} allowed" in alarm.reason for alarm in report.alarms)


async def test_figures_that_change_after_they_were_posted_are_told(world: TransferWorld) -> None:
    await sent(world)
    await world.work()
    record = world.treasury.withdrawals["w-1"]
    world.treasury.withdrawals["w-1"] = replace(record, sent=ETH)
    report = await world.work()
    assert any(f"the venue shows {ETH} sent" in alarm.reason for alarm in report.alarms)
