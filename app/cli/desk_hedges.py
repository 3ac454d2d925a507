"""``causeway desk hedge, orders, lines``: how the position is closed, and where it is carried."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import desk_fills
from app.cli.common import (
    AsJson,
    DryRun,
    Money,
    clock,
    on_database,
    read,
    run,
    settings,
    show,
    show_one,
)
from app.cli.operators import As, Key, credentials
from kernel.clock import iso

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from app.cli.operators import Credentials
    from trading.hedges.decision import HedgePlan
    from trading.hedges.model import HedgeLine, HedgeReport
    from venues.model import VenueOrder

Desk = Annotated[str, typer.Argument(metavar="DESK", help="Code of the desk, as otc.")]
AssetCode = Annotated[str, typer.Argument(metavar="ASSET", help="The asset that is hedged.")]
HouseFile = Annotated[
    Path,
    typer.Option(
        "--house", metavar="FILE", help="Whose [[venue]] and [[feed]] say where to trade."
    ),
]
LINE_COLUMNS = ("desk", "asset", "state", "position", "need", "waiting", "residual")
LOOK_COLUMNS = ("verdict", "looked", "places", "detail")


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    app.command()(hedge)
    app.command()(lines)
    app.command()(orders)
    app.add_typer(desk_fills.app, name="fill")


def hedge(
    desk: Desk,
    asset: AssetCode,
    *,
    house: HouseFile,
    wait: Annotated[int, typer.Option(min=1, help="Seconds to wait for a book.")] = 15,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Hedge one line now, by hand, as the running house does by itself; shows what became of it.

    The same locks and limits hold: beside a running house nothing is hedged twice. With --dry-run it
    shows what would be ordered.

    Example: `causeway desk hedge otc ETH --house house.toml --as dan --key dan.key`
    """
    from kernel.telemetry import configure_logging

    who = credentials(as_, key)
    configure_logging("error", as_json=settings().log_json)

    async def work(engine: AsyncEngine) -> dict[str, str]:
        return await _hedge(
            engine, who, desk, asset, house, timedelta(seconds=wait), is_dry_run=dry_run
        )

    show_one(f"{asset} of {desk}", run(lambda: on_database(work)), as_json=as_json, dry_run=dry_run)


def lines(*, as_json: AsJson = False) -> None:
    """Show every hedge line and what the last look at it came to: what is needed, what is carried.

    Example: `causeway desk lines`
    """

    async def work(conn: AsyncConnection) -> tuple[list[HedgeLine], Money]:
        from trading.hedges.lines import list_lines

        return await list_lines(conn), await Money.load(conn)

    found, money = read(work)
    show(
        "Hedge lines",
        (*LINE_COLUMNS, *LOOK_COLUMNS),
        [_line(item, money) for item in found],
        as_json=as_json,
        right=("position", "need", "waiting", "residual"),
    )


def orders(
    *,
    venue: Annotated[str | None, typer.Option(help="Only at this venue.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the newest hedge orders of every place of the hedge lines, newest first.

    Example: `causeway desk orders --venue binance`
    """

    async def work(conn: AsyncConnection) -> list[VenueOrder]:
        from trading.hedges.lines import list_lines
        from venues.explain import list_newest_orders

        places = sorted(place for line in await list_lines(conn) for place in line.places)
        found: list[VenueOrder] = []
        for place in places:
            if venue in {None, place.venue}:
                found += await list_newest_orders(
                    conn, place.venue, place.account, symbol=place.symbol
                )
        return sorted(found, key=lambda item: (item.created_at, item.id), reverse=True)

    columns = (
        *("id", "state", "venue", "account", "symbol", "side", "quantity", "price"),
        *("client_order_id", "reference", "created"),
    )
    rows = [
        (
            str(item.id),
            str(item.state),
            item.venue,
            item.account,
            item.symbol,
            item.side.value,
            item.quantity,
            item.price or "",
            item.client_order_id,
            item.reference,
            iso(item.created_at),
        )
        for item in read(work)
    ]
    show("Orders", columns, rows, as_json=as_json, right=("quantity", "price"))


async def _hedge(
    engine: AsyncEngine,
    who: Credentials,
    desk: str,
    asset: str,
    house: Path,
    patience: timedelta,
    *,
    is_dry_run: bool,
) -> dict[str, str]:
    from app.workers.desk_once import hedging_by_hand
    from app.workers.house_file import read_house
    from kernel.db import transact
    from registry.model import Role
    from trading.hedges.hedger import hedge_until_done, preview

    file = read_house(house)
    money = await transact(engine, Money.load)
    me = await transact(engine, lambda conn: who.person(conn, Role.DEALER, Role.TREASURER))
    async with hedging_by_hand(
        engine,
        file,
        desk,
        asset,
        patience=patience,
        clock=clock(),
        chance=SystemRandom().random,
        holder=f"hedge-{me.code}",
    ) as hedger:
        if is_dry_run:
            return _planned(await preview(hedger, desk, asset), asset, money)
        return _done(await hedge_until_done(hedger, desk, asset), asset, money)


def _planned(plan: HedgePlan, asset: str, money: Money) -> dict[str, str]:
    return {
        "verdict": str(plan.verdict),
        "detail": plan.detail,
        "need": money.text(plan.need, asset),
        "waiting": money.text(plan.waiting, asset),
        "residual": money.text(plan.residual, asset),
        "alarm": plan.alarm,
        "funding": "; ".join(plan.funding),
    }


def _done(reports: list[HedgeReport], asset: str, money: Money) -> dict[str, str]:
    last = reports[-1]
    return {
        "verdict": str(last.verdict),
        "detail": last.detail,
        "before": money.text(reports[0].before, asset),
        "after": money.text(last.after, asset),
        "residual": money.text(last.residual, asset),
        "orders": str(sum(len(report.orders) for report in reports)),
        "fills_posted": str(sum(report.fills_posted for report in reports)),
        "left_out": "; ".join(last.left_out),
        "alarm": last.alarm,
        "funding": "; ".join(last.funding),
    }


def _line(item: HedgeLine, money: Money) -> tuple[str, ...]:
    places = ", ".join(
        f"{place.name}:{place.symbol}{'' if place.is_open else ' (closed)'}"
        for place in item.places
    )
    head = (item.desk, item.asset, str(item.state))
    look = item.look
    if look is None:
        return (*head, "", "", "", "", "", "", places, "nobody has looked yet")
    amounts = (look.position, look.need, look.waiting, look.residual)
    return (
        *head,
        *(money.text(units, item.asset) for units in amounts),
        str(look.verdict),
        iso(look.at),
        places,
        look.detail,
    )
