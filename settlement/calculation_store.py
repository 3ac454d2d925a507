"""Rows of calculations and of what was affirmed; private to the package."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Row, Uuid, any_, bindparam, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.rows import insert_rows
from settlement import documents
from settlement.errors import RunNotFound
from settlement.model import Calculation, Run
from settlement.tables import affirmation, calculation

_IDS: Final = bindparam("ids", type_=ARRAY(Uuid))


async def insert_calculations(
    conn: AsyncConnection,
    items: Sequence[tuple[UUID, Calculation, Mapping[str, Any]]],
    now: datetime,
) -> None:
    """Store versions for good: run, result and the inputs as `documents.inputs_json` wrote them."""
    await insert_rows(
        conn,
        calculation,
        [
            {
                "run_id": run_id,
                "version": result.version,
                "method": result.method,
                "input_hash": result.input_hash,
                "inputs": inputs,
                "items": [documents.item_json(item) for item in result.items],
                "carried": [documents.item_json(item) for item in result.carried],
                "at": now,
            }
            for run_id, result, inputs in items
        ],
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
    return _calculation(row)


async def list_calculations(
    conn: AsyncConnection, runs: Collection[Run]
) -> dict[UUID, Calculation]:
    """Return the newest version of each run."""
    newest = {(item.id, item.version) for item in runs}
    rows = await conn.execute(
        select(calculation).where(calculation.c.run_id == any_(_IDS)),
        {_IDS.key: [item.id for item in runs]},
    )
    return {row.run_id: _calculation(row) for row in rows if (row.run_id, row.version) in newest}


async def get_inputs(conn: AsyncConnection, run_id: UUID, version: int) -> documents.Inputs:
    """Return what a stored version was calculated from."""
    inputs = await conn.scalar(
        select(calculation.c.inputs).where(
            calculation.c.run_id == run_id, calculation.c.version == version
        )
    )
    if inputs is None:
        raise RunNotFound(f"run {run_id} has no version {version}")
    return documents.inputs_of(inputs)


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


async def list_affirmations(conn: AsyncConnection, run_id: UUID) -> list[dict[str, Any]]:
    """Return what parties affirmed of a run, oldest first, as plain values."""
    t = affirmation
    rows = await conn.execute(
        select(
            *(t.c.version, t.c.party, t.c.entered_by, t.c.witnessed_by),
            *(t.c.key_version, t.c.evidence_hash, t.c.at),
        )
        .where(t.c.run_id == run_id)
        .order_by(t.c.at, t.c.party)
    )
    return [dict(row) for row in rows.mappings()]


async def affirmed_parties(conn: AsyncConnection, run_id: UUID, version: int) -> set[str]:
    """Return who has affirmed a version."""
    rows = await conn.execute(
        select(affirmation.c.party).where(
            affirmation.c.run_id == run_id, affirmation.c.version == version
        )
    )
    return set(rows.scalars())


def _calculation(row: Row[Any]) -> Calculation:
    return Calculation(
        version=row.version,
        method=row.method,
        items=tuple(documents.item_of(item) for item in row.items),
        input_hash=row.input_hash,
        carried=tuple(documents.item_of(item) for item in row.carried),
    )
