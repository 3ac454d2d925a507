"""Write a period of a book as a general-ledger batch, tied to the trial balance first.

Two independent ways lead to what was posted to an account in a period: the sums of the transfers
that are effective in it, and the trial balance at its end less the one before it, which comes from the
running balances of the entries. Only where they agree is there a file.

No row says that a batch was exported: its id follows from what it holds, and whoever exports the same
again gets the same id and the same bytes, which the general ledger refuses as a duplicate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.money import Asset
from ledger.export import journal
from ledger.export.files import whole
from ledger.export.general_ledger import (
    Batch,
    Moved,
    Period,
    Rule,
    batch_csv,
    make_batch,
    require_tied,
)
from ledger.export.model import By, ExportTransfer, Frame
from ledger.points import Point
from ledger.store import run
from ledger.trial import page_trial_balance
from ledger.views import TrialBalancePage

Progress = Callable[[int, int], None]
"""Called with (records read, records to read)."""


async def export_gl(
    engine: AsyncEngine,
    book: int,
    target: Path,
    period: Period,
    rules: Sequence[Rule],
    *,
    assets: Mapping[str, Asset],
    as_of: datetime | None = None,
    progress: Progress = lambda _done, _all: None,
) -> Batch:
    """Write the batch of a period to *target* and return it.

    The watermark, which is part of the id, is the record that closed the period: so a closed period has
    one batch, however much is posted later. Of an open period it is the last record there
    is, and the batch is preliminary: what is still posted into the period makes another one.

    Args:
        period: effective days.
        rules: the map, the first rule that fits counts.
        assets: the registered assets by code.
        as_of: a recorded time; what was recorded later does not count, the closing neither.

    Raises:
        BookNotOpen: there is no such book.
        ExportRefused: accounts without a rule, or figures that are not tied.
        BadInput: the file cannot be written.
    """
    latest = await journal.watermark(engine, book, as_of=as_of)
    closing = await _closing(engine, latest, period.last)
    mark = latest
    if closing is not None:
        mark = await journal.watermark(engine, book, covering=closing)
    frame = await journal.read_frame(engine, mark, assets, By.EFFECTIVE)
    transfers = await _sum_transfers(engine, frame, period, progress)
    require_tied(frame, transfers, await _trial_balance_change(engine, frame, period))
    batch = make_batch(frame, period, rules, transfers, is_final=closing is not None)
    with whole(target) as part, part.open("w", encoding="utf-8", newline="") as file:
        file.writelines(batch_csv(batch))
    return batch


async def _closing(engine: AsyncEngine, mark: journal.Watermark, last: date) -> int | None:
    """Return the record since which everything up to a day has been closed; None if it is open."""

    async def work(conn: AsyncConnection) -> int | None:
        rows = await run(conn, _CLOSING, mark.book, mark.sequence, last)
        return None if not rows or rows[0].sequence is None else int(rows[0].sequence)

    return await transact(engine, work)


# A reopening moves the end of what is closed back; the closing that counts is the first one after
# the last record by which the day was open.
_CLOSING: Final = """
SELECT min(sequence) AS sequence FROM ledger.period_event
 WHERE book = $1 AND sequence <= $2 AND through >= $3
   AND sequence > coalesce((
       SELECT max(sequence) FROM ledger.period_event
        WHERE book = $1 AND sequence <= $2 AND through < $3), 0)
"""


async def _sum_transfers(
    engine: AsyncEngine, frame: Frame, period: Period, progress: Progress
) -> dict[int, Moved]:
    """Add up the transfers that are effective in the period."""
    sums: dict[int, Moved] = {}
    first, last = await _recorded_range(engine, frame, period)
    async for position, records in journal.stream(engine, frame, start=first, end=last):
        for item in records:
            if isinstance(item, ExportTransfer) and _is_within(item, period):
                _add(sums, item.debit.number, debits=item.posted)
                _add(sums, item.credit.number, credits_=item.posted)
        progress(position - first + 1, last - first + 1)
    for number, moved in await _recorded_outside(engine, frame, period, first, last):
        _add(sums, number, debits=moved.debits, credits_=moved.credits)
    return {number: moved for number, moved in sums.items() if any(moved)}


def _is_within(item: ExportTransfer, period: Period) -> bool:
    return period.first <= item.at(By.EFFECTIVE).date() <= period.last


def _add(sums: dict[int, Moved], number: int, *, debits: int = 0, credits_: int = 0) -> None:
    before = sums.get(number, Moved())
    sums[number] = Moved(before.debits + debits, before.credits + credits_)


async def _recorded_range(engine: AsyncEngine, frame: Frame, period: Period) -> tuple[int, int]:
    """Return the first and last sequence of what was recorded on the days of the period."""
    before = await journal.watermark(
        engine, frame.book, as_of=_begin(period.first) - timedelta(microseconds=1)
    )
    until = await journal.watermark(
        engine, frame.book, as_of=datetime.combine(period.last, time.max, UTC)
    )
    return before.sequence + 1, min(until.sequence, frame.sequence)


def _begin(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


async def _recorded_outside(
    engine: AsyncEngine, frame: Frame, period: Period, first: int, last: int
) -> list[tuple[int, Moved]]:
    """Return what is effective in the period but was recorded before or after it, by account."""
    found: list[tuple[int, Moved]] = []
    for ranges in ((1, first - 1), (max(first, last + 1), frame.sequence)):
        found += await _backdated(engine, frame, period, *ranges)
    return found


async def _backdated(
    engine: AsyncEngine, frame: Frame, period: Period, first: int, last: int
) -> list[tuple[int, Moved]]:
    found: list[tuple[int, Moved]] = []
    numbers = sorted(frame.accounts)
    for at in range(0, len(numbers), journal.ACCOUNTS_AT_ONCE):
        page = numbers[at : at + journal.ACCOUNTS_AT_ONCE]

        async def work(
            conn: AsyncConnection, page: Sequence[int] = page
        ) -> list[tuple[int, Moved]]:
            rows = await run(
                conn,
                _BACKDATED,
                frame.book,
                page[0],
                page[-1],
                period.first,
                period.last,
                first,
                last,
            )
            return [(row.number, Moved(int(row.debits), int(row.credits))) for row in rows]

        if first <= last:
            found += await transact(engine, work)
    return found


_BACKDATED: Final = """
SELECT a.number, coalesce(sum(t.amount) FILTER (WHERE t.debit = a.number), 0)::text AS debits,
       coalesce(sum(t.amount) FILTER (WHERE t.credit = a.number), 0)::text AS credits
  FROM ledger.account a
  JOIN ledger.effective_entry x ON x.book = a.book AND x.account = a.number
   AND x.effective_on BETWEEN $4 AND $5 AND x.sequence BETWEEN $6 AND $7
  JOIN LATERAL (
      SELECT * FROM ledger.transfer WHERE book = x.book AND sequence = x.sequence LIMIT 1
  ) t ON true
 WHERE a.book = $1 AND a.number BETWEEN $2 AND $3
 GROUP BY a.number
"""


async def _trial_balance_change(
    engine: AsyncEngine, frame: Frame, period: Period
) -> dict[int, Moved]:
    """Return the trial balance at the end of the period less the one before it, by account."""
    before = await _trial_balance(engine, frame, period.first - timedelta(days=1))
    after = await _trial_balance(engine, frame, period.last)
    change = {}
    for number, found in after.items():
        was = before.get(number, Moved())
        if found != was:
            change[number] = Moved(found.debits - was.debits, found.credits - was.credits)
    return change


async def _trial_balance(engine: AsyncEngine, frame: Frame, day: date) -> dict[int, Moved]:
    numbers = {(account.path, account.asset): n for n, account in frame.accounts.items()}
    point = Point(at_sequence=frame.sequence, effective_on=day)
    found: dict[int, Moved] = {}
    after: tuple[str, str] | None = None
    while True:

        async def work(
            conn: AsyncConnection, after: tuple[str, str] | None = after
        ) -> TrialBalancePage:
            return await page_trial_balance(conn, frame.book, point, after=after)

        page = await transact(engine, work)
        for row in page.items:
            found[numbers[row.path, row.asset]] = Moved(row.debits, row.credits)
        after = page.after
        if after is None:
            return found
