"""Deals as they would be booked: what their requests leave open is found, what is wrong is said.

Of a batch, in a number of statements that does not grow with it: the records that the requests
name, the terms of their parties, how they settle. Only a market mid that a request does not name is
looked for once for each pair and moment.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from marketdata.errors import NoPrice
from marketdata.model import RecordedPrice
from marketdata.price_model import Purpose
from marketdata.price_resolution import resolve_price
from marketdata.prices import find_prices
from registry.queries import find_assets, find_parties
from trading.drafting import Asked, Draft, Known, Moment, Refusal, draft, find_fault
from trading.model import DealRequest
from trading.terms.client_terms import terms_of_many
from trading.terms.model import Settlement
from trading.terms.resolution import resolve_settlements


async def draft_deals(
    conn: AsyncConnection,
    requests: Sequence[DealRequest],
    *,
    amends: UUID | None = None,
    book: int,
    now: datetime,
) -> list[Draft | Refusal]:
    """Return each request as the deal that it would be, or why it cannot be one."""
    asked = [Asked(request, request.agreed_at or now) for request in requests]
    known = await _read(conn, asked)
    faults = [find_fault(item, known, now=now) for item in asked]
    sound = [item for item, fault in zip(asked, faults, strict=True) if fault is None]
    questions = [item.question(known.terms[item.party_day]) for item in sound]
    settlements = await resolve_settlements(conn, questions)
    mids = await _resolve_mids(conn, sound, now)
    drafts = iter(
        settlement
        if not isinstance(settlement, Settlement)
        else draft(
            item, known, settlement, _mid(item, known, mids), amends=amends, book=book, now=now
        )
        for item, settlement in zip(sound, settlements, strict=True)
    )
    return [next(drafts) if fault is None else fault for fault in faults]


async def _read(conn: AsyncConnection, asked: Sequence[Asked]) -> Known:
    requests = [item.request for item in asked]
    codes = {asset.code for item in requests for asset in (item.base, item.quote)}
    price_ids = {item.price_id for item in requests} | {item.mid_price_id for item in requests}
    return Known(
        parties=await find_parties(conn, {item.party for item in requests}),
        assets=await find_assets(conn, codes),
        prices=await find_prices(conn, {price_id for price_id in price_ids if price_id}),
        terms=await terms_of_many(conn, {item.party_day for item in asked}),
    )


async def _resolve_mids(
    conn: AsyncConnection, asked: Collection[Asked], now: datetime
) -> dict[Moment, RecordedPrice]:
    """Return the market's mid of each moment that has one, among those that no request names."""
    moments = {item.moment for item in asked if item.request.mid_price_id is None}
    found: dict[Moment, RecordedPrice] = {}
    for pair, at in sorted(moments, key=lambda moment: (str(moment[0]), moment[1])):
        try:
            resolved = await resolve_price(conn, pair, at=at, purpose=Purpose.INDICATIVE, now=now)
        except NoPrice:
            continue
        found[pair, at] = resolved.price
    return found


def _mid(asked: Asked, known: Known, mids: dict[Moment, RecordedPrice]) -> RecordedPrice | None:
    named = asked.request.mid_price_id
    return mids.get(asked.moment) if named is None else known.prices[named]
