"""Quotes whose time is over, and quotes that the desk takes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import Refused
from trading.quotes import store
from trading.quotes.decisions import is_over, is_overdue
from trading.quotes.looking import OVER
from trading.quotes.making import LATE, MAKER
from trading.quotes.model import DeclineReason, Quote, QuoteState, RefusalReason

BATCH_MAX: Final = 500


async def expire_quotes(
    conn: AsyncConnection, book: int, *, now: datetime, limit: int = BATCH_MAX
) -> int:
    """End what nobody answered, took or looked at in time; return how many quotes that was.

    Whoever is at a quote right now judges its time himself; those are passed over.
    """
    seen = await store.server_time(conn, now)
    locked = await store.lock_overdue(conn, book, now=seen, limit=min(limit, BATCH_MAX))
    # What was made or taken between the look at the clock and the look at the quotes is of no time to come.
    at = await store.server_time(conn, now) if locked else seen
    ends = [(item, _expired(item)) for item in locked if is_overdue(item, at)]
    if ends:
        await store.end(conn, ends, by=MAKER, now=at)
    return len(ends)


async def withdraw_quote(
    conn: AsyncConnection, quote_id: UUID, *, by: str, reason: str, now: datetime
) -> Quote:
    """Take a quote back before it is taken; one that is over stays as it is.

    Raises:
        NoQuote: there is none.
        Refused: it was taken. That it is still looked at leaves the desk no way out of its own.
    """
    item = await store.get_quote(conn, quote_id, lock=True)
    if item.state is QuoteState.BOOKED:
        raise Refused(
            f"quote {quote_id} is booked", remedy="Cancel or amend its deal, if both sides agree"
        )
    if item.state is QuoteState.ACCEPTED:
        raise Refused(
            f"quote {quote_id} was taken; its last look decides",
            remedy="Halt the desk if it must not deal on anything",
        )
    at = await store.server_time(conn, now)
    await _withdraw(conn, [item], by=by, reason=reason, at=at)
    return await store.get_quote(conn, quote_id)


async def withdraw_all(
    conn: AsyncConnection, *, desk: str | None, by: str, reason: str, now: datetime
) -> int:
    """Take back every open quote of a desk (None: of all), and return how many that was.

    Halt the desk first, in a transaction of its own: whoever is taking a quote then has either
    finished, or finds the desk halted.
    """
    count = 0
    while True:
        batch = await store.lock_open(conn, desk=desk, limit=BATCH_MAX)
        if not batch:
            return count
        at = await store.server_time(conn, now)
        await _withdraw(conn, batch, by=by, reason=reason, at=at)
        count += len(batch)


async def _withdraw(
    conn: AsyncConnection, items: Sequence[Quote], *, by: str, reason: str, at: datetime
) -> None:
    ends = [(item, _withdrawn(item, reason, at)) for item in items]
    moved = [(before, after) for before, after in ends if before.state is not after.state]
    if moved:
        await store.end(conn, moved, by=by, reason=reason, now=at)


def _expired(item: Quote) -> Quote:
    match item.state:
        case QuoteState.REQUESTED:
            return _ended(item, QuoteState.REFUSED, RefusalReason.NOT_ANSWERED, LATE)
        case QuoteState.ACCEPTED:
            return _ended(item, QuoteState.DECLINED, DeclineReason.NOT_LOOKED_AT, OVER)
        case _:
            return _ended(item, QuoteState.EXPIRED)


def _withdrawn(item: Quote, reason: str, at: datetime) -> Quote:
    match item.state:
        case QuoteState.REQUESTED:
            return _ended(item, QuoteState.REFUSED, RefusalReason.WITHDRAWN, reason)
        case QuoteState.ACCEPTED:
            return _ended(item, QuoteState.DECLINED, DeclineReason.WITHDRAWN, reason)
        case QuoteState.QUOTED:
            is_late = item.offer is not None and is_over(item.offer, at)
            return _ended(item, QuoteState.EXPIRED if is_late else QuoteState.WITHDRAWN)
        case _:
            return item


def _ended(
    item: Quote,
    state: QuoteState,
    why_not: RefusalReason | DeclineReason | None = None,
    detail: str = "",
) -> Quote:
    return replace(item, state=state, why_not=why_not, detail=detail)
