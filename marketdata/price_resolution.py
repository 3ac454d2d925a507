"""The price of a pair at a moment: the first rung of its hierarchy that will do, by its id.

What is derived on the way (a fiat rate, a cross) is recorded, so that every answer has an id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import Refused
from kernel.money import Asset
from marketdata.errors import NoPrice
from marketdata.fx import fiat_price
from marketdata.hierarchy import DEFAULT, Hierarchy, Rung, Source, crossed, why_not
from marketdata.model import RecordedPrice
from marketdata.overrides import find_override
from marketdata.price_model import OverrideUse, Pair, PriceKind, Purpose
from marketdata.prices import get_price, latest_price, record_price
from registry.queries import list_assets

_KINDS: Final = {Source.INDEX: PriceKind.INDEX, Source.VENUE_MID: PriceKind.VENUE_MID}
_USES: Final = {Source.OVERRIDE: OverrideUse.INSTEAD, Source.MANUAL: OverrideUse.LAST}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The price that was taken, from which rung, and why not from those above."""

    price: RecordedPrice
    source: Source
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Asked:
    hierarchy: Hierarchy
    at: datetime
    purpose: Purpose
    now: datetime
    known_at: datetime | None


async def resolve_price(
    conn: AsyncConnection,
    pair: Pair,
    *,
    at: datetime,
    purpose: Purpose,
    now: datetime,
    hierarchy: Hierarchy = DEFAULT,
    is_closing: bool = False,
) -> Resolved:
    """Return the price of *pair* at the moment *at*.

    Args:
        at: no price observed later is looked at.
        now: when it is asked, for what is recorded on the way.
        is_closing: what two people approved only later, for that moment, counts: a month is closed
            after it is over.

    Raises:
        NoPrice: no rung has one; says why of each.
    """
    reasons: list[str] = []
    asked = _Asked(hierarchy, at, purpose, now, now if is_closing else None)
    for rung in hierarchy.rungs:
        found = await _at_rung(conn, pair, rung, asked)
        if isinstance(found, RecordedPrice):
            return Resolved(price=found, source=rung.source, passed_over=tuple(reasons))
        reasons.append(f"{rung.source} {found}")
    raise NoPrice(
        f"no price of {pair} is fit for {purpose} at {at.isoformat()}",
        where="; ".join(reasons),
        remedy="Publish an index, import rates, or let two people approve a price",
    )


async def _at_rung(
    conn: AsyncConnection, pair: Pair, rung: Rung, asked: _Asked
) -> RecordedPrice | str:
    """Return the rung's price, or why it has none."""
    at, purpose = asked.at, asked.purpose
    if purpose not in rung.purposes:
        return f"is not for {purpose}"
    found: RecordedPrice | str
    match rung.source:
        case Source.OVERRIDE | Source.MANUAL:
            found = await _manual(conn, pair, _USES[rung.source], asked)
        case Source.INDEX | Source.VENUE_MID:
            found = await _latest(conn, pair, rung, at)
        case Source.FIAT_RATE:
            found = await _fiat(conn, pair, at, asked.now)
        case Source.CROSS:
            found = await _cross(conn, pair, rung, asked)
    if isinstance(found, str):
        return found
    reason = None if rung.source in _USES else why_not(rung, found.record, at=at, purpose=purpose)
    return found if reason is None else reason


async def _manual(
    conn: AsyncConnection, pair: Pair, use: OverrideUse, asked: _Asked
) -> RecordedPrice | str:
    found = await find_override(
        conn, pair.base.code, pair.quote.code, at=asked.at, use=use, known_at=asked.known_at
    )
    if found is None or found.price_id is None:
        return "is not in force"
    return await get_price(conn, found.price_id)


async def _latest(
    conn: AsyncConnection, pair: Pair, rung: Rung, at: datetime
) -> RecordedPrice | str:
    found = await latest_price(
        conn,
        pair.base.code,
        pair.quote.code,
        now=at,
        age_max=rung.age_max,
        kinds={_KINDS[rung.source]},
    )
    return "is missing or too old" if found is None else found


async def _fiat(
    conn: AsyncConnection, pair: Pair, at: datetime, now: datetime
) -> RecordedPrice | str:
    made = await fiat_price(conn, pair.base, pair.quote, at=at)
    return "has no rates" if isinstance(made, Refused) else await record_price(conn, made, now=now)


async def _cross(
    conn: AsyncConnection, pair: Pair, rung: Rung, asked: _Asked
) -> RecordedPrice | str:
    reasons = []
    for pivot in await _pivots(conn, pair, asked.hierarchy.pivots):
        first = await _first_leg(conn, Pair(pair.base, pivot), rung, asked)
        if isinstance(first, str):
            reasons.append(f"{pair.base.code}/{pivot.code} {first}")
            continue
        second = await _fiat(conn, Pair(pivot, pair.quote), asked.at, asked.now)
        if isinstance(second, str):
            reasons.append(f"{pivot.code}/{pair.quote.code} {second}")
            continue
        made = crossed(first.record, str(first.id), second.record, str(second.id))
        return await record_price(conn, made, now=asked.now)
    return f"has no legs: {', '.join(reasons)}" if reasons else "has no pivot"


async def _first_leg(
    conn: AsyncConnection, pair: Pair, rung: Rung, asked: _Asked
) -> RecordedPrice | str:
    """Return the market's leg, by the same hierarchy without its fiat rungs."""
    at, purpose = asked.at, asked.purpose
    reasons = []
    for above in asked.hierarchy.rungs:
        found: RecordedPrice | str
        if above.source is Source.OVERRIDE:
            found = await _manual(conn, pair, OverrideUse.INSTEAD, asked)
        elif above.source in _KINDS:
            found = await _latest(conn, pair, Rung(above.source, above.purposes, rung.age_max), at)
            if isinstance(found, RecordedPrice):
                found = why_not(above, found.record, at=at, purpose=purpose) or found
        else:
            continue
        if isinstance(found, RecordedPrice):
            return found
        reasons.append(f"{above.source} {found}")
    return ", ".join(reasons)


async def _pivots(conn: AsyncConnection, pair: Pair, codes: Sequence[str]) -> list[Asset]:
    """Return the registered pivots that are neither side of the pair."""
    known = {asset.code: asset for asset in await list_assets(conn)}
    sides = {pair.base.code, pair.quote.code}
    return [known[code] for code in codes if code in known and code not in sides]
