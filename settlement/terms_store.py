"""Rows of collateral, and of where payments go all the same; private to the package."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Row,
    Uuid,
    any_,
    bindparam,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.leases import wait_for
from settlement.collateral_model import CollateralMove, Move, Way
from settlement.model import Direction
from settlement.tables import obligation
from settlement.terms_tables import collateral, standing_choice

_IDS: Final = bindparam("ids", type_=ARRAY(Uuid))


class Owed(NamedTuple):
    """What never changes of an obligation."""

    id: UUID
    party: str
    asset: str
    direction: Direction
    amount: int


async def list_owed(conn: AsyncConnection, ids: Collection[UUID]) -> list[Owed]:
    """Return what never changes of obligations, by id."""
    if not ids:
        return []
    columns = (obligation.c.id, obligation.c.party, obligation.c.asset)
    query = select(*columns, obligation.c.direction, obligation.c.amount)
    rows = await conn.execute(
        query.where(obligation.c.id == any_(_IDS)).order_by(obligation.c.id), {_IDS.key: list(ids)}
    )
    return [
        Owed(row.id, row.party, row.asset, Direction(row.direction), row.amount) for row in rows
    ]


async def deals_paid(
    conn: AsyncConnection, run_ids: Collection[UUID]
) -> dict[tuple[UUID, str, str], set[UUID]]:
    """Return of which deals each (run, party, asset) pays what the desk owes."""
    rows = await conn.execute(
        select(
            obligation.c.run_id, obligation.c.party, obligation.c.asset, obligation.c.deal_id
        ).where(obligation.c.run_id == any_(_IDS), obligation.c.direction == Direction.PAY),
        {_IDS.key: list(run_ids)},
    )
    found: dict[tuple[UUID, str, str], set[UUID]] = {}
    for row in rows:
        found.setdefault((row.run_id, row.party, row.asset), set()).add(row.deal_id)
    return found


async def list_choices(
    conn: AsyncConnection, instruction_ids: Collection[UUID]
) -> dict[UUID, set[int]]:
    """Return which versions were chosen for instructions, by instruction."""
    rows = await conn.execute(
        select(standing_choice.c.instruction_id, standing_choice.c.standing_version).where(
            standing_choice.c.instruction_id == any_(_IDS)
        ),
        {_IDS.key: list(instruction_ids)},
    )
    found: dict[UUID, set[int]] = {}
    for row in rows:
        found.setdefault(row.instruction_id, set()).add(row.standing_version)
    return found


async def insert_choice(
    conn: AsyncConnection,
    instruction_id: UUID,
    version: int,
    *,
    chosen_by: str,
    approved_by: str,
    reason: str,
    at: datetime,
) -> bool:
    """Write that an instruction is paid to a version; False: that is on record."""
    statement = upsert(standing_choice).values(
        instruction_id=instruction_id,
        standing_version=version,
        chosen_by=chosen_by,
        approved_by=approved_by,
        reason=reason,
        at=at,
    )
    return (await conn.execute(statement.on_conflict_do_nothing())).rowcount == 1


async def lock_collateral(conn: AsyncConnection, party: str, asset: str) -> None:
    """Wait until nobody else moves security of *party* in *asset*, for this transaction."""
    await wait_for(conn, f"collateral:{party}:{asset}")


async def lock_claims(conn: AsyncConnection, book: int) -> None:
    """Wait until nobody else enters obligations against the open claims of a book, for this transaction."""
    await wait_for(conn, f"obligation-claims:{book}")


async def find_collateral(
    conn: AsyncConnection, book: int, reference: str
) -> CollateralMove | None:
    """Return the movement of that reference, if there is one."""
    query = select(collateral).where(collateral.c.book == book, collateral.c.reference == reference)
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else _move(row)


async def insert_collateral(
    conn: AsyncConnection,
    item: CollateralMove,
    *,
    obligation_id: UUID | None,
    entered_by: str,
    approved_by: str,
    reason: str,
    at: datetime,
) -> None:
    """Write a movement of security."""
    await conn.execute(
        insert(collateral).values(
            id=item.id,
            book=item.book,
            reference=item.reference,
            move=item.move,
            way=item.way,
            party=item.party,
            asset=item.asset,
            amount=item.amount,
            value_date=item.value_date,
            obligation_id=obligation_id,
            entered_by=entered_by,
            approved_by=approved_by,
            reason=reason,
            at=at,
        )
    )


def _move(row: Row[Any]) -> CollateralMove:
    return CollateralMove(
        book=row.book,
        reference=row.reference,
        move=Move(row.move),
        way=Way(row.way),
        party=row.party,
        asset=row.asset,
        amount=row.amount,
        value_date=row.value_date,
    )
