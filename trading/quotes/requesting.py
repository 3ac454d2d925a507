"""Asking for a quote."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from kernel.ids import derive_id
from registry.queries import get_asset, get_party
from trading.quotes import store
from trading.quotes.errors import QuoteConflict, QuotesTooMany
from trading.quotes.model import Quote, QuoteRequest, QuoteState

ANSWER_WITHIN: Final = timedelta(seconds=10)
"""Who asks for a price does not wait longer; a later answer would be to nobody."""

OPEN_MAX: Final = 50
"""Quotes that a party may have open at a time: several live ones are usual, thousands are a fault."""

_CONTENT: Final = ("desk", "party", "base", "quote", "units", "sized_in", "sides")


async def request_quote(
    conn: AsyncConnection, request: QuoteRequest, *, book: int, now: datetime
) -> Quote:
    """Write down what is asked for; whoever has the books prices it. Again: the quote there is.

    Raises:
        QuoteConflict: the client reference names a request of other content; says in which field.
        QuotesTooMany: the party has as many open quotes as it may have.
        UnknownRecord: the party or an asset is not registered.
        BadInput: an asset has other decimal places.
    """
    known = await store.find_quote(conn, book, request.client_ref)
    if known is not None:
        return _same(known, request)
    await _require_known(conn, request)
    if await store.count_open(conn, book, request.party) >= OPEN_MAX:
        raise QuotesTooMany(
            f"{request.party} has {OPEN_MAX} open quotes",
            remedy="Accept or withdraw some, or wait until they expire",
        )
    at = await store.server_time(conn, now)
    item = Quote(
        id=derive_id(at, "quote", book, request.client_ref),
        book=book,
        request=request,
        state=QuoteState.REQUESTED,
        answer_until=at + ANSWER_WITHIN,
        created_at=at,
        updated_at=at,
    )
    if await store.insert_quote(conn, item):
        await store.record_event(
            conn, item, was=None, by=request.requested_by, reason=request.reason, now=at
        )
        return item
    known = await store.find_quote(conn, book, request.client_ref)
    assert known is not None, "the row that the insert met is committed"
    return _same(known, request)


def _same(known: Quote, asked: QuoteRequest) -> Quote:
    for name in _CONTENT:
        if getattr(known.request, name) != getattr(asked, name):
            raise QuoteConflict(
                f"quote {asked.client_ref} is on record with another {name.replace('_', ' ')}",
                remedy="Use a new client reference for a new quote",
            )
    return known


async def _require_known(conn: AsyncConnection, request: QuoteRequest) -> None:
    await get_party(conn, request.party)
    for asset in (request.base, request.quote):
        known = await get_asset(conn, asset.code)
        if known != asset:
            raise BadInput(f"{asset.code} has {known.scale} decimal places, not {asset.scale}")
