"""Runs and obligations in words, for ``causeway settle``."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

from app.cli.common import Money
from app.cli.explain import Section, Story, events, postings
from kernel.clock import iso
from kernel.errors import BadInput, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from settlement.model import Calculation, Cycle, Instruction, NetItem, Obligation, Run
    from settlement.release_model import ReleasePlan

ITEM_COLUMNS = ("party", "direction", "amount", "rail", "gross_pay", "gross_receive", "obligations")
RUN_COLUMNS = (
    *("id", "state", "value_date", "window", "version", "created", "party", "netting_set"),
)
GROSS_COLUMNS = ("id", "direction", "amount", "state", "net", "deal", "leg")
AFFIRMATION_COLUMNS = ("version", "party", "entered_by", "proof", "evidence", "at")
PLAN_COLUMNS = (
    "number",
    "method",
    "value",
    "bound",
    "gap_ppm",
    "whole",
    "in_part",
    "inputs",
    "replay",
)
INSTRUCTION_COLUMNS = (
    *("id", "party", "direction", "amount", "applied", "rail", "state", "payout", "evidence"),
)


async def explain_object(conn: AsyncConnection, object_id: UUID, *, book: int) -> Story:
    """Return the story of the cycle, the run or the obligation with this id.

    Raises:
        Refused: settlement has none of them.
    """
    from settlement.errors import CycleNotFound, RunNotFound
    from settlement.queries import find_obligation, get_cycle, get_run

    money = await Money.load(conn)
    with suppress(RunNotFound):
        return await _run(conn, await get_run(conn, object_id), money)
    with suppress(CycleNotFound):
        return await _cycle(conn, await get_cycle(conn, object_id), money)
    found = await find_obligation(conn, object_id)
    if found is None:
        raise Refused(
            f"settlement has no cycle, run or obligation {object_id}",
            remedy="Look at `causeway settle cycles`, `settle runs` and `obligations list`",
        )
    return await _obligation(conn, *found, money, book)


def run_facts(run: Run) -> dict[str, str]:
    """Return a run as names and values."""
    return {
        "id": str(run.id),
        "state": str(run.state),
        "value_date": run.value_date.isoformat(),
        "window": run.window,
        "version": str(run.version),
        "created": iso(run.created_at),
        "party": run.party,
        "netting_set": run.netting_set,
    }


def item_rows(items: Sequence[NetItem], money: Money) -> list[tuple[str, ...]]:
    """Return net items, one row each."""
    return [
        (
            item.party,
            str(item.direction),
            money.text(item.amount, item.asset),
            str(item.rail),
            money.text(item.gross_pay, item.asset),
            money.text(item.gross_receive, item.asset),
            str(len(item.obligations)),
        )
        for item in items
    ]


def instruction_row(item: Instruction, money: Money) -> tuple[str, ...]:
    """Return an instruction as a row of `INSTRUCTION_COLUMNS`."""
    return (
        str(item.id),
        item.party,
        str(item.direction),
        money.text(item.amount, item.asset),
        money.text(item.applied, item.asset),
        str(item.rail),
        str(item.state),
        str(item.payout_id or ""),
        item.evidence,
    )


async def _run(conn: AsyncConnection, run: Run, money: Money) -> Story:
    from kernel.events import list_history
    from ledger.queries import list_transfers
    from settlement.queries import (
        get_calculation,
        list_affirmations,
        list_inputs,
        list_run_instructions,
        replay,
    )

    timeline = events(await list_history(conn, "settlement-run", run.id))
    timeline += postings(await list_transfers(conn, run.book, correlation=run.id), money)
    instructions = await list_run_instructions(conn, run.id)
    for item in instructions:
        timeline += events(await list_history(conn, "settlement-instruction", item.id))
        timeline += postings(await list_transfers(conn, run.book, correlation=item.id), money)
    versions = [await get_calculation(conn, run.id, n) for n in range(1, run.version + 1)]
    newest = versions[-1]
    gross = await list_inputs(conn, run.id, run.version)
    again = await replay(conn, run.id, run.version)
    return Story(
        f"Run {run.id}",
        {
            "kind": "run",
            **run_facts(run),
            **_clock_facts(run),
            "replay": "same" if again == newest else "differs",
        },
        timeline,
        {
            "versions": Section(
                ("version", "method", "items", "carried", "inputs"),
                [
                    (
                        str(one.version),
                        one.method,
                        str(len(one.items)),
                        str(len(one.carried)),
                        one.input_hash,
                    )
                    for one in versions
                ],
            ),
            "net": Section(ITEM_COLUMNS, item_rows(newest.items, money)),
            "carried": Section(ITEM_COLUMNS, item_rows(newest.carried, money)),
            "gross": Section(GROSS_COLUMNS, _gross_rows(gross, newest, money)),
            "affirmations": Section(
                AFFIRMATION_COLUMNS,
                [_affirmation_row(said) for said in await list_affirmations(conn, run.id)],
            ),
            "instructions": Section(
                INSTRUCTION_COLUMNS, [instruction_row(item, money) for item in instructions]
            ),
        },
    )


def _gross_rows(
    gross: Sequence[Obligation], result: Calculation, money: Money
) -> list[tuple[str, ...]]:
    """Return obligations, each with the net that it went into."""
    nets = {
        obligation: f"{net.direction} {money.text(net.amount, net.asset)}"
        for net in (*result.items, *result.carried)
        for obligation in net.obligations
    }
    return [
        (
            str(item.id),
            str(item.direction),
            money.text(item.amount, item.asset),
            str(item.state),
            nets.get(item.id, ""),
            str(item.deal_id),
            item.leg,
        )
        for item in gross
    ]


def _affirmation_row(said: Mapping[str, Any]) -> tuple[str, ...]:
    key = said["key_version"]
    return (
        str(said["version"]),
        said["party"],
        said["entered_by"],
        f"key {key}" if key is not None else f"witness {said['witnessed_by']}",
        said["evidence_hash"],
        iso(said["at"]),
    )


def _clock_facts(run: Run) -> dict[str, str]:
    if run.cycle_id is None or run.affirm_until is None:
        return {}
    clocks = {"affirm_until": run.affirm_until, "top_up_until": run.top_up_until}
    clocks["release_at"] = run.release_at
    told = {name: iso(moment) for name, moment in clocks.items() if moment is not None}
    return {"cycle": str(run.cycle_id), **told}


async def _cycle(conn: AsyncConnection, item: Cycle, money: Money) -> Story:
    from kernel.events import list_history
    from settlement.model import cycle_state
    from settlement.queries import count_left, list_calculations, list_cycle_runs

    runs = await list_cycle_runs(conn, item.id)
    results = await list_calculations(conn, runs)
    facts = {
        "kind": "cycle",
        "id": str(item.id),
        "state": str(cycle_state({run.state for run in runs})),
        "window": item.window,
        "window_version": str(item.window_version),
        "value_date": item.value_date.isoformat(),
        "cutoff_at": iso(item.cutoff_at),
        "affirm_until": iso(item.affirm_until),
        "top_up_until": iso(item.top_up_until),
        "release_at": iso(item.release_at),
        "left": str(await count_left(conn, item.id)),
    }
    net = [net for run in runs for net in results[run.id].items]
    carried = [net for run in runs for net in results[run.id].carried]
    rows = [tuple(run_facts(run).values()) for run in runs]
    return Story(
        f"Cycle {item.id}",
        facts,
        events(await list_history(conn, "settlement-cycle", item.id)),
        {
            "runs": Section(RUN_COLUMNS, rows),
            "net": Section(ITEM_COLUMNS, item_rows(net, money)),
            "carried": Section(ITEM_COLUMNS, item_rows(carried, money)),
            "plans": Section(PLAN_COLUMNS, await _plan_rows(conn, item.id)),
        },
    )


async def _plan_rows(conn: AsyncConnection, scope: UUID) -> list[tuple[str, ...]]:
    """Return what was chosen to be released, with the solver's bound; read again, never solved."""
    from settlement.liquidity_run import list_plans

    return [
        (
            str(plan.number),
            plan.choice.method,
            str(plan.choice.value),
            str(plan.choice.bound),
            str(plan.choice.gap_ppm),
            str(len(plan.choice.chosen)),
            str(len(plan.choice.partial)),
            plan.input_hash,
            _replayed(plan),
        )
        for plan in await list_plans(conn, scope)
    ]


def _replayed(plan: ReleasePlan) -> str:
    from settlement.liquidity_run import replay_plan

    try:
        replay_plan(plan)
    except (BadInput, Refused) as error:
        return f"differs: {error}"
    return "same"


async def _obligation(
    conn: AsyncConnection, item: Obligation, run_id: UUID | None, money: Money, book: int
) -> Story:
    from kernel.events import list_history
    from ledger.queries import list_transfers

    facts = {
        "kind": "obligation",
        "id": str(item.id),
        "state": str(item.state),
        "party": item.party,
        "direction": str(item.direction),
        "amount": money.text(item.amount, item.asset),
        "leg": item.leg,
        "deal": str(item.deal_id),
        "run": str(run_id or ""),
        "value_date": item.value_date.isoformat(),
        "created": iso(item.created_at),
    }
    timeline = events(await list_history(conn, "obligation", item.id))
    timeline += events(await list_history(conn, "deal", item.deal_id))
    timeline += postings(await list_transfers(conn, book, correlation=item.deal_id), money)
    return Story(f"Obligation {item.id}", facts, timeline)
