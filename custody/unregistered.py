"""How much of what unregistered contracts press on us is kept: anybody can make any amount of it.

A block shows a bounded number of such transfers (`chain.model.UNREGISTERED_PER_BLOCK_MAX`); here it is
bounded what one contract, and all of them together, bring in a day of the chain's own time. What is
beyond is counted by contract and day, and told once. What is known already is never beyond: it
may be mined again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.model import Block, Movement
from custody.tables import unregistered_day as table
from kernel.events import DomainEvent, record
from kernel.ids import derive_id

PER_CONTRACT_DAY_MAX: Final = 100
"""Transfers of one unregistered contract that are quarantined in a day."""
PER_DAY_MAX: Final = 1_000
"""Transfers of all unregistered contracts of a chain that are quarantined in a day."""
ROWS_MAX: Final = 5_000
"""Counts shown at once, at most."""
OTHERS: Final = ""
"""Stands for every contract of which nothing was kept that day."""
ENTITY: Final = "unregistered_day"
FOLLOWER: Final = "system:follower"


def admitted(
    movements: Sequence[Movement], kept: Mapping[str, int]
) -> tuple[list[Movement], Counter[str]]:
    """Return which of *movements* are kept, and how many are not, by contract; pure.

    Args:
        kept: how many of each contract were kept that day before.
    """
    counts, taken, beyond = Counter(kept), list[Movement](), Counter[str]()
    for movement in movements:
        contract = movement.contract or OTHERS
        if counts[contract] < PER_CONTRACT_DAY_MAX and counts.total() < PER_DAY_MAX:
            counts[contract] += 1
            taken.append(movement)
        else:
            beyond[contract if counts[contract] else OTHERS] += 1
    return taken, beyond


@dataclass(frozen=True, slots=True)
class Day:
    """What one contract sent us in a day: *kept* in quarantine, *left_out* beyond the bound.

    *contract* is `OTHERS` for all those of which nothing was kept.
    """

    day: date
    contract: str
    kept: int
    left_out: int


async def list_days(conn: AsyncConnection, chain: str, *, since: date) -> list[Day]:
    """Return the counts of a chain from a day on, the newest day first, at most `ROWS_MAX`."""
    rows = await conn.execute(
        select(table.c.day, table.c.contract, table.c.kept, table.c.left_out)
        .where(table.c.chain == chain, table.c.day >= since)
        .order_by(table.c.day.desc(), table.c.left_out.desc(), table.c.contract)
        .limit(ROWS_MAX)
    )
    return [Day(*row) for row in rows]


async def admit(
    conn: AsyncConnection,
    block: Block,
    movements: Sequence[Movement],
    *,
    left_out: int,
    now: datetime,
) -> list[Movement]:
    """Return which transfers of unregistered contracts are kept, and count them and the rest.

    Called in the transaction of the block, whose chain's row is locked: nobody else counts.

    Args:
        movements: those of the block that are not known yet.
        left_out: how many more the block's reading left out.
    """
    if not movements and not left_out:
        return []
    day = block.time.date()
    rows = await conn.execute(
        select(table).where(table.c.chain == block.chain, table.c.day == day).with_for_update()
    )
    before = {row.contract: row for row in rows}
    taken, beyond = admitted(movements, {name: row.kept for name, row in before.items()})
    fresh = Counter(movement.contract or OTHERS for movement in taken)
    if left_out:
        beyond[OTHERS] += left_out
    for contract in sorted({*fresh, *beyond}):
        await _count(conn, block.chain, day, contract, fresh[contract], beyond[contract])
        told = contract in before and before[contract].left_out
        if beyond[contract] and not told:
            await record(conn, [_event(block, day, contract, now)])
    return taken


async def _count(
    conn: AsyncConnection, chain: str, day: date, contract: str, kept: int, left_out: int
) -> None:
    first = insert(table).values(
        chain=chain, day=day, contract=contract, kept=kept, left_out=left_out
    )
    again = first.on_conflict_do_update(
        index_elements=["chain", "day", "contract"],
        set_={"kept": table.c.kept + kept, "left_out": table.c.left_out + left_out},
    )
    await conn.execute(again)


def _event(block: Block, day: date, contract: str, now: datetime) -> DomainEvent:
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=derive_id(block.time, ENTITY, block.chain, day.isoformat(), contract),
        version=1,
        name="UnregisteredLeftOut",
        at=now,
        actor=FOLLOWER,
        reason="more transfers of unregistered contracts than are kept in a day",
        payload={"chain": block.chain, "day": day.isoformat(), "contract": contract or None},
    )
