"""Posting hedge fills: each once, in the order in which they traded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.money import Asset, Price, Rounding
from ledger.accounts import ensure_accounts
from ledger.model import Transfer
from ledger.posting import post, require_applied
from marketdata.errors import NoPrice
from marketdata.hierarchy import DEFAULT
from marketdata.model import PriceRecord, Quality, RecordedPrice
from marketdata.price_model import Pair, PriceKind, Purpose
from marketdata.price_resolution import resolve_price
from marketdata.prices import latest_price, record_price
from registry.errors import UnknownRecord
from registry.queries import get_asset
from trading.hedges import store
from trading.hedges.model import HedgeLine
from trading.postings import account_keys, fill_chain
from venues.exposure import lock_unbooked, mark_booked
from venues.model import VenueFill

FEE_PRICE_AGE_MAX: Final = timedelta(hours=1)
"""A fee in a third asset is valued with the price that its hierarchy has at the fill, not older than
this; without one it stays in kind."""


@dataclass(frozen=True, slots=True)
class _Valued:
    fill: VenueFill
    fee_value: int | None
    price_id: UUID | None


async def post_fills(
    conn: AsyncConnection, desk: str, asset: str, *, book: int, now: datetime
) -> list[VenueFill]:
    """Post the fills of a hedge line that are not posted yet; return them.

    Takes the line's lock first, so that a hedge is never planned between a fill's posting and its
    mark.

    Raises:
        NoHedgeLine: there is no such line.
    """
    line = await store.lock_line(conn, desk, asset)
    return await post_fills_of(conn, line, book=book, now=now)


async def post_fills_of(
    conn: AsyncConnection, line: HedgeLine, *, book: int, now: datetime
) -> list[VenueFill]:
    """Do the same for a line that the caller has locked."""
    fills = [
        fill
        for place in line.places
        for fill in await lock_unbooked(conn, place.venue, place.account, place.symbol)
    ]
    if not fills:
        return []
    fills.sort(key=lambda fill: (fill.executed_at, fill.id))
    valued = [await _value(conn, fill, now) for fill in fills]
    for item in valued:
        await store.insert_posting(
            conn,
            item.fill,
            book=book,
            desk=line.desk,
            fee_value=item.fee_value,
            fee_price_id=item.price_id,
            now=now,
        )
    lines = [
        transfer for item in valued for transfer in fill_chain(item.fill, line.desk, item.fee_value)
    ]
    await _post(conn, book, lines, now)
    await mark_booked(conn, [fill.id for fill in fills], now=now)
    return fills


async def _value(conn: AsyncConnection, fill: VenueFill, now: datetime) -> _Valued:
    """Value the fill's fee in its quote asset at the fill, however late it is posted.

    A fee in the base asset is valued with the fill's own price, which is recorded as one.
    Rounded up: an expense is never understated.
    """
    if fill.fee_asset == fill.quote or not fill.fee_units:
        return _Valued(fill, None, None)
    if fill.fee_asset == fill.base:
        base, quote = await get_asset(conn, fill.base), await get_asset(conn, fill.quote)
        own = await record_price(conn, _own_price(fill, base, quote), now=now)
        return _Valued(fill, _at(own.record.price, fill.fee_units), own.id)
    found = await _third_asset(conn, fill, now)
    if found is None:
        return _Valued(fill, None, None)
    return _Valued(fill, _at(found.record.price, fill.fee_units), found.id)


async def _third_asset(
    conn: AsyncConnection, fill: VenueFill, now: datetime
) -> RecordedPrice | None:
    at, age_max = fill.executed_at, FEE_PRICE_AGE_MAX
    try:
        pair = Pair(await get_asset(conn, fill.fee_asset), await get_asset(conn, fill.quote))
    except UnknownRecord:
        # A venue may charge in what nobody has registered: a recorded price will do, no cross.
        return await latest_price(conn, fill.fee_asset, fill.quote, now=at, age_max=age_max)
    rungs = DEFAULT.within(age_max)
    try:
        found = await resolve_price(
            conn, pair, at=at, purpose=Purpose.VALUATION, now=now, hierarchy=rungs
        )
    except NoPrice:
        return None
    return found.price


def _own_price(fill: VenueFill, base: Asset, quote: Asset) -> PriceRecord:
    return PriceRecord(
        price=Price.parse(fill.price, base, quote),
        kind=PriceKind.FILL,
        quality=Quality.GOOD,
        constituents=({"venue": fill.venue, "symbol": fill.symbol, "trade_id": fill.trade_id},),
        observed_at=fill.executed_at,
    )


def _at(price: Price, fee_units: int) -> int:
    return price.to_quote(fee_units, Rounding.UP)


async def _post(conn: AsyncConnection, book: int, lines: Sequence[Transfer], now: datetime) -> None:
    await ensure_accounts(conn, book, account_keys(lines), now=now)
    require_applied(await post(conn, book, lines, now=now))
