"""Posting hedge fills: each once, in the order in which they traded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.money import Price, Rounding
from ledger.accounts import ensure_accounts
from ledger.model import Transfer
from ledger.posting import post, require_applied
from marketdata.prices import latest_price
from registry.queries import get_asset
from trading import store
from trading.model import HedgeLine
from trading.postings import account_keys, fill_chain
from venues.exposure import lock_unbooked, mark_booked
from venues.model import VenueFill

FEE_PRICE_AGE_MAX: Final = timedelta(hours=1)
"""A fee in a third asset is valued with the last price recorded before the fill, not older than
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
    fills = await lock_unbooked(conn, line.venue, line.account, line.symbol)
    if not fills:
        return []
    valued = [await _value(conn, fill) for fill in fills]
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


async def _value(conn: AsyncConnection, fill: VenueFill) -> _Valued:
    """Value the fill's fee in its quote asset at the fill, however late it is posted.

    Rounded up: an expense is never understated.
    """
    if fill.fee_asset == fill.quote or not fill.fee_units:
        return _Valued(fill, None, None)
    if fill.fee_asset == fill.base:
        base, quote = await get_asset(conn, fill.base), await get_asset(conn, fill.quote)
        return _Valued(fill, _at(Price.parse(fill.price, base, quote), fill.fee_units), None)
    found = await latest_price(
        conn, fill.fee_asset, fill.quote, now=fill.executed_at, age_max=FEE_PRICE_AGE_MAX
    )
    if found is None:
        return _Valued(fill, None, None)
    return _Valued(fill, _at(found.record.price, fill.fee_units), found.id)


def _at(price: Price, fee_units: int) -> int:
    return price.to_quote(fee_units, Rounding.UP)


async def _post(conn: AsyncConnection, book: int, lines: Sequence[Transfer], now: datetime) -> None:
    await ensure_accounts(conn, book, account_keys(lines), now=now)
    require_applied(await post(conn, book, lines, now=now))
