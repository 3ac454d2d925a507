"""What stands: the restore, what it reads again, what people have to look at, what opens it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.deposit_model import Deposit
from custody.restore import store
from custody.restore.model import Item, Restore, Source
from custody.restore.progress import list_missing
from custody.restore_gate import Gate, find_gate
from custody.store import list_at_skipped

UNCLAIMED_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How it stands.

    Attributes:
        gate: why the doors are shut; None: they are not.
        missing: in words, what keeps two people from opening.
        unclaimed: what arrived at addresses that a restore skipped, this one or an earlier one, and that
            is nobody's until people say whose it is; at most `UNCLAIMED_MAX`.
    """

    gate: Gate | None
    restore: Restore | None = None
    sources: tuple[Source, ...] = ()
    items: tuple[Item, ...] = ()
    missing: tuple[str, ...] = ()
    unclaimed: tuple[Deposit, ...] = ()

    @property
    def facts_wait(self) -> bool:
        """Tell whether blocks and statements wait, because what was sent is not known again."""
        return self.gate is not None and self.gate.facts_wait


async def find_status(conn: AsyncConnection, *, with_unclaimed: bool = False) -> Status:
    """Return how it stands now.

    Args:
        with_unclaimed: whether deposits at skipped addresses are looked for, which takes longer.
    """
    gate, standing = await find_gate(conn), await store.find_standing(conn)
    unclaimed = tuple(await list_at_skipped(conn, UNCLAIMED_MAX)) if with_unclaimed else ()
    if standing is None:
        return Status(gate=gate, unclaimed=unclaimed)
    return Status(
        gate=gate,
        restore=standing,
        sources=tuple(await store.list_sources(conn, standing.id)),
        items=tuple(await store.list_items(conn, standing.id)),
        missing=tuple(await list_missing(conn, standing.id)),
        unclaimed=unclaimed,
    )


async def get_standing(conn: AsyncConnection) -> Restore:
    """Return the restore that stands.

    Raises:
        NotPossible: none does.
    """
    return await store.require_standing(conn)


async def get_source(conn: AsyncConnection, source: str) -> Source:
    """Return a place that the restore which stands reads.

    Raises:
        NotPossible, UnknownRow: no restore stands, or it has no such place.
    """
    standing = await store.require_standing(conn)
    return await store.get_source(conn, standing.id, source)


async def get_item(conn: AsyncConnection, source: str, key: str) -> Item:
    """Return something that was found missing.

    Raises:
        NotPossible, UnknownRow: no restore stands, or it has found no such thing.
    """
    standing = await store.require_standing(conn)
    return await store.get_item(conn, standing.id, source, key)


async def list_restores(conn: AsyncConnection) -> list[Restore]:
    """Return every restore there was, newest first."""
    return await store.list_restores(conn)
