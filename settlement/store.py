"""Rows of settlement to values and back; private to the package."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import Refused
from settlement.errors import NoStandingInstruction, RunNotFound
from settlement.model import (
    INSTRUCTION_STATES,
    OBLIGATION_STATES,
    RUN_STATES,
    Agreement,
    Calculation,
    Direction,
    Instruction,
    InstructionState,
    NetItem,
    Obligation,
    ObligationState,
    Rail,
    Run,
    RunState,
)
from settlement.tables import (
    affirmation,
    agreement,
    calculation,
    instruction,
    obligation,
    receipt_match,
    run,
    standing_instruction,
)

OBLIGATIONS_PER_RUN_MAX = 4_000
"""Sealing posts one transfer an obligation in one chain, and a batch holds 8,192."""


async def insert_obligations(
    conn: AsyncConnection, book: int, items: Sequence[Obligation]
) -> list[UUID]:
    """Insert what is new (by deal and leg) and return the ids that were."""
    if not items:
        return []
    rows = [
        {
            "id": o.id,
            "book": book,
            "deal_id": o.deal_id,
            "leg": o.leg,
            "party": o.party,
            "asset": o.asset,
            "amount": o.amount,
            "direction": o.direction,
            "value_date": o.value_date,
            "state": o.state,
            "created_at": o.created_at,
        }
        for o in items
    ]
    statement = upsert(obligation).on_conflict_do_nothing(index_elements=["deal_id", "leg"])
    result = await conn.execute(statement.values(rows).returning(obligation.c.id))
    return list(result.scalars())


async def lock_open_obligations(
    conn: AsyncConnection, book: int, value_date: date
) -> list[Obligation]:
    """Lock and return what is open and due on *value_date* or before."""
    rows = await conn.execute(
        select(obligation)
        .where(
            obligation.c.book == book,
            obligation.c.state == ObligationState.OPEN,
            obligation.c.value_date <= value_date,
        )
        .order_by(obligation.c.value_date, obligation.c.id)
        .limit(OBLIGATIONS_PER_RUN_MAX)
        .with_for_update()
    )
    return [_obligation(row) for row in rows]


async def lock_run_obligations(conn: AsyncConnection, run_id: UUID) -> list[Obligation]:
    """Lock and return the obligations that belong to a run, disputed ones included."""
    rows = await conn.execute(
        select(obligation)
        .where(obligation.c.run_id == run_id)
        .order_by(obligation.c.value_date, obligation.c.id)
        .with_for_update()
    )
    return [_obligation(row) for row in rows]


async def list_obligations(
    conn: AsyncConnection, book: int, states: Collection[ObligationState]
) -> list[Obligation]:
    """Return obligations in the given states, by value date."""
    rows = await conn.execute(
        select(obligation)
        .where(obligation.c.book == book, obligation.c.state.in_(states))
        .order_by(obligation.c.value_date, obligation.c.id)
        .limit(OBLIGATIONS_PER_RUN_MAX)
    )
    return [_obligation(row) for row in rows]


async def move_obligations(
    conn: AsyncConnection,
    items: Collection[Obligation],
    state: ObligationState,
    *,
    run_id: UUID | None,
) -> None:
    """Move locked obligations along an edge."""
    for item in items:
        OBLIGATION_STATES.require(item.state, state)
    if items:
        await conn.execute(
            update(obligation)
            .where(obligation.c.id.in_([item.id for item in items]))
            .values(state=state, run_id=run_id)
        )


async def discharged_deals(conn: AsyncConnection, deal_ids: Collection[UUID]) -> list[UUID]:
    """Return those of the deals of which every obligation is discharged, by id."""
    rows = await conn.execute(
        select(obligation.c.deal_id)
        .where(obligation.c.deal_id.in_(deal_ids))
        .group_by(obligation.c.deal_id)
        .having(func.bool_and(obligation.c.state == ObligationState.DISCHARGED))
        .order_by(obligation.c.deal_id)
    )
    return list(rows.scalars())


async def insert_run(conn: AsyncConnection, new: Run) -> bool:
    """Insert the run unless its (book, value date, window) exists; tell whether it was new."""
    result = await conn.execute(
        upsert(run)
        .values(
            id=new.id,
            book=new.book,
            value_date=new.value_date,
            window=new.window,
            state=new.state,
            version=new.version,
            created_at=new.created_at,
        )
        .on_conflict_do_nothing()
    )
    return result.rowcount == 1


async def lock_run(conn: AsyncConnection, run_id: UUID) -> Run:
    """Lock and return a run."""
    row = (await conn.execute(select(run).where(run.c.id == run_id).with_for_update())).first()
    if row is None:
        raise RunNotFound(f"there is no settlement run {run_id}")
    return _run(row)


async def get_run(conn: AsyncConnection, run_id: UUID) -> Run:
    """Return a run."""
    row = (await conn.execute(select(run).where(run.c.id == run_id))).first()
    if row is None:
        raise RunNotFound(f"there is no settlement run {run_id}")
    return _run(row)


async def find_run(conn: AsyncConnection, book: int, value_date: date, window: str) -> Run | None:
    """Return the run of a window, if it has been calculated."""
    row = (
        await conn.execute(
            select(run).where(
                run.c.book == book, run.c.value_date == value_date, run.c.window == window
            )
        )
    ).first()
    return None if row is None else _run(row)


async def list_runs(conn: AsyncConnection, book: int, states: Collection[RunState]) -> list[Run]:
    """Return runs in the given states, oldest first."""
    rows = await conn.execute(
        select(run)
        .where(run.c.book == book, run.c.state.in_(states))
        .order_by(run.c.value_date, run.c.created_at)
    )
    return [_run(row) for row in rows]


async def move_run(conn: AsyncConnection, item: Run, state: RunState, *, version: int) -> None:
    """Move a locked run along an edge, or to its next version."""
    RUN_STATES.require(item.state, state)
    await conn.execute(update(run).where(run.c.id == item.id).values(state=state, version=version))


async def insert_calculation(
    conn: AsyncConnection,
    run_id: UUID,
    result: Calculation,
    obligations: Sequence[Obligation],
    now: datetime,
) -> None:
    """Store a version for good: its inputs, its result and the hash of the inputs."""
    await conn.execute(
        insert(calculation).values(
            run_id=run_id,
            version=result.version,
            method=result.method,
            input_hash=result.input_hash,
            inputs=[_obligation_json(o) for o in obligations],
            items=[_item_json(item) for item in result.items],
            at=now,
        )
    )


async def get_calculation(conn: AsyncConnection, run_id: UUID, version: int) -> Calculation:
    """Return a stored version."""
    row = (
        await conn.execute(
            select(calculation).where(
                calculation.c.run_id == run_id, calculation.c.version == version
            )
        )
    ).first()
    if row is None:
        raise RunNotFound(f"run {run_id} has no version {version}")
    return Calculation(
        version=row.version,
        method=row.method,
        items=tuple(_item(item) for item in row.items),
        input_hash=row.input_hash,
    )


async def insert_affirmation(conn: AsyncConnection, **values: object) -> bool:
    """Record an affirmation once; tell whether it was new."""
    result = await conn.execute(upsert(affirmation).values(**values).on_conflict_do_nothing())
    return result.rowcount == 1


async def affirmed_parties(conn: AsyncConnection, run_id: UUID, version: int) -> set[str]:
    """Return who has affirmed a version."""
    rows = await conn.execute(
        select(affirmation.c.party).where(
            affirmation.c.run_id == run_id, affirmation.c.version == version
        )
    )
    return set(rows.scalars())


async def upsert_agreement(conn: AsyncConnection, **values: object) -> None:
    """Write the agreement of a party."""
    changed = {key: value for key, value in values.items() if key != "party"}
    await conn.execute(
        upsert(agreement)
        .values(**values)
        .on_conflict_do_update(index_elements=["party"], set_=changed)
    )


async def get_agreements(conn: AsyncConnection) -> dict[str, Agreement]:
    """Return every netting agreement by party."""
    rows = await conn.execute(select(agreement))
    return {
        r.party: Agreement(party=r.party, effective_from=r.effective_from, prefunded=r.prefunded)
        for r in rows
    }


async def insert_standing_instruction(conn: AsyncConnection, **values: object) -> int:
    """Write the next version of where a party is paid and return the version."""
    t = standing_instruction
    last = await conn.scalar(
        select(func.max(t.c.version)).where(
            t.c.party == values["party"], t.c.asset == values["asset"], t.c.rail == values["rail"]
        )
    )
    version = int(last or 0) + 1
    await conn.execute(insert(t).values(version=version, **values))
    return version


async def get_standing_instruction(
    conn: AsyncConnection, party: str, asset: str, rail: Rail
) -> tuple[str, int]:
    """Return (destination, version) that is in force."""
    t = standing_instruction
    row = (
        await conn.execute(
            select(t)
            .where(t.c.party == party, t.c.asset == asset, t.c.rail == rail)
            .order_by(t.c.version.desc())
            .limit(1)
        )
    ).first()
    if row is None:
        raise NoStandingInstruction(
            f"{party} has no standing instruction for {asset} on {rail}",
            remedy="Propose one and have a second person approve it",
        )
    return str(row.destination), int(row.version)


async def insert_instructions(
    conn: AsyncConnection, book: int, items: Sequence[Instruction]
) -> None:
    """Insert the instructions of a sealed run."""
    if items:
        await conn.execute(
            insert(instruction),
            [
                {
                    "id": i.id,
                    "book": book,
                    "run_id": i.run_id,
                    "party": i.party,
                    "asset": i.asset,
                    "direction": i.direction,
                    "amount": i.amount,
                    "applied": i.applied,
                    "rail": i.rail,
                    "state": i.state,
                    "evidence": i.evidence,
                    "created_at": i.created_at,
                }
                for i in items
            ],
        )


async def list_instructions(
    conn: AsyncConnection,
    *,
    run_id: UUID | None = None,
    book: int | None = None,
    states: Collection[InstructionState] | None = None,
    lock: bool = False,
) -> list[Instruction]:
    """Return instructions, oldest first; locked if asked for."""
    query = select(instruction).order_by(instruction.c.created_at, instruction.c.id)
    if run_id is not None:
        query = query.where(instruction.c.run_id == run_id)
    if book is not None:
        query = query.where(instruction.c.book == book)
    if states is not None:
        query = query.where(instruction.c.state.in_(states))
    if lock:
        query = query.with_for_update()
    return [_instruction(row) for row in await conn.execute(query)]


async def move_instruction(
    conn: AsyncConnection, item: Instruction, state: InstructionState, **values: object
) -> None:
    """Move a locked instruction along an edge."""
    INSTRUCTION_STATES.require(item.state, state)
    result = await conn.execute(
        update(instruction)
        .where(instruction.c.id == item.id, instruction.c.state == item.state)
        .values(state=state, **values)
    )
    if result.rowcount != 1:
        raise Refused(f"instruction {item.id} has left state {item.state} meanwhile")


async def insert_match(
    conn: AsyncConnection,
    receipt_id: UUID,
    instruction_id: UUID,
    *,
    applied: int,
    excess: int,
    now: datetime,
) -> bool:
    """Record that a receipt belongs to an instruction, once; tell whether it was new."""
    result = await conn.execute(
        upsert(receipt_match)
        .values(
            receipt_id=receipt_id,
            instruction_id=instruction_id,
            applied=applied,
            excess=excess,
            at=now,
        )
        .on_conflict_do_nothing()
    )
    return result.rowcount == 1


def _obligation(row: Row[Any]) -> Obligation:
    return Obligation(
        id=row.id,
        deal_id=row.deal_id,
        leg=row.leg,
        party=row.party,
        asset=row.asset,
        amount=row.amount,
        direction=Direction(row.direction),
        value_date=row.value_date,
        created_at=row.created_at,
        state=ObligationState(row.state),
    )


def _run(row: Row[Any]) -> Run:
    return Run(
        id=row.id,
        book=row.book,
        value_date=row.value_date,
        window=row.window,
        state=RunState(row.state),
        version=row.version,
        created_at=row.created_at,
    )


def _instruction(row: Row[Any]) -> Instruction:
    return Instruction(
        id=row.id,
        run_id=row.run_id,
        party=row.party,
        asset=row.asset,
        direction=Direction(row.direction),
        amount=row.amount,
        applied=row.applied,
        rail=Rail(row.rail),
        state=InstructionState(row.state),
        payout_id=row.payout_id,
        evidence=row.evidence,
        created_at=row.created_at,
    )


def _obligation_json(o: Obligation) -> dict[str, str]:
    return {
        "id": str(o.id),
        "deal": str(o.deal_id),
        "leg": o.leg,
        "party": o.party,
        "asset": o.asset,
        "amount": str(o.amount),
        "direction": o.direction,
        "value_date": o.value_date.isoformat(),
    }


def _item_json(item: NetItem) -> dict[str, Any]:
    return {
        "party": item.party,
        "asset": item.asset,
        "direction": item.direction,
        "amount": str(item.amount),
        "gross_pay": str(item.gross_pay),
        "gross_receive": str(item.gross_receive),
        "obligations": [str(i) for i in item.obligations],
        "rail": item.rail,
    }


def _item(data: dict[str, Any]) -> NetItem:
    return NetItem(
        party=data["party"],
        asset=data["asset"],
        direction=Direction(data["direction"]),
        amount=int(data["amount"]),
        gross_pay=int(data["gross_pay"]),
        gross_receive=int(data["gross_receive"]),
        obligations=tuple(UUID(i) for i in data["obligations"]),
        rail=Rail(data["rail"]),
    )
