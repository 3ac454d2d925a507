"""``causeway venues``: our accounts at venues, their orders and trades, and what does not agree."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar
from uuid import UUID

import typer

from app.cli import venue_breaks, venue_keys, venue_lines
from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    Money,
    Reason,
    clock,
    on_database,
    one_of,
    read,
    run,
    settings,
    show,
    show_one,
    write,
)
from app.cli.explain import Section, Story, events, tell
from app.cli.operators import As, Key, credentials
from app.cli.venue_places import PlaceText, known_place
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from app.workers.venue_desk import VenueDesk
    from app.workers.venue_file import VenueSection
    from marketdata.model import Instrument
    from trading.venue_reconciliation_model import ReconciliationRun
    from venues.explain import OrderStory
    from venues.model import AccountState, UnknownBalance, VenueBalance, VenueFill, VenueOrder
    from venues.streams.model import GapRow

app = typer.Typer(help="Accounts at venues, orders, trades.", no_args_is_help=True)
app.add_typer(venue_keys.app, name="key")
app.add_typer(venue_lines.app, name="line")
venue_breaks.register(app)

T = TypeVar("T")
HOLDER = "operator"
BROKEN_EXIT = 1

HouseFile = Annotated[
    Path,
    typer.Option(
        "--house", metavar="FILE", help="The house file, whose [[venue]] says how to reach it."
    ),
]
OrderId = Annotated[UUID, typer.Argument(metavar="ORDER", help="Id of the order.")]
ORDER_COLUMNS = (
    *("id", "state", "symbol", "side", "kind", "quantity", "price", "executed"),
    *("attempt", "client_order_id", "venue_order_id", "created", "why"),
)


@app.command()
def connectors(*, as_json: AsJson = False) -> None:
    """List the venues that there are records of, and what they can do.

    Example: `causeway venues connectors`
    """
    from venues.records import RECORDS

    rows = [
        (
            name,
            record.ccxt_id,
            str(record.expiry),
            "client id" if record.finds_by_client_id else "lists",
            "yes" if record.has_private_stream else "no",
            "yes" if record.dead_man else "no",
            "yes" if record.tells_key_permissions else "no",
        )
        for name, record in sorted(RECORDS.items())
    ]
    columns = (
        *("connector", "ccxt", "requests_expire_by", "orders_found_by"),
        *("private_stream", "dead_man", "tells_permissions"),
    )
    show("Connectors", columns, rows, as_json=as_json)


@app.command("open")
def open_(
    place: PlaceText,
    *,
    house: HouseFile,
    as_: As,
    key: Key,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Open an account in the books with what the venue holds for us; trades count from then on.

    An account that is open already is left as it is.

    Example: `causeway venues open binance/desk --house house.toml --as dan --key dan.key`
    """
    who = credentials(as_, key)

    async def work(desk: VenueDesk) -> tuple[bool, list[VenueBalance], list[UnknownBalance]]:
        from kernel.db import transact
        from registry.model import Role
        from trading.venue_accounts import is_venue_account_open, open_venue_account

        async def before(conn: AsyncConnection) -> bool:
            await who.person(conn, Role.TREASURER, Role.FINANCE, Role.OPERATIONS)
            here = desk.section
            return await is_venue_account_open(conn, book, here.venue, here.account)

        was_open = await transact(desk.engine, before)
        opened = await open_venue_account(
            desk.engine, desk.gateway, desk.section.symbols, book=book, clock=clock()
        )
        return was_open, opened, await desk.gateway.unknown_balances()

    (was_open, found, unknown), money = _at_venue(house, place, book, work)
    title = f"{place} is open already; left as it is" if was_open else f"Opened {place} with"
    _show_balances(title, found, money, as_json=as_json)
    _warn_of_unknown(place, unknown)


@app.command()
def balances(
    place: PlaceText, *, house: HouseFile, book: Book = BOOK_DEFAULT, as_json: AsJson = False
) -> None:
    """Ask the venue what it holds for us.

    Example: `causeway venues balances binance/desk --house house.toml`
    """

    async def work(desk: VenueDesk) -> tuple[list[VenueBalance], list[UnknownBalance]]:
        return await desk.gateway.balances(), await desk.gateway.unknown_balances()

    (found, unknown), money = _at_venue(house, place, book, work)
    _show_balances(f"Balances of {place}", found, money, as_json=as_json)
    _warn_of_unknown(place, unknown)


@app.command()
def reconcile(
    place: PlaceText, *, house: HouseFile, book: Book = BOOK_DEFAULT, as_json: AsJson = False
) -> None:
    """Compare orders, trades and balances with the venue now; what differs is itemised and recorded.

    Nothing is adjusted. Ends with exit code 1 unless everything was compared and agrees; `causeway
    venues breaks` shows what does not.

    Example: `causeway venues reconcile binance/desk --house house.toml`
    """

    async def work(desk: VenueDesk) -> ReconciliationRun:
        return await desk.reconcile()

    made, money = _at_venue(house, place, book, work)
    rows = [
        (
            item.asset,
            money.text(item.ledger, item.asset),
            money.text(item.venue, item.asset),
            money.text(item.expected - item.ledger, item.asset),
            money.text(item.difference, item.asset),
            "yes" if item.agrees else "no",
        )
        for item in made.balances
    ]
    columns = ("asset", "ledger", "venue", "explained", "difference", "agrees")
    if as_json:
        from app.cli.common import emit

        emit(
            {
                "id": str(made.id),
                "outcome": str(made.outcome),
                "counts": dict(made.counts),
                "inputs_hash": made.inputs_hash,
                "balances": [dict(zip(columns, row, strict=True)) for row in rows],
                "breaks": [str(item) for item in made.breaks],
            }
        )
    else:
        show(
            f"{place}: {made.outcome}, {len(made.breaks)} breaks",
            columns,
            rows,
            as_json=False,
            right=columns[1:5],
        )
    if made.outcome != "clean":
        raise typer.Exit(BROKEN_EXIT)


@app.command()
def orders(
    place: PlaceText,
    *,
    state: Annotated[str | None, typer.Option("--state", help="Only those in this state.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the orders of an account, oldest first.

    Example: `causeway venues orders binance/desk --state escalated`
    """

    async def work(conn: AsyncConnection) -> list[dict[str, str]]:
        from venues.model import OrderState
        from venues.orders import list_orders

        venue, account = await known_place(conn, place)
        wanted = (
            frozenset(OrderState)
            if state is None
            else frozenset({one_of(OrderState, state, "state of orders")})
        )
        found = await list_orders(conn, venue, account, states=wanted)
        return await _orders(conn, found)

    rows = [tuple(row.values()) for row in read(work)]
    show("Orders", ORDER_COLUMNS, rows, as_json=as_json, right=("quantity", "price", "executed"))


@app.command()
def explain(order_id: OrderId, *, as_json: AsJson = False) -> None:
    """Tell the life of an order: what was sent, what was known when, what it traded.

    Example: `causeway venues explain 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """

    async def work(conn: AsyncConnection) -> tuple[OrderStory, dict[str, str], Money]:
        from venues.explain import explain_order

        story = await explain_order(conn, order_id)
        (facts,) = await _orders(conn, [story.order])
        return story, facts, await Money.load(conn)

    story, order, money = read(work)
    trades = Section(FILL_COLUMNS, [tuple(_fill(item, money).values()) for item in story.fills])
    facts = {"place": f"{story.order.venue}/{story.order.account}", **order}
    tell(
        Story(f"Order {order_id}", facts, events(story.events), {"trades": trades}),
        as_json=as_json,
    )


FILL_COLUMNS = (
    *("trade", "symbol", "side", "price", "amount", "cost", "fee", "maker", "order", "at"),
)


@app.command()
def fills(
    place: PlaceText,
    *,
    symbol: Annotated[str, typer.Option("--symbol", help="In the venue's spelling.")],
    as_json: AsJson = False,
) -> None:
    """List the newest trades of a symbol, newest first.

    Example: `causeway venues fills binance/desk --symbol ETHUSDT`
    """

    async def work(conn: AsyncConnection) -> tuple[list[VenueFill], Money]:
        from venues.fills import list_fills

        venue, account = await known_place(conn, place)
        return await list_fills(conn, venue, account, symbol), await Money.load(conn)

    found, money = read(work)
    rows = [tuple(_fill(item, money).values()) for item in found]
    show("Trades", FILL_COLUMNS, rows, as_json=as_json, right=("price", "amount", "cost", "fee"))


@app.command()
def cancel(
    order_id: OrderId, *, house: HouseFile, book: Book = BOOK_DEFAULT, as_json: AsJson = False
) -> None:
    """Ask the venue to cancel an order; what it trades meanwhile counts.

    Example: `causeway venues cancel 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --house house.toml`
    """

    async def find(conn: AsyncConnection) -> str:
        from venues.explain import explain_order

        order = (await explain_order(conn, order_id)).order
        return f"{order.venue}/{order.account}"

    async def work(desk: VenueDesk) -> dict[str, str]:
        from kernel.db import transact
        from venues.cancels import cancel as verb

        done = await verb(desk.engine, desk.gateway, order_id, holder=HOLDER, clock=clock())
        (row,) = await transact(desk.engine, lambda conn: _orders(conn, [done]))
        return row

    done, _ = _at_venue(house, read(find), book, work)
    show_one("Order", done, as_json=as_json)


@app.command()
def gaps(place: PlaceText, *, as_json: AsJson = False) -> None:
    """List when the private stream of an account was not listened to, and what was found since.

    Example: `causeway venues gaps binance/desk`
    """

    async def work(conn: AsyncConnection) -> list[GapRow]:
        from venues.streams.gaps import list_gaps

        venue, account = await known_place(conn, place)
        return await list_gaps(conn, venue, account)

    rows = [
        (
            iso(item.since),
            "" if item.until is None else iso(item.until),
            str(item.reason),
            item.detail,
            "" if item.filled_at is None else iso(item.filled_at),
            str(item.fills_found),
            str(item.orders_left),
        )
        for item in read(work)
    ]
    columns = ("since", "until", "reason", "detail", "filled", "trades_found", "orders_left")
    show("Gaps", columns, rows, as_json=as_json)


@app.command()
def mode(place: PlaceText, *, as_json: AsJson = False) -> None:
    """Show what may be ordered for an account: everything, only less risk, or nothing.

    Example: `causeway venues mode binance/desk`
    """

    async def work(conn: AsyncConnection) -> AccountState:
        from venues.account_state import account_state

        venue, account = await known_place(conn, place)
        return await account_state(conn, venue, account)

    show_one("Account", _mode(read(work)), as_json=as_json)


@app.command()
def halt(place: PlaceText, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False) -> None:
    """Let nothing more be ordered for an account; cancels pass.

    Example: `causeway venues halt binance/desk --reason "odd prices" --as dan --key dan.key`
    """
    _switch(place, "halt", reason, as_, key, as_json=as_json)


@app.command()
def release(
    place: PlaceText, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False
) -> None:
    """Let everything be ordered again; refused while an order is escalated.

    Example: `causeway venues release binance/desk --reason "the order was found" --as dan --key dan.key`
    """
    _switch(place, "release", reason, as_, key, as_json=as_json)


def _switch(place: str, verb: str, reason: str, as_: str, key: Path, *, as_json: bool) -> None:
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> AccountState:
        from registry.model import Role
        from venues import account_state

        venue, account = await known_place(conn, place)
        me = await who.person(conn, Role.DEALER, Role.TREASURER, Role.OPERATIONS)
        now = clock().now()
        if verb == "halt":
            return await account_state.halt(
                conn, venue, account, reason=reason, actor=me.code, now=now
            )
        return await account_state.release(
            conn, venue, account, reason=reason, operator=me.code, now=now
        )

    show_one("Account", _mode(write(work)), as_json=as_json)


@contextlib.asynccontextmanager
async def _desk(engine: AsyncEngine, section: VenueSection, book: int) -> AsyncIterator[VenueDesk]:
    from app.workers.venue_desk import open_desk

    # Nobody listens here, so nothing is spread.
    async with open_desk(engine, section, book=book, clock=clock(), chance=lambda: 0.0) as desk:
        yield desk


def _at_venue(
    house: Path, place: str, book: int, work: Callable[[VenueDesk], Awaitable[T]]
) -> tuple[T, Money]:
    """Do something with an account as the house file describes it."""
    from kernel.telemetry import configure_logging
    from venues.errors import VenueUnavailable

    section = _section(house, place)
    # What the connection has to say goes to standard error: standard output is the answer alone.
    configure_logging("error", as_json=settings().log_json)

    async def connected(engine: AsyncEngine) -> tuple[T, Money]:
        from kernel.db import transact

        # First: a database that does not answer is told as such, before a venue is asked anything.
        money = await transact(engine, Money.load)
        async with _desk(engine, section, book) as desk:
            await desk.check()
            return await work(desk), money

    try:
        return run(lambda: on_database(connected))
    except VenueUnavailable as error:
        if error.remedy:
            raise
        remedy = "Try again; see that the venue runs, and what the house file says of its address"
        raise VenueUnavailable(error.what, where=error.where or place, remedy=remedy) from error


def _section(house: Path, place: str) -> VenueSection:
    from app.workers.house_file import read_house

    found = {section.name: section for section in read_house(house).venues}
    if place not in found:
        raise BadInput(
            f"the house file says nothing of {place!r}",
            where=str(house),
            remedy=f"It has {', '.join(found) or 'no [[venue]]'}",
        )
    return found[place]


def _show_balances(title: str, found: list[VenueBalance], money: Money, *, as_json: bool) -> None:
    rows = [
        (item.asset, money.text(item.free, item.asset), money.text(item.locked, item.asset))
        for item in found
    ]
    show(title, ("asset", "free", "locked"), rows, as_json=as_json, right=("free", "locked"))


def _warn_of_unknown(place: str, unknown: list[UnknownBalance]) -> None:
    """Tell, beside the answer, what the venue holds for us that can be in no books."""
    for item in unknown:
        typer.echo(
            f"{place} also holds {item.amount} {item.asset}, an asset that is not registered: "
            "it is in no books",
            err=True,
        )


def _mode(item: AccountState) -> dict[str, str]:
    return {
        "place": f"{item.venue}/{item.account}",
        "mode": str(item.mode),
        "since": "" if item.since is None else iso(item.since),
        "by": item.by,
        "reason": item.reason,
    }


async def _orders(conn: AsyncConnection, found: list[VenueOrder]) -> list[dict[str, str]]:
    """Return orders as facts, what they traded in decimals of the asset."""
    from marketdata.instruments import get_instrument

    grids: dict[tuple[str, str, int], Instrument] = {}
    rows = []
    for item in found:
        which = (item.venue, item.symbol, item.instrument_version)
        if which not in grids:
            grids[which] = await get_instrument(conn, *which[:2], version=which[2])
        rows.append(_order(item, grids[which].base.format(item.executed_units)))
    return rows


def _order(item: VenueOrder, executed: str) -> dict[str, str]:
    return {
        "id": str(item.id),
        "state": str(item.state),
        "symbol": item.symbol,
        "side": item.side.value,
        "kind": str(item.kind),
        "quantity": item.quantity,
        "price": item.price or "",
        "executed": executed,
        "attempt": str(item.attempt),
        "client_order_id": item.client_order_id,
        "venue_order_id": item.venue_order_id or "",
        "created": iso(item.created_at),
        "why": item.state_reason,
    }


def _fill(item: VenueFill, money: Money) -> dict[str, str]:
    return {
        "trade": item.trade_id,
        "symbol": item.symbol,
        "side": item.side.value,
        "price": item.price,
        "amount": money.text(item.base_units, item.base),
        "cost": money.text(item.quote_units, item.quote),
        "fee": money.text(item.fee_units, item.fee_asset),
        "maker": "yes" if item.is_maker else "no",
        "order": item.venue_order_id,
        "at": iso(item.executed_at),
    }
