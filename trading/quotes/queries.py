"""Quotes as they stand: one, many, what became of an attempt to take one, how often none did."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from trading.quotes import store
from trading.quotes.errors import NoAcceptance
from trading.quotes.model import Acceptance, DeclineRate, DeclineReason, Quote, QuoteState
from trading.quotes.tables import quote

LISTED_MAX: Final = 500


async def get_quote(conn: AsyncConnection, quote_id: UUID) -> Quote:
    """Return a quote.

    Raises:
        NoQuote: there is none.
    """
    return await store.get_quote(conn, quote_id)


async def find_quote(conn: AsyncConnection, book: int, client_ref: str) -> Quote | None:
    """Return the quote with this client reference, if there is one."""
    return await store.find_quote(conn, book, client_ref)


async def get_acceptance(conn: AsyncConnection, book: int, accept_ref: str) -> Acceptance:
    """Return what came of the attempt with this reference, and its quote as it stands now.

    Raises:
        NoAcceptance: none has got here.
    """
    found = await store.find_acceptance(conn, book, accept_ref)
    if found is None:
        raise NoAcceptance(
            f"no acceptance {accept_ref} is on record", remedy="It may be sent, with this reference"
        )
    return found


async def list_acceptances(conn: AsyncConnection, item: Quote) -> list[Acceptance]:
    """Return the attempts to take a quote, oldest first."""
    return await store.list_acceptances(conn, item, limit=LISTED_MAX)


async def list_quotes(
    conn: AsyncConnection,
    book: int,
    *,
    party: str | None = None,
    desk: str | None = None,
    states: Sequence[QuoteState] = tuple(QuoteState),
    limit: int = LISTED_MAX,
) -> list[Quote]:
    """Return the newest quotes, newest first."""
    query = select(quote).where(
        quote.c.book == book, quote.c.state.in_([str(state) for state in states])
    )
    for column, value in ((quote.c.party, party), (quote.c.desk, desk)):
        if value is not None:
            query = query.where(column == value)
    ordered = query.order_by(quote.c.created_at.desc(), quote.c.id.desc())
    rows = await conn.execute(ordered.limit(min(limit, LISTED_MAX)))
    return [store.quote_of(row) for row in rows]


async def list_decline_rates(
    conn: AsyncConnection, book: int, *, since: datetime, party: str | None = None
) -> list[DeclineRate]:
    """Return, by party, how often an acceptance under a last look was declined since, and why.

    Args:
        conn: the caller's transaction.
        book: whose quotes.
        since: when the quotes were accepted, at the earliest.
        party: only this one.
    """
    query = (
        select(quote.c.party, quote.c.state, quote.c.why_not, func.count().label("quotes"))
        .where(
            quote.c.book == book,
            quote.c.look_until.is_not(None),
            quote.c.taken_at >= since,
            quote.c.state.in_([str(QuoteState.BOOKED), str(QuoteState.DECLINED)]),
        )
        .group_by(quote.c.party, quote.c.state, quote.c.why_not)
    )
    if party is not None:
        query = query.where(quote.c.party == party)
    counts: defaultdict[str, Counter[DeclineReason | None]] = defaultdict(Counter)
    for row in await conn.execute(query):
        why = None if row.why_not is None else DeclineReason(row.why_not)
        counts[row.party][why] += row.quotes
    return [
        DeclineRate(
            party=name,
            looked_at=found.total(),
            declined={why: found[why] for why in DeclineReason if found[why]},
        )
        for name, found in sorted(counts.items())
    ]
