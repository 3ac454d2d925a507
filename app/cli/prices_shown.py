"""How the commands show a recorded price, and read a pair."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy.ext.asyncio import AsyncConnection

    from marketdata.hierarchy import Hierarchies
    from marketdata.model import RecordedPrice
    from marketdata.price_model import Pair

HouseOfPrices = Annotated[
    Path | None,
    typer.Option("--house", metavar="FILE", help="Whose [[price]] say where prices come from."),
]
PRICE_COLUMNS: Final = ("id", "price", "kind", "quality", "observed", "recorded")


def facts_of(item: RecordedPrice) -> dict[str, str]:
    """Return what is shown of a price, by `PRICE_COLUMNS`."""
    return {
        "id": str(item.id),
        "price": item.record.price.format(),
        "kind": str(item.record.kind),
        "quality": str(item.record.quality),
        "observed": iso(item.record.observed_at),
        "recorded": iso(item.recorded_at),
    }


def split_pair(text: str) -> tuple[str, str]:
    """Read ``ETH/USDT``.

    Raises:
        BadInput: it is not two codes with a stroke between them.
    """
    base, stroke, quote = text.partition("/")
    if not (base and stroke and quote) or "/" in quote:
        raise BadInput(f"{text!r} is not a pair", remedy="Write it as ETH/USDT")
    return base, quote


async def load_pair(conn: AsyncConnection, text: str) -> Pair:
    """Return a pair of registered assets."""
    from marketdata.price_model import Pair
    from registry.queries import get_asset

    base, quote = split_pair(text)
    return Pair(await get_asset(conn, base), await get_asset(conn, quote))


def hierarchies_of(house: Path | None, *, within: timedelta | None = None) -> Hierarchies:
    """Return where prices come from, by the ``[[price]]`` of a house file if one is given."""
    from app.workers.house_file import read_house
    from app.workers.index_prices import load_hierarchies

    return load_hierarchies(() if house is None else read_house(house).prices, within=within)
