"""One turn of the process that has the books: price what is asked, look at what is taken, end the rest.

Each quote is a transaction of its own, so that none waits for another; several such processes may
run at once, and of two that come to a quote together the second finds it answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import BadInput, Refused
from marketdata.merged import MergedBooks
from trading.ports import BookSource
from trading.quotes import store
from trading.quotes.ending import expire_quotes
from trading.quotes.evidence import mid_record
from trading.quotes.looking import look
from trading.quotes.making import make_quote
from trading.quotes.model import Quote, QuotePolicy, QuoteRequest, QuoteState

TURN_MAX: Final = 100
"""Quotes of each kind that one turn serves; the next turn goes on with the next oldest."""

ASKED_AT_ONCE: Final = 5
"""Requests that are priced before it is asked again what has been taken meanwhile."""

log = structlog.get_logger()

_Work: TypeAlias = Callable[[AsyncConnection], Awaitable[Quote]]


async def serve_quotes(
    engine: AsyncEngine, source: BookSource, clock: Clock, policy: QuotePolicy, book: int
) -> int:
    """Serve what is waiting now, and return how many quotes were brought further.

    What is taken comes before what is asked, also while much is asked: its window is the shorter, and
    a client is waiting for a deal. A last look without a usable book is left to the next turn, until
    its window is over.
    """
    served = await _look_at_taken(engine, source, clock, policy, book)
    requests = await _waiting(engine, clock, book, QuoteState.REQUESTED)
    for start in range(0, len(requests), ASKED_AT_ONCE):
        for item in requests[start : start + ASKED_AT_ONCE]:
            served += await _serve(engine, item, _making(item, source, clock, policy))
        served += await _look_at_taken(engine, source, clock, policy, book)
    return served + await transact(engine, lambda conn: expire_quotes(conn, book, now=clock.now()))


async def _look_at_taken(
    engine: AsyncEngine, source: BookSource, clock: Clock, policy: QuotePolicy, book: int
) -> int:
    served = 0
    for item in await _waiting(engine, clock, book, QuoteState.ACCEPTED):
        served += await _serve(engine, item, _looking(item, source, clock, policy))
    return served


async def _waiting(engine: AsyncEngine, clock: Clock, book: int, state: QuoteState) -> list[Quote]:
    async def work(conn: AsyncConnection) -> list[Quote]:
        now = await store.server_time(conn, clock.now())
        return await store.list_waiting(conn, book, state, now=now, limit=TURN_MAX)

    return await transact(engine, work)


async def _serve(engine: AsyncEngine, item: Quote, work: _Work) -> int:
    """Do one quote's part; what is wrong with one is told and does not stop the others."""
    try:
        done = await transact(engine, work)
    except (Refused, BadInput) as error:
        log.warning("quote-not-served", quote=str(item.id), error=error.render())
        return 0
    return int(done.state is not item.state)


def _looking(item: Quote, source: BookSource, clock: Clock, policy: QuotePolicy) -> _Work:
    async def work(conn: AsyncConnection) -> Quote:
        books = _books(item.request, source, clock, policy)
        mid = books.mid_price()
        if mid is None or len(books.names) < policy.venues_min:
            return item
        return await look(conn, item.id, mid_record(books, mid), now=clock.now())

    return work


def _making(item: Quote, source: BookSource, clock: Clock, policy: QuotePolicy) -> _Work:
    async def work(conn: AsyncConnection) -> Quote:
        books = source.books(item.request.base, item.request.quote)
        return await make_quote(conn, item.id, books, policy=policy, now=clock.now())

    return work


def _books(
    request: QuoteRequest, source: BookSource, clock: Clock, policy: QuotePolicy
) -> MergedBooks:
    return MergedBooks(
        request.base,
        request.quote,
        source.books(request.base, request.quote),
        now=clock.now(),
        age_max=policy.book_age_max,
    )
