"""What a recorded price rests on: computed again from its constituents, and the frames behind them.

A constituent says when it was received; the manifest of recordings says which files hold what that
venue sent then. A price that is made of prices rests on theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.clock import to_unix_ns
from kernel.money import Price
from marketdata import benchmarks, index_price
from marketdata.model import PriceRecord, Quality, RecordedPrice
from marketdata.prices import get_price
from marketdata.recording.manifest import ManifestRow, frames_of, hold

LEGS_MAX: Final = 16
MICROSECOND_NS: Final = 1_000
"""Times of constituents are cut to microseconds: what was received within one is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Frames of one constituent: raw files that hold what *venue* sent from *since* to *until*."""

    price_id: UUID
    venue: str
    symbol: str
    since: datetime
    until: datetime
    files: tuple[ManifestRow, ...]


def computed_again(record: PriceRecord) -> tuple[Price, Quality] | None:
    """Return what the constituents of a price come to by its method; None: it keeps too little.

    An index is computed from its books' best prices with its gates, a reference rate from its
    partitions, of the quality that it says; a cross from its legs' texts is not: they are prices of
    their own.
    """
    match record.method.get("name"):
        case index_price.METHOD:
            return index_price.judge_again(record)
        case benchmarks.REFERENCE_METHOD:
            return benchmarks.recompute(record), record.quality
        case _:
            return None


async def legs_of(conn: AsyncConnection, price: RecordedPrice) -> list[RecordedPrice]:
    """Return the price and the prices that it was made of, itself first."""
    found = [price]
    for item in price.record.constituents:
        if "price_id" in item and len(found) < LEGS_MAX:
            found.append(await get_price(conn, UUID(str(item["price_id"]))))
    return found


async def evidence_of(conn: AsyncConnection, price: RecordedPrice) -> list[Evidence]:
    """Return the recorded frames behind every constituent that says when it was received."""
    found = []
    for leg in await legs_of(conn, price):
        for item in leg.record.constituents:
            span = _span(item)
            if span is None:
                continue
            since, until = span
            files = await frames_of(
                conn,
                str(item["venue"]),
                to_unix_ns(since),
                to_unix_ns(until) + MICROSECOND_NS,
            )
            found.append(
                Evidence(
                    price_id=leg.id,
                    venue=str(item["venue"]),
                    symbol=str(item["symbol"]),
                    since=since,
                    until=until,
                    files=tuple(files),
                )
            )
    return found


async def hold_evidence(conn: AsyncConnection, prices: Sequence[RecordedPrice], reason: str) -> int:
    """Keep the recordings behind *prices* whatever their age; return how many files are held."""
    ids: set[UUID] = set()
    for price in prices:
        ids |= _ids(await evidence_of(conn, price))
    return await hold(conn, sorted(ids), reason) if ids else 0


def _ids(found: Collection[Evidence]) -> set[UUID]:
    return {file.id for item in found for file in item.files}


def _span(item: Mapping[str, Any]) -> tuple[datetime, datetime] | None:
    if "venue" not in item or "received_at" not in item:
        return None
    since = datetime.fromisoformat(str(item["received_at"]))
    until = datetime.fromisoformat(str(item.get("received_until", item["received_at"])))
    return since, max(since, until)
