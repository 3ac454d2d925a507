"""``causeway prices``: what things are worth, where that comes from, and who stands for it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli import prices_benchmark, prices_fiat, prices_index, prices_manual, prices_snapshot
from app.cli.common import AsJson, clock, one_of, parse_time, read, show, show_one, write
from app.cli.explain import Moment, Section, Story, tell
from app.cli.prices_shown import PRICE_COLUMNS, HouseOfPrices, facts_of, hierarchies_of
from kernel.clock import iso

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from kernel.money import Price
    from marketdata.model import Quality, RecordedPrice
    from marketdata.price_evidence import Evidence
    from marketdata.price_resolution import Resolved

app = typer.Typer(help="What things are worth, and why.", no_args_is_help=True)
prices_index.register(app)
prices_benchmark.register(app)
prices_fiat.register(app)
prices_manual.register(app)
prices_snapshot.register(app)

At = Annotated[str | None, typer.Option("--at", help="The moment (UTC); else now.")]


@app.command()
def latest(
    base: str,
    quote: str,
    *,
    age: Annotated[int, typer.Option("--max-age", min=1, help="Seconds; older is no price.")] = 60,
    as_json: AsJson = False,
) -> None:
    """Show the newest price of a pair that the market has made, if it is young enough to be one.

    Example: `causeway prices latest ETH USDT --max-age 300`
    """

    async def work(conn: AsyncConnection) -> RecordedPrice | None:
        from marketdata.prices import latest_price
        from registry.queries import get_asset

        await get_asset(conn, base)
        await get_asset(conn, quote)
        return await latest_price(
            conn, base, quote, now=clock().now(), age_max=timedelta(seconds=age)
        )

    found = read(work)
    rows = [] if found is None else [tuple(facts_of(found).values())]
    show(f"{base}/{quote}, at most {age} s old", PRICE_COLUMNS, rows, as_json=as_json)


@app.command("list")
def list_(
    base: Annotated[str | None, typer.Argument(help="Only prices of this asset.")] = None,
    quote: Annotated[str | None, typer.Argument(help="Only prices in this asset.")] = None,
    *,
    kind: Annotated[
        str | None, typer.Option(help="index, venue-mid, cross, manual, agreed, …")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Observed at this time (UTC) or later.")] = None,
    until: Annotated[str | None, typer.Option(help="Observed by then.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List recorded prices, the newest observation first.

    Example: `causeway prices list ETH USDT --kind index --since 2026-01-01`
    """
    from marketdata.price_model import PriceKind

    wanted = None if kind is None else one_of(PriceKind, kind, "kind of price")
    is_day = since is not None and len(since) == len("2026-01-31")
    begin = parse_time(f"{since}T00:00:00Z" if is_day else since)
    end = parse_time(until)

    async def work(conn: AsyncConnection) -> list[RecordedPrice]:
        from marketdata.prices import list_prices

        return await list_prices(
            conn, base=base, quote=quote, kind=wanted, since=begin, until=end, limit=limit
        )

    rows = [tuple(facts_of(item).values()) for item in read(work)]
    show("Prices", PRICE_COLUMNS, rows, as_json=as_json)


@app.command()
def resolve(
    base: str,
    quote: str,
    *,
    purpose: Annotated[
        str, typer.Option("--for", help="indicative, valuation or settlement.")
    ] = "indicative",
    at: At = None,
    house: HouseOfPrices = None,
    as_json: AsJson = False,
) -> None:
    """Say which price of a pair is to be taken, and why none that stands above it in the hierarchy.

    A rate or cross that is derived on the way is recorded, so that the answer has an id. The rungs are
    the usual ones, or those of the pair's [[price]] in the house file.

    Example: `causeway prices resolve ETH EUR --for settlement`
    """
    from marketdata.price_model import Purpose

    wanted = one_of(Purpose, purpose, "purpose")
    moment = parse_time(at)
    hierarchies = hierarchies_of(house)

    async def work(conn: AsyncConnection) -> Resolved:
        from marketdata.price_model import Pair
        from marketdata.price_resolution import resolve_price
        from registry.queries import get_asset

        now = clock().now()
        pair = Pair(await get_asset(conn, base), await get_asset(conn, quote))
        return await resolve_price(
            conn,
            pair,
            at=moment or now,
            purpose=wanted,
            now=now,
            hierarchy=hierarchies.of(base, quote),
        )

    found = write(work)
    shown = {
        **facts_of(found.price),
        "from": str(found.source),
        "passed_over": "; ".join(found.passed_over),
    }
    show_one(f"{base}/{quote} for {wanted}", shown, as_json=as_json)


@app.command()
def explain(price_id: UUID, *, as_json: AsJson = False) -> None:
    """Say where a recorded price comes from: its constituents, and the recorded frames behind them.

    What can be computed again from the constituents is; if that comes to another price, the exit code
    is 1.

    Example: `causeway prices explain 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """

    async def work(
        conn: AsyncConnection,
    ) -> tuple[RecordedPrice, tuple[Price, Quality] | None, list[Evidence]]:
        from marketdata.price_evidence import computed_again, evidence_of
        from marketdata.prices import get_price

        price = await get_price(conn, price_id)
        return price, computed_again(price.record), await evidence_of(conn, price)

    found, again, evidence = read(work)
    record = found.record
    verdict = "cannot be computed from this alone"
    is_same = again is None or again == (record.price, record.quality)
    if again is not None:
        verdict = "the same" if is_same else f"ANOTHER: {again[0].format()}, {again[1]}"
    story = Story(
        f"Price {price_id}",
        {
            "object": "price",
            **facts_of(found),
            "ratio": f"{record.price.numerator}/{record.price.denominator} smallest units",
            "method": json.dumps(dict(record.method), sort_keys=True),
            "computed_again": verdict,
        },
        [
            Moment(record.observed_at, "observed", str(record.kind), record.price.format()),
            Moment(found.recorded_at, "recorded", "marketdata", f"quality {record.quality}"),
        ],
        {
            "constituents": Section(
                ("number", "content"),
                [
                    (str(number), json.dumps(dict(item), sort_keys=True))
                    for number, item in enumerate(record.constituents, start=1)
                ],
            ),
            "recorded_frames": Section(FRAME_COLUMNS, _frames(evidence)),
        },
    )
    tell(story, as_json=as_json)
    if not is_same:
        raise typer.Exit(1)


FRAME_COLUMNS = ("venue", "symbol", "received", "file", "held_for", "sha256")


def _frames(evidence: list[Evidence]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for item in evidence:
        said = (item.venue, item.symbol, iso(item.since))
        if not item.files:
            rows.append((*said, "not recorded, or removed", "", ""))
        rows += [
            (*said, f"{row.store}:{Path(row.file.path)}", row.held_for, row.file.sha256)
            for row in item.files
        ]
    return rows
