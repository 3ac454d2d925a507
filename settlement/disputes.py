"""Disputes: what is disputed is frozen, and the rest of that run goes on in its next version.

Nobody else's run is touched. A dispute ends when a person gives the obligation back to the pool, or
to trading (`settlement.runs.withdraw_deal`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from registry.model import Operator, Role
from registry.people import require_operator
from settlement import calculation_store, cycle_store, store
from settlement.calculation import calculate_set, members
from settlement.clocks import reaffirm_until
from settlement.documents import inputs_json
from settlement.model import Calculation, Obligation, ObligationState, Run, RunState
from settlement.netting.bilateral import calculate
from settlement.steps import Why, record_run, step_obligations
from settlement.windows import get_window
from trading.terms.agreements import get_agreements

DISPUTABLE: Final = frozenset({RunState.CALCULATED, RunState.AFFIRMED})


async def dispute(
    conn: AsyncConnection,
    run_id: UUID,
    obligation_ids: Collection[UUID],
    *,
    by: Operator,
    reason: str,
    now: datetime,
) -> tuple[Run, Calculation]:
    """Freeze the disputed obligations only, and calculate the next version of the rest.

    Affirmations are for the old version; the new one is affirmed anew, and the window's policy
    says how long there is for it. The same dispute again changes nothing. If nothing is left, the
    run ends empty.

    Raises:
        BadInput: an obligation is not part of the run.
        Refused: the run is sealed, or lapsed.
    """
    operator = await require_operator(conn, by, Role.TREASURER, Role.OPERATIONS)
    return await freeze(conn, run_id, obligation_ids, Why(operator.code, reason, now))


async def freeze(
    conn: AsyncConnection,
    run_id: UUID,
    obligation_ids: Collection[UUID],
    why: Why,
    *,
    party: str | None = None,
) -> tuple[Run, Calculation]:
    """Do what `dispute` does, whoever disputes; a *party* freezes its own only."""
    run = await store.lock_run(conn, run_id)
    within = await store.lock_run_obligations(conn, run_id)
    named = [o for o in within if o.id in obligation_ids and party in {None, o.party}]
    if not named or len(named) != len(set(obligation_ids)):
        raise BadInput(f"not every obligation named is part of run {run_id}")
    disputed = [o for o in named if o.state is not ObligationState.DISPUTED]
    if not disputed:
        return run, await calculation_store.get_calculation(conn, run_id, run.version)
    if run.state not in DISPUTABLE:
        raise Refused(
            f"run {run_id} is {run.state}; a sealed run never changes",
            remedy="Correct it by a new deal",
        )
    rest = [
        o for o in within if o.state is not ObligationState.DISPUTED and o.id not in obligation_ids
    ]
    await step_obligations(conn, disputed, ObligationState.DISPUTED, why, run_id=run_id)
    back = [o for o in rest if o.state is ObligationState.AFFIRMED]
    await step_obligations(conn, back, ObligationState.CALCULATED, why, run_id=run_id)
    changed = await _next_version(conn, run, why)
    result = await _calculate(conn, changed, run.version, rest, why.now)
    await _carry(conn, rest, back, result, why)
    if not result.items:
        changed = replace(changed, state=RunState.EMPTY)
    await store.move_run(
        conn, run, changed.state, version=changed.version, affirm_until=changed.affirm_until
    )
    await record_run(conn, run, "RunDisputed", changed.state, why, result=result)
    return changed, result


async def resolve_dispute(
    conn: AsyncConnection,
    run_id: UUID,
    obligation_id: UUID,
    *,
    by: Operator,
    reason: str,
    now: datetime,
) -> Obligation:
    """Give a disputed obligation back to the pool, for the next run.

    Raises:
        Refused: it is not disputed in that run, or not any more.
    """
    operator = await require_operator(conn, by, Role.TREASURER)
    await store.lock_run(conn, run_id)
    within = await store.lock_run_obligations(conn, run_id)
    found = [o for o in within if o.id == obligation_id]
    if not found or found[0].state is not ObligationState.DISPUTED:
        raise Refused(
            f"obligation {obligation_id} is not disputed in run {run_id}",
            remedy="See `causeway obligations list`: it may be resolved already",
        )
    await step_obligations(
        conn,
        found,
        ObligationState.OPEN,
        Why(operator.code, reason, now),
        run_id=None,
    )
    return replace(found[0], state=ObligationState.OPEN, version=found[0].version + 1)


async def _next_version(conn: AsyncConnection, run: Run, why: Why) -> Run:
    changed = replace(run, state=RunState.CALCULATED, version=run.version + 1)
    if run.cycle_id is None:
        return changed
    cycle = await cycle_store.get_cycle(conn, run.cycle_id)
    window = await get_window(conn, cycle.book, cycle.window, cycle.window_version)
    return replace(changed, affirm_until=reaffirm_until(run, window, why.now))


async def _calculate(
    conn: AsyncConnection, run: Run, before: int, rest: Sequence[Obligation], now: datetime
) -> Calculation:
    """Calculate the rest by the rules of the version before, and store it."""
    rules = (await calculation_store.get_inputs(conn, run.id, before)).rules
    if rules is None:
        agreements = await get_agreements(conn)
        result = calculate(rest, agreements, value_date=run.value_date, version=run.version)
        inputs = inputs_json(rest, agreements)
    else:
        result = calculate_set(rest, rules, value_date=run.value_date, version=run.version)
        inputs = inputs_json(rest, rules)
    await calculation_store.insert_calculations(conn, [(run.id, result, inputs)], now)
    return result


async def _carry(
    conn: AsyncConnection,
    rest: Collection[Obligation],
    back: Collection[Obligation],
    result: Calculation,
    why: Why,
) -> None:
    """Give back to the pool what is too small to move without what is disputed."""
    carried = members(result.carried)
    returned = {o.id for o in back}
    # What was affirmed a moment ago is calculated now, one event later.
    small = [
        replace(o, state=ObligationState.CALCULATED, version=o.version + 1)
        if o.id in returned
        else o
        for o in rest
        if o.id in carried
    ]
    await step_obligations(conn, small, ObligationState.OPEN, why, run_id=None)
