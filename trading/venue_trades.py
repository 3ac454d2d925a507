"""Trades of a symbol, ours against the venue's, in bounded turns that the next run takes up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from trading.venue_reconciliation_model import ReconcilePolicy
from trading.venue_reconciliation_store import Window
from trading.venue_tally import Tally
from venues.account_reading import FILLS_PAGE, fills_between
from venues.comparison import Difference, DifferenceKind, compare_fills, unreadable
from venues.model import VenueFill
from venues.ports import VenueGateway


@dataclass(slots=True)
class TradesLook:
    """What comparing the trades of a symbol showed.

    Attributes:
        window: from where the next run goes on.
        is_complete: whether everything up to now was compared.
    """

    window: Window
    is_complete: bool = False
    differences: list[Difference] = field(default_factory=list)


@dataclass(slots=True)
class _Reader:
    """Where the reading of the venue's list stands."""

    cursor: str
    page_began: str
    floor: datetime | None
    last_at: datetime | None
    held: list[VenueFill] = field(default_factory=list)
    is_last: bool = False
    unread: list[Difference] = field(default_factory=list)


async def look_at_trades(
    engine: AsyncEngine,
    gateway: VenueGateway,
    symbol: str,
    start: Window,
    *,
    young: datetime,
    policy: ReconcilePolicy,
    tally: Tally,
) -> TradesLook:
    """Compare the trades of *symbol* from where the run before the last one ended.

    Trades later than *young*, by the venue's clock, need not be on both sides yet. The next run
    begins where this one began to find differences, so that what breaks is looked at again.

    Raises:
        VenueUnavailable: the venue does not answer.
    """
    low = floor = start.earlier_at
    reader = _Reader(start.earlier_cursor, start.earlier_cursor, floor, start.at)
    look = TradesLook(start)
    held_at: tuple[str, datetime | None] | None = None
    for _ in range(policy.fill_turns):
        began = (reader.page_began, low)
        await _read_on(gateway, symbol, reader, policy.fill_pages)
        high = _bound(reader)
        if high is not None and high == low:
            continue  # one instant with more trades than a turn holds: read on
        ours = await _ours(engine, gateway, symbol, low, high)
        if len(ours) == FILLS_PAGE:  # there are more: only what lies before the last is certain
            high = ours[-1].executed_at if high is None else min(high, ours[-1].executed_at)
        theirs = [item for item in reader.held if high is None or item.executed_at < high]
        reader.held = reader.held[len(theirs) :]
        ours = [item for item in ours if high is None or item.executed_at < high]
        found = _without_young(compare_fills(ours, theirs), ours, theirs, young, floor)
        tally.add_fills(ours, theirs)
        if (found or reader.unread) and held_at is None:
            held_at = began
        look.differences += [*found, *reader.unread]
        reader.unread = []
        floor = None
        if high is None:
            look.is_complete = True
            break
        low = high
    look.window = _next_window(start, reader, held_at, look, low)
    return look


async def _read_on(gateway: VenueGateway, symbol: str, reader: _Reader, pages: int) -> None:
    for _ in range(pages):
        if reader.is_last:
            break
        reader.page_began = reader.cursor
        page = await gateway.fills(symbol, reader.cursor)
        known = {item.trade_id for item in reader.held}
        reader.held += [
            item
            for item in page.fills
            if item.trade_id not in known
            and (reader.floor is None or item.executed_at >= reader.floor)
        ]
        reader.unread += [unreadable(symbol, row.trade_id, row.reason) for row in page.unread]
        reader.is_last = page.is_last or page.cursor == reader.cursor
        reader.cursor = page.cursor
    reader.held.sort(key=lambda item: (item.executed_at, item.trade_id))
    if reader.held:
        reader.last_at = reader.held[-1].executed_at


def _bound(reader: _Reader) -> datetime | None:
    """Return before when the venue's list is known in full; None: up to now."""
    if reader.is_last or not reader.held:
        return None
    return reader.held[-1].executed_at


async def _ours(
    engine: AsyncEngine,
    gateway: VenueGateway,
    symbol: str,
    low: datetime | None,
    high: datetime | None,
) -> list[VenueFill]:
    async with engine.connect() as conn:
        return await fills_between(conn, gateway.venue, gateway.account, symbol, low, high)


def _without_young(
    found: Sequence[Difference],
    ours: Sequence[VenueFill],
    theirs: Sequence[VenueFill],
    young: datetime,
    floor: datetime | None,
) -> list[Difference]:
    """Leave out what may be on its way, and what was on record before the window began."""
    at = {f"trade:{item.symbol}:{item.trade_id}": item.executed_at for item in (*theirs, *ours)}
    return [
        item
        for item in found
        if at[item.subject] <= young
        and not (item.kind is DifferenceKind.FILL_SURPLUS and at[item.subject] == floor)
    ]


def _next_window(
    start: Window,
    reader: _Reader,
    held_at: tuple[str, datetime | None] | None,
    look: TradesLook,
    low: datetime | None,
) -> Window:
    if held_at is not None:
        cursor, at = held_at
        return Window(cursor, at, cursor, at)
    if not look.is_complete:
        # The page that was read last is read again: some of it lay beyond the bound.
        return Window(reader.page_began, low, reader.page_began, low)
    return Window(reader.cursor, reader.last_at, start.cursor, start.at)
