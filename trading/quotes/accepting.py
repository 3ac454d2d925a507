"""Taking a quote: one attempt wins, and each has an outcome that its reference brings back."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from ledger.opaque import require_token
from marketdata.price_model import PriceKind
from marketdata.prices import get_price, latest_price
from trading.model import DealSide
from trading.quotes import store
from trading.quotes.booking import book_taken, require_permitted
from trading.quotes.decisions import rule
from trading.quotes.errors import (
    NotOffered,
    NotTaken,
    QuoteConflict,
    QuoteDeclined,
    QuoteExpired,
    QuoteTaken,
    QuoteWithdrawn,
)
from trading.quotes.making import MAKER
from trading.quotes.model import Acceptance, Offer, Quote, QuoteState, Verdict

MIDS: Final = frozenset({PriceKind.JOINT_MID, PriceKind.INDEX})
"""Prices that say where the market's middle was when a quote was taken."""

_ERRORS: Final[dict[Verdict, type[NotTaken]]] = {
    Verdict.TAKEN: QuoteTaken,
    Verdict.EXPIRED: QuoteExpired,
    Verdict.WITHDRAWN: QuoteWithdrawn,
    Verdict.REFUSED: QuoteDeclined,
}


async def accept_quote(
    conn: AsyncConnection,
    quote_id: UUID,
    side: DealSide,
    *,
    accept_ref: str,
    by: str,
    now: datetime,
) -> Acceptance:
    """Take one side of a quote; the same reference again returns the same attempt.

    Without a last look the deal is booked here, in the caller's transaction. That somebody else was
    first, that time was over, that a limit forbids it: these are outcomes, on record like a success
    (`require_won` raises them). The caller commits whatever it is.

    Args:
        conn: the caller's transaction.
        quote_id: of the quote.
        side: the desk's: at the ask it sells.
        accept_ref: an opaque token of whoever accepts; unique in the book, for ever.
        by: operator id.
        now: the time, where the clock is injected; else PostgreSQL's is read after the lock.

    Raises:
        NoQuote: there is none.
        NotOffered: it has no offer, or none on this side.
        QuoteConflict: the reference names an attempt at another quote or side.
    """
    require_token(accept_ref, "acceptance reference")
    item = await store.get_quote(conn, quote_id, lock=True)
    known = await store.find_acceptance(conn, item.book, accept_ref)
    if known is not None:
        return _same(known, quote_id, side)
    offer = _offer_on(item, side)
    at = await store.server_time(conn, now)
    ruling = rule(item, offer, at)
    attempt = Acceptance(
        accept_ref=accept_ref,
        quote=item,
        side=side,
        by=by,
        at=at,
        verdict=ruling.verdict,
        detail=ruling.detail,
    )
    if attempt.verdict is Verdict.WON:
        return await _win(conn, attempt, offer)
    if attempt.verdict is Verdict.EXPIRED and item.state is QuoteState.QUOTED:
        expired = await store.advance(conn, item, QuoteState.EXPIRED, by=MAKER, now=at)
        attempt = replace(attempt, quote=expired)
    return await _record(conn, attempt)


def require_won(attempt: Acceptance) -> Quote:
    """Return the quote that was taken, for callers to whom another outcome is an error.

    Raises:
        QuoteTaken, QuoteExpired, QuoteWithdrawn: as they say.
        QuoteDeclined: a limit or control said no, or the last look did since.
    """
    error = _ERRORS.get(attempt.verdict)
    if error is not None:
        raise error(attempt.detail)
    if attempt.quote.state is QuoteState.DECLINED:
        raise QuoteDeclined(f"declined, {attempt.quote.why_not}: {attempt.quote.detail}")
    return attempt.quote


def _same(known: Acceptance, quote_id: UUID, side: DealSide) -> Acceptance:
    if (known.quote.id, known.side) != (quote_id, side):
        raise QuoteConflict(
            f"acceptance {known.accept_ref} is of quote {known.quote.id}, {known.side}",
            remedy="Use a new reference for another attempt",
        )
    return known


def _offer_on(item: Quote, side: DealSide) -> Offer:
    if item.offer is None:
        why = f", {item.why_not}: {item.detail}" if item.why_not else ""
        raise NotOffered(f"quote {item.id} is {item.state}{why}")
    if item.offer.side(side) is None:
        raise NotOffered(f"quote {item.id} has no price for {side}")
    return item.offer


async def _win(conn: AsyncConnection, attempt: Acceptance, offer: Offer) -> Acceptance:
    """Take the quote; what a limit or control of the desk refuses leaves it as it was."""
    try:
        async with conn.begin_nested():
            return await _take(conn, attempt, offer)
    except QuoteConflict:
        raise
    except (Refused, BadInput) as refusal:
        refused = replace(attempt, verdict=Verdict.REFUSED, detail=refusal.render())
        return await _record(conn, refused)


async def _take(conn: AsyncConnection, attempt: Acceptance, offer: Offer) -> Acceptance:
    """Lock in the order of all: the quote (held), the desk's switch, the references, the deal's own."""
    item, at = attempt.quote, attempt.at
    await require_permitted(conn, item, attempt.side)
    await _record(conn, attempt)
    columns = {
        "taken_side": str(attempt.side),
        "accept_ref": attempt.accept_ref,
        "taken_by": attempt.by,
        "taken_at": at,
    }
    if offer.look_ms is not None:
        columns["look_until"] = at + timedelta(milliseconds=offer.look_ms)
    taken = await store.advance(
        conn, item, QuoteState.ACCEPTED, by=attempt.by, now=at, columns=columns
    )
    if offer.look_ms is None:
        mid = await _mid_at(conn, taken, offer, at)
        taken = await book_taken(conn, taken, mid_price_id=mid, by=attempt.by, now=at)
    return replace(attempt, quote=taken)


async def _record(conn: AsyncConnection, attempt: Acceptance) -> Acceptance:
    if not await store.insert_acceptance(conn, attempt):
        raise QuoteConflict(
            f"acceptance {attempt.accept_ref} is of another quote",
            remedy="Use a new reference for another attempt",
        )
    return attempt


async def _mid_at(conn: AsyncConnection, item: Quote, offer: Offer, at: datetime) -> UUID:
    """Return the newest mid on record when the quote was taken; at the oldest it is the offer's."""
    made_on = await get_price(conn, offer.mid_price_id)
    newest = await latest_price(
        conn,
        item.request.base.code,
        item.request.quote.code,
        now=at,
        age_max=at - made_on.record.observed_at,
        kinds=MIDS,
    )
    return offer.mid_price_id if newest is None else newest.id
