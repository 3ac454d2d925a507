"""After the database was restored: nothing that it says of orders not being sent is believed.

An order that stands as an intent may have been sent since, and one that is missing may be open at the
venue. So accounts are halted, and every intent counts as sent without an answer: only evidence from
the venue ends it (`venues.orders.resume`). Trades of orders that are missing come in by
`venues.fills.collect`, whose cursor went back too.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select, union
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from venues.account_state import halt
from venues.fills import collect
from venues.model import FINAL_STATES, AccountMode, OrderState, VenueStatus
from venues.ports import VenueGateway
from venues.store import advance, find_by_client_id, get_order, list_in_states
from venues.tables import fill_cursor, venue_account_state, venue_order

ACTOR: Final = "system:restore"
WHY: Final = "the database was restored"
INTENTS_MAX: Final = 10_000
DOUBT_FOR: Final = timedelta(minutes=2)
"""How long after a restore a venue may take in what was sent just before, by whatever clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueRead:
    """What reading an account at a venue again has shown.

    Attributes:
        new: trades that were missing.
        unsettled: client order ids of which nobody knows the end yet.
        unread: trades that cannot be read.
        strangers: orders that are open there, and missing or over here; they were cancelled.
    """

    new: int
    unsettled: tuple[str, ...]
    unread: int
    strangers: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether nothing of the account is unknown any more."""
        return not (self.unsettled or self.unread or self.strangers)


async def list_places(conn: AsyncConnection) -> list[tuple[str, str]]:
    """Return every (venue, account) at which something was ever ordered or traded."""
    tables = (venue_order, fill_cursor)
    found = await conn.execute(union(*(select(t.c.venue, t.c.account).distinct() for t in tables)))
    return sorted((row.venue, row.account) for row in found)


async def list_symbols(conn: AsyncConnection, venue: str, account: str) -> list[str]:
    """Return the symbols of an account that were ever ordered or read."""
    tables = (venue_order, fill_cursor)
    found = await conn.execute(
        union(
            *(
                select(t.c.symbol).where(t.c.venue == venue, t.c.account == account).distinct()
                for t in tables
            )
        )
    )
    return sorted(row.symbol for row in found)


async def doubt(conn: AsyncConnection, *, now: datetime) -> list[tuple[str, str]]:
    """Halt every account, and take every intent for sent without an answer; return the accounts."""
    places = await list_places(conn)
    for venue, account in places:
        await doubt_account(conn, venue, account, now=now)
    return places


async def doubt_account(conn: AsyncConnection, venue: str, account: str, *, now: datetime) -> None:
    """Halt an account, and take its intents for sent without an answer."""
    await halt(conn, venue, account, reason=WHY, actor=ACTOR, now=now)
    intents = await list_in_states(
        conn, venue, account, frozenset({OrderState.INTENT}), limit=INTENTS_MAX
    )
    for item in intents:
        order = await get_order(conn, item.id, lock=True)
        if order.state is not OrderState.INTENT:
            continue
        # Nobody knows when it was sent, but that it was before; so until then a venue may take it in.
        sent = (OrderState.SUBMITTING, OrderState.UNKNOWN)
        last = now + DOUBT_FOR
        await advance(conn, order, *sent, reason=WHY, actor=ACTOR, now=now, signed_at=last)


async def list_halted(conn: AsyncConnection) -> list[tuple[str, str]]:
    """Return the accounts that a restore has halted, and nobody else before."""
    found = await conn.execute(
        select(venue_account_state.c.venue, venue_account_state.c.account).where(
            venue_account_state.c.state == AccountMode.HALTED, venue_account_state.c.by == ACTOR
        )
    )
    return sorted((row.venue, row.account) for row in found)


async def read_again(
    engine: AsyncEngine,
    gateway: VenueGateway,
    symbols: Collection[str],
    *,
    clock: Clock,
) -> VenueRead:
    """Read the trades of an account and its open orders; cancel those that are missing here.

    Args:
        engine: the database.
        gateway: the account.
        symbols: read besides those on record: it may first have traded them after the moment.
        clock: the time.

    Raises:
        VenueUnavailable: the venue does not answer; what was read is kept.
    """
    venue, account = gateway.venue, gateway.account
    known = await transact(engine, lambda conn: list_symbols(conn, venue, account))
    new = unread = 0
    unsettled: set[str] = set()
    strangers: list[str] = []
    for symbol in sorted({*known, *symbols}):
        strange = await _find_strangers(engine, gateway, symbol, clock.now())
        if strange:
            await gateway.cancel_all(symbol)
        strangers += strange
        read = await collect(engine, gateway, symbol, clock=clock)
        new += read.new
        unread += read.unread
        unsettled |= {item.client_order_id for item in read.incomplete}
    states = frozenset({OrderState.SUBMITTING, OrderState.UNKNOWN, OrderState.ESCALATED})
    async with engine.connect() as conn:
        left = await list_in_states(conn, venue, account, states, limit=INTENTS_MAX)
    unsettled |= {item.client_order_id for item in left}
    return VenueRead(
        new=new,
        unsettled=tuple(sorted(unsettled)),
        unread=unread,
        strangers=tuple(strangers),
    )


async def _find_strangers(
    engine: AsyncEngine, gateway: VenueGateway, symbol: str, now: datetime
) -> list[str]:
    """Return the orders that are open at the venue and that are missing here, or are over here."""
    # Open ones are listed whatever their age; of the others none is asked for.
    listed = await gateway.list_orders(symbol, now)
    # Some venues list an open order among all of them, too.
    strange = []
    for name in sorted({i.client_order_id for i in listed if i.status is VenueStatus.OPEN}):
        async with engine.connect() as conn:
            known = await find_by_client_id(conn, gateway.venue, gateway.account, name)
        if known is None or known.state in FINAL_STATES:
            strange.append(name)
    return strange
