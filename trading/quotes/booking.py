"""A quote that was taken becomes a deal, in the transaction that takes it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from risk.controls import control_of
from risk.model import ControlState
from trading.deals import book_deal
from trading.model import DealOrigin, DealRequest, DealSide
from trading.position import position
from trading.quotes import store
from trading.quotes.decisions import forbidden
from trading.quotes.errors import QuoteDeclined
from trading.quotes.model import OfferSide, Quote, QuoteState


def deal_ref(quote_id: UUID) -> str:
    """Return the client reference of the deal that a quote becomes: there can be only one."""
    return f"quote-{quote_id}"


def offered(item: Quote, side: DealSide) -> OfferSide:
    """Return what *item* offers on a side that is known to be offered."""
    found = None if item.offer is None else item.offer.side(side)
    assert found is not None, "only a side that is offered is taken"
    return found


async def require_permitted(conn: AsyncConnection, item: Quote, side: DealSide) -> None:
    """Refuse what the desk may not do any more; its switch cannot change until we have committed.

    Raises:
        QuoteDeclined: it is halted, or reducing and this would not reduce.
    """
    asked = item.request
    control = await control_of(conn, asked.desk, lock=True)
    held = 0
    if control.state is ControlState.REDUCING:
        held = (await position(conn, item.book, asked.desk)).get(asked.base.code, 0)
    why = forbidden(control.state, held, side, offered(item, side).base_units)
    if why is not None:
        raise QuoteDeclined(why)


async def book_taken(
    conn: AsyncConnection,
    item: Quote,
    *,
    mid_price_id: UUID,
    by: str,
    now: datetime,
    columns: Mapping[str, Any] | None = None,
) -> Quote:
    """Book the deal of an accepted quote and return the quote as booked.

    Args:
        conn: the caller's transaction, which holds the quote's row.
        item: the quote, accepted.
        mid_price_id: the market's mid that it was accepted at.
        by: who brought it about: whoever accepted, or the process that looked.
        now: PostgreSQL's time, at which the deal is agreed: under a last look that is when it passed.
        columns: of the quote's row, to be set with its state.

    Raises:
        Refused: a limit, or anything else that a deal is refused for.
    """
    taken, asked = item.taken, item.request
    assert taken is not None, "an accepted quote was taken by somebody"
    side = offered(item, taken.side)
    request = DealRequest(
        client_ref=deal_ref(item.id),
        desk=asked.desk,
        party=asked.party,
        side=taken.side,
        base=asked.base,
        quote=asked.quote,
        base_units=side.base_units,
        price=side.price,
        fee_units=side.fee_units,
        origin=DealOrigin.QUOTE,
        quote_id=item.id,
        agreed_at=now,
        mid_price_id=mid_price_id,
        # The price was judged when it was made. To refuse it now because the market has moved would
        # be a last look that nobody agreed to.
        off_market_reason=f"quote {item.id}",
        booked_by=taken.by,
        reason=asked.reason,
    )
    deal = await book_deal(conn, request, book=item.book, now=now)
    assert deal.quote_units == side.quote_units, "the deal exchanges what was offered"
    values = {**(columns or {}), "deal_id": deal.id}
    return await store.advance(conn, item, QuoteState.BOOKED, by=by, now=now, columns=values)
