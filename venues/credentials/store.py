"""Rows of sealed keys."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.envelope import Envelope
from venues.credentials.model import KEYS_MAX, KeyPurpose, SealedKey, Slot
from venues.credentials.tables import venue_key


async def find_in_force(
    conn: AsyncConnection, slot: Slot, *, lock: bool = False
) -> SealedKey | None:
    """Return the key of a slot, locked if asked; None: there is none."""
    query = select(venue_key).where(*_of(slot), venue_key.c.retired_at.is_(None))
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    return None if row is None else _key(row)


async def last_version(conn: AsyncConnection, slot: Slot) -> int:
    """Return the version of the slot's newest key, retired or not; 0: there was none."""
    return int(await conn.scalar(select(func.max(venue_key.c.version)).where(*_of(slot))) or 0)


async def insert_key(conn: AsyncConnection, key: SealedKey) -> None:
    """Insert a key."""
    await conn.execute(
        insert(venue_key).values(
            id=key.id,
            venue=key.slot.venue,
            account=key.slot.account,
            purpose=str(key.slot.purpose),
            version=key.version,
            enrolled_by=key.enrolled_by,
            enrolled_at=key.enrolled_at,
            reason=key.reason,
            **envelope_values(key.envelope),
        )
    )


async def write_envelope(conn: AsyncConnection, key: SealedKey, envelope: Envelope) -> None:
    """Replace the wrap of a locked key."""
    await conn.execute(
        update(venue_key).where(venue_key.c.id == key.id).values(**envelope_values(envelope))
    )


async def write_retirement(
    conn: AsyncConnection, key: SealedKey, *, by: str, now: datetime
) -> None:
    """Retire a locked key and forget what it was sealed with: it will never be opened again."""
    await conn.execute(
        update(venue_key)
        .where(venue_key.c.id == key.id)
        .values(retired_at=now, retired_by=by, wrapped_key=b"", ciphertext=b"")
    )


async def list_keys(
    conn: AsyncConnection, *, in_force: bool, lock: bool = False
) -> list[SealedKey]:
    """Return keys by slot and version."""
    query = (
        select(venue_key)
        .order_by(venue_key.c.venue, venue_key.c.account, venue_key.c.purpose, venue_key.c.version)
        .limit(KEYS_MAX)
    )
    if in_force:
        query = query.where(venue_key.c.retired_at.is_(None))
    return [_key(row) for row in await conn.execute(query.with_for_update() if lock else query)]


def envelope_values(envelope: Envelope) -> Mapping[str, Any]:
    """Return an envelope as columns."""
    return {
        "generation": envelope.generation,
        "kek_id": envelope.kek_id,
        "wrap_nonce": envelope.wrap_nonce,
        "wrapped_key": envelope.wrapped_key,
        "nonce": envelope.nonce,
        "ciphertext": envelope.ciphertext,
    }


def _of(slot: Slot) -> tuple[Any, ...]:
    return (
        venue_key.c.venue == slot.venue,
        venue_key.c.account == slot.account,
        venue_key.c.purpose == str(slot.purpose),
    )


def _key(row: Row[Any]) -> SealedKey:
    return SealedKey(
        id=row.id,
        slot=Slot(row.venue, row.account, KeyPurpose(row.purpose)),
        version=row.version,
        envelope=Envelope(
            generation=row.generation,
            kek_id=row.kek_id,
            wrap_nonce=row.wrap_nonce,
            wrapped_key=row.wrapped_key,
            nonce=row.nonce,
            ciphertext=row.ciphertext,
        ),
        enrolled_by=row.enrolled_by,
        enrolled_at=row.enrolled_at,
        reason=row.reason,
        retired_at=row.retired_at,
        retired_by=row.retired_by,
    )
