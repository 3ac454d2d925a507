"""A book as a ladder in the terminal: bids green below, asks red above, the last trades beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from app.cli.marketdata_series import PPM
from kernel.clock import from_unix_ns
from marketdata.events import TradeSeen
from marketdata.model import BookView, Instrument, Level, StreamStatus

BAR: Final = 16
"""Width of the bar of the largest level that is shown."""
BID: Final = "green"
ASK: Final = "red"
QUIET: Final = "dim"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is shown at one moment.

    Attributes:
        view: None: there is no usable book.
        why: what is known of the stream while there is none.
        trades: newest first.
    """

    instrument: Instrument
    view: BookView | None
    trades: Sequence[TradeSeen]
    statuses: Sequence[StreamStatus]
    now: datetime
    levels: int
    why: str = ""


def ladder(picture: Picture) -> RenderableType:
    """Return the whole picture: heading, book and trades side by side, the streams' states."""
    side_by_side = Table.grid(padding=(0, 4))
    side_by_side.add_row(book_table(picture), trades_table(picture))
    return Group(heading(picture), side_by_side, streams_line(picture))


def heading(picture: Picture) -> Text:
    """Return venue, symbol, mid, spread and how old the book is."""
    grid, view = picture.instrument, picture.view
    text = Text(f"{grid.venue} {grid.symbol}", style="bold")
    top = None if view is None else view.top
    if view is None or top is None:
        return text.append(f"   no usable book {picture.why}".rstrip(), style="bold yellow")
    spread = top.ask.ticks - top.bid.ticks
    ppm = spread * 2 * PPM // (top.ask.ticks + top.bid.ticks)
    age_ms = (picture.now - view.received_at).total_seconds() * 1000
    text.append(f"   mid {mid_text(grid, top.bid, top.ask)}")
    text.append(f"   spread {price_text(grid, spread)} ({ppm / 100:.2f} bp)")
    return text.append(f"   update {view.sequence:,}, {age_ms:,.0f} ms ago", style=QUIET)


def book_table(picture: Picture) -> Table:
    """Return the levels: asks from the worst shown down to the best, then bids."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    grid, view = picture.instrument, picture.view
    table.add_column("", width=BAR, justify="right")
    table.add_column(grid.base.code, justify="right")
    table.add_column(grid.quote.code, justify="right")
    table.add_column("sum", justify="right", style=QUIET)
    if view is None:
        return table
    asks, bids = view.asks[: picture.levels], view.bids[: picture.levels]
    largest = max((level.units for level in (*asks, *bids)), default=1)
    for level, total in reversed(running(asks)):
        table.add_row(*_cells(grid, level, total, largest, ASK))
    table.add_section()
    for level, total in running(bids):
        table.add_row(*_cells(grid, level, total, largest, BID))
    return table


def trades_table(picture: Picture) -> Table:
    """Return the last trades, newest first, in the colour of whoever took."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    grid = picture.instrument
    table.add_column("time", style=QUIET)
    table.add_column(grid.quote.code, justify="right")
    table.add_column(grid.base.code, justify="right")
    for trade in picture.trades[: 2 * picture.levels + 1]:
        at = from_unix_ns(trade.exchange_ns or trade.received_ns)
        style = ASK if trade.buyer_is_maker else BID
        table.add_row(
            f"{at:%H:%M:%S.%f}"[:-3],
            Text(price_text(grid, trade.ticks), style=style),
            units_text(grid, trade.units),
        )
    return table


def streams_line(picture: Picture) -> Text:
    """Return how each stream of the symbol is doing."""
    text = Text()
    for item in picture.statuses:
        if item.symbol != picture.instrument.symbol:
            continue
        style = BID if item.state == "live" else "bold yellow"
        text.append(f"{item.channel} ").append(str(item.state), style=style)
        text.append(
            f" {item.messages:,} messages, {item.gaps} gaps, {item.reconnects} reconnects   ",
            style=QUIET,
        )
    return text


def running(levels: Sequence[Level]) -> list[tuple[Level, int]]:
    """Return each level, best first, with the units up to and with it."""
    total, found = 0, []
    for level in levels:
        total += level.units
        found.append((level, total))
    return found


def mid_text(grid: Instrument, bid: Level, ask: Level) -> str:
    """Return the mid exactly: it may lie half a tick between two prices."""
    half = (bid.ticks + ask.ticks) % 2
    text = price_text(grid, (bid.ticks + ask.ticks) // 2)
    return f"{text}½" if half else text


def price_text(grid: Instrument, ticks: int) -> str:
    """Return a price with all the decimals that the venue writes, so that columns align."""
    return padded(ticks * grid.tick, grid.price_scale, grid.price_scale)


def units_text(grid: Instrument, units: int) -> str:
    """Return a quantity with as many decimals as a lot has, or all that it needs."""
    lot = f"{grid.lot:0{grid.base.scale + 1}d}"
    places = grid.base.scale - (len(lot) - len(lot.rstrip("0")))
    return padded(units, grid.base.scale, max(0, places))


def padded(number: int, scale: int, places: int) -> str:
    """Return ``number * 10 ** -scale`` with at least so many decimals, and more only if needed."""
    text = f"{number:0{scale + 1}d}"
    whole, decimals = text[: len(text) - scale], text[len(text) - scale :]
    decimals = decimals[:places] + decimals[places:].rstrip("0")
    return f"{int(whole):,}.{decimals}" if decimals else f"{int(whole):,}"


def bar(units: int, largest: int) -> str:
    """Return a bar whose length is the level's share of the largest one; something, if not nothing."""
    return "█" * (-(-units * BAR // largest)) if largest > 0 else ""


def _cells(grid: Instrument, level: Level, total: int, largest: int, style: str) -> list[Text]:
    return [
        Text(bar(level.units, largest), style=style),
        Text(units_text(grid, level.units)),
        Text(price_text(grid, level.ticks), style=style),
        Text(units_text(grid, total)),
    ]
