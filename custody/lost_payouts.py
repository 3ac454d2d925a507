"""Payouts that were sent, and that a restored database has lost: their references pay nobody again.

What a restore could not take in has no row here, so no reference of a row says that it was paid. But
a payout's id is a hash over whose it is and under which reference: from the ids that are lost it is known
of every reference whether it is one of theirs, whatever else was lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.payout_events import PAYOUT
from custody.payout_model import ClaimKind, Payout
from custody.payout_tables import payout
from custody.restore_tables import restore_item
from kernel.errors import Refused
from kernel.ids import stable_id

HASH: Final = (1 << 80) - 1
"""Which part of an id is the hash: what stands before it is when it was made."""

Reference = tuple[int, str, str]
"""Book, party (or claim of our own), and their reference."""


@dataclass(frozen=True, slots=True)
class LostPayout:
    """A payout that was sent and has no row; *source* and *key* name the item of the restore."""

    id: UUID
    source: str
    key: str


def reference_of(item: Payout) -> Reference:
    """Return what nobody else may have: book, party (or claim of our own), and their reference."""
    return item.book, item.party or item.claim, item.client_ref


def claims_of(owner: str) -> Sequence[str]:
    """Return every claim that a party's reference may have been for; one of our own is its own."""
    if owner.startswith(f"{ClaimKind.OWN}:"):
        return (owner,)
    return (f"client:{owner}", f"payable:{owner}:netted", f"client:{owner}:held")


async def find_lost(
    conn: AsyncConnection, references: Collection[Reference]
) -> dict[Reference, LostPayout]:
    """Return those of the references under which a payout was sent that has no row here."""
    if not references:
        return {}
    item = restore_item.c
    here = exists().where(payout.c.id == item.payout_id)
    query = (
        select(item.payout_id, item.source, item.key)
        .where(item.payout_id.is_not(None), item.state != "restored", ~here)
        .order_by(item.restore_id, item.source, item.key)
    )
    lost = [LostPayout(*row) for row in await conn.execute(query)]
    return _match(references, {entry.id.int & HASH: entry for entry in lost}) if lost else {}


async def require_not_lost(conn: AsyncConnection, references: Collection[Reference]) -> None:
    """Refuse references under which a payout was sent that has no row here.

    Raises:
        Refused: names the item that people have dealt with.
    """
    for (_, owner, client_ref), entry in (await find_lost(conn, references)).items():
        raise Refused(
            f"reference {client_ref!r} of {owner} was paid before the database was restored:"
            f" {entry.source} {entry.key}",
            where=f"payout {entry.id}",
            remedy="If the money did not go, ask for it under a new reference",
        )


def _match(
    references: Iterable[Reference], by_hash: dict[int, LostPayout]
) -> dict[Reference, LostPayout]:
    found = {}
    for reference in references:
        book, owner, client_ref = reference
        for claim in claims_of(owner):
            entry = by_hash.get(stable_id(PAYOUT, book, claim, client_ref).int & HASH)
            if entry is not None:
                found[reference] = entry
    return found
