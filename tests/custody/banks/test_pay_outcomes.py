"""What is heard of a payment file, what is not heard, and what a bank says of it in the end."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from banks.pain002 import PaymentStatus, Status, StatusReport
from banks.submission import Outcome, Submission
from custody.banks.payment_model import (
    ON_ITS_WAY,
    FileState,
    LineState,
    PaymentFile,
    PaymentLine,
    ReportState,
)
from custody.banks.payment_release import (
    AGAIN_VERB,
    NEVER_VERB,
    RETRY_MAX,
    decide_held,
    decision_bytes,
    hold_file,
    record_submission,
    release_file,
    take_copy,
    wait_after,
)
from custody.banks.payment_reports import judge
from custody.banks.payment_store import claim_files
from custody.banks.payment_worker import LEASE
from custody.payout_model import RELEASED, PayoutState
from custody.payout_tables import LIVE
from kernel.errors import BadInput, OutsideUnavailable, Refused, StaleFence
from kernel.events import list_history
from registry.queries import get_operator
from registry.testing import operator_keypair
from tests.custody.banks.pay_world import START, Door, World, entry, status_report

UNKNOWN: Final = Submission(Outcome.UNKNOWN, "no answer")
REFUSED: Final = Submission(Outcome.REFUSED, "not today")
EVIDENCE: Final = "ab" * 32


# Handing over.


async def test_without_an_answer_the_same_bytes_go_again_under_the_same_name(world: World) -> None:
    world.door.answers = [UNKNOWN, UNKNOWN]
    payout, file = await world.submitted()
    assert file.state is FileState.UNKNOWN
    assert (await world.advance()).unknown == [file.id]
    assert (await world.advance()).submitted == [file.id]
    await world.advance()
    assert world.door.copies == [(file.name, file.content)] * 3
    assert (await world.file(file.id)).submissions == 3
    assert (await world.get(payout)).state is PayoutState.SIGNED
    assert (await world.books())["client:acme"] == (489_950, 0, 0)


def test_waiting_grows_and_ends() -> None:
    waits = [wait_after(number) for number in range(1, 40)]
    assert all(before <= after for before, after in pairwise(waits))
    assert waits[0] == timedelta(seconds=5)
    assert waits[-1] == RETRY_MAX


async def test_a_door_that_breaks_off_is_one_that_did_not_answer(world: World) -> None:
    door = world.door

    class Broken(Door):
        async def submit(self, name: str, content: bytes) -> Submission:
            await door.submit(name, content)
            raise OutsideUnavailable("the line went dead")

    await world.approved()
    file = await world.signed_file()
    world.door = Broken()
    assert (await world.advance()).unknown == [file.id]
    world.door = door
    assert (await world.advance()).submitted == [file.id]
    assert world.door.copies == [(file.name, file.content)] * 2


async def test_a_worker_that_dies_at_the_door_leaves_a_file_that_is_handed_over_again(
    world: World,
) -> None:
    door = world.door

    class Deadly(Door):
        async def submit(self, name: str, content: bytes) -> Submission:
            await door.submit(name, content)
            raise asyncio.CancelledError

    payout = await world.approved()
    file = await world.signed_file()
    world.door = Deadly()
    with pytest.raises(asyncio.CancelledError):
        await world.advance()
    assert (await world.file(file.id)).state is FileState.RELEASED
    assert (await world.get(payout)).state is PayoutState.SIGNED
    world.door, world.worker = door, "worker-2"
    assert (await world.advance()).submitted == []
    world.clock.advance(timedelta(minutes=3))
    assert (await world.advance()).submitted == [file.id]
    assert door.copies == [(file.name, file.content)] * 2


async def test_two_workers_write_one_file_and_hand_it_over_once(world: World) -> None:
    for number in range(5):
        await world.approved(client_ref=f"w-{number}", amount=100)
    await world.advance(drafts=False)
    other = replace(world, worker="worker-2")
    world.clock.advance(timedelta(minutes=1))
    done = await asyncio.gather(world.advance(), other.advance())  # noqa: TID251  two workers at once
    (file_id,) = [found for work in done for found in work.drafted]
    await world.sign_file(file_id, "ben")
    await world.sign_file(file_id, "cleo")
    await asyncio.gather(world.advance(), other.advance())  # noqa: TID251  two workers at once
    assert len(world.door.copies) == 1


async def test_a_worker_that_slept_through_its_lease_neither_releases_nor_reports(
    world: World,
) -> None:
    await world.approved()
    file = await world.signed_file()
    (slept,) = await world.run(
        lambda conn: claim_files(
            *(conn, file.book), holder="sleeper", now=world.now, lease_for=LEASE, limit=1
        )
    )
    world.clock.advance(2 * LEASE)
    assert (await world.advance()).submitted == [file.id]
    with pytest.raises(StaleFence):
        await world.run(lambda conn: release_file(conn, slept, now=world.now))
    with pytest.raises(StaleFence):
        await world.run(lambda conn: record_submission(conn, slept, UNKNOWN, now=world.now))
    with pytest.raises(StaleFence):
        await world.run(lambda conn: take_copy(conn, slept, now=world.now))
    assert (await world.file(file.id)).state is FileState.SUBMITTED


async def test_a_payment_that_lapses_on_the_way_to_the_door_is_not_released(world: World) -> None:
    await world.approved(expires_at=world.now + LEASE)
    file = await world.signed_file()
    (claimed,) = await world.run(
        lambda conn: claim_files(
            *(conn, file.book), holder="slow", now=world.now, lease_for=LEASE, limit=1
        )
    )
    world.clock.advance(LEASE)
    after = await world.run(lambda conn: release_file(conn, claimed, now=world.now))
    assert after.state is FileState.DISCARDED
    assert world.door.copies == []


async def test_a_copy_of_which_nothing_was_written_afterwards_is_a_copy(world: World) -> None:
    door = world.door

    class Deadly(Door):
        async def submit(self, name: str, content: bytes) -> Submission:
            await door.submit(name, content)
            raise asyncio.CancelledError

    payout = await world.approved()
    file = await world.signed_file()
    world.door = Deadly()
    with pytest.raises(asyncio.CancelledError):
        await world.advance()
    world.door, world.worker = door, "worker-2"
    world.clock.advance(2 * LEASE)
    assert (await world.advance()).submitted == [file.id]
    assert len(door.copies) == 2
    taken = await world.report(status_report(file, "RJCT"))
    assert taken.detail == "the file is rejected, and 2 copies of it were handed over"
    assert (await world.get(payout)).state is PayoutState.SIGNED


async def test_what_is_given_back_while_a_worker_is_on_its_way_to_the_door_is_not_handed_over(
    world: World,
) -> None:
    world.door.answers = [UNKNOWN]
    payout, file = await world.submitted()
    world.clock.advance(LEASE)
    (claimed,) = await world.run(
        lambda conn: claim_files(
            *(conn, file.book), holder="other", now=world.now, lease_for=LEASE, limit=1
        )
    )
    await world.report(status_report(file, "RJCT"))
    assert (await world.get(payout)).state is PayoutState.REFUSED
    copy, stopped = await world.run(lambda conn: take_copy(conn, claimed, now=world.now))
    assert (copy, stopped) == (None, "")


async def test_a_payment_accepted_in_one_copy_and_refused_in_another_is_for_people(
    world: World,
) -> None:
    world.door.answers = [UNKNOWN]
    payout, file = await world.submitted()
    await world.advance()
    await world.report(status_report(file, "", (payout.id.hex, "ACSP", "G000")))
    taken = await world.report(status_report(file, "PART", (payout.id.hex, "RJCT", "AM04")))
    assert taken.detail == "payment 1 is refused in one copy, accepted in another"
    assert (await world.file(file.id)).state is FileState.HELD
    assert (await world.books())["in-flight:bank"] == (10_050, 0, 0)


# What two people decide.


async def test_a_door_that_refuses_gives_nothing_back_and_two_people_say_again(
    world: World,
) -> None:
    world.door.answers = [REFUSED]
    payout, file = await world.submitted()
    assert file.state is FileState.HELD
    assert (await world.advance()).submitted == []
    assert (await world.get(payout)).state is PayoutState.SIGNED
    with pytest.raises(Refused, match="two people decide"):
        await _decide(world, file, AGAIN_VERB, "ben")
    with pytest.raises(Refused, match="is not approver or treasurer or admin"):
        await _decide(world, file, AGAIN_VERB, "ben", "dan")
    assert (await _decide(world, file, AGAIN_VERB, "ben", "cleo")).state is FileState.RELEASED
    assert (await world.advance()).submitted == [file.id]
    assert world.door.copies == [(file.name, file.content)] * 2


async def test_the_banks_own_word_and_two_people_end_a_file_that_was_never_paid(
    world: World,
) -> None:
    world.door.answers = [REFUSED]
    payout, file = await world.submitted()
    with pytest.raises(BadInput, match="not a SHA-256"):
        await _decide(world, file, NEVER_VERB, "ben", "cleo", evidence="")
    assert (await _decide(world, file, NEVER_VERB, "ben", "cleo")).state is FileState.CLOSED
    assert (await world.get(payout)).state is PayoutState.REFUSED
    assert await world.books() == await _untouched(world)
    assert await world.book(entry(payout, -10_050)) == frozenset()


async def test_one_person_stops_a_file_that_nobody_has_answered_for(world: World) -> None:
    world.door.answers = [UNKNOWN]
    _, file = await world.submitted()

    async def hold(conn: AsyncConnection) -> PaymentFile:
        dan = await get_operator(conn, "dan")
        return await hold_file(conn, file.id, by=dan, reason="wrong payee?", now=world.now)

    assert (await world.run(hold)).state is FileState.HELD
    await world.advance()
    assert len(world.door.copies) == 1


async def _decide(
    world: World, file: PaymentFile, verb: str, *people: str, evidence: str = EVIDENCE
) -> PaymentFile:
    payload = decision_bytes(verb, file, evidence, "looked")
    signatures = {code: operator_keypair(code).sign(payload) for code in people}
    return await world.run(
        lambda conn: decide_held(
            *(conn, file.id),
            verb=verb,
            signatures=signatures,
            evidence=evidence,
            reason="looked",
            now=world.now,
        )
    )


async def _untouched(world: World) -> dict[str, tuple[int, int, int]]:
    return {
        "bank:client-eur": (500_000, 0, 0),
        "bank:house-eur": (100_000, 0, 0),
        "client:acme": (500_000, 0, 0),
        "equity:capital": (10_000, 0, 0),
        "payable:birch:netted": (90_000, 0, 0),
    }


# Status reports.


async def test_a_rejected_payment_gives_its_claim_back_and_the_others_go_on(world: World) -> None:
    bad = await world.approved(client_ref="w-2", amount=300)
    good, file = await world.submitted()
    raw = status_report(
        *(file, "PART", (bad.id.hex, "RJCT", "AC04"), (good.id.hex, "ACSP", "G000"))
    )
    taken = await world.report(raw)
    assert (taken.state, len(taken.refused), len(taken.accepted), taken.detail) == (
        *(ReportState.APPLIED, 1, 1, ""),
    )
    assert (await world.get(bad)).state is PayoutState.REFUSED
    assert (await world.get(good)).state is PayoutState.SIGNED
    assert (await world.books())["client:acme"] == (489_950, 0, 0)
    assert (await world.report(raw)).known
    assert (await world.books())["client:acme"] == (489_950, 0, 0)
    events = await world.run(lambda conn: list_history(conn, "payout", bad.id))
    assert (events[-1].name, events[-1].reason) == ("PayoutRefused", "AC04")
    await world.book(entry(good, -10_050))
    assert (await world.file(file.id)).state is FileState.CLOSED


async def test_a_rejected_file_of_which_one_copy_went_out_is_refused_whole(world: World) -> None:
    payout, file = await world.submitted()
    await world.report(status_report(file, "RJCT"))
    assert (await world.get(payout)).state is PayoutState.REFUSED
    assert (await world.file(file.id)).state is FileState.CLOSED
    assert await world.books() == await _untouched(world)


async def test_a_rejection_as_a_duplicate_proves_that_the_bank_has_it(world: World) -> None:
    world.door.answers = [UNKNOWN, UNKNOWN]
    payout, file = await world.submitted()
    await world.advance()
    reason = "<StsRsnInf><Rsn><Cd>AM05</Cd></Rsn></StsRsnInf>"
    taken = await world.report(status_report(file, "RJCT", more=reason))
    assert (taken.refused, taken.accepted) == ((), (1,))
    assert (await world.get(payout)).state is PayoutState.SIGNED
    assert (await world.file(file.id)).state is FileState.SUBMITTED
    assert (await world.books())["in-flight:bank"] == (10_050, 0, 0)


@pytest.mark.parametrize("accepted_before", [False, True])
async def test_a_rejection_that_may_be_of_one_copy_only_is_for_people(
    world: World, *, accepted_before: bool
) -> None:
    world.door.answers = [] if accepted_before else [UNKNOWN]
    payout, file = await world.submitted()
    if accepted_before:
        await world.report(status_report(file, "ACCP"))
    else:
        await world.advance()
    taken = await world.report(status_report(file, "RJCT"))
    assert "the file is rejected, and" in taken.detail
    assert (await world.file(file.id)).state is FileState.HELD
    assert (await world.get(payout)).state is PayoutState.SIGNED
    assert (await world.books())["in-flight:bank"] == (10_050, 0, 0)


async def test_a_rejection_of_what_is_booked_moves_no_money(world: World) -> None:
    payout, file = await world.submitted()
    await world.book(entry(payout, -10_050))
    before = await world.books()
    taken = await world.report(status_report(file, "PART", (payout.id.hex, "RJCT", "AC04")))
    assert taken.detail == "payment 1 is refused, and was booked"
    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    assert await world.books() == before


async def test_what_cannot_be_believed_is_kept_and_does_nothing(world: World) -> None:
    await world.approved(client_ref="w-2")
    unreleased = await world.drafted()
    payout, file = await world.submitted()
    before = await world.books()
    for raw, says in (
        (b"<html>502</html>", "no status report"),
        (status_report(replace(file, message_id="CW1"), "RJCT"), "no file that is out"),
        (status_report(unreleased, "RJCT"), "no file that is out"),
        (status_report(file, "PART", ("f" * 32, "RJCT", "AC04")), "which the file does not have"),
        (status_report(file, "", *[(payout.id.hex, "RJCT", "AC04")] * 2), "a payment twice"),
    ):
        taken = await world.report(raw)
        assert (taken.state, says in taken.detail) == (ReportState.QUARANTINED, True), taken
        assert (await world.report(raw)).known
    assert await world.books() == before
    assert (await world.get(payout)).state is PayoutState.SIGNED


# Statements.


async def test_an_entry_twice_is_booked_once_and_the_second_is_not_ours(world: World) -> None:
    payout, _ = await world.submitted()
    first, second = entry(payout, -10_050), entry(payout, -10_050, number=2)
    assert await world.book(first, second) == frozenset({first.id})
    assert await world.book(first) == frozenset()
    assert (await world.books())["bank:client-eur"] == (489_950, 0, 0)


NOT_OURS: Final[tuple[dict[str, Any], ...]] = (
    {"amount": -10_049},
    {"amount": -10_060},
    {"amount": -10_060, "charge": 9},
    {"amount": -10_040, "charge": 10},
    {"amount": 10_050},
    {"account": "house-eur"},
    {"end_to_end": "NOTPROVIDED"},
    {"reversal": True},
    {"book": 2},
)


async def test_an_entry_that_is_not_exactly_ours_is_left_for_suspense(
    world: World,
) -> None:
    payout, _ = await world.submitted()
    for changes in NOT_OURS:
        assert await world.book(replace(entry(payout, -10_050), **changes)) == frozenset(), changes
    assert (await world.get(payout)).state is PayoutState.SIGNED


async def test_what_was_never_released_is_never_booked_as_ours(world: World) -> None:
    payout = await world.approved()
    await world.drafted()
    assert await world.book(entry(payout, -10_050)) == frozenset()
    assert (await world.get(payout)).state is PayoutState.ALLOCATED


@pytest.mark.parametrize("came", [10_050, 10_000])
async def test_a_payment_that_comes_back_is_owed_again_in_full(world: World, came: int) -> None:
    payout, _ = await world.submitted()
    back = entry(payout, came, number=2, return_reason="AC04")
    assert await world.book(entry(payout, -10_050), back) == frozenset(
        {entry(payout, 0).id, back.id}
    )
    books = await world.books()
    assert books["client:acme"] == (500_000, 0, 0)
    assert books["bank:client-eur"] == (489_950 + came, 0, 0)
    assert books.get("expense:bank-charge", (0, 0, 0))[0] == 10_050 - came
    events = await world.run(lambda conn: list_history(conn, "payout", payout.id))
    assert [event.name for event in events[-2:]] == ["PayoutConfirmed", "PayoutReturned"]
    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    assert await world.book(replace(back, id=entry(payout, 0, number=3).id)) == frozenset()


async def test_a_charge_that_the_bank_says_it_took_with_a_payment_is_our_expense(
    world: World,
) -> None:
    payout, _ = await world.submitted()
    assert len(await world.book(entry(payout, -10_060, charge=10))) == 1
    books = await world.books()
    assert books["bank:client-eur"] == (489_940, 0, 0)
    assert books["expense:bank-charge"][0] == 10
    assert "in-flight:bank" not in books


NO_RETURNS: Final[tuple[dict[str, Any], ...]] = (
    {"amount": 10_050, "return_reason": ""},
    {"amount": 1, "return_reason": ""},
    {"amount": 1},
    {"amount": 9_949},
    {"amount": 9_949, "charge": 100},
    {"amount": 10_051},
)


async def test_money_under_our_reference_is_no_return_unless_the_bank_says_so_and_nearly_all_of_it(
    world: World,
) -> None:
    payout, _ = await world.submitted()
    await world.book(entry(payout, -10_050))
    before = await world.books()
    back = entry(payout, 0, number=2, return_reason="AC04")
    for changes in NO_RETURNS:
        assert await world.book(replace(back, **changes)) == frozenset(), changes
    assert await world.books() == before


async def test_what_a_bank_says_that_it_kept_of_a_return_may_be_much(world: World) -> None:
    payout, _ = await world.submitted()
    back = entry(payout, 7_050, number=2, return_reason="AC04", charge=3_000)
    assert len(await world.book(entry(payout, -10_050), back)) == 2
    assert (await world.books())["client:acme"] == (500_000, 0, 0)


async def test_what_comes_back_of_a_settlement_is_payable_openly_again(world: World) -> None:
    payout = await world.owed(amount=90_000)
    await world.signed_file()
    await world.advance()
    assert len(await world.book(entry(payout, -90_000))) == 1
    assert len(await world.book(entry(payout, 90_000, number=2, return_reason="AC04"))) == 1
    books = await world.books()
    assert books["payable:birch:open"] == (90_000, 0, 0)
    assert "payable:birch:netted" not in books


def test_the_index_of_live_payouts_leaves_out_every_one_that_has_ended() -> None:
    assert set(re.findall(r"'(\w+)'", LIVE)) == {*RELEASED, PayoutState.CONFIRMED}


# The judgement, over anything that a bank might say.

_CODES = st.sampled_from(["", "RJCT", "ACCP", "ACSP", "ACSC", "PART", "PDNG", "RCVD", "XXXX"])
_REASONS = st.lists(st.sampled_from(["AC04", "AM05", "DU01", "FF01"]), max_size=2).map(tuple)
_STATUS = st.builds(Status, code=_CODES, reasons=_REASONS)


def _line(number: int, state: LineState) -> PaymentLine:
    return PaymentLine(
        file_id=UUID(int=1),
        number=number,
        payout_id=UUID(int=number + 1),
        end_to_end=str(number),
        amount=1,
        destination="x",
        state=state,
    )


def _file(submissions: int) -> PaymentFile:
    return PaymentFile(
        id=UUID(int=1),
        book=1,
        account="house-eur",
        asset="EUR",
        message_id="CW1",
        execution_date=START.date(),
        content=b"",
        sha256="",
        line_count=3,
        total=3,
        state=FileState.SUBMITTED,
        drafted_by="ada",
        drafted_at=START,
        submissions=submissions,
        waiting_for="",
        bank_status="",
        run_after=START,
        released_at=START,
        fence=0,
    )


@given(
    group=_STATUS,
    block=_STATUS,
    said=st.lists(_STATUS, max_size=3),
    states=st.lists(
        st.sampled_from([s for s in LineState if s is not LineState.WRITTEN]),
        min_size=3,
        max_size=3,
    ),
    submissions=st.integers(1, 3),
)
def test_no_claim_is_given_back_without_a_plain_rejection_of_what_is_still_on_its_way(
    group: Status, block: Status, said: list[Status], states: list[LineState], submissions: int
) -> None:
    lines = [_line(number, state) for number, state in enumerate(states, start=1)]
    payments = tuple(
        PaymentStatus(end_to_end=str(number), status=status)
        for number, status in enumerate(said, start=1)
    )
    report = StatusReport(
        message_id="CW1", group=group, block_id="CW1", block=block, payments=payments
    )
    judged = judge(report, _file(submissions), lines)
    for line, status in judged.refused:
        assert line.state in ON_ITS_WAY
        assert status.code == "RJCT"
        assert not {"AM05", "DU01"} & set(status.reasons)
        own = dict(zip("123", said, strict=False)).get(line.end_to_end, Status())
        if own is not status and own != status:
            # The whole file was rejected: of its only copy, and nothing of it had been accepted.
            assert submissions == 1
            assert not {LineState.ACCEPTED, LineState.BOOKED} & set(states)
    moved = [line.number for line, _ in (*judged.refused, *judged.accepted)]
    assert len(set(moved)) == len(moved)
