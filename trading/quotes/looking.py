"""The last look: whether the market still stands where an accepted quote was made.

Only where a party's terms allow it, only within their window, only for one question: has the mid
moved further than the tolerance, *either way*? Moved against the client it is declined just the same,
so the look is no option of the desk's (the FX Global Code, principle 17, asks for no less). Nobody
waits out the window: the quote is looked at as soon as there is a book, and when the window is over
without one it is declined. Nothing is hedged before the look: there is no deal yet.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from marketdata.model import PriceRecord
from marketdata.prices import get_price, record_price
from trading.quotes import store
from trading.quotes.booking import book_taken, require_permitted
from trading.quotes.decisions import judge_look
from trading.quotes.evidence import seen_by
from trading.quotes.making import MAKER
from trading.quotes.model import DeclineReason, Offer, Quote, QuoteState, Taken

OVER: Final = "the window of the last look was over"


async def look(
    conn: AsyncConnection, quote_id: UUID, market: PriceRecord, *, now: datetime
) -> Quote:
    """Book an accepted quote or decline it; one that is decided stays as it is.

    Args:
        conn: the caller's transaction.
        quote_id: of the quote.
        market: the market's mid now.
        now: the time, where the clock is injected; else PostgreSQL's is read after the lock.

    Raises:
        NoQuote: there is none.
    """
    item = await store.get_quote(conn, quote_id, lock=True)
    offer, taken = item.offer, item.taken
    if item.state is not QuoteState.ACCEPTED or offer is None or taken is None:
        return item
    at = await store.server_time(conn, now)
    if taken.look_until is None or not taken.at <= at < taken.look_until:
        return await decline(conn, item, DeclineReason.NOT_LOOKED_AT, OVER, now=at)
    return await _look(conn, item, offer, taken, market, at)


async def decline(
    conn: AsyncConnection,
    item: Quote,
    reason: DeclineReason,
    detail: str,
    *,
    now: datetime,
    columns: dict[str, Any] | None = None,
) -> Quote:
    """Decline the locked, accepted *item*."""
    values = {"why_not": str(reason), "detail": detail, **(columns or {})}
    return await store.advance(conn, item, QuoteState.DECLINED, by=MAKER, now=now, columns=values)


async def _look(
    conn: AsyncConnection,
    item: Quote,
    offer: Offer,
    taken: Taken,
    market: PriceRecord,
    at: datetime,
) -> Quote:
    made_on = await get_price(conn, offer.mid_price_id)
    seen = judge_look(taken.side, offer.tolerance_ppm or 0, made_on.record.price, market.price)
    try:
        async with conn.begin_nested():
            # Its switch first: no row is waited for while another desk's price is being recorded.
            await require_permitted(conn, item, taken.side)
            looked_at = await record_price(conn, seen_by(market, at), now=at)
            columns = {"look_price_id": looked_at.id, "moved_ppm": seen.moved_ppm}
            if seen.decline is not None:
                return await decline(conn, item, seen.decline, seen.detail, now=at, columns=columns)
            return await book_taken(
                conn, item, mid_price_id=looked_at.id, by=MAKER, now=at, columns=columns
            )
    except (Refused, BadInput) as refusal:
        return await decline(conn, item, DeclineReason.REFUSED, refusal.render(), now=at)
