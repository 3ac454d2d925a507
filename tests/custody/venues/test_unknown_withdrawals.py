"""A withdrawal is asked for once; what became of it is found out by evidence, or people say it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from custody.errors import NotPossible
from custody.restore.finding import begin
from custody.venues.decisions import decide_escalated, decision_bytes
from custody.venues.model import VenueWithdrawal, WithdrawalState
from custody.venues.sending import DOUBT_PAUSE, LEASE, submit
from custody.venues.withdrawals import cancel_withdrawal
from kernel.errors import Refused
from registry.errors import NotAuthorised
from registry.testing import operator_keypair
from tests.custody.payout_world import ETH
from tests.custody.venues.transfer_world import (
    FEE,
    HELD,
    PLACE,
    ROUTE_IN,
    TransferWorld,
    make_transfer_world,
)
from venues.treasury_model import TreasuryCapabilities
from venues.treasury_testing import BY_ID, BY_LIST, Answer

W = WithdrawalState
ELSEWHERE = "0x0000000000000000000000000000000000001234"


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[TransferWorld]:
    async with make_transfer_world(engine, tmp_path) as made:
        yield made


class Died(Exception):
    """The process dies here."""


def die() -> NoReturn:
    raise Died


async def sent(world: TransferWorld, *answers: Answer) -> VenueWithdrawal:
    """Request, approve and send a withdrawal to a venue that answers so."""
    world.treasury.answers = list(answers)
    item = await world.approved()
    return await submit(
        world.desk.engine, world.treasury, item.id, holder=world.holder, clock=world.desk.clock
    )


async def available(world: TransferWorld) -> int:
    balance, _, pending = (await world.desk.books())[PLACE.path, "ETH"]
    return balance - pending


async def test_an_unknown_withdrawal_that_the_venue_lists_is_followed_and_never_sent_again(
    world: TransferWorld,
) -> None:
    item = await sent(world, Answer.LOSE_AFTER)
    assert item.state is W.UNKNOWN
    await world.work()

    assert (await world.get(item)).state is W.DEBITED
    assert len(world.treasury.requests) == 1
    assert await world.balance(ROUTE_IN) == 2 * ETH - FEE


async def test_an_unknown_withdrawal_is_not_placed_only_after_its_window_and_several_looks(
    world: TransferWorld,
) -> None:
    item = await sent(world, Answer.LOSE_BEFORE)
    early = await world.work(1)
    assert early.waiting[item.id] == "the venue does not list it"
    assert (await world.get(item)).not_found == 0

    states = []
    for _ in range(4):
        await world.work(10)
        states.append((await world.get(item)).state)
    assert states == [W.UNKNOWN, W.UNKNOWN, W.NOT_PLACED, W.NOT_PLACED]
    assert await available(world) == HELD
    assert len(world.treasury.requests) == 1


async def test_a_venue_that_does_not_answer_proves_nothing_and_in_the_end_people_are_asked(
    world: TransferWorld,
) -> None:
    item = await sent(world, Answer.LOSE_AFTER)
    world.treasury.down = True
    for _ in range(5):
        await world.work(60)
    assert (await world.get(item)).state is W.UNKNOWN
    report = await world.work(world.policy.escalate_after.total_seconds())

    assert (await world.get(item)).state is W.ESCALATED
    assert item.id in {alarm.subject for alarm in report.alarms}
    assert await available(world) == HELD - 2 * ETH - FEE


async def test_a_withheld_withdrawal_that_shows_up_after_all_is_followed_and_told(
    world: TransferWorld,
) -> None:
    world.treasury.withheld = {"w-1"}
    item = await sent(world, Answer.LOSE_AFTER)
    for _ in range(4):
        await world.work()
    assert (await world.get(item)).state is W.NOT_PLACED
    world.treasury.withheld = set()
    report = await world.work()
    assert [alarm.reason for alarm in report.alarms] == [
        "the venue lists w-1, which was not_placed"
    ]
    await world.work()

    assert (await world.get(item)).state is W.DEBITED
    assert await world.balance(PLACE.path) == HELD - 2 * ETH == world.treasury.balances["ETH"]
    assert await world.balance(ROUTE_IN) == 2 * ETH - FEE


async def test_two_equal_withdrawals_at_a_venue_without_our_ids_are_for_people_to_tell_apart(
    world: TransferWorld,
) -> None:
    world.treasury.capabilities = BY_LIST
    first = await sent(world, Answer.LOSE_AFTER)
    second = await sent(world, Answer.LOSE_AFTER)
    await world.work()

    states = {(await world.get(item)).state for item in (first, second)}
    assert states == {W.ESCALATED}
    refs = sorted(world.treasury.withdrawals)
    for item, ref in zip((first, second), refs, strict=True):
        payload = decision_bytes(await world.get(item), ref, "the venue's support says so")
        keys = {code: (code, operator_keypair(code).sign(payload)) for code in ("ben", "cleo")}
        await world.desk.run(
            partial(
                decide_escalated,
                withdrawal_id=item.id,
                venue_ref=ref,
                reason="the venue's support says so",
                first=keys["ben"],
                second=keys["cleo"],
                now=world.desk.clock.now(),
            )
        )
    await world.work()
    assert {(await world.get(item)).venue_ref for item in (first, second)} == set(refs)
    assert await world.balance(PLACE.path) == HELD - 4 * ETH


async def test_one_unknown_withdrawal_at_a_venue_without_our_ids_is_found_by_what_it_is(
    world: TransferWorld,
) -> None:
    world.treasury.capabilities = BY_LIST
    known = await sent(world)
    item = await sent(world, Answer.LOSE_AFTER)
    await world.work()

    assert (await world.get(item)).state is W.DEBITED
    assert (await world.get(item)).venue_ref != (await world.get(known)).venue_ref


@pytest.mark.parametrize("capabilities", [BY_ID, BY_LIST], ids=["by-our-id", "by-what-it-is"])
async def test_after_a_restore_what_waits_to_be_sent_may_have_been_sent(
    world: TransferWorld, capabilities: TreasuryCapabilities
) -> None:
    world.treasury.capabilities = capabilities
    item = await world.approved()
    # The house that was lost has sent it; the database that came back has never heard of that.
    world.desk.clock.advance(timedelta(hours=1))
    lost = replace(item, signed_at=world.desk.clock.now())
    await world.treasury.withdraw(lost.ticket)
    world.desk.clock.advance(timedelta(hours=1))
    now = world.desk.clock.now()
    await world.desk.run(lambda conn: begin(conn, "the disk was lost", now=now))

    await world.work()
    assert (await world.get(item)).state is W.UNKNOWN
    await world.work(DOUBT_PAUSE.total_seconds())

    assert (await world.get(item)).state is W.DEBITED
    assert len(world.treasury.requests) == 1


async def test_one_person_does_not_decide_alone(world: TransferWorld) -> None:
    item = await sent(world, Answer.LOSE_AFTER)
    world.treasury.down = True
    await world.work(world.policy.escalate_after.total_seconds())
    payload = decision_bytes(await world.get(item), None, "no")
    signed = ("ben", operator_keypair("ben").sign(payload))
    with pytest.raises(NotAuthorised, match="twice"):
        await world.desk.run(
            lambda conn: decide_escalated(
                conn,
                item.id,
                venue_ref=None,
                reason="no",
                first=signed,
                second=signed,
                now=world.desk.clock.now(),
            )
        )


async def test_a_process_that_dies_while_it_sends_leaves_a_row_that_the_next_one_resolves(
    world: TransferWorld,
) -> None:
    item = await world.approved()
    world.treasury.on_withdraw = die
    with pytest.raises(Died):
        await world.work()
    world.treasury.on_withdraw = None
    assert (await world.get(item)).state is W.SUBMITTING

    await world.work(1, holder="treasurer-2")
    assert (await world.get(item)).state is W.SUBMITTING
    await world.work(LEASE.total_seconds(), holder="treasurer-2")
    assert (await world.get(item)).state is W.DEBITED
    assert len(world.treasury.requests) == 1


async def test_of_two_workers_one_sends(world: TransferWorld) -> None:
    item = await world.approved()
    first = await world.work(1, holder="treasurer-1")
    second = await world.work(1, holder="treasurer-2")
    assert (first.submitted, second.submitted) == ([item.id], [])
    assert len(world.treasury.requests) == 1


async def test_what_was_sent_once_is_not_sent_again_though_nobody_knows_its_outcome(
    world: TransferWorld,
) -> None:
    item = await sent(world, Answer.LOSE_BEFORE)
    for holder in ("treasurer-1", "treasurer-2"):
        again = await submit(
            world.desk.engine, world.treasury, item.id, holder=holder, clock=world.desk.clock
        )
        assert again.state is W.UNKNOWN
    assert len(world.treasury.requests) == 1


async def test_a_worker_that_was_taken_over_writes_nothing(world: TransferWorld) -> None:
    item = await world.approved()

    def slow() -> None:
        world.desk.clock.advance(LEASE + timedelta(seconds=1))

    async def take_over() -> None:
        world.treasury.on_withdraw = None
        await world.work(0, holder="treasurer-2")

    real = world.treasury.withdraw

    async def withdraw(ticket: object) -> object:
        answer = await real(ticket)  # type: ignore[arg-type]  # passed on as it came
        slow()
        await take_over()
        return answer

    world.treasury.withdraw = withdraw  # type: ignore[method-assign, assignment]  # a slow network
    after = await submit(
        world.desk.engine, world.treasury, item.id, holder="treasurer-1", clock=world.desk.clock
    )
    assert after.state is W.DEBITED
    assert len(world.treasury.requests) == 1
    assert await world.balance(PLACE.path) == HELD - 2 * ETH


async def test_a_refused_withdrawal_frees_what_was_held(world: TransferWorld) -> None:
    item = await sent(world, Answer.REFUSE)
    assert item.state is W.REFUSED
    assert await available(world) == HELD


async def test_a_clock_that_is_off_is_measured_again(world: TransferWorld) -> None:
    item = await sent(world, Answer.REFUSE_CLOCK)
    assert (item.state, world.treasury.synchronised) == (W.REFUSED, 1)


async def test_a_withdrawal_of_nobodys_is_told(world: TransferWorld) -> None:
    await sent(world)
    record = world.treasury.withdrawals["w-1"]
    world.treasury.withdrawals["thief"] = replace(
        record, venue_ref="thief", withdrawal_id="", address=ELSEWHERE
    )
    report = await world.work()
    assert any("which is none of ours" in alarm.reason for alarm in report.alarms)


async def test_what_the_venue_pays_to_another_address_goes_to_people(world: TransferWorld) -> None:
    item = await sent(world)
    record = world.treasury.withdrawals["w-1"]
    world.treasury.withdrawals["w-1"] = replace(record, address=ELSEWHERE)
    report = await world.work()

    assert (await world.get(item)).state is W.ESCALATED
    assert item.id in {alarm.subject for alarm in report.alarms}


async def test_a_reference_again_is_the_same_withdrawal_and_for_another_one_is_refused(
    world: TransferWorld,
) -> None:
    item = await world.request(client_ref="r-1")
    again = await world.request(client_ref="r-1")
    assert again.id == item.id
    with pytest.raises(Refused, match="another amount"):
        await world.request(ETH, client_ref="r-1")


async def test_a_withdrawal_that_was_sent_is_not_cancelled(world: TransferWorld) -> None:
    item = await sent(world)
    with pytest.raises(NotPossible, match="acked"):
        await world.desk.run(
            lambda conn: cancel_withdrawal(
                conn, item.id, by="dan", reason="other plans", now=world.desk.clock.now()
            )
        )


async def test_what_lapsed_or_was_cancelled_is_never_sent(world: TransferWorld) -> None:
    lapsed = await world.approved(expires_at=world.desk.clock.now() + timedelta(minutes=1))
    cancelled = await world.approved()
    await world.desk.run(
        lambda conn: cancel_withdrawal(
            conn, cancelled.id, by="dan", reason="other plans", now=world.desk.clock.now()
        )
    )
    await world.work(120)

    assert (await world.get(lapsed)).state is W.EXPIRED
    assert (await world.get(cancelled)).state is W.CANCELLED
    assert world.treasury.requests == []
    assert await available(world) == HELD
