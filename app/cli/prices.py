"""``causeway prices``: the prices on record, which deals and fills were valued with."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.common import AsJson, clock, read, show
from app.cli.explain import Moment, Section, Story, tell
from kernel.clock import iso

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from marketdata.model import RecordedPrice

app = typer.Typer(help="Prices on record.", no_args_is_help=True)


@app.command()
def latest(
    base: str,
    quote: str,
    *,
    age: Annotated[int, typer.Option("--max-age", min=1, help="Seconds; older is no price.")] = 60,
    as_json: AsJson = False,
) -> None:
    """Show the newest price of a pair, if it is young enough to be one.

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
    columns = ("id", "price", "kind", "quality", "observed", "recorded")
    rows = [] if found is None else [tuple(_facts(found).values())]
    show(f"{base}/{quote}, at most {age} s old", columns, rows, as_json=as_json)


@app.command()
def explain(price_id: UUID, *, as_json: AsJson = False) -> None:
    """Say where a recorded price comes from: its constituents, as they were observed.

    Example: `causeway prices explain 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """

    async def work(conn: AsyncConnection) -> RecordedPrice:
        from marketdata.prices import get_price

        return await get_price(conn, price_id)

    found = read(work)
    record = found.record
    story = Story(
        f"Price {price_id}",
        {
            "object": "price",
            **_facts(found),
            "ratio": f"{record.price.numerator}/{record.price.denominator} smallest units",
        },
        [
            Moment(record.observed_at, "observed", record.kind, record.price.format()),
            Moment(found.recorded_at, "recorded", "marketdata", f"quality {record.quality}"),
        ],
        {
            "constituents": Section(
                ("number", "content"),
                [
                    (str(number), json.dumps(dict(item), sort_keys=True))
                    for number, item in enumerate(record.constituents, start=1)
                ],
            )
        },
    )
    tell(story, as_json=as_json)


def _facts(item: RecordedPrice) -> dict[str, str]:
    return {
        "id": str(item.id),
        "price": item.record.price.format(),
        "kind": item.record.kind,
        "quality": str(item.record.quality),
        "observed": iso(item.record.observed_at),
        "recorded": iso(item.recorded_at),
    }
