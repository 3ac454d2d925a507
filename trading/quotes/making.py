"""Pricing what was asked for: the offer, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from marketdata.consolidated import VenueBook
from marketdata.merged import MergedBooks
from marketdata.prices import record_price
from risk.controls import control_of
from trading.position import position
from trading.quotes import store
from trading.quotes.evidence import mid_record, seen_by
from trading.quotes.model import Offer, Quote, QuotePolicy, QuoteState, RefusalReason
from trading.quotes.pricing import QuotePrice, QuoteRefused, price_quote
from trading.terms.client_terms import terms_of
from trading.terms.model import ClientTerms

MAKER: Final = "system:quotes"
LATE: Final = "nobody priced it in time"


async def make_quote(
    conn: AsyncConnection,
    quote_id: UUID,
    venue_books: Sequence[VenueBook],
    *,
    policy: QuotePolicy,
    now: datetime,
) -> Quote:
    """Price a requested quote from the books that there are; one that is answered stays as it is.

    Args:
        conn: the caller's transaction.
        quote_id: of the request.
        venue_books: of every venue that is watched, with what each charges.
        policy: when a price is made at all.
        now: by the clock that stamped the books; how long the offer is valid is counted from
            PostgreSQL's.

    Raises:
        NoQuote: there is none.
        BadInput: a book is of another pair.
    """
    item = await store.get_quote(conn, quote_id, lock=True)
    if item.state is not QuoteState.REQUESTED:
        return item
    at = await store.server_time(conn, now)
    if at >= item.answer_until:
        late = QuoteRefused(RefusalReason.NOT_ANSWERED, LATE)
        return await _refuse(conn, item, late, at)
    asked = item.request
    books = MergedBooks(asked.base, asked.quote, venue_books, now=now, age_max=policy.book_age_max)
    terms = await terms_of(conn, asked.party, on=at.date())
    held = await position(conn, item.book, asked.desk)
    priced = price_quote(
        asked,
        books,
        terms,
        policy,
        position=held.get(asked.base.code, 0),
        control=(await control_of(conn, asked.desk)).state,
    )
    if isinstance(priced, QuoteRefused):
        return await _refuse(conn, item, priced, at)
    mid = await record_price(conn, seen_by(mid_record(books, priced.mid), at), now=at)
    offer = _offer(priced, terms, mid.id, at)
    return await store.advance(
        conn, item, QuoteState.QUOTED, by=MAKER, now=at, columns=store.offer_columns(offer)
    )


async def _refuse(conn: AsyncConnection, item: Quote, refused: QuoteRefused, at: datetime) -> Quote:
    columns = {"why_not": str(refused.reason), "detail": refused.detail}
    return await store.advance(conn, item, QuoteState.REFUSED, by=MAKER, now=at, columns=columns)


def _offer(priced: QuotePrice, terms: ClientTerms, mid_price_id: UUID, at: datetime) -> Offer:
    look = terms.last_look
    return Offer(
        bid=priced.bid,
        ask=priced.ask,
        made_at=at,
        valid_until=at + timedelta(seconds=terms.quote_seconds),
        terms_version=terms.version,
        mid_price_id=mid_price_id,
        why=priced.why,
        look_ms=None if look is None else look.window_ms,
        tolerance_ppm=None if look is None else look.tolerance_ppm,
    )
