"""The seal: affirmed versions are posted, in a fixed number of statements however many they are.

Each open obligation becomes netted, discharged to the last unit; each transfer names what it
discharges. A transaction of the database holds it all: either everything of the batch is sealed, or
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.set_off import Due, note_due
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import BATCH_MAX, Transfer, chain, transfer
from ledger.posting import post, require_applied
from settlement import calculation_store, instruction_store, store
from settlement.calculation import members
from settlement.errors import ChangedMeanwhile
from settlement.model import (
    Calculation,
    Direction,
    Instruction,
    InstructionState,
    NetItem,
    Obligation,
    ObligationState,
    Run,
    RunState,
)
from settlement.netting.bilateral import discharges
from settlement.steps import RunStep, Why, record_planned, record_runs, step_members
from trading.legs import mark_settling

ACCOUNTS_MAX: Final = 4_000
"""Accounts opened at once."""


async def seal_affirmed(
    conn: AsyncConnection, book: int, runs: Sequence[Run], why: Why
) -> list[Run]:
    """Seal locked runs, all of them affirmed, and return them.

    Raises:
        ChangedMeanwhile: a run does not have the obligations of its calculation.
    """
    results = await calculation_store.list_calculations(conn, runs)
    sealing = await _lock_affirmed(conn, runs, results)
    planned = {run.id: plan_instructions(run, results[run.id].items) for run in runs}
    instructions = [item for items in planned.values() for item in items]
    # Everything that may wait for another transaction comes before the posting.
    await step_members(conn, sealing, ObligationState.SEALED, why)
    await store.move_runs(conn, runs, RunState.SEALED)
    await instruction_store.insert_instructions(conn, book, instructions)
    await record_planned(conn, instructions, why)
    await note_due(conn, book, [due for run in runs for due in _dues(run, planned[run.id])])
    deals = sorted({o.deal_id for o, _ in sealing if o.has_deal})
    await mark_settling(conn, deals, by=why.by, reason=why.reason, now=why.now)
    steps = [RunStep(run, "RunSealed", RunState.SEALED) for run in runs]
    await record_runs(conn, steps, why)
    by_id = {o.id: o for o, _ in sealing}
    await _post(
        conn,
        book,
        [t for run in runs for t in sealing_transfers(run, results[run.id], by_id)],
        why.now,
    )
    return [replace(run, state=RunState.SEALED) for run in runs]


def sealing_transfers(
    run: Run, result: Calculation, obligations: Mapping[UUID, Obligation]
) -> list[Transfer]:
    """Return the transfers of a seal: each names the obligation(s) that it discharges."""
    transfers: list[Transfer] = []
    for item in result.items:
        owed_by_us, owed_to_us = f"payable:{item.party}", f"receivable:{item.party}"
        for number, step in enumerate(discharges(item, obligations)):
            if step.pay is not None and step.receive is not None:
                debit, credit, code = f"{owed_by_us}:open", f"{owed_to_us}:open", "offset"
            elif step.pay is not None:
                debit, credit, code = f"{owed_by_us}:open", f"{owed_by_us}:netted", "netted"
            else:
                debit, credit, code = f"{owed_to_us}:netted", f"{owed_to_us}:open", "netted"
            source = step.receive or step.pay
            transfers.append(
                transfer(
                    id=derive_id(run.created_at, "seal", run.id, item.asset, source, number),
                    debit=debit,
                    credit=credit,
                    asset=item.asset,
                    amount=step.amount,
                    code=f"settlement.{code}",
                    reference=str(source),
                    correlation=run.id,
                    metadata={"pay": str(step.pay or ""), "receive": str(step.receive or "")},
                )
            )
    return transfers


def plan_instructions(run: Run, items: Sequence[NetItem]) -> list[Instruction]:
    """Return the instructions of a run: one for each item of which something moves."""
    return [
        Instruction(
            id=derive_id(run.created_at, "instruction", run.id, number),
            run_id=run.id,
            party=item.party,
            asset=item.asset,
            direction=item.direction,
            amount=item.amount,
            applied=0,
            rail=item.rail,
            state=InstructionState.PLANNED,
            attempt=1,
            payout_id=None,
            standing_version=None,
            evidence="",
            created_at=run.created_at,
        )
        for number, item in enumerate(items)
        if item.amount > 0
    ]


async def _lock_affirmed(
    conn: AsyncConnection, runs: Sequence[Run], results: Mapping[UUID, Calculation]
) -> list[tuple[Obligation, UUID]]:
    locked = await store.lock_members(conn, [run.id for run in runs])
    sealing = [(o, run_id) for o, run_id in locked if o.state is ObligationState.AFFIRMED]
    found: dict[UUID, set[UUID]] = {run.id: set() for run in runs}
    for item, run_id in sealing:
        found[run_id].add(item.id)
    for run in runs:
        if found[run.id] != members(results[run.id].items):
            raise ChangedMeanwhile(f"run {run.id} does not have the obligations of its calculation")
    return sealing


def _dues(run: Run, instructions: Sequence[Instruction]) -> list[Due]:
    """Return what is owed to the desk by the end of the value date: later, it is set off."""
    end = datetime.combine(run.value_date + timedelta(days=1), time(tzinfo=UTC))
    return [
        Due(f"settlement/{item.id}", item.party, item.asset, item.amount, end)
        for item in instructions
        if item.direction is Direction.RECEIVE and item.amount
    ]


async def _post(
    conn: AsyncConnection, book: int, transfers: Sequence[Transfer], now: datetime
) -> None:
    """Post what is sealed; a chain holds at most a batch, the transaction holds them together."""
    accounts = sorted({(path, t.asset) for t in transfers for path in (t.debit, t.credit)})
    for start in range(0, len(accounts), ACCOUNTS_MAX):
        await ensure_accounts(conn, book, accounts[start : start + ACCOUNTS_MAX], now=now)
    for start in range(0, len(transfers), BATCH_MAX):
        part = transfers[start : start + BATCH_MAX]
        require_applied(await post(conn, book, chain(*part), now=now))
