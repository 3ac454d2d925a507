"""What is asked of a venue's past, and what a page of it changes; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from kernel.clock import from_unix_ns, iso, to_unix_ns
from kernel.errors import BadInput
from kernel.ids import derive_id
from marketdata.events import CandleSeen, Channel, TradeSeen

ROWS_MAX: Final = 5_000
"""Rows of one page; a venue that gives more is not understood."""
GAP_MARGIN: Final = timedelta(seconds=5)
"""Before and after a gap: it was measured by our clock, and the venue is asked by its own."""
FILLABLE: Final = frozenset({Channel.TRADES, Channel.CANDLES})
"""Of these venues tell the past by REST; a book that nobody saw is gone."""
_SECOND_NS: Final = 1_000_000_000

Past = TradeSeen | CandleSeen


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A stretch of the venue's time, half open, of which trades or candles are asked for.

    Attributes:
        interval_s: how long a candle lasts; 0 for trades.
        gap_id: the gap that is filled by it, if it is for one.
    """

    venue: str
    symbol: str
    channel: Channel
    since: datetime
    until: datetime
    interval_s: int = 0
    gap_id: UUID | None = None

    def __post_init__(self) -> None:
        if self.channel not in FILLABLE:
            raise BadInput(
                f"no venue tells the past of {self.channel}", remedy="Ask for trades or candles"
            )
        if (self.channel is Channel.CANDLES) != (self.interval_s > 0):
            raise BadInput("candles have an interval, trades have none")
        if self.since >= self.until:
            raise BadInput(f"nothing lies between {self.since} and {self.until}")

    @property
    def id(self) -> UUID:
        """Return the id of the backfill: the same question is the same backfill."""
        return derive_id(
            self.since,
            "backfill",
            self.venue,
            self.symbol,
            str(self.channel),
            self.interval_s,
            to_unix_ns(self.until),
            self.gap_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """How far a backfill has come.

    Attributes:
        cursor: what asks the venue for the next page; empty before the first and after the last.
        reached: the venue's time of the last row, `Wanted.since` before the first.
        seen, new, differing: rows that came, that nobody had, that are on record with other
            figures.
        untold_until: the venue does not tell what was before it any more; None: it tells all.
        done_at: None: pages are still to come.
    """

    id: UUID
    wanted: Wanted
    cursor: str
    reached: datetime
    pages: int
    seen: int
    new: int
    differing: int
    untold_until: datetime | None
    asked_at: datetime
    updated_at: datetime
    done_at: datetime | None

    @property
    def done_s(self) -> int:
        """Return how many seconds of the venue's time are behind it."""
        end = self.wanted.until if self.done_at is not None else self.reached
        return max(0, (end - self.wanted.since) // timedelta(seconds=1))

    @property
    def total_s(self) -> int:
        """Return how many seconds of the venue's time are asked for."""
        return max(1, (self.wanted.until - self.wanted.since) // timedelta(seconds=1))


def begun(wanted: Wanted, *, now: datetime) -> Backfill:
    """Return a backfill that has asked for nothing yet."""
    return Backfill(
        id=wanted.id,
        wanted=wanted,
        cursor="",
        reached=wanted.since,
        pages=0,
        seen=0,
        new=0,
        differing=0,
        untold_until=None,
        asked_at=now,
        updated_at=now,
        done_at=None,
    )


def gap_wanted(
    *,
    venue: str,
    symbol: str,
    channel: Channel,
    since: datetime,
    until: datetime,
    gap_id: UUID,
    interval_s: int = 0,
) -> Wanted:
    """Return what fills a gap: a little more on both sides, whole candles."""
    return Wanted(
        venue=venue,
        symbol=symbol,
        channel=channel,
        since=_floor(since - GAP_MARGIN, interval_s),
        until=_ceil(until + GAP_MARGIN, interval_s),
        interval_s=interval_s,
        gap_id=gap_id,
    )


def within(wanted: Wanted, rows: tuple[Past, ...]) -> tuple[Past, ...]:
    """Return those rows of a page that were asked for, each id once.

    Raises:
        BadInput: a row is of another venue, symbol or kind, or there are more than a page has.
    """
    if len(rows) > ROWS_MAX:
        raise BadInput(f"{wanted.venue} gave a page of {len(rows)} rows")
    since_ns, until_ns = to_unix_ns(wanted.since), to_unix_ns(wanted.until)
    kind = TradeSeen if wanted.channel is Channel.TRADES else CandleSeen
    found: dict[str | int, Past] = {}
    for row in rows:
        if type(row) is not kind or (row.venue, row.symbol) != (wanted.venue, wanted.symbol):
            raise BadInput(
                f"{wanted.venue} was asked for {wanted.channel} of {wanted.symbol} and gave {row!r}"
            )
        if since_ns <= time_ns_of(row) < until_ns and _is_final(row):
            found.setdefault(row_key(row), row)
    return tuple(found.values())


def turned(
    item: Backfill,
    *,
    cursor: str,
    rows: tuple[Past, ...],
    new: int,
    differing: int,
    now: datetime,
    untold_until_ns: int = 0,
) -> Backfill:
    """Return how far *item* has come with one more page.

    Raises:
        BadInput: the venue answers with the cursor that it was asked with: it would go on for ever.
    """
    if cursor and cursor == item.cursor:
        raise BadInput(f"{item.wanted.venue} gives the same page of its past again")
    reached = max((time_ns_of(row) for row in rows), default=0)
    return replace(
        item,
        cursor=cursor,
        reached=max(item.reached, from_unix_ns(reached)),
        pages=item.pages + 1,
        seen=item.seen + len(rows),
        new=item.new + new,
        differing=item.differing + differing,
        untold_until=_later(item.untold_until, untold_until_ns),
        updated_at=now,
        done_at=None if cursor else now,
    )


def is_too_young(wanted: Wanted, gap_until: datetime, *, asked_at: datetime) -> bool:
    """Return whether a gap had ended so lately that an answer may have lacked its end."""
    return _ceil(gap_until + GAP_MARGIN, wanted.interval_s) > asked_at


def missing_of(item: Backfill, since: datetime) -> str:
    """Return what a backfill leaves missing of a gap that began at *since*; empty: nothing."""
    if item.untold_until is None or item.untold_until <= since:
        return ""
    return f"before {iso(item.untold_until)}: {item.wanted.venue} does not tell it any more"


def row_key(row: Past) -> str | int:
    """Return what a trade or candle is known by within its symbol."""
    return row.trade_id if isinstance(row, TradeSeen) else row.open_ns


def figures(row: Past) -> tuple[int, ...]:
    """Return what a row says, beside when we received it."""
    if isinstance(row, TradeSeen):
        return (row.ticks, row.units, int(row.buyer_is_maker))
    return (row.open_ticks, row.high_ticks, row.low_ticks, row.close_ticks, row.base_units)


def time_ns_of(row: Past) -> int:
    """Return the venue's time of a row: of a candle, when it opened."""
    return row.exchange_ns if isinstance(row, TradeSeen) else row.open_ns


def _is_final(row: Past) -> bool:
    return isinstance(row, TradeSeen) or row.is_closed


def _later(known: datetime | None, at_ns: int) -> datetime | None:
    if not at_ns:
        return known
    at = from_unix_ns(at_ns)
    return at if known is None else max(known, at)


def _floor(at: datetime, interval_s: int) -> datetime:
    if not interval_s:
        return at
    at_ns = to_unix_ns(at)
    return from_unix_ns(at_ns - at_ns % (interval_s * _SECOND_NS))


def _ceil(at: datetime, interval_s: int) -> datetime:
    down = _floor(at, interval_s)
    return down if down == at else down + timedelta(seconds=interval_s)
