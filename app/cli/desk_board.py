"""``causeway desk position, board``: where the desk stands, once or as it goes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from app.cli.common import BOOK_DEFAULT, AsJson, Book, Money, clock, emit, on_database, run, show
from kernel.clock import iso
from kernel.money import Asset

if TYPE_CHECKING:
    from rich.console import RenderableType
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from trading.board import Board, BoardRow

T = TypeVar("T")

DESK_DEFAULT: Final = "otc"
REFRESH_S: Final = 1.0
"""Between two looks of a live board at the database."""
COLUMNS: Final = (
    *("asset", "position", "side", "low", "high", "need", "residual", "waiting", "verdict"),
    *("looked", "mark", "value"),
)
ALWAYS: Final = frozenset({"asset", "position", "side"})
AMOUNTS: Final = ("position", "low", "high", "need", "residual", "waiting", "mark", "value")
KEYS_MAX: Final = 64
QUIT: Final = frozenset("qQ\x03\x04")

Desk = Annotated[str, typer.Option("--desk", help="The desk.")]
In = Annotated[
    str | None,
    typer.Option(
        "--in", metavar="ASSET", help="In what it is counted; else as its limits or deals are."
    ),
]
For = Annotated[
    int, typer.Option("--for", min=0, help="End a live board after so many seconds; 0: with q.")
]


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    app.command()(position)
    app.command("board")(board_command)


def position(
    *,
    desk: Desk = DESK_DEFAULT,
    currency: In = None,
    live: Annotated[
        bool, typer.Option("--live", help="Keep it up to date until q is pressed.")
    ] = False,
    seconds: For = 0,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show what the desk is long or short of, as the ledger has it, and what is under way.

    The position is deals, fills and fees in kind; low and high are where it will be at worst, need is
    what is still to be bought (positive) or sold beyond that. Residual, waiting and verdict are of the
    hedger's last look.

    Example: `causeway desk position --desk otc`
    """
    if live and not as_json:
        _follow(book, desk, currency, seconds)
        return
    found, money = _look(lambda conn: _read(conn, book, desk, currency))
    rows = [_cells(row, found.currency, money) for row in found.rows]
    columns = COLUMNS if as_json else _told(rows)
    cells = [[row[name] for name in columns] for row in rows]
    right = [name for name in AMOUNTS if name in columns]
    show(f"Position of {desk}{_headline(found)}", columns, cells, as_json=as_json, right=right)


def board_command(
    *,
    desk: Desk = DESK_DEFAULT,
    currency: In = None,
    seconds: For = 0,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show the desk's board and keep it up to date: position, what is under way, the day, the switch.

    It ends with q, with ctrl-c or after --for. With --json it is one document, and the end.

    Example: `causeway desk board --desk otc --for 5`
    """
    if not as_json:
        _follow(book, desk, currency, seconds)
        return
    found, money = _look(lambda conn: _read(conn, book, desk, currency))
    emit(document(found, money))


def document(found: Board, money: Money) -> dict[str, Any]:
    """Return a board as an object of texts; what is not known is null."""
    return {
        "desk": found.desk,
        "at": iso(found.at),
        "currency": None if found.currency is None else found.currency.code,
        "control": str(found.control.state),
        "control_reason": found.control.reason,
        "day": None
        if found.day_units is None or found.currency is None
        else found.currency.format(found.day_units),
        "day_why": found.day_why,
        "assets": [_cells(row, found.currency, money) for row in found.rows],
    }


def table(found: Board, money: Money) -> RenderableType:
    """Return the picture of a board."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    picture = Table(
        title=escape(f"{found.desk} at {iso(found.at)}{_headline(found)}"),
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    rows = [_cells(row, found.currency, money) for row in found.rows]
    columns = _told(rows)
    for column in columns:
        picture.add_column(column, justify="right" if column in AMOUNTS else "left")
    for row in rows:
        picture.add_row(*(escape(row[name]) for name in columns))
    return picture


def _told(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the columns in which any row says something: a table has no empty ones."""
    return [name for name in COLUMNS if name in ALWAYS or any(row[name] for row in rows)]


def _headline(found: Board) -> str:
    if found.day_units is None or found.currency is None:
        day = f"day's result not known: {found.day_why}"
    else:
        day = f"day's result {found.currency.format(found.day_units)}"
    reason = f" ({found.control.reason})" if found.control.reason else ""
    return f"; {day}; {found.control.state}{reason}"


def _cells(row: BoardRow, currency: Asset | None, money: Money) -> dict[str, str]:
    look = None if row.line is None else row.line.look
    units = row.position

    def text(amount: int) -> str:
        return money.text(amount, row.asset)

    return {
        "asset": row.asset,
        "position": text(units),
        "side": "long" if units > 0 else "short" if units else "flat",
        "low": text(row.low),
        "high": text(row.high),
        "need": "" if row.line is None else text(row.need),
        "residual": "" if look is None else text(look.residual),
        "waiting": "" if look is None else text(look.waiting),
        "verdict": "" if look is None else str(look.verdict),
        "looked": "" if look is None else iso(look.at),
        "mark": "" if row.mark is None else row.mark.format(),
        "value": ""
        if row.value_units is None or currency is None
        else currency.format(row.value_units),
    }


async def _read(
    conn: AsyncConnection, book: int, desk: str, code: str | None
) -> tuple[Board, Money]:
    from trading.board import board

    money = await Money.load(conn)
    currency = None if code is None else money.asset(code)
    return await board(conn, book, desk, currency=currency, now=clock().now()), money


def _look(work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    return run(lambda: on_database(lambda engine: glance(engine, work)))


async def glance(engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Run a look in a transaction that keeps nothing: not the prices that were derived for it."""
    async with engine.connect() as conn:
        return await work(conn)


def _follow(book: int, desk: str, currency: str | None, seconds: int) -> None:
    """Draw the board again and again; where no terminal is, once, unless a time was given."""

    async def work(engine: AsyncEngine) -> None:
        from rich.live import Live

        from app.cli.marketdata_watch import console

        with keys_pressed() as pressed, contextlib.suppress(KeyboardInterrupt):
            first = await glance(engine, lambda conn: _read(conn, book, desk, currency))
            with Live(table(*first), console=console(), auto_refresh=False) as live:
                if sys.stdout.isatty() or seconds:
                    await _redraw(engine, live, pressed, (book, desk, currency), seconds)

    run(lambda: on_database(work))


async def _redraw(
    engine: AsyncEngine,
    live: Any,
    pressed: Callable[[], str],
    asked: tuple[int, str, str | None],
    seconds: int,
) -> None:
    import asyncio

    from risk.errors import DeskNotStill

    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not seconds or loop.time() < end:
        await asyncio.sleep(REFRESH_S)
        if QUIT & set(pressed()):
            return
        # Where fills come in faster than they can be read, the last picture stays for one more look.
        with contextlib.suppress(DeskNotStill):
            found = await glance(engine, lambda conn: _read(conn, *asked))
            live.update(table(*found), refresh=True)


@contextlib.contextmanager
def keys_pressed() -> Iterator[Callable[[], str]]:
    """Yield what returns the keys pressed since it was asked last, without waiting for any.

    Meanwhile the terminal hands keys on at once and does not print them; afterwards it is as before.
    """
    import termios
    import tty

    if not sys.stdin.isatty():
        yield lambda: ""
        return
    there = sys.stdin.fileno()
    before = termios.tcgetattr(there)
    tty.setcbreak(there)
    try:
        yield lambda: _waiting(there)
    finally:
        termios.tcsetattr(there, termios.TCSADRAIN, before)


def _waiting(there: int) -> str:
    """Return what is to be read from a terminal; from the file itself, so that nothing is buffered."""
    import select

    if not select.select([there], [], [], 0)[0]:
        return ""
    return os.read(there, KEYS_MAX).decode(errors="replace")
