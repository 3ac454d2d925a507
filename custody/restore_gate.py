"""The gate of a restore: what every door asks before it lets money out, and every reader of facts.

It is shut while a restore stands, and for as long as nobody has compared this start of the server with
the witnesses (`custody.restore.watching`): a database that is set back comes with a new start, or is
another database of its cluster.
A house that never had itself watched has no gate.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import func, literal, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.errors import Frozen
from custody.restore_tables import restore, restore_item, restore_watch
from kernel.clock import iso

BY: Final = "system:restore"
UNCOMPARED_ID: Final = UUID(int=0)
"""Stands for a restore that nobody has looked for yet."""
UNCOMPARED: Final = "the server was started and nobody has looked yet whether it was set back"
LOOK: Final = "The house looks by itself; else run `causeway restore look`"
DATABASE: Final = (
    "(SELECT oid::text FROM pg_catalog.pg_database WHERE datname = current_database())"
    " || '.' || 'custody.restore_watch'::regclass::oid::text"
)
"""SQL: what a database is in its cluster. A copy put in its place, and a dump loaded into it while the
server runs, have other numbers; a restart, a backup of the cluster and a standby have the same."""
STARTED: Final = f"custody.server_start() || '/' || {DATABASE}"
"""SQL: the start of the server, and the database that was compared at it."""
STATUS: Final = "See `causeway restore status`; two people open what a restore has closed"


@dataclass(frozen=True, slots=True)
class Gate:
    """Why the doors are shut.

    Attributes:
        id: of the restore; `UNCOMPARED_ID` where nobody has looked yet.
        facts_wait: whether blocks and statements wait, too: what was sent is not known again.
    """

    id: UUID
    since: datetime
    reason: str
    facts_wait: bool

    @property
    def remedy(self) -> str:
        """Return what to do."""
        return LOOK if self.id == UNCOMPARED_ID else STATUS


async def find_gate(conn: AsyncConnection) -> Gate | None:
    """Return why every door is shut; None: the gate is open."""
    here = func.pg_postmaster_start_time()
    one = select(literal(1).label("one")).subquery()
    found = await conn.execute(
        select(
            restore_watch.c.started,
            literal_column(STARTED).label("here"),
            here.label("since"),
            restore.c.id,
            restore.c.found_at,
            restore.c.evidence,
            restore.c.sent_known_at,
        ).select_from(
            one.outerjoin(restore_watch, restore_watch.c.one == one.c.one).outerjoin(
                restore, restore.c.state == "frozen"
            )
        )
    )
    row = found.one()
    if row.id is not None:
        return Gate(
            row.id,
            row.found_at,
            f"the database was restored: {row.evidence}",
            facts_wait=row.sent_known_at is None,
        )
    if row.started is not None and row.started != row.here:
        return Gate(UNCOMPARED_ID, row.since, UNCOMPARED, facts_wait=True)
    return None


async def find_newest_restore(conn: AsyncConnection) -> UUID | None:
    """Return the restore that was found last, opened or not; None: the database was never set back."""
    query = select(restore.c.id).order_by(restore.c.found_at.desc(), restore.c.id).limit(1)
    found: UUID | None = await conn.scalar(query)
    return found


async def require_compared(conn: AsyncConnection) -> None:
    """Refuse to give anything out of which a database that was set back would give out the same again.

    Raises:
        Frozen: nobody has looked yet whether it was.
    """
    gate = await find_gate(conn)
    if gate is not None and gate.id == UNCOMPARED_ID:
        raise Frozen(gate.reason, where="custody.restore_gate", remedy=gate.remedy)


async def list_found_outside(conn: AsyncConnection, payouts: Collection[UUID]) -> set[UUID]:
    """Return which of these payouts were sent, as a restore has found, and could not be taken in."""
    if not payouts:
        return set()
    item = restore_item.c
    query = select(item.payout_id).where(item.payout_id.in_(payouts), item.state != "restored")
    return set((await conn.execute(query)).scalars())


async def is_found_outside(conn: AsyncConnection, key: str) -> bool:
    """Tell whether a restore has found this to have been done, and it is not here again."""
    lost = restore_item.c.state.in_(["unresolved", "settled"])
    query = select(literal(1)).where(restore_item.c.key == key, lost).limit(1)
    return await conn.scalar(query) is not None


async def require_facts_wanted(conn: AsyncConnection) -> None:
    """Refuse to take in what came of our acts while it is not known which acts there were.

    Raises:
        Frozen: says since when and why.
    """
    gate = await find_gate(conn)
    if gate is not None and gate.facts_wait:
        raise Frozen(
            f"nothing is taken in since {iso(gate.since)}: {gate.reason}",
            where="custody.restore_gate",
            remedy=gate.remedy,
        )
