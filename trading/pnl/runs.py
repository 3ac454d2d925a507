"""Runs: a desk's result of an interval, recorded with what it was made of, and computed again."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256
from math import floor
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.clock import iso
from kernel.errors import BadInput
from kernel.ids import canonical, derive_id
from kernel.money import Asset
from ledger.queries import head, sequence_at
from trading.pnl import store
from trading.pnl.allocation import allocate
from trading.pnl.errors import PnlUntied
from trading.pnl.flows import CHARGES, moved
from trading.pnl.journal import Journal, balances, read_account, read_journal
from trading.pnl.marks import find_marks, recorded_marks
from trading.pnl.model import (
    Allocation,
    Flow,
    Interval,
    Marks,
    Result,
    Run,
    RunRecord,
    ValuedLine,
)
from trading.pnl.result import held, measure, movement, worth
from trading.postings import conversion

DAY: Final = timedelta(days=1)
THE_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TICK: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Verified:
    """What a run came to when it was computed again; *differences*: none if it is the same."""

    record: RunRecord
    differences: tuple[str, ...]


def day_of(day: date) -> tuple[datetime, datetime]:
    """Return the first moment of a day in UTC and that of the next."""
    since = datetime.combine(day, time(), tzinfo=UTC)
    return since, since + DAY


async def pnl(
    conn: AsyncConnection,
    book: int,
    desk: str,
    *,
    since: datetime = THE_BEGINNING,
    until: datetime,
    currency: Asset,
    now: datetime,
) -> Run:
    """Return the result of a desk from *since* until just before *until*; what is not over, until now.

    Prices that are derived on the way (a cross) are recorded; the run itself is not
    (`record_run`).

    Raises:
        BookNotOpen: there is no such book.
        BadInput: the interval ends before it begins.
        NoPrice: an asset has no mark at one of the ends.
        PnlUntied: the flows are not the balance of the account.
        TooManyFlows: the journal is too long for one run.
    """
    interval = await _interval(conn, book, desk, since, min(until, now))
    journal = await read_journal(conn, book, desk, through=interval.through)
    before, after = await tied_allocations(conn, journal, interval)
    moves = movement(before, after, currency.code)
    start, end = [
        await find_marks(conn, moves.assets(at_end=at_end), currency, at=at, now=now)
        for at_end, at in ((False, interval.since), (True, interval.until))
    ]
    return _run(interval, (before, after), measure(moves, start, end), start, end)


async def record_run(conn: AsyncConnection, run: Run, *, by: str, now: datetime) -> bool:
    """Keep a run; False: it is on record."""
    return await store.insert_run(conn, run, by=by, now=now)


async def get_run(conn: AsyncConnection, run_id: UUID) -> RunRecord:
    """Return a run as it was recorded.

    Raises:
        NoPnlRun: there is none.
    """
    return await store.get_run(conn, run_id)


async def list_runs(
    conn: AsyncConnection, book: int, desk: str, *, limit: int = store.RUNS_LISTED_MAX
) -> list[RunRecord]:
    """Return the runs of a desk, those of the latest intervals first."""
    return await store.list_runs(conn, book, desk, limit)


async def list_run_lines(conn: AsyncConnection, run_id: UUID) -> tuple[ValuedLine, ...]:
    """Return the lines of a recorded run in their order."""
    return await store.list_lines(conn, run_id)


async def name_deals(conn: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, tuple[str, str]]:
    """Return client reference and party of the deals of a result, by id."""
    return await store.list_references(conn, ids)


async def verify_run(conn: AsyncConnection, run_id: UUID) -> Verified:
    """Compute a recorded run again from the journal and its marks, and compare.

    Raises:
        NoPnlRun: there is none.
        PnlUntied: the journal's flows are not the balance of the account.
    """
    record = await store.get_run(conn, run_id)
    interval, price_ids = record.interval, await store.list_marks(conn, run_id)
    journal = await read_journal(conn, interval.book, interval.desk, through=interval.through)
    before, after = await tied_allocations(conn, journal, interval)
    start, end = [
        await recorded_marks(conn, price_ids[at_end], record.currency, at=at)
        for at_end, at in ((False, interval.since), (True, interval.until))
    ]
    moves = movement(before, after, record.currency.code)
    again = _run(interval, (before, after), measure(moves, start, end), start, end)
    lines = await store.list_lines(conn, run_id)
    return Verified(record, tuple(_differences(record, lines, again)))


async def day_pnl_units(
    conn: AsyncConnection, book: int, desk: str, *, currency: Asset, now: datetime
) -> int:
    """Return the net result of the UTC day so far, in smallest units of *currency*.

    By the identity it takes no allocation: the account valued now, less the account valued at the
    day's start, and the fees of the day. Rounded down: a loss is never understated.

    Raises:
        NoPrice: an asset that the desk holds has no mark.
    """
    since, _ = day_of(now.astimezone(UTC).date())
    interval = await _interval(conn, book, desk, since, now)
    at_start = await balances(conn, book, desk, at=interval.after)
    at_end = await balances(conn, book, desk, at=interval.through)
    charges = await _charges(conn, interval)
    start = await find_marks(conn, at_start, currency, at=since, now=now)
    end = await find_marks(conn, {*at_end, *charges}, currency, at=now, now=now)
    return floor(worth(at_end, end) + worth(charges, end) - worth(at_start, start))


async def tied_allocations(
    conn: AsyncConnection, journal: Journal, interval: Interval
) -> tuple[Allocation, Allocation]:
    """Allocate the flows of both ends, each compared with the ledger's own balances.

    Raises:
        PnlUntied: the flows of an end are not the balance of the account there.
    """
    found = []
    for sequence in (interval.after, interval.through):
        flows = journal.flows(sequence)
        there = await balances(conn, interval.book, interval.desk, at=sequence)
        if held(flows) != there:
            raise PnlUntied(
                f"the flows of {journal.path} come to {held(flows)}, its balance is {there}",
                where=f"book {interval.book}, sequence {sequence}",
                remedy="Run `causeway ledger verify`: the journal and its balances differ",
            )
        found.append(allocate(flows))
    return found[0], found[1]


async def _charges(conn: AsyncConnection, interval: Interval) -> dict[str, int]:
    """Return by asset what deal fees brought in the interval less what venues took."""
    span = {"after": interval.after, "through": interval.through}
    mine = await read_account(conn, interval.book, conversion(interval.desk), **span)
    known = {item.correlation for item in mine}
    found: dict[str, int] = {}
    for path in CHARGES:
        fees = await read_account(conn, interval.book, path, **span)
        ours = [item for item in fees if item.correlation in known]
        for asset, units in moved(ours, path).items():
            found[asset] = found.get(asset, 0) + units
    return found


async def _interval(
    conn: AsyncConnection, book: int, desk: str, since: datetime, until: datetime
) -> Interval:
    if since >= until:
        raise BadInput(
            f"nothing lies between {iso(since)} and {iso(until)}",
            remedy="Ask for a day that has begun",
        )
    await head(conn, book)
    return Interval(
        book=book,
        desk=desk,
        since=since,
        until=until,
        after=await sequence_at(conn, book, since - _TICK),
        through=await sequence_at(conn, book, until - _TICK),
    )


def _run(
    interval: Interval,
    ends: tuple[Allocation, Allocation],
    result: Result,
    start: Marks,
    end: Marks,
) -> Run:
    inputs = _digest(
        (interval.book, interval.desk, interval.after, interval.through, end.currency.code),
        *(_flow_parts(flow) for item in ends for flow in item.flows),
        *(
            (asset, price_id, at)
            for at, marks in enumerate((start, end))
            for asset, price_id in sorted(marks.price_ids.items())
        ),
    )
    return Run(
        id=derive_id(
            interval.until, "pnl", interval.book, interval.desk, iso(interval.since), inputs
        ),
        interval=interval,
        start=start,
        end=end,
        inputs_hash=inputs,
        lines_hash=_digest(*(_line_parts(line) for line in result.lines)),
        result=result,
    )


def _differences(record: RunRecord, lines: tuple[ValuedLine, ...], again: Run) -> Iterable[str]:
    result = again.result
    if record.inputs_hash != again.inputs_hash:
        yield f"inputs: {record.inputs_hash} on record, {again.inputs_hash} now"
    if record.lines_hash != again.lines_hash:
        yield f"lines: {record.lines_hash} on record, {again.lines_hash} now"
    if (record.trading, record.net) != (result.trading, result.net):
        yield (
            f"totals: {record.trading} and {record.net} on record, "
            f"{result.trading} and {result.net} now"
        )
    if lines != result.lines:
        yield f"{len(set(lines) ^ set(result.lines))} lines on record are not those computed now"


def _digest(*items: tuple[object, ...]) -> str:
    found = sha256()
    for item in items:
        part = canonical(item)
        found.update(len(part).to_bytes(4, "big") + part)
    return found.hexdigest()


def _flow_parts(flow: Flow) -> tuple[object, ...]:
    charges = [part for charge in flow.charges for part in charge]
    return (
        *(flow.id, str(flow.kind), flow.sequence, flow.base, flow.base_units),
        *(flow.quote, flow.quote_units, flow.mid_units, *charges),
    )


def _line_parts(line: ValuedLine) -> tuple[object, ...]:
    cause = line.cause
    return (
        *(str(cause.component), cause.deal, cause.flow, cause.base),
        *(line.asset, line.units, int(line.at_end), line.value),
    )
