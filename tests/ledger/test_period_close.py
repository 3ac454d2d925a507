"""Closing and reopening a period: one proposes, two others sign, and the books are in order."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import constraint_name, sqlstate
from kernel.errors import BadInput
from ledger.journals.decisions import decide_period, period_bytes
from ledger.journals.errors import NoSuchProposal, NotOpen, PeriodNotClosable
from ledger.journals.manual import reject_journal
from ledger.journals.model import (
    LIFETIME,
    JournalRequest,
    JournalState,
    ManualJournal,
    PeriodProposal,
    PeriodState,
)
from ledger.journals.periods import (
    get_period,
    list_periods,
    propose_close,
    propose_reopen,
    reject_period,
)
from ledger.journals.store import PAGE_MAX
from ledger.model import PeriodEventKind
from ledger.outcome import Outcome
from ledger.queries import head
from ledger.testing import enforce_lock_order
from ledger.verification import verify
from registry.errors import NotAuthorised
from registry.model import Role
from registry.testing import change, operator, operator_keypair
from tests.ledger.by_hand import BOOK, CAPITAL, DOCUMENT, START, Hand, open_house

YEAR_END = date(2025, 12, 31)


@pytest.fixture
async def hand(engine: AsyncEngine) -> Hand:
    hand = await open_house(engine)
    await hand.move("opening", "bank:main", "equity:capital", 100)
    return hand


async def close(hand: Hand, through: date = YEAR_END, by: str = "eve") -> PeriodProposal:
    now = hand.clock.now()
    return await hand.do(
        lambda conn: propose_close(conn, BOOK, through, by=by, reason="year end", now=now)
    )


async def reopen(hand: Hand, through: date, by: str = "eve") -> PeriodProposal:
    now = hand.clock.now()
    return await hand.do(
        lambda conn: propose_reopen(conn, BOOK, through, by=by, reason="an invoice", now=now)
    )


async def closed_through(hand: Hand) -> date | None:
    return (await hand.do(lambda conn: head(conn, BOOK))).closed_through


async def test_a_period_is_closed_by_the_second_of_two_other_operators(hand: Hand) -> None:
    with enforce_lock_order(hand.engine):
        item = await close(hand)
        first = await hand.approve_period(item, "ben")
        assert (first.state, first.approvers) == (PeriodState.PROPOSED, ("ben",))
        assert await closed_through(hand) is None
        hand.later(minutes=5)
        second = await hand.approve_period(item, "ada")

    assert (second.state, second.approvers) == (PeriodState.RECORDED, ("ben", "ada"))
    assert await closed_through(hand) == YEAR_END
    async with hand.engine.connect() as conn:
        row = (await conn.execute(text("SELECT * FROM ledger.period_event"))).one()
    assert (row.kind, row.through, row.proposed_by, row.approved_by, row.reason) == (
        "closed",
        YEAR_END,
        "eve",
        "ben+ada",
        str(item.id),
    )
    events = await hand.history("period", item)
    assert [(e.name, e.actor, e.to_state) for e in events] == [
        ("PeriodProposed", "eve", "proposed"),
        ("PeriodApprovalGiven", "ben", "proposed"),
        ("PeriodClosed", "ada", "recorded"),
    ]
    assert await verify(hand.engine, BOOK) == []
    refused = await hand.move(
        "late", "bank:main", "equity:capital", 1, effective_at=datetime(2025, 12, 31, tzinfo=UTC)
    )
    assert refused.outcome is Outcome.EFFECTIVE_PERIOD_CLOSED


async def test_a_closed_period_is_opened_again_by_three_people(hand: Hand) -> None:
    item = await close(hand)
    await hand.approve_period(item, "ben")
    await hand.approve_period(item, "ada")

    hand.later(hours=1)
    again = await reopen(hand, date(2025, 11, 30))
    await hand.approve_period(again, "cleo")
    opened = await hand.approve_period(again, "ben")

    assert opened.state is PeriodState.RECORDED
    assert await closed_through(hand) == date(2025, 11, 30)
    posted = await hand.move(
        "invoice", "bank:main", "equity:capital", 1, effective_at=datetime(2025, 12, 1, tzinfo=UTC)
    )
    assert posted.outcome is Outcome.CREATED
    found = await hand.do(lambda conn: list_periods(conn, BOOK))
    assert [p.kind for p in found] == [PeriodEventKind.REOPENED, PeriodEventKind.CLOSED]
    assert await verify(hand.engine, BOOK) == []


async def test_the_proposer_does_not_count_and_nobody_counts_twice(hand: Hand) -> None:
    item = await close(hand, by="cleo")

    with pytest.raises(NotAuthorised, match="proposed this"):
        await hand.approve_period(item, "cleo")
    first = await hand.approve_period(item, "ben")
    assert await hand.approve_period(item, "ben") == first
    assert (await hand.period(item)).state is PeriodState.PROPOSED
    assert await closed_through(hand) is None


@pytest.mark.parametrize("by", ["dan", "eve", "gone"])
async def test_who_lacks_the_role_does_not_sign(hand: Hand, by: str) -> None:
    item = await close(hand, by="cleo")

    with pytest.raises(NotAuthorised):
        await hand.approve_period(item, by)
    assert (await hand.period(item)).approvers == ()


@pytest.mark.parametrize("by", ["dan", "ben", "gone"])
async def test_who_lacks_the_role_does_not_propose(hand: Hand, by: str) -> None:
    with pytest.raises(NotAuthorised):
        await close(hand, by=by)


async def test_who_has_left_since_does_not_count(hand: Hand) -> None:
    item = await close(hand)
    await hand.approve_period(item, "cleo")
    gone = operator("cleo", Role.APPROVER, Role.FINANCE, active=False)
    now = hand.clock.now()
    await hand.do(lambda conn: change(conn, gone, now=now))

    second = await hand.approve_period(item, "ada")
    assert (second.state, await closed_through(hand)) == (PeriodState.PROPOSED, None)
    assert (await hand.approve_period(item, "ben")).state is PeriodState.RECORDED
    async with hand.engine.connect() as conn:
        signed = (await conn.execute(text("SELECT approved_by FROM ledger.period_event"))).scalar()
    assert signed == "ada+ben"


async def test_a_signature_of_another_day_closes_nothing(hand: Hand) -> None:
    item = await close(hand)
    key = operator_keypair("ben")
    for other in (
        replace(item, through=date(2025, 11, 30)),
        replace(item, kind=PeriodEventKind.REOPENED),
        replace(item, book=2),
        replace(item, reason="another"),
        replace(item, proposed_by="ada"),
        replace(item, id=UUID(int=1)),
    ):
        with pytest.raises(NotAuthorised, match="signature"):
            await hand.approve_period(item, "ben", key.sign(period_bytes(other)))
    assert (await hand.period(item)).approvers == ()


async def test_an_open_manual_journal_keeps_its_period_open(hand: Hand) -> None:
    waiting = await hand.propose(effective_on=YEAR_END)
    with pytest.raises(PeriodNotClosable, match="mj-1"):
        await close(hand)

    now = hand.clock.now()
    await hand.do(lambda conn: reject_journal(conn, waiting.id, by="ben", reason="no", now=now))
    item = await close(hand)
    # What is proposed between the signatures keeps it open too.
    await hand.approve_period(item, "ben")
    late = await hand.propose(effective_on=YEAR_END, reference="mj-2")
    with pytest.raises(PeriodNotClosable, match="mj-2"):
        await hand.approve_period(item, "ada")
    assert (await hand.period(item)).approvers == ("ben",)
    assert await closed_through(hand) is None
    await hand.approve(late)
    assert (await hand.approve_period(item, "ada")).state is PeriodState.RECORDED


async def test_a_journal_behind_many_others_keeps_its_period_open_too(hand: Hand) -> None:
    waiting = await hand.propose(effective_on=YEAR_END)
    crowd = text(
        """
        INSERT INTO books.manual_journal (id, book, reference, template, content, reason,
               attachment, effective_on, state, proposed_by, proposed_at)
        SELECT gen_random_uuid(), book, 'crowd-' || n, template, content, reason, attachment,
               CAST(:today AS date), state, proposed_by, proposed_at - interval '1 hour'
          FROM books.manual_journal, generate_series(1, :count) AS n WHERE id = :id
        """
    )
    async with hand.engine.begin() as conn:
        await conn.execute(crowd, {"today": START.date(), "count": PAGE_MAX, "id": waiting.id})

    with pytest.raises(PeriodNotClosable, match="decision: mj-1"):
        await close(hand)


async def test_a_day_that_is_not_over_is_not_closed(hand: Hand) -> None:
    with pytest.raises(PeriodNotClosable, match="not over"):
        await close(hand, START.date())

    hand.clock.at = datetime(2026, 1, 6, 0, 0, tzinfo=UTC)
    assert (await close(hand, START.date())).state is PeriodState.PROPOSED


async def test_the_books_own_time_counts_where_it_is_ahead(hand: Hand) -> None:
    hand.later(days=3)
    await hand.move("ahead", "bank:main", "equity:capital", 1)
    hand.later(days=-3)

    assert (await close(hand, date(2026, 1, 7))).state is PeriodState.PROPOSED


async def test_what_is_closed_is_not_closed_again_and_what_is_open_not_opened(hand: Hand) -> None:
    with pytest.raises(PeriodNotClosable, match="is closed"):
        await reopen(hand, YEAR_END)
    item = await close(hand)
    await hand.approve_period(item, "ben")
    await hand.approve_period(item, "ada")

    with pytest.raises(PeriodNotClosable, match="already"):
        await close(hand)
    with pytest.raises(PeriodNotClosable, match="up to 2025-12-31"):
        await reopen(hand, YEAR_END)


async def test_one_proposal_at_a_time_waits_for_its_decision(hand: Hand) -> None:
    item = await close(hand)
    hand.later(seconds=1)
    with pytest.raises(NotOpen, match="another proposal"):
        await close(hand, date(2025, 11, 30))

    now = hand.clock.now()
    rejected = await hand.do(
        lambda conn: reject_period(conn, item.id, by="cleo", reason="not yet", now=now)
    )
    assert (rejected.state, rejected.rejected_by) == (PeriodState.REJECTED, "cleo")
    with pytest.raises(NotOpen, match="is rejected"):
        await hand.approve_period(item, "ben")
    assert (await close(hand, date(2025, 11, 30))).state is PeriodState.PROPOSED


async def test_an_old_proposal_closes_nothing(hand: Hand) -> None:
    item = await close(hand)
    hand.clock.advance(LIFETIME + timedelta(seconds=1))

    with pytest.raises(NotOpen, match="older"):
        await hand.approve_period(item, "ben")


async def test_of_two_last_signatures_at_once_one_closes(hand: Hand) -> None:
    item = await close(hand)
    await hand.approve_period(item, "ben")

    async def attempt(by: str) -> str:
        try:
            return str((await hand.approve_period(item, by)).state)
        except NotOpen:
            return "late"

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(attempt(by)) for by in ("ada", "cleo")]

    assert sorted(task.result() for task in tasks) == ["late", "recorded"]
    async with hand.engine.connect() as conn:
        assert await conn.scalar(text("SELECT count(*) FROM ledger.period_event")) == 1


async def test_a_proposal_needs_a_reason_and_an_id_names_one(hand: Hand) -> None:
    now = hand.clock.now()
    with pytest.raises(BadInput, match="reason"):
        await hand.do(
            lambda conn: propose_close(conn, BOOK, YEAR_END, by="eve", reason=" ", now=now)
        )
    with pytest.raises(NoSuchProposal):
        await hand.do(lambda conn: get_period(conn, UUID(int=1)))


JOURNAL = ManualJournal(
    id=UUID(int=1),
    book=BOOK,
    request=JournalRequest(
        reference="mj-9",
        template=CAPITAL,
        reason="x",
        attachment=DOCUMENT,
        effective_on=YEAR_END,
    ),
    state=JournalState.PROPOSED,
    proposed_by="eve",
    proposed_at=START,
)


def test_everything_that_stands_in_the_way_is_told_at_once() -> None:
    facts: dict[str, Any] = {
        "closed_through": date(2026, 1, 6),
        "block_time": START,
        "now": START,
        "open_journals": [JOURNAL],
        "sums": {"ETH": 0, "USDT": -3},
    }
    with pytest.raises(PeriodNotClosable) as caught:
        decide_period(PeriodEventKind.CLOSED, date(2026, 1, 5), **facts)

    for said in ("already", "not over", "mj-9", "USDT is off by -3"):
        assert said in str(caught.value)
    assert "ETH" not in str(caught.value)


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        ("UPDATE books.period_proposal SET through = '2026-01-01'", "42501"),
        ("UPDATE books.period_approval SET operator = 'x'", "42501"),
        ("DELETE FROM books.period_approval", "42501"),
        (
            "UPDATE books.period_proposal SET state = 'proposed', decided_at = NULL",
            "period_proposal_state_edges",
        ),
        (
            """
            INSERT INTO books.period_approval
            SELECT proposal, 'eve', 'eve', signature, at FROM books.period_approval LIMIT 1
            """,
            "ck_period_approval_people",
        ),
    ],
)
async def test_the_database_itself_refuses_what_no_verb_does(
    hand: Hand, statement: str, refused: str
) -> None:
    item = await close(hand)
    await hand.approve_period(item, "ben")
    await hand.approve_period(item, "ada")

    with pytest.raises(DBAPIError) as caught:
        await hand.do(lambda conn: conn.execute(text(statement)))

    assert refused in {sqlstate(caught.value), constraint_name(caught.value)}
