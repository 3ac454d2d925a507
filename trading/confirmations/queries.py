"""Reading confirmations. `get_` must exist and refuses by name; `list_` returns what there is."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from trading.confirmations import store
from trading.confirmations.model import (
    Affirmation,
    Confirmation,
    ConfirmationState,
    Due,
    Unaffirmed,
)
from trading.confirmations.tables import confirmation
from trading.tables import deal

LISTED_MAX: Final = 500
OPEN: Final = (ConfirmationState.ISSUED, ConfirmationState.DISPUTED)


async def get_confirmation(conn: AsyncConnection, confirmation_id: UUID) -> Confirmation:
    """Return a confirmation.

    Raises:
        NoConfirmation: none has this id.
    """
    return await store.get_confirmation(conn, confirmation_id)


async def list_confirmations_of(
    conn: AsyncConnection, deal_ids: Collection[UUID]
) -> list[Confirmation]:
    """Return the confirmations of some deals, by trade and version."""
    return await store.list_of_deals(conn, deal_ids)


async def list_versions(conn: AsyncConnection, trade_id: UUID) -> list[Confirmation]:
    """Return the versions of a trade, in order."""
    return await store.list_of_trade(conn, trade_id)


async def list_confirmations(
    conn: AsyncConnection,
    book: int,
    *,
    party: str | None = None,
    states: Collection[ConfirmationState] = tuple(ConfirmationState),
    limit: int = LISTED_MAX,
) -> list[Confirmation]:
    """Return the newest confirmations, newest first."""
    query = select(*store.shown_columns()).where(
        confirmation.c.book == book, confirmation.c.state.in_([str(state) for state in states])
    )
    if party is not None:
        query = query.where(confirmation.c.party == party)
    order = (
        *(confirmation.c.issued_at.desc(), confirmation.c.trade_id),
        confirmation.c.version.desc(),
    )
    rows = await conn.execute(query.order_by(*order).limit(min(limit, LISTED_MAX)))
    return [store.confirmation_of(row) for row in rows]


async def list_affirmations(conn: AsyncConnection, confirmation_id: UUID) -> list[Affirmation]:
    """Return what was said to a confirmation, oldest first."""
    return await store.list_affirmations(conn, confirmation_id)


async def list_due(
    conn: AsyncConnection, book: int, *, party: str | None = None, limit: int = LISTED_MAX
) -> list[Due]:
    """Return what has still to be written, longest due first."""
    deals = select(deal.c.id).where(deal.c.book == book)
    if party is not None:
        deals = deals.where(deal.c.party == party)
    return await store.list_due(conn, limit=min(limit, LISTED_MAX), deal_ids=deals)


async def count_due(conn: AsyncConnection) -> int:
    """Return how many versions have still to be written."""
    return await store.count_due(conn)


async def list_unaffirmed(
    conn: AsyncConnection,
    book: int,
    *,
    now: datetime,
    party: str | None = None,
    limit: int = LISTED_MAX,
) -> list[Unaffirmed]:
    """Return the newest versions that nobody affirmed, the nearest value date first.

    What is due and not written yet is not among them: see `list_due`.
    """
    query: Select[Any] = (
        select(*store.shown_columns(), deal.c.client_ref)
        .join(deal, deal.c.id == confirmation.c.deal_id)
        .where(
            confirmation.c.book == book, confirmation.c.state.in_([str(state) for state in OPEN])
        )
        .order_by(confirmation.c.value_date, confirmation.c.issued_at, confirmation.c.id)
        .limit(min(limit, LISTED_MAX))
    )
    if party is not None:
        query = query.where(confirmation.c.party == party)
    return [
        Unaffirmed(
            confirmation=store.confirmation_of(row),
            client_ref=row.client_ref,
            age_s=int((now - row.issued_at).total_seconds()),
            is_late=row.value_date <= now.date(),
        )
        for row in await conn.execute(query)
    ]
