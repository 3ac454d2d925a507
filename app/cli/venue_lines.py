"""``causeway venues line``: which desk's position is hedged where, and where its trades are posted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import AsJson, Reason, clock, read, show, show_one, write
from app.cli.operators import As, Key, credentials
from app.cli.venue_places import PlaceText, known_place, split_place

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from trading.hedges.model import HedgeLine

app = typer.Typer(help="Hedge lines: whose trades are posted.", no_args_is_help=True)

Desk = Annotated[str, typer.Argument(metavar="DESK", help="Code of the desk, as otc.")]
AssetCode = Annotated[str, typer.Argument(metavar="ASSET", help="The asset that is hedged.")]
Symbol = Annotated[str, typer.Option("--symbol", help="In the venue's spelling.")]
COLUMNS = ("desk", "asset", "place", "symbol", "state")


@app.command("list")
def line_list(*, as_json: AsJson = False) -> None:
    """List hedge lines.

    Example: `causeway venues line list`
    """

    async def work(conn: AsyncConnection) -> list[HedgeLine]:
        from trading.hedges.lines import list_lines

        return await list_lines(conn)

    show("Lines", COLUMNS, [tuple(_line(i).values()) for i in read(work)], as_json=as_json)


@app.command("open")
def line_open(
    desk: Desk,
    asset: AssetCode,
    place: PlaceText,
    *,
    symbol: Symbol,
    reason: Reason,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Say where an asset of a desk is hedged; the account's trades of the symbol are its own.

    Trades are posted by lines: those of a symbol without one are collected and not posted.

    Example: `causeway venues line open otc ETH binance/desk --symbol ETHUSDT --reason "the desk opens"
    --as dan --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> HedgeLine:
        from registry.model import Role
        from registry.queries import get_asset
        from trading.hedges.lines import open_line
        from trading.hedges.model import HedgeLine, HedgePlace

        me = await who.person(conn, Role.DEALER, Role.TREASURER)
        await get_asset(conn, asset)
        venue, account = await known_place(conn, place)
        line = HedgeLine(desk=desk, asset=asset, places=(HedgePlace(venue, account, symbol),))
        return await open_line(conn, line, by=me.code, reason=reason, now=clock().now())

    show_one("Line", _line(write(work)), as_json=as_json)


@app.command("place")
def line_place(
    desk: Desk,
    asset: AssetCode,
    place: PlaceText,
    *,
    symbol: Symbol,
    by_hand: Annotated[
        bool, typer.Option("--by-hand", help="No key: its trades are entered by hand.")
    ] = False,
    reason: Reason,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Let a line hedge at one more place, or again at one that was closed.

    Example: `causeway venues line place otc ETH kraken/desk --symbol ETH/USDT --reason "more depth"
    --as dan --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> HedgeLine:
        from registry.model import Role
        from trading.hedges.lines import add_place
        from trading.hedges.model import HedgePlace

        me, now = await who.person(conn, Role.DEALER, Role.TREASURER), clock().now()
        venue, account = split_place(place) if by_hand else await known_place(conn, place)
        wanted = HedgePlace(venue, account, symbol)
        return await add_place(conn, desk, asset, wanted, by=me.code, reason=reason, now=now)

    show_one("Line", _line(write(work)), as_json=as_json)


@app.command("close")
def line_close(
    desk: Desk,
    asset: AssetCode,
    place: PlaceText,
    *,
    symbol: Symbol,
    reason: Reason,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Place nothing more at one place of a line; its trades are posted as before.

    Example: `causeway venues line close otc ETH kraken/desk --symbol ETH/USDT --reason "fees went up"
    --as dan --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> HedgeLine:
        from registry.model import Role
        from trading.hedges.lines import close_place
        from trading.hedges.model import HedgePlace

        me, now = await who.person(conn, Role.DEALER, Role.TREASURER), clock().now()
        there = HedgePlace(*split_place(place), symbol)
        return await close_place(conn, desk, asset, there, by=me.code, reason=reason, now=now)

    show_one("Line", _line(write(work)), as_json=as_json)


@app.command("halt")
def line_halt(
    desk: Desk, asset: AssetCode, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False
) -> None:
    """Place no more orders of a line; its trades are posted as before.

    Example: `causeway venues line halt otc ETH --reason "a holiday" --as dan --key dan.key`
    """
    _switch(desk, asset, "halted", reason, as_, key, as_json=as_json)


@app.command("resume")
def line_resume(
    desk: Desk, asset: AssetCode, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False
) -> None:
    """Let a line place orders again.

    Example: `causeway venues line resume otc ETH --reason "back at work" --as dan --key dan.key`
    """
    _switch(desk, asset, "active", reason, as_, key, as_json=as_json)


def _switch(
    desk: str, asset: str, state: str, reason: str, as_: As, key: Key, *, as_json: bool
) -> None:
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> HedgeLine:
        from registry.model import Role
        from trading.hedges.lines import set_line_state
        from trading.hedges.model import HedgeState

        me, now = await who.person(conn, Role.DEALER, Role.TREASURER), clock().now()
        wanted = HedgeState(state)
        return await set_line_state(conn, desk, asset, wanted, by=me.code, reason=reason, now=now)

    show_one("Line", _line(write(work)), as_json=as_json)


def _line(item: HedgeLine) -> dict[str, str]:
    return {
        "desk": item.desk,
        "asset": item.asset,
        "place": ", ".join(place.name for place in item.places),
        "symbol": ", ".join(
            place.symbol if place.is_open else f"{place.symbol} (closed)" for place in item.places
        ),
        "state": str(item.state),
    }
