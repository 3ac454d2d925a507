"""Rows of ``chain.agreement``, read and written as values of `chain.disputes`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.disputes import Agreement
from chain.tables import agreement
from kernel.ids import derive_id


@dataclass(frozen=True, slots=True)
class AgreementRow:
    """How it stands between the providers of a chain, and under which id events tell of it."""

    chain: str
    id: UUID
    agreement: Agreement


async def ensure_agreement(conn: AsyncConnection, chain: str, *, now: datetime) -> None:
    """Make the chain's row if there is none."""
    values = {"chain": chain, "id": derive_id(now, "agreement", chain), **asdict(Agreement())}
    await conn.execute(postgresql.insert(agreement).values(values).on_conflict_do_nothing())


async def load_agreement(
    conn: AsyncConnection, chain: str, *, lock: bool = False
) -> AgreementRow | None:
    """Return the chain's row; with *lock* nobody else changes it meanwhile."""
    query = select(agreement).where(agreement.c.chain == chain)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        return None
    return AgreementRow(
        row.chain, row.id, Agreement(row.tip_height, row.disputed_since, row.alarmed, row.detail)
    )


async def write_agreement(conn: AsyncConnection, chain: str, after: Agreement) -> None:
    """Change the chain's row, which the caller has locked."""
    await conn.execute(update(agreement).where(agreement.c.chain == chain).values(**asdict(after)))
