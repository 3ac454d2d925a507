"""Valuations: a book's result of an interval in its functional currency, recorded and computed again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.clock import iso
from kernel.errors import BadInput
from kernel.ids import canonical, derive_id
from kernel.money import Asset, Price
from ledger.model import JournalTransfer, Side
from ledger.queries import head, list_accounts, sequence_at
from marketdata.errors import NoPrice
from reporting.errors import NoRate, ValuationUntied
from reporting.valuation import store
from reporting.valuation.lots import build_layer
from reporting.valuation.measuring import find_untied, list_holdings, measure_lines
from reporting.valuation.model import (
    Interval,
    Layer,
    Line,
    LineKind,
    Method,
    Movement,
    Prices,
    Valuation,
    ValuationRecord,
)
from reporting.valuation.movements import (
    CONVERSION,
    OWN_PREFIXES,
    movements_of,
    position_of,
    rates_needed,
)
from trading.pnl.journal import Journal, read_account, read_journal
from trading.pnl.marks import find_marks, recorded_marks
from trading.pnl.model import Marks

RATES_MAX: Final = 20_000
"""Closes of single days that one valuation looks up, at most."""

NAMED_MAX: Final = 10
_TICK: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)

get_valuation = store.get_valuation
list_valuations = store.list_valuations
list_valuation_lines = store.list_lines


@dataclass(frozen=True, slots=True)
class Verified:
    """What a valuation came to when it was computed again; *differences*: none if it is the same."""

    record: ValuationRecord
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Read:
    """The movements that stand at both ends of an interval."""

    before: tuple[Movement, ...]
    after: tuple[Movement, ...]


async def value_book(
    conn: AsyncConnection,
    book: int,
    *,
    since: datetime,
    until: datetime,
    currency: Asset,
    method: Method,
    now: datetime,
    start: Marks | None = None,
    end: Marks | None = None,
) -> Valuation:
    """Return the result of a book from *since* until just before *until*, at most until now.

    Prices that are derived on the way (a cross) are recorded; the valuation itself is not
    (`record_valuation`).

    Args:
        start, end: the marks of the two ends, of a month that is locked; None: found as every price
            for valuation is.

    Raises:
        BookNotOpen: there is no such book.
        BadInput: the interval ends before it begins, or a mark that was given is missing.
        NoPrice: an asset that is held has no price at one of the ends.
        NoRate: something came or went on a day without a price.
        ValuationUntied: the lots are not the ledger's own position.
    """
    interval = await _interval(conn, book, since, min(until, now))
    read = await _read(conn, interval)
    days = await _rates(conn, (*read.before, *read.after), currency, interval, now)
    prices = Prices(
        start=await _end_marks(conn, read.before, currency, start, at=interval.since, now=now),
        end=await _end_marks(conn, read.after, currency, end, at=interval.until, now=now),
        days=days,
    )
    return _valuation(interval, read, currency, method, prices)


async def record_valuation(
    conn: AsyncConnection, valuation: Valuation, *, by: str, now: datetime
) -> bool:
    """Keep a valuation; False: it is on record."""
    return await store.insert_valuation(conn, valuation, by=by, now=now)


async def verify_valuation(conn: AsyncConnection, run_id: UUID) -> Verified:
    """Compute a recorded valuation again from the journal and its prices, and compare.

    Raises:
        NoValuation: there is none.
        ValuationUntied: the lots are not the ledger's own position.
    """
    record = await store.get_valuation(conn, run_id)
    kept = await store.list_prices(conn, run_id)
    interval = record.interval
    read = await _read(conn, interval)

    async def marks(use: str, day: date, at: datetime) -> Marks:
        return await recorded_marks(conn, kept.get((use, day), {}), record.currency, at=at)

    prices = Prices(
        start=await marks(store.START, interval.since.date(), interval.since),
        end=await marks(store.END, interval.until.date(), interval.until),
        days={
            day: await marks(store.DAY, day, _close(day, interval))
            for use, day in kept
            if use == store.DAY
        },
    )
    again = _valuation(interval, read, record.currency, record.method, prices)
    lines = await store.list_lines(conn, run_id)
    return Verified(record, tuple(_differences(record, lines, again)))


async def _interval(conn: AsyncConnection, book: int, since: datetime, until: datetime) -> Interval:
    if since >= until:
        raise BadInput(
            f"nothing lies between {iso(since)} and {iso(until)}",
            remedy="Ask for a day that has begun",
        )
    await head(conn, book)
    return Interval(
        book=book,
        since=since,
        until=until,
        after=await sequence_at(conn, book, since - _TICK),
        through=await sequence_at(conn, book, until - _TICK),
    )


async def _read(conn: AsyncConnection, interval: Interval) -> _Read:
    """Read what moved the house's own position, tied to the ledger's balances at both ends."""
    book, through = interval.book, interval.through
    paths = await _own_paths(conn, book)
    journals: dict[str, Journal] = {}
    transfers: list[JournalTransfer] = []
    for path in paths:
        if path.startswith(CONVERSION):
            desk = path.removeprefix(CONVERSION)
            journals[path] = await read_journal(conn, book, desk, through=through)
            transfers += journals[path].transfers
        else:
            transfers += await read_account(conn, book, path, after=0, through=through)
    ends = []
    for sequence in (interval.after, through):
        flows = {path: journal.flows(sequence) for path, journal in journals.items()}
        movements = movements_of(flows, transfers, through=sequence)
        await _require_tied(conn, book, sequence, movements)
        ends.append(movements)
    return _Read(*ends)


async def _own_paths(conn: AsyncConnection, book: int) -> list[str]:
    found = {
        account.path
        for prefix in OWN_PREFIXES
        for account in await list_accounts(conn, book, prefix)
    }
    return sorted(found)


async def _require_tied(
    conn: AsyncConnection, book: int, sequence: int, movements: Sequence[Movement]
) -> None:
    there: dict[str, int] = {}
    for prefix in OWN_PREFIXES if sequence else ():
        for account in await list_accounts(conn, book, prefix, at_sequence=sequence):
            units = account.balance.posted
            own = units if account.spec.side is Side.CREDIT else -units
            there[account.asset] = there.get(account.asset, 0) + own
    held = {asset: units for asset, units in there.items() if units}
    if position_of(movements) != held:
        raise ValuationUntied(
            f"what moved the house's own position comes to {position_of(movements)}, "
            f"the ledger has {held}",
            where=f"book {book}, sequence {sequence}",
            remedy="Run `causeway ledger verify`: the journal and its balances differ",
        )


async def _end_marks(
    conn: AsyncConnection,
    movements: Iterable[Movement],
    currency: Asset,
    given: Marks | None,
    *,
    at: datetime,
    now: datetime,
) -> Marks:
    """Return the marks of what is held at one end: those that were given, or those that are found."""
    held = set(position_of(movements)) - {currency.code}
    if given is None:
        return await find_marks(conn, held, currency, at=at, now=now)
    missing = sorted(held - set(given.prices))
    if missing:
        raise NoRate(
            f"the locked prices have none of {', '.join(missing)} in {currency.code}",
            remedy="Value in another currency, or without the locked prices",
        )
    return replace(
        given,
        prices={code: given.prices[code] for code in held},
        price_ids={code: given.price_ids[code] for code in held},
    )


async def _rates(
    conn: AsyncConnection,
    movements: Iterable[Movement],
    currency: Asset,
    interval: Interval,
    now: datetime,
) -> dict[date, Marks]:
    needed = rates_needed(movements, currency.code)
    if sum(map(len, needed.values())) > RATES_MAX:
        raise NoRate(
            f"the valuation needs more than {RATES_MAX} prices of single days",
            remedy="Value a shorter history: move the book's opening to a later day",
        )
    found: dict[date, Marks] = {}
    missing: list[str] = []
    for day, assets in sorted(needed.items()):
        at = _close(day, interval)
        try:
            found[day] = await find_marks(conn, assets, currency, at=at, now=now)
        except NoPrice:
            missing += await _missing(conn, assets, currency, at=at, now=now)
    if missing:
        more = f" and {len(missing) - NAMED_MAX} more" if len(missing) > NAMED_MAX else ""
        raise NoRate(
            f"no price in {currency.code} of {'; '.join(missing[:NAMED_MAX])}{more}",
            remedy="Let two people approve a price for that moment: `causeway prices override`",
        )
    return found


async def _missing(
    conn: AsyncConnection,
    assets: Collection[str],
    currency: Asset,
    *,
    at: datetime,
    now: datetime,
) -> list[str]:
    found = []
    for code in sorted(assets):
        try:
            await find_marks(conn, [code], currency, at=at, now=now)
        except NoPrice:
            found.append(f"{code} at {iso(at)}")
    return found


def _close(day: date, interval: Interval) -> datetime:
    """Return the end of a day; of the last one, which may not be over, the end of the interval."""
    return min(datetime.combine(day, time(), tzinfo=UTC) + _DAY, interval.until)


def _valuation(
    interval: Interval, read: _Read, currency: Asset, method: Method, prices: Prices
) -> Valuation:
    def rate(asset: str, day: date) -> Price:
        return prices.days[day].prices[asset]

    before, after = [
        build_layer(movements, currency.code, method, rate)
        for movements in (read.before, read.after)
    ]
    lines = measure_lines(before, after, prices.start, prices.end)
    _require_measured(lines, before, after, prices)
    inputs = _digest(
        [
            (interval.book, interval.after, interval.through, currency.code, str(method)),
            *(_movement_parts(item) for end in (read.before, read.after) for item in end),
            *(
                (use, day.isoformat(), asset, price_id)
                for use, day, asset, price_id in store.price_keys(interval, prices)
            ),
        ]
    )
    return Valuation(
        id=derive_id(
            interval.until,
            *("valuation", interval.book, str(method), iso(interval.since), inputs),
        ),
        interval=interval,
        currency=currency,
        method=method,
        prices=prices,
        inputs_hash=inputs,
        lines_hash=_digest(
            [(str(line.kind), line.account, line.asset, line.units, line.value) for line in lines]
        ),
        lines=lines,
        holdings=list_holdings(after, prices.end),
    )


def _require_measured(lines: tuple[Line, ...], before: Layer, after: Layer, prices: Prices) -> None:
    off = find_untied(lines, before, after, prices.start, prices.end)
    if off:
        raise ValuationUntied(f"the lines are {off} units away from what the position is worth")


def _digest(rows: Iterable[tuple[object, ...]]) -> str:
    return sha256(canonical(canonical(row) for row in rows)).hexdigest()


def _movement_parts(item: Movement) -> tuple[object, ...]:
    exchanges = [
        part for x in item.exchanges for part in (x.base, x.base_units, x.quote, x.quote_units)
    ]
    singles = [part for x in item.singles for part in (str(x.kind), x.account, x.asset, x.units)]
    return (
        *(item.id, item.sequence, item.day.isoformat(), len(item.exchanges)),
        *(*exchanges, *singles),
    )


def _differences(
    record: ValuationRecord, lines: tuple[Line, ...], again: Valuation
) -> Iterable[str]:
    if record.inputs_hash != again.inputs_hash:
        yield f"inputs: {record.inputs_hash} on record, {again.inputs_hash} now"
    if record.lines_hash != again.lines_hash:
        yield f"lines: {record.lines_hash} on record, {again.lines_hash} now"
    was = (record.realised, record.unrealised, record.net)
    now = (again.total(LineKind.REALISED), again.total(LineKind.UNREALISED), again.net)
    if was != now:
        yield f"totals: {was} on record, {now} now"
    if lines != again.lines:
        yield f"{len(set(lines) ^ set(again.lines))} lines on record are not those computed now"
