"""The verbs that close and reopen effective days; each is a record of the journal.

Whether the people named may do it is asked by `ledger.journals.periods`.
"""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.db import driver
from ledger import blocks, statements, store
from ledger.errors import PeriodRefused
from ledger.model import PeriodEventKind
from ledger.opaque import require_reason
from ledger.records import period_line
from ledger.working import effective_day


async def close_period(
    conn: AsyncConnection,
    book: int,
    through: date,
    *,
    reason: str,
    proposed_by: str,
    approved_by: str,
    now: datetime | None = None,
) -> int:
    """Close the effective days up to and including *through*; return the record's sequence.

    From then on a transfer that is effective on such a day is refused. Whether these people may
    close it is not asked here.

    Raises:
        PeriodRefused: the day is not over yet in the journal's own time, or closed already.
    """
    return await _record_period(
        conn, book, PeriodEventKind.CLOSED, through, (reason, proposed_by, approved_by), now
    )


async def reopen_period(
    conn: AsyncConnection,
    book: int,
    through: date,
    *,
    reason: str,
    proposed_by: str,
    approved_by: str,
    now: datetime | None = None,
) -> int:
    """Reopen the effective days after *through*, which stays closed; return the record's sequence.

    Raises:
        PeriodRefused: nothing after that day is closed.
    """
    return await _record_period(
        conn, book, PeriodEventKind.REOPENED, through, (reason, proposed_by, approved_by), now
    )


async def _record_period(
    conn: AsyncConnection,
    book: int,
    kind: PeriodEventKind,
    through: date,
    said: tuple[str, str, str],
    now: datetime | None,
) -> int:
    for text in said:
        require_reason(text)
    head = await store.lock(conn, book, now)
    _require_period(head.closed_through, kind, through, head.at)
    sequence = head.sequence + 1
    line = period_line(book, sequence, head.at, kind, through, *said)
    sealed = await blocks.seal(conn, head, [line])
    async with driver(conn) as raw:
        await raw.execute(
            statements.WRITE_PERIOD_EVENT, book, sequence, kind.value, through, *said, head.at
        )
        await blocks.write_block(raw, head, sealed, records=1, closed_through=through)
    return sequence


def _require_period(
    closed: date | None, kind: PeriodEventKind, through: date, at: datetime
) -> None:
    match kind:
        case PeriodEventKind.CLOSED:
            if through >= effective_day(at):
                raise PeriodRefused(
                    f"{through} is not over yet: the book's time is {at.isoformat()}",
                    remedy="Close it on a later day",
                )
            if closed is not None and through <= closed:
                raise PeriodRefused(f"everything up to {closed} is closed already")
        case PeriodEventKind.REOPENED:
            if closed is None or through >= closed:
                raise PeriodRefused(f"nothing after {through} is closed")
