"""Many payouts by their ids, in one statement."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.payout_model import Payout
from custody.payout_store import to_payout
from custody.payout_tables import payout


async def find_payouts(conn: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, Payout]:
    """Return the payouts of *ids* that exist, as they stand; nothing is locked."""
    if not ids:
        return {}
    wanted = literal(list(ids), ARRAY(Uuid))
    rows = await conn.execute(select(payout).where(payout.c.id == any_(wanted)))
    return {row.id: to_payout(row) for row in rows}
