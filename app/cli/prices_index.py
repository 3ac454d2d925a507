"""``causeway prices index``: the price that several venues agree on, and what became of each of them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.common import (
    AsJson,
    clock,
    emit,
    on_database,
    one_of,
    read,
    run,
    settings,
    show,
    show_one,
)
from app.cli.prices_shown import facts_of
from kernel.errors import BadInput, Refused

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from app.workers.house_file import HouseFile
    from marketdata.index_price import IndexPolicy
    from marketdata.model import RecordedPrice
    from marketdata.ports import Feed
    from marketdata.price_model import Purpose

GATE_COLUMNS: Final = ("venue", "symbol", "weight", "gate", "bid", "ask", "sequence", "received_at")
SHOWN_AGE: Final = timedelta(days=366)


def register(app: typer.Typer) -> None:
    """Add the command to a group."""
    app.command()(index)


def index(
    base: str,
    quote: str,
    *,
    house: Annotated[
        Path | None,
        typer.Option(
            "--house", metavar="FILE", help="Ask the venues of its [[index]] now, and publish."
        ),
    ] = None,
    wait: Annotated[
        int, typer.Option(min=1, max=120, help="Seconds to wait for the venues' books.")
    ] = 10,
    purpose: Annotated[
        str, typer.Option("--for", help="indicative or settlement: refused below venues_min.")
    ] = "indicative",
    as_json: AsJson = False,
) -> None:
    """Show the newest index of a pair and what became of each venue; with --house, publish one now.

    A running house publishes the indexes of its house file by itself.

    Example: `causeway prices index ETH USDT`
    """
    from marketdata.price_model import Purpose

    wanted = one_of(Purpose, purpose, "purpose")
    if house is None:
        found = read(lambda conn: _newest(conn, base, quote, wanted))
    else:
        from kernel.telemetry import configure_logging

        configure_logging("error", as_json=settings().log_json)
        named = house
        found = run(
            lambda: on_database(lambda engine: _published(engine, named, base, quote, wait, wanted))
        )
    rows = [_gate(item) for item in found.record.constituents]
    if as_json:
        venues = [dict(zip(GATE_COLUMNS, row, strict=True)) for row in rows]
        emit({**facts_of(found), "venues": venues, "method": dict(found.record.method)})
        return
    show_one(f"Index {base}/{quote}", facts_of(found), as_json=False)
    show("Venues", GATE_COLUMNS, rows, as_json=False, right=("weight", "bid", "ask"))


async def _newest(conn: AsyncConnection, base: str, quote: str, purpose: Purpose) -> RecordedPrice:
    from marketdata.errors import NoPrice
    from marketdata.hierarchy import Rung, Source, why_not
    from marketdata.price_model import PriceKind, Purpose
    from marketdata.prices import latest_price

    found = await latest_price(
        conn, base, quote, now=clock().now(), age_max=SHOWN_AGE, kinds={PriceKind.INDEX}
    )
    if found is None:
        raise NoPrice(
            f"no index of {base}/{quote} was published",
            remedy="Write an [[index]] into the house file, and run the house or give --house",
        )
    rung = Rung(Source.INDEX)
    if purpose is Purpose.SETTLEMENT:
        reason = why_not(rung, found.record, at=clock().now(), purpose=purpose)
        if reason is not None:
            raise NoPrice(
                f"the newest index of {base}/{quote} {reason}",
                remedy="Wait for the house to publish one, or publish one with --house",
            )
    return found


async def _published(
    engine: AsyncEngine, path: Path, base: str, quote: str, wait: int, purpose: Purpose
) -> RecordedPrice:
    from app.workers.house_file import read_house
    from app.workers.index_prices import load_index_policy
    from kernel.db import transact
    from marketdata.index_publisher import publish_index

    found = read_house(path)
    sections = [item for item in found.indexes if (item.base, item.quote) == (base, quote)]
    if not sections:
        raise BadInput(f"the house file has no [[index]] of {base}/{quote}", where=str(path))
    policy = await transact(engine, lambda conn: load_index_policy(conn, sections[0]))
    async with AsyncExitStack() as stack:
        feeds = await _feeds(stack, found, policy)
        async with asyncio.TaskGroup() as group:
            for item in policy.venues:
                grid = item.instrument
                patience = timedelta(seconds=wait)
                group.create_task(feeds[grid.venue].wait_for_book(grid.symbol, patience))
        made = await transact(
            engine,
            lambda conn: publish_index(conn, policy, feeds, now=clock().now(), purpose=purpose),
        )
    if isinstance(made, Refused):
        raise made
    return made


async def _feeds(stack: AsyncExitStack, house: HouseFile, policy: IndexPolicy) -> dict[str, Feed]:
    """Open the feeds of the index's venues, of nothing but its books."""
    from dataclasses import replace
    from random import SystemRandom

    from app.workers.market_feeds import opened
    from venues.feeds.factory import running

    sections = {section.venue: section for section in house.feeds}
    feeds: dict[str, Feed] = {}
    for item in policy.venues:
        grid = item.instrument
        section = replace(sections[grid.venue], symbols=(grid.symbol,), channels=("book",))
        feed = await stack.enter_async_context(
            opened(section, (grid,), clock=clock(), chance=SystemRandom().random)
        )
        await stack.enter_async_context(running(feed))
        feeds[grid.venue] = feed
    return feeds


def _gate(item: Any) -> tuple[str, ...]:
    return tuple(str(item.get(name, "")) for name in GATE_COLUMNS)
