"""Statements go out: each version of a run has one for a party, kept in the bytes that it signs."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from registry.queries import find_assets
from settlement import calculation_store, cycle_store, store
from settlement.model import Statement
from settlement.statements import hash_of, statement_of


async def issue_statement(
    conn: AsyncConnection, run_id: UUID, *, party: str | None = None, by: str, now: datetime
) -> Statement:
    """Return the statement of a run's newest version; the first time, it is written and kept.

    Args:
        conn: the caller's transaction.
        run_id: the run.
        party: who gets it; None: the run's own party.
        by: operator code, or ``system:<process>``.
        now: the time.

    Raises:
        BadInput: the party has no part in the run, or one has to be named.
    """
    run = await store.lock_run(conn, run_id)
    party = party or run.party
    if not party:
        raise BadInput(f"run {run_id} has several parties", remedy="Name one: --party")
    known = await cycle_store.find_statement(conn, run.id, run.version, party)
    if known is not None:
        return known
    result = await calculation_store.get_calculation(conn, run.id, run.version)
    if party not in {item.party for item in (*result.items, *result.carried)}:
        raise BadInput(f"{party} has no part in run {run_id}")
    obligations = (await calculation_store.get_inputs(conn, run.id, run.version)).obligations
    assets = await find_assets(conn, {o.asset for o in obligations})
    content = statement_of(run, result, obligations, assets, party=party)
    statement = Statement(
        run_id=run.id,
        version=run.version,
        party=party,
        content=content,
        sha256=hash_of(content),
        issued_by=by,
        at=now,
    )
    await cycle_store.insert_statement(conn, statement)
    return statement
