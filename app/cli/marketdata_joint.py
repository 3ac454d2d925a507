"""Several venues as one ladder: who shows how much at each price, and who is left out and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from app.cli.marketdata_ladder import ASK, BAR, BID, QUIET, bar, padded, price_text, units_text
from app.cli.marketdata_watch import TRADES_KEPT, Watched, trade_document
from kernel.clock import Clock, from_unix_ns
from marketdata.consolidated import ConsolidatedBook, JointLevel, VenueBook, consolidate
from marketdata.events import TradeSeen
from marketdata.model import Instrument

AGE_MAX: Final = timedelta(seconds=10)
"""A venue whose book is older is left out: one that has not moved for so long is hardly alive."""
LOUD: Final = "bold yellow"


@dataclass(slots=True, kw_only=True)
class Joint:
    """One pair at several venues, as it goes by.

    Attributes:
        absent: venues that did not answer, and what was wrong.
    """

    watched: Sequence[Watched]
    absent: dict[str, str]
    clock: Clock
    levels: int
    trades: list[tuple[Instrument, TradeSeen]] = field(default_factory=list)

    def drain(self) -> list[tuple[Instrument, TradeSeen]]:
        """Return the trades since the last time, in the order of their receipt; they are kept."""
        found = [
            (one.instrument, event)
            for one in self.watched
            for event in one.drain()
            if isinstance(event, TradeSeen)
        ]
        found.sort(key=lambda pair: pair[1].received_ns)
        self.trades = [*reversed(found), *self.trades][:TRADES_KEPT]
        return found

    def book(self) -> ConsolidatedBook:
        """Return the joint book of now."""
        first = self.watched[0].instrument
        books = [VenueBook(one.instrument, one.view()) for one in self.watched]
        return consolidate(books, first.base, first.quote, now=self.clock.now(), age_max=AGE_MAX)

    def evicted(self, book: ConsolidatedBook) -> dict[str, str]:
        """Return the venues that are left out, and why."""
        stale = {name.partition(":")[0]: str(why) for name, why in book.evicted.items()}
        return {**stale, **self.absent}


def joint_ladder(joint: Joint) -> RenderableType:
    """Return heading, joint book, trades, and the streams' states of each venue."""
    book = joint.book()
    venues = [one.instrument.venue for one in joint.watched]
    side_by_side = Table.grid(padding=(0, 4))
    side_by_side.add_row(_book_table(joint, book, venues), _trades_table(joint))
    return Group(_heading(joint, book), side_by_side, *map(_streams_line, joint.watched))


def joint_document(joint: Joint) -> dict[str, Any]:
    """Return the joint book, who is left out, the last trades and the streams as one object."""
    book = joint.book()
    return {
        **joint_best(joint, book),
        "bids": [_level(book, level) for level in book.bids[: joint.levels]],
        "asks": [_level(book, level) for level in book.asks[: joint.levels]],
        "trades": [trade_document(grid, item) for grid, item in joint.trades],
        "streams": [
            {
                "venue": item.venue,
                "channel": str(item.channel),
                "state": str(item.state),
                "messages": item.messages,
                "gaps": item.gaps,
                "reconnects": item.reconnects,
                "detail": item.detail,
            }
            for one in joint.watched
            for item in one.statuses()
        ],
    }


def joint_best(joint: Joint, book: ConsolidatedBook) -> dict[str, Any]:
    """Return the best levels with who shows them; a side that nobody shows is null."""
    bid, ask = (next(iter(side), None) for side in (book.bids, book.asks))
    return {
        "event": "book",
        "base": book.base.code,
        "quote": book.quote.code,
        "usable": bid is not None and ask is not None,
        "crossed": book.is_crossed,
        "venues": [name.partition(":")[0] for name in book.venues],
        "evicted": joint.evicted(book),
        "bid": None if bid is None else _level(book, bid),
        "ask": None if ask is None else _level(book, ask),
    }


def joint_lines(joint: Joint, line: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
    """Return what tells *line* every trade, and the best levels when they have changed."""
    last: dict[str, Any] = {}

    def draw() -> None:
        nonlocal last
        for grid, item in joint.drain():
            line(trade_document(grid, item))
        best = joint_best(joint, joint.book())
        if best != last:
            last = best
            line(best)

    return draw


def _heading(joint: Joint, book: ConsolidatedBook) -> Text:
    text = Text(f"{book.base.code}/{book.quote.code}", style="bold")
    if book.bids and book.asks:
        bid, ask = book.bids[0], book.asks[0]
        spread = padded(abs(ask.steps - bid.steps), book.price_scale, book.price_scale)
        text.append(f"   bid {_price(book, bid)} {_names(bid)}", style=BID)
        text.append(f"   ask {_price(book, ask)} {_names(ask)}", style=ASK)
        crossed = f"   crossed by {spread}" if book.is_crossed else f"   spread {spread}"
        text.append(crossed, style=LOUD if book.is_crossed else "")
    else:
        text.append("   no usable book", style=LOUD)
    for venue, why in joint.evicted(book).items():
        text.append(f"\n{venue} evicted: {why}", style=LOUD)
    return text


def _book_table(joint: Joint, book: ConsolidatedBook, venues: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("", width=BAR, justify="right")
    for venue in venues:
        table.add_column(venue, justify="right")
    table.add_column(book.base.code, justify="right")
    table.add_column(book.quote.code, justify="right")
    asks, bids = book.asks[: joint.levels], book.bids[: joint.levels]
    largest = max((level.units for level in (*asks, *bids)), default=1)
    for side, style in ((reversed(asks), ASK), (bids, BID)):
        for level in side:
            shares = {share.venue: share.units for share in level.shares}
            table.add_row(
                Text(bar(level.units, largest), style=style),
                *(Text(_size(book, shares.get(venue, 0)), style=QUIET) for venue in venues),
                Text(_size(book, level.units)),
                Text(_price(book, level), style=style),
            )
        table.add_section()
    return table


def _trades_table(joint: Joint) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    grid = joint.watched[0].instrument
    table.add_column("time", style=QUIET)
    table.add_column("venue")
    table.add_column(grid.quote.code, justify="right")
    table.add_column(grid.base.code, justify="right")
    for item, trade in joint.trades[: 2 * joint.levels + 1]:
        at = from_unix_ns(trade.exchange_ns or trade.received_ns)
        table.add_row(
            f"{at:%H:%M:%S.%f}"[:-3],
            item.venue,
            Text(price_text(item, trade.ticks), style=ASK if trade.buyer_is_maker else BID),
            units_text(item, trade.units),
        )
    return table


def _streams_line(one: Watched) -> Text:
    text = Text(f"{one.instrument.venue} {one.instrument.symbol}   ")
    for item in one.statuses():
        style = BID if item.state == "live" else LOUD
        text.append(f"{item.channel} ").append(str(item.state), style=style)
        text.append(f" {item.messages:,} messages, {item.gaps} gaps   ", style=QUIET)
    return text


def _level(book: ConsolidatedBook, level: JointLevel) -> dict[str, Any]:
    return {
        "price": _price(book, level).replace(",", ""),
        "size": _size(book, level.units).replace(",", ""),
        "venues": {
            share.venue: _size(book, share.units).replace(",", "") for share in level.shares
        },
    }


def _names(level: JointLevel) -> str:
    return "+".join(share.venue for share in level.shares)


def _price(book: ConsolidatedBook, level: JointLevel) -> str:
    return padded(level.steps, book.price_scale, book.price_scale)


def _size(book: ConsolidatedBook, units: int) -> str:
    return padded(units, book.base_scale, 0) if units else ""
