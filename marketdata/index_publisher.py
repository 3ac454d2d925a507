"""Publishing the index: the newest books of the feeds in, a recorded price out.

Whoever runs the feeds calls `publish_index` every so often. What is published is recorded with all
constituents; a degraded index is published as such, and a change of its quality is an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import Refused
from kernel.events import DomainEvent, record
from marketdata.index_price import (
    Gate,
    IndexPolicy,
    IndexPrice,
    decide_index,
    fit_for,
    record_of,
)
from marketdata.model import BookView, RecordedPrice
from marketdata.ports import Feed
from marketdata.price_model import PriceKind, Purpose
from marketdata.prices import latest_price, record_price

PUBLISHER: Final = "system:index"
MEMORY: Final = timedelta(minutes=5)
"""For how long an index remembers which venues were outliers, and of which quality it was."""


def views_of(policy: IndexPolicy, feeds: Mapping[str, Feed]) -> list[BookView | None]:
    """Return the newest book of each of the policy's venues; None where no feed has one."""
    found: list[BookView | None] = []
    for item in policy.venues:
        feed = feeds.get(item.instrument.venue)
        found.append(None if feed is None else feed.book(item.instrument.symbol))
    return found


async def publish_index(
    conn: AsyncConnection,
    policy: IndexPolicy,
    feeds: Mapping[str, Feed],
    *,
    now: datetime,
    purpose: Purpose = Purpose.INDICATIVE,
) -> RecordedPrice | Refused:
    """Record the index of *now*, or say why there is none; nothing is recorded then.

    Args:
        feeds: by venue; only their newest books are looked at, no network is touched.
        purpose: for settlement an index of too few venues is refused, not published as degraded.
    """
    base, quote = policy.base.code, policy.quote.code
    last = await latest_price(conn, base, quote, now=now, age_max=MEMORY, kinds={PriceKind.INDEX})
    index = decide_index(policy, views_of(policy, feeds), now=now, before=_outliers(last))
    if isinstance(index, IndexPrice):
        index = fit_for(index, purpose)
    if isinstance(index, Refused):
        return index
    published = await record_price(conn, record_of(index), now=now)
    if last is None or last.record.quality is not index.quality:
        await record(conn, [_quality_event(index, published, last)])
    return published


def _outliers(last: RecordedPrice | None) -> frozenset[str]:
    if last is None:
        return frozenset()
    return frozenset(
        str(item["venue"]) for item in last.record.constituents if item["gate"] == Gate.OUTLIER
    )


def _quality_event(
    index: IndexPrice, published: RecordedPrice, last: RecordedPrice | None
) -> DomainEvent:
    return DomainEvent(
        entity_type="price",
        entity_id=published.id,
        version=1,
        name="IndexQualityChanged",
        at=index.at,
        actor=PUBLISHER,
        from_state=None if last is None else str(last.record.quality),
        to_state=str(index.quality),
        payload={
            "pair": f"{index.policy.base.code}/{index.policy.quote.code}",
            "gates": {item.venue.instrument.venue: str(item.gate) for item in index.members},
        },
    )
