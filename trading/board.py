"""Where a desk stands at this moment: position, what is under way, what is needed, what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import floor

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from kernel.money import Asset, Price
from marketdata.errors import NoPrice
from risk.controls import control_of
from risk.desk_book import read_desk_book
from risk.model import Control
from trading.hedges.decision import hedge_needed
from trading.hedges.lines import list_lines
from trading.hedges.model import HedgeLine
from trading.pnl.currency import find_currency
from trading.pnl.marks import available_marks
from trading.pnl.model import Marks
from trading.pnl.runs import day_pnl_units
from venues.worst_case import Uncertainty, uncertainty


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardRow:
    """One asset of the desk, in its smallest units.

    Attributes:
        position: what the ledger says; negative is short.
        low, high: between which bounds it will be when everything under way has turned out.
        need: what has to be bought (positive) or sold (negative) beyond that to reach the target.
        line: where it is hedged, with what its last look came to; None: nowhere.
        mark: its price in the board's currency; None: there is none, or it is the currency.
        value_units: the position at the mark in the board's currency, rounded down; None: no mark.
    """

    asset: str
    position: int
    low: int
    high: int
    need: int
    line: HedgeLine | None
    mark: Price | None
    value_units: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A desk at one moment.

    Attributes:
        currency: in which it is valued; None: none was given and none follows from limits or deals.
        day_units: net result of the UTC day so far; None: not to be had, `day_why` says why.
        control: the switch that holds for the desk.
    """

    desk: str
    at: datetime
    currency: Asset | None
    rows: Sequence[BoardRow]
    day_units: int | None
    day_why: str
    control: Control


async def board(
    conn: AsyncConnection, book: int, desk: str, *, currency: Asset | None = None, now: datetime
) -> Board:
    """Return the board of a desk: every asset that it holds or hedges, by code.

    Nothing here is refused for want of a price: what has none is shown without a value.

    Raises:
        BookNotOpen: there is no such book.
        TooManyExposures: so much is under way that the worst case is not known.
        DeskNotStill: fills are posted so fast that position and orders do not fit together.
    """
    counted = currency or await find_currency(conn, book, desk)
    lines = {line.asset: line for line in await list_lines(conn) if line.desk == desk}
    there = await read_desk_book(
        conn,
        book,
        desk,
        {
            asset: [(place.venue, place.account, place.symbol) for place in line.places]
            for asset, line in lines.items()
        },
    )
    held = there.positions
    assets = sorted({*held, *lines})
    marks = None
    if counted is not None:
        marks = await available_marks(conn, assets, counted, at=now, now=now)
    rows = []
    for asset in assets:
        under_way = uncertainty(there.under_way.get(asset, ()))
        rows.append(_row(asset, held.get(asset, 0), lines.get(asset), under_way, marks))
    day, why = await _day(conn, book, desk, counted, now)
    return Board(
        desk=desk,
        at=now,
        currency=counted,
        rows=rows,
        day_units=day,
        day_why=why,
        control=await control_of(conn, desk),
    )


def _row(
    asset: str, held: int, line: HedgeLine | None, under_way: Uncertainty, marks: Marks | None
) -> BoardRow:
    return BoardRow(
        asset=asset,
        position=held,
        low=held + under_way.low,
        high=held + under_way.high,
        need=0 if line is None else hedge_needed(held, under_way, line.target),
        line=line,
        mark=None if marks is None else marks.prices.get(asset),
        value_units=_value(asset, held, marks),
    )


def _value(asset: str, held: int, marks: Marks | None) -> int | None:
    if marks is None:
        return None
    try:
        return floor(held * marks.of(asset))
    except BadInput:
        return None


async def _day(
    conn: AsyncConnection, book: int, desk: str, currency: Asset | None, now: datetime
) -> tuple[int | None, str]:
    if currency is None:
        return None, "nobody has said in which asset"
    try:
        return await day_pnl_units(conn, book, desk, currency=currency, now=now), ""
    except NoPrice as error:
        return None, error.what
