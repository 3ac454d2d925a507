"""Rows of settlement to values and back; private to the package."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CursorResult, Row, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from settlement import documents
from settlement.errors import ChangedMeanwhile, NoStandingInstruction, RunNotFound
from settlement.model import (
    OBLIGATION_STATES,
    RUN_STATES,
    Agreement,
    Calculation,
    Direction,
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
    obligation,
    run,
    standing_instruction,
)

OBLIGATIONS_PER_RUN_MAX = 4_000
"""Sealing posts one transfer an obligation in one chain, and a batch holds 8,192."""


async def insert_obligations(
    conn: AsyncConnection, book: int, items: Sequence[Obligation]
) -> list[Obligation]:
    """Insert what is new (by deal and leg) and return it.

    What was withdrawn and is owed after all is open again, and returned too.
    """
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
            "version": o.version,
            "created_at": o.created_at,
        }
        for o in items
    ]
    statement = upsert(obligation).values(rows)
    statement = statement.on_conflict_do_update(
        index_elements=["deal_id", "leg"],
        set_={"state": ObligationState.OPEN, "version": obligation.c.version + 1},
        where=obligation.c.state == ObligationState.WITHDRAWN,
    )
    return [_obligation(row) for row in await conn.execute(statement.returning(obligation))]


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


async def lock_deal_obligations(conn: AsyncConnection, deal_id: UUID) -> list[Obligation]:
    """Lock and return the obligations of a deal."""
    rows = await conn.execute(
        select(obligation)
        .where(obligation.c.deal_id == deal_id)
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
    """Move locked obligations along an edge; each counts one event more."""
    for item in items:
        OBLIGATION_STATES.require(item.state, state)
    if items:
        result = await conn.execute(
            update(obligation)
            .where(
                obligation.c.id.in_([item.id for item in items]),
                obligation.c.state.in_({item.state for item in items}),
            )
            .values(state=state, run_id=run_id, version=obligation.c.version + 1)
        )
        require_rows(result, len(items), "obligations")


async def sum_unsealed(
    conn: AsyncConnection, book: int, parties: Collection[str]
) -> dict[tuple[str, str, Direction], int]:
    """Return what the unsealed obligations of *parties* come to, by party, asset and direction."""
    unsealed = (
        ObligationState.OPEN,
        ObligationState.CALCULATED,
        ObligationState.AFFIRMED,
        ObligationState.DISPUTED,
    )
    keys = (obligation.c.party, obligation.c.asset, obligation.c.direction)
    rows = await conn.execute(
        select(*keys, func.sum(obligation.c.amount).label("total"))
        .where(
            obligation.c.book == book,
            obligation.c.party.in_(parties),
            obligation.c.state.in_(unsealed),
        )
        .group_by(*keys)
    )
    return {(r.party, r.asset, Direction(r.direction)): int(r.total) for r in rows}


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
    result = await conn.execute(
        update(run)
        .where(run.c.id == item.id, run.c.state == item.state)
        .values(state=state, version=version)
    )
    require_rows(result, 1, f"run {item.id}")


async def insert_calculation(
    conn: AsyncConnection,
    run_id: UUID,
    result: Calculation,
    obligations: Sequence[Obligation],
    agreements: Mapping[str, Agreement],
    now: datetime,
) -> None:
    """Store a version for good: its inputs, its result and the hash of the inputs."""
    parties = {o.party for o in obligations}
    await conn.execute(
        insert(calculation).values(
            run_id=run_id,
            version=result.version,
            method=result.method,
            input_hash=result.input_hash,
            inputs={
                "obligations": [documents.obligation_json(o) for o in obligations],
                "agreements": [
                    documents.agreement_json(a)
                    for party, a in sorted(agreements.items())
                    if party in parties
                ],
            },
            items=[documents.item_json(item) for item in result.items],
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
        items=tuple(documents.item_of(item) for item in row.items),
        input_hash=row.input_hash,
    )


async def get_inputs(
    conn: AsyncConnection, run_id: UUID, version: int
) -> tuple[list[Obligation], dict[str, Agreement]]:
    """Return what a stored version was calculated from."""
    inputs = await conn.scalar(
        select(calculation.c.inputs).where(
            calculation.c.run_id == run_id, calculation.c.version == version
        )
    )
    if inputs is None:
        raise RunNotFound(f"run {run_id} has no version {version}")
    agreements = [documents.agreement_of(item) for item in inputs["agreements"]]
    return [documents.obligation_of(o) for o in inputs["obligations"]], {
        a.party: a for a in agreements
    }


async def insert_affirmation(conn: AsyncConnection, **values: object) -> None:
    """Record an affirmation; the run's row is locked, so nobody else records the same."""
    await conn.execute(insert(affirmation).values(**values))


async def find_affirmation(
    conn: AsyncConnection, run_id: UUID, version: int, party: str
) -> str | None:
    """Return the evidence hash of the party's affirmation of a version, if there is one."""
    evidence: str | None = await conn.scalar(
        select(affirmation.c.evidence_hash).where(
            affirmation.c.run_id == run_id,
            affirmation.c.version == version,
            affirmation.c.party == party,
        )
    )
    return evidence


async def affirmed_parties(conn: AsyncConnection, run_id: UUID, version: int) -> set[str]:
    """Return who has affirmed a version."""
    rows = await conn.execute(
        select(affirmation.c.party).where(
            affirmation.c.run_id == run_id, affirmation.c.version == version
        )
    )
    return set(rows.scalars())


async def write_agreement(
    conn: AsyncConnection, item: Agreement, *, version: int, **values: object
) -> bool:
    """Write version *version* of a party's agreement; False: it is not the next version."""
    columns = {
        "version": version,
        "effective_from": item.effective_from,
        "prefunded": item.prefunded,
        **values,
    }
    statement = upsert(agreement).values(party=item.party, **columns)
    if version == 1:
        statement = statement.on_conflict_do_nothing()
    else:
        statement = statement.on_conflict_do_update(
            index_elements=["party"], set_=columns, where=agreement.c.version == version - 1
        )
    return (await conn.execute(statement)).rowcount == 1


async def find_agreement(conn: AsyncConnection, party: str) -> tuple[Agreement, str, int] | None:
    """Return (agreement, document hash, version) of a party, if there is one."""
    row = (await conn.execute(select(agreement).where(agreement.c.party == party))).one_or_none()
    return None if row is None else (_agreement(row), row.document_hash, row.version)


async def get_agreements(conn: AsyncConnection) -> dict[str, Agreement]:
    """Return every netting agreement by party."""
    rows = await conn.execute(select(agreement))
    return {row.party: _agreement(row) for row in rows}


async def insert_standing_instruction(conn: AsyncConnection, **values: object) -> bool:
    """Write a version of where a party is paid; False: there is one of that number."""
    statement = upsert(standing_instruction).values(**values).on_conflict_do_nothing()
    return (await conn.execute(statement)).rowcount == 1


async def find_standing_instruction(
    conn: AsyncConnection, party: str, asset: str, rail: Rail
) -> tuple[str, int] | None:
    """Return (destination, version) that is in force, if there is one."""
    t = standing_instruction
    row = (
        await conn.execute(
            select(t)
            .where(t.c.party == party, t.c.asset == asset, t.c.rail == rail)
            .order_by(t.c.version.desc())
            .limit(1)
        )
    ).first()
    return None if row is None else (str(row.destination), int(row.version))


async def get_standing_instruction(
    conn: AsyncConnection, party: str, asset: str, rail: Rail
) -> tuple[str, int]:
    """Return (destination, version) that is in force."""
    found = await find_standing_instruction(conn, party, asset, rail)
    if found is None:
        raise NoStandingInstruction(
            f"{party} has no standing instruction for {asset} on {rail}",
            remedy="Propose one and have a second person approve it",
        )
    return found


def _agreement(row: Row[Any]) -> Agreement:
    return Agreement(party=row.party, effective_from=row.effective_from, prefunded=row.prefunded)


def require_rows(result: CursorResult[Any], count: int, what: str) -> None:
    """Refuse to go on when a write met other rows than were read."""
    if result.rowcount != count:
        raise ChangedMeanwhile(
            f"{what} changed meanwhile: {result.rowcount} of {count} rows were as read"
        )


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
        version=row.version,
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
