"""Rows of returns, fails and defaults; private to settlement."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Row, Text, any_, insert, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from settlement.fail_model import (
    DefaultState,
    Fail,
    PartyDefault,
    PaymentReturn,
    ReturnKind,
)
from settlement.fail_tables import fail, party_default, payment_return
from settlement.instruction_store import to_instruction
from settlement.model import (
    Instruction,
    InstructionState,
    Obligation,
    ObligationState,
    RunState,
)
from settlement.store import require_rows, to_obligation
from settlement.tables import instruction, obligation, run

PAGE_MAX: Final = 500
UNSEALED: Final = (
    ObligationState.OPEN,
    ObligationState.CALCULATED,
    ObligationState.AFFIRMED,
    ObligationState.DISPUTED,
)


async def insert_return(conn: AsyncConnection, new: PaymentReturn) -> bool:
    """Write down that money went back; False: what it came with is known already."""
    values = {name: getattr(new, name) for name in PaymentReturn.__slots__}
    statement = upsert(payment_return).values(**values)
    result = await conn.execute(statement.on_conflict_do_nothing(index_elements=["item_id"]))
    return result.rowcount == 1


async def list_returns(
    conn: AsyncConnection,
    *,
    instructions: Collection[UUID] | None = None,
    items: Collection[UUID] | None = None,
    book: int | None = None,
    limit: int = PAGE_MAX,
) -> list[PaymentReturn]:
    """Return what went back, the newest first."""
    t = payment_return
    query = select(t).order_by(t.c.at.desc(), t.c.id).limit(min(limit, PAGE_MAX))
    if instructions is not None:
        query = query.where(t.c.instruction_id.in_(instructions))
    if items is not None:
        query = query.where(t.c.item_id.in_(items))
    if book is not None:
        query = query.where(t.c.book == book)
    return [
        PaymentReturn(**{**row, "kind": ReturnKind(row["kind"])})
        for row in (await conn.execute(query)).mappings()
    ]


async def list_unfinished(
    conn: AsyncConnection, book: int, *, due_by: date
) -> list[tuple[Instruction, date]]:
    """Return the instructions of released runs that are not final, with their value dates."""
    query = (
        select(instruction, run.c.value_date)
        .join(run, run.c.id == instruction.c.run_id)
        .where(
            instruction.c.book == book,
            run.c.state == RunState.RELEASED,
            run.c.value_date <= due_by,
            instruction.c.state != InstructionState.FINAL,
        )
        .order_by(instruction.c.id)
    )
    return [(to_instruction(row), row.value_date) for row in await conn.execute(query)]


async def list_unsealed(conn: AsyncConnection, book: int, party: str) -> list[Obligation]:
    """Return what a party owes and is owed that no run has sealed, by value date."""
    query = (
        select(obligation)
        .where(
            obligation.c.book == book,
            obligation.c.party == party,
            obligation.c.state.in_(UNSEALED),
        )
        .order_by(obligation.c.value_date, obligation.c.id)
    )
    return [to_obligation(row) for row in await conn.execute(query)]


async def list_sealed(
    conn: AsyncConnection, book: int, party: str
) -> list[tuple[Instruction, str]]:
    """Return a party's instructions that are not final, each with its netting set."""
    query = (
        select(instruction, run.c.netting_set)
        .join(run, run.c.id == instruction.c.run_id)
        .where(
            instruction.c.book == book,
            instruction.c.party == party,
            instruction.c.state != InstructionState.FINAL,
        )
        .order_by(instruction.c.id)
    )
    return [(to_instruction(row), row.netting_set) for row in await conn.execute(query)]


async def insert_fails(conn: AsyncConnection, rows: Sequence[dict[str, Any]]) -> list[UUID]:
    """Write down what is late; what is known already stays. Return what is new, or late once more.

    What was paid since, and is not final any more, is late as it was before.
    """
    if not rows:
        return []
    statement = upsert(fail).values(list(rows))
    statement = statement.on_conflict_do_update(
        index_elements=["instruction_id"],
        set_={"cured_at": None},
        where=fail.c.cured_at.is_not(None),
    )
    return list((await conn.execute(statement.returning(fail.c.instruction_id))).scalars())


async def list_fails(
    conn: AsyncConnection,
    book: int,
    *,
    cured: bool = False,
    only: Collection[UUID] | None = None,
    lock: bool = False,
) -> list[tuple[Row[Any], Instruction]]:
    """Return fails with their instructions, the oldest due first; *cured*: those that are over too."""
    query = (
        select(fail, instruction)
        .join(instruction, instruction.c.id == fail.c.instruction_id)
        .where(fail.c.book == book)
        .order_by(fail.c.due_on, fail.c.instruction_id)
    )
    if not cured:
        query = query.where(fail.c.cured_at.is_(None))
    if only is not None:
        query = query.where(fail.c.instruction_id.in_(only))
    if lock:
        query = query.with_for_update(of=fail)
    return [(row, to_instruction(row)) for row in await conn.execute(query)]


def to_fail(row: Row[Any], item: Instruction, age: int) -> Fail:
    """Return a fail with its age."""
    return Fail(
        instruction_id=item.id,
        run_id=item.run_id,
        party=item.party,
        asset=item.asset,
        direction=item.direction,
        rail=item.rail,
        state=item.state,
        remaining=item.remaining,
        due_on=row.due_on,
        value_date=row.value_date,
        calendars=row.calendars,
        calendars_version=row.calendars_version,
        age=age,
        rolls=row.rolls,
        cause=row.cause,
        noticed_at=row.noticed_at,
        cured_at=row.cured_at,
    )


async def update_fail(conn: AsyncConnection, instruction_id: UUID, **values: object) -> None:
    """Write a locked fail."""
    result = await conn.execute(
        update(fail)
        .where(fail.c.instruction_id == instruction_id, fail.c.cured_at.is_(None))
        .values(**values)
    )
    require_rows(result, 1, f"the fail of instruction {instruction_id}")


async def cure_fails(conn: AsyncConnection, book: int, *, now: datetime) -> list[UUID]:
    """Mark that what is final since is not late any more; return which."""
    final = select(instruction.c.id).where(
        instruction.c.id == fail.c.instruction_id,
        instruction.c.state == InstructionState.FINAL,
    )
    statement = (
        update(fail)
        .where(fail.c.book == book, fail.c.cured_at.is_(None), final.exists())
        .values(cured_at=now)
        .returning(fail.c.instruction_id)
    )
    return list((await conn.execute(statement)).scalars())


async def insert_default(conn: AsyncConnection, new: PartyDefault) -> None:
    """Write down a default; one that is in force violates the index."""
    names = [name for name in PartyDefault.__slots__ if not name.startswith("lifted")]
    await conn.execute(insert(party_default).values(**{name: getattr(new, name) for name in names}))


async def find_default(
    conn: AsyncConnection, book: int, party: str, *, lock: bool = False
) -> PartyDefault | None:
    """Return the default of a party that is in force, if there is one."""
    t = party_default
    query = select(t).where(
        t.c.book == book, t.c.party == party, t.c.state == DefaultState.DECLARED
    )
    row = (await conn.execute(query.with_for_update() if lock else query)).first()
    return None if row is None else _default(row)


async def list_in_force(
    conn: AsyncConnection, book: int, parties: Collection[str] | None = None
) -> list[PartyDefault]:
    """Return every default that is in force, one of a party at most; None: of all parties."""
    t = party_default
    query = select(t).where(t.c.book == book, t.c.state == DefaultState.DECLARED)
    if parties is not None:
        query = query.where(t.c.party == any_(literal(sorted(parties), ARRAY(Text))))
    return [_default(row) for row in await conn.execute(query.order_by(t.c.declared_at, t.c.id))]


async def list_defaults(
    conn: AsyncConnection, book: int, *, past: bool = False, limit: int = PAGE_MAX
) -> list[PartyDefault]:
    """Return defaults, the newest first; with *past* those that were lifted too."""
    t = party_default
    query = select(t).where(t.c.book == book).order_by(t.c.declared_at.desc(), t.c.id)
    if not past:
        query = query.where(t.c.state == DefaultState.DECLARED)
    return [_default(row) for row in await conn.execute(query.limit(min(limit, PAGE_MAX)))]


async def lift_default(conn: AsyncConnection, default_id: UUID, **values: object) -> None:
    """Write that a locked default is over."""
    t = party_default
    result = await conn.execute(
        update(t)
        .where(t.c.id == default_id, t.c.state == DefaultState.DECLARED)
        .values(state=DefaultState.LIFTED, **values)
    )
    require_rows(result, 1, f"default {default_id}")


def _default(row: Row[Any]) -> PartyDefault:
    columns = row._mapping  # noqa: SLF001  the public name of a row's mapping
    values = {name: columns[name] for name in PartyDefault.__slots__}
    return PartyDefault(**{**values, "state": DefaultState(values["state"])})
