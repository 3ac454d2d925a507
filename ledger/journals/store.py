"""Rows of manual journals and period proposals to values and back; private to this room."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.journals.errors import NoSuchProposal
from ledger.journals.model import (
    JOURNAL_STATES,
    PERIOD_STATES,
    JournalRequest,
    JournalState,
    ManualJournal,
    PeriodProposal,
    PeriodState,
)
from ledger.journals.tables import manual_journal, period_approval, period_proposal
from ledger.journals.templates import from_content, template_name, to_content
from ledger.model import PeriodEventKind
from ledger.store import run

PAGE_MAX: Final = 500


async def insert_journal(conn: AsyncConnection, item: ManualJournal) -> bool:
    """Insert a proposal unless its reference is taken; tell whether this call inserted it."""
    request = item.request
    statement = (
        insert(manual_journal)
        .values(
            id=item.id,
            book=item.book,
            reference=request.reference,
            template=template_name(request.template),
            content=to_content(request.template),
            reason=request.reason,
            attachment=request.attachment,
            effective_on=request.effective_on,
            state=item.state,
            proposed_by=item.proposed_by,
            proposed_at=item.proposed_at,
        )
        .on_conflict_do_nothing(index_elements=["book", "reference"])
    )
    return (await conn.execute(statement)).rowcount == 1


async def get_journal(
    conn: AsyncConnection, journal_id: UUID, *, lock: bool = False
) -> ManualJournal:
    """Return a manual journal.

    Raises:
        NoSuchProposal: there is none.
    """
    query = select(manual_journal).where(manual_journal.c.id == journal_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NoSuchProposal(f"there is no manual journal {journal_id}")
    return _journal(row)


async def get_journal_by_reference(
    conn: AsyncConnection, book: int, reference: str
) -> ManualJournal:
    """Return the manual journal of a reference that is known to be taken."""
    query = select(manual_journal).where(
        manual_journal.c.book == book, manual_journal.c.reference == reference
    )
    return _journal((await conn.execute(query)).one())


async def list_journals(
    conn: AsyncConnection,
    book: int,
    states: Collection[JournalState],
    *,
    after: UUID | None = None,
    limit: int = PAGE_MAX,
) -> list[ManualJournal]:
    """Return the manual journals of a book in the given states, oldest first."""
    query = select(manual_journal).where(
        manual_journal.c.book == book, manual_journal.c.state.in_(sorted(states))
    )
    if after is not None:
        # Ids are in the order of time, so that one is a cursor.
        query = query.where(manual_journal.c.id > after)
    query = query.order_by(manual_journal.c.id).limit(min(limit, PAGE_MAX))
    return [_journal(row) for row in await conn.execute(query)]


async def list_waiting(
    conn: AsyncConnection, book: int, through: date, *, limit: int
) -> list[ManualJournal]:
    """Return the undecided manual journals that count from *through* or before, oldest first."""
    query = (
        select(manual_journal)
        .where(
            manual_journal.c.book == book,
            manual_journal.c.state == JournalState.PROPOSED,
            manual_journal.c.effective_on <= through,
        )
        .order_by(manual_journal.c.proposed_at, manual_journal.c.id)
        .limit(limit)
    )
    return [_journal(row) for row in await conn.execute(query)]


async def move_journal(
    conn: AsyncConnection, item: ManualJournal, state: JournalState, **values: object
) -> ManualJournal:
    """Move a locked manual journal along an edge and return it as it stands then."""
    JOURNAL_STATES.require(item.state, state)
    statement = (
        update(manual_journal)
        .where(manual_journal.c.id == item.id)
        .values(state=state, **values)
        .returning(manual_journal)
    )
    return _journal((await conn.execute(statement)).one())


async def insert_period(conn: AsyncConnection, item: PeriodProposal) -> bool:
    """Insert a proposal unless the book has one that is open; tell whether this one was."""
    statement = (
        insert(period_proposal)
        .values(
            id=item.id,
            book=item.book,
            kind=item.kind.value,
            through=item.through,
            reason=item.reason,
            state=item.state,
            proposed_by=item.proposed_by,
            proposed_at=item.proposed_at,
        )
        .on_conflict_do_nothing(
            index_elements=["book"], index_where=period_proposal.c.state == PeriodState.PROPOSED
        )
    )
    return (await conn.execute(statement)).rowcount == 1


async def get_period(
    conn: AsyncConnection, proposal_id: UUID, *, lock: bool = False
) -> PeriodProposal:
    """Return a period proposal with its approvers.

    Raises:
        NoSuchProposal: there is none.
    """
    query = select(period_proposal).where(period_proposal.c.id == proposal_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NoSuchProposal(f"there is no period proposal {proposal_id}")
    return _period(row, await _approvers(conn, proposal_id))


async def list_periods(
    conn: AsyncConnection, book: int, *, limit: int = PAGE_MAX
) -> list[PeriodProposal]:
    """Return the period proposals of a book, newest first."""
    query = (
        select(period_proposal)
        .where(period_proposal.c.book == book)
        .order_by(period_proposal.c.proposed_at.desc(), period_proposal.c.id.desc())
        .limit(min(limit, PAGE_MAX))
    )
    rows = (await conn.execute(query)).all()
    return [_period(row, await _approvers(conn, row.id)) for row in rows]


async def insert_approval(
    conn: AsyncConnection, item: PeriodProposal, *, operator: str, signature: bytes, at: datetime
) -> None:
    """Add an operator's signature to a locked proposal."""
    await conn.execute(
        insert(period_approval).values(
            proposal=item.id,
            operator=operator,
            proposed_by=item.proposed_by,
            signature=signature,
            at=at,
        )
    )


async def move_period(
    conn: AsyncConnection, item: PeriodProposal, state: PeriodState, **values: object
) -> PeriodProposal:
    """Move a locked proposal along an edge and return it as it stands then."""
    PERIOD_STATES.require(item.state, state)
    statement = (
        update(period_proposal)
        .where(period_proposal.c.id == item.id)
        .values(state=state, **values)
        .returning(period_proposal)
    )
    row = (await conn.execute(statement)).one()
    return _period(row, await _approvers(conn, item.id))


async def sum_assets(conn: AsyncConnection, book: int) -> dict[str, int]:
    """Return debits less credits over all accounts of a book, posted, by asset."""
    rows = await run(
        conn,
        """
        SELECT a.asset, sum(b.debits_posted - b.credits_posted)::text AS total
          FROM ledger.account a
          JOIN ledger.balance b ON b.book = a.book AND b.account = a.number
         WHERE a.book = $1 GROUP BY a.asset
        """,
        book,
    )
    return {row.asset: int(row.total) for row in rows}


async def _approvers(conn: AsyncConnection, proposal_id: UUID) -> tuple[str, ...]:
    query = (
        select(period_approval.c.operator)
        .where(period_approval.c.proposal == proposal_id)
        .order_by(period_approval.c.at, period_approval.c.operator)
    )
    return tuple((await conn.execute(query)).scalars())


def _journal(row: Row[Any]) -> ManualJournal:
    return ManualJournal(
        id=row.id,
        book=row.book,
        request=JournalRequest(
            reference=row.reference,
            template=from_content(row.template, row.content),
            reason=row.reason,
            attachment=row.attachment,
            effective_on=row.effective_on,
        ),
        state=JournalState(row.state),
        proposed_by=row.proposed_by,
        proposed_at=row.proposed_at,
        decided_by=row.decided_by or "",
        decided_at=row.decided_at,
        decision_reason=row.decision_reason or "",
        outcome=row.outcome or "",
        sequence=row.sequence,
    )


def _period(row: Row[Any], approvers: tuple[str, ...]) -> PeriodProposal:
    return PeriodProposal(
        id=row.id,
        book=row.book,
        kind=PeriodEventKind(row.kind),
        through=row.through,
        reason=row.reason,
        state=PeriodState(row.state),
        proposed_by=row.proposed_by,
        proposed_at=row.proposed_at,
        approvers=approvers,
        decided_at=row.decided_at,
        rejected_by=row.rejected_by or "",
        rejection_reason=row.rejection_reason or "",
    )
