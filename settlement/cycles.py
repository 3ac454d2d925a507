"""Cycles: one slot of a window, opened once, with a run for each party and netting set.

``open_cycle`` calculates, ``advance_cycle`` does what the clocks say (what was not affirmed in time
lapses, and its obligations are open again for the next cycle) and tells what is due next,
``seal_cycle`` posts what is affirmed, a batch a transaction. One silent or disputing party never
holds up another. Every verb may be repeated and has no second effect.

Lock order: cycle, runs by id, obligations, deals; the ledger last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import Refused
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from registry.model import Operator, Role
from registry.people import require_operator
from settlement import calculation_store, cycle_store, store
from settlement.calculation import members
from settlement.clocks import Clocks, clocks_of, count_from, is_open_on, phase_of
from settlement.documents import inputs_json
from settlement.errors import ChangedMeanwhile, NothingOwed, NotYet
from settlement.model import (
    Cycle,
    CyclePhase,
    Obligation,
    ObligationState,
    Run,
    RunState,
    Window,
    cycle_state,
    require_window_name,
)
from settlement.planning import PlannedRun, gather_due, plan_runs
from settlement.sealing import seal_affirmed
from settlement.steps import CYCLE, RunStep, Why, record_runs, step_members
from settlement.windows import by_hand, find_window, get_window

SEAL_BATCH: Final = 8_000
"""Obligations sealed in one transaction, about: a run is sealed whole."""
CLOCK: Final = "system:settlement-clock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """What the clock did to a cycle, and what is due next.

    Attributes:
        state: of the cycle, afterwards (`settlement.model.cycle_state`).
        lapsed: the runs that were not affirmed in time, just now.
        to_seal: affirmed runs whose time to top up is over, and which the clock may seal.
        to_release: sealed runs whose time has come, and which the clock may release.
        waiting_for_people: runs whose next step is due and takes a person.
    """

    cycle: Cycle
    phase: CyclePhase
    state: RunState
    lapsed: tuple[Run, ...]
    to_seal: tuple[UUID, ...]
    to_release: tuple[UUID, ...]
    waiting_for_people: tuple[UUID, ...]


async def open_cycle(
    conn: AsyncConnection, *, book: int, business_date: date, window: str, by: str, now: datetime
) -> Cycle:
    """Open the cycle of a slot and calculate its runs; repeat calls return it as it is.

    Everything counts that is due by the business date and was known by the cut-off, however late
    this runs; at most `planning.OBLIGATIONS_MAX`, the oldest, and the event of the cycle says how
    many are left to the next. A net below its threshold is carried.

    Args:
        conn: the caller's transaction.
        book: the book.
        business_date: of the cycle.
        window: its name; a window nobody has set is opened by hand, and its cut-off is now.
        by: operator code, or ``system:<process>``.
        now: the time.

    Raises:
        NotYet: the cut-off has not passed.
        Refused: the window has no cycle on that date.
        NothingOwed: nothing is owed, in a window nobody has set.
    """
    require_window_name(window)
    policy = await find_window(conn, book, window, on=business_date)
    cycle = _plan_cycle(policy or by_hand(book, window), business_date, now)
    # First of all the row that is unique: whoever comes second waits here, and reads it then.
    if not await cycle_store.insert_cycle(conn, cycle):
        existing = await cycle_store.find_cycle(conn, book, business_date, window)
        if existing is None:
            raise ChangedMeanwhile(f"the cycle of {business_date} {window} was made just now")
        return existing
    due = await gather_due(conn, book, business_date, now=now, known_by=cycle.cutoff_at)
    if not due.obligations and policy is None:
        raise NothingOwed(
            f"nothing is owed for {business_date} in window {window}",
            remedy="Book deals and pull their obligations first",
        )
    planned = await plan_runs(
        conn, book, business_date, due.obligations, policy or by_hand(book, window)
    )
    why = Why(by, f"cycle {window} of {business_date}", now)
    await _write_runs(conn, cycle, planned, why)
    await _record_cycle(conn, cycle, planned, due.left, why)
    return cycle


async def advance_cycle(conn: AsyncConnection, cycle_id: UUID, now: datetime) -> Advance:
    """Do what the clocks say by *now*, and tell what is due next; again: nothing happens."""
    cycle = await cycle_store.get_cycle(conn, cycle_id, lock=True)
    window = await get_window(conn, cycle.book, cycle.window, cycle.window_version)
    runs = await store.lock_runs(conn, cycle_id=cycle_id)
    late = [
        run
        for run in runs
        if run.state is RunState.CALCULATED
        and run.affirm_until is not None
        and run.affirm_until <= now
    ]
    await _lapse(conn, late, now)
    lapsed = {run.id for run in late}
    after = [replace(r, state=RunState.LAPSED) if r.id in lapsed else r for r in runs]
    phase = phase_of(cycle, now)
    sealing = phase in {CyclePhase.SEAL, CyclePhase.RELEASE}
    seal = [r.id for r in after if r.state is RunState.AFFIRMED and sealing]
    ready = phase is CyclePhase.RELEASE
    release = [r.id for r in after if r.state is RunState.SEALED and ready]
    return Advance(
        cycle=cycle,
        phase=phase,
        state=cycle_state({run.state for run in after}),
        lapsed=tuple(run for run in after if run.id in lapsed),
        to_seal=tuple(seal) if window.seals_by_clock else (),
        to_release=tuple(release) if window.releases_by_clock else (),
        waiting_for_people=(
            *(() if window.seals_by_clock else seal),
            *(() if window.releases_by_clock else release),
        ),
    )


async def seal_cycle(
    conn: AsyncConnection, cycle_id: UUID, *, by: Operator | None, now: datetime
) -> list[Run]:
    """Seal the next batch of affirmed runs of a cycle, and return them; none: there are no more.

    Args:
        conn: the caller's transaction; one a batch.
        cycle_id: the cycle.
        by: a treasurer, at any time; None: the clock, once the time to top up is over and if the
            window's policy lets it.
        now: the time.

    Raises:
        Refused: the policy wants a person.
        NotYet: the clock comes too early.
    """
    cycle = await cycle_store.get_cycle(conn, cycle_id, lock=True)
    who = await _sealer(conn, cycle, by, now)
    runs = await store.lock_runs(conn, cycle_id=cycle_id, states={RunState.AFFIRMED})
    batch = _batch(runs, await store.count_members(conn, [run.id for run in runs]))
    if not batch:
        return []
    why = Why(who, f"cycle {cycle.window} of {cycle.value_date} sealed", now)
    return await seal_affirmed(conn, cycle.book, batch, why)


def _plan_cycle(window: Window, day: date, now: datetime) -> Cycle:
    """Return the cycle that the policy makes of a date, if its cut-off has passed."""
    clocks = _clocks(window, day, now)
    if now < clocks.cutoff_at:
        raise NotYet(
            f"the cut-off of window {window.name} of {day} is at {clocks.cutoff_at}",
            remedy="Look at what it would come to: causeway settle preview",
        )
    return Cycle(
        id=derive_id(clocks.cutoff_at, "cycle", window.book, day.isoformat(), window.name),
        book=window.book,
        value_date=day,
        window=window.name,
        window_version=window.version,
        cutoff_at=clocks.cutoff_at,
        affirm_until=clocks.affirm_until,
        top_up_until=clocks.top_up_until,
        release_at=clocks.release_at,
        created_at=now,
    )


def _clocks(window: Window, day: date, now: datetime) -> Clocks:
    if window.version == 0:
        return count_from(window, now)
    if not is_open_on(window, day):
        raise Refused(
            f"window {window.name} has no cycle on {day}",
            remedy="Look at its calendars: causeway settle windows",
        )
    clocks = clocks_of(window, day)
    # What is opened late gives the parties their time all the same.
    return clocks if now < clocks.affirm_until else _late(window, clocks.cutoff_at, now)


def _late(window: Window, cutoff_at: datetime, now: datetime) -> Clocks:
    return replace(count_from(window, now), cutoff_at=cutoff_at)


async def _write_runs(
    conn: AsyncConnection, cycle: Cycle, planned: Sequence[PlannedRun], why: Why
) -> None:
    """Write runs, calculations and states in a fixed number of statements."""
    runs = [_run(cycle, one) for one in planned]
    await store.insert_runs(conn, runs)
    await calculation_store.insert_calculations(
        conn,
        [
            (run.id, one.result, inputs_json(one.obligations, one.rules))
            for run, one in zip(runs, planned, strict=True)
        ],
        why.now,
    )
    moving: list[tuple[Obligation, UUID | None]] = []
    for run, one in zip(runs, planned, strict=True):
        taken = members(one.result.items)
        moving += [(o, run.id) for o in one.obligations if o.id in taken]
    await step_members(conn, moving, ObligationState.CALCULATED, why)
    steps = [
        RunStep(run, "RunCalculated", run.state, one.result)
        for run, one in zip(runs, planned, strict=True)
    ]
    await record_runs(conn, steps, why)
    # All of it is below its threshold: the run says so, and nobody has to affirm it.
    empty = [run for run, one in zip(runs, planned, strict=True) if not one.result.items]
    await store.move_runs(conn, empty, RunState.EMPTY)
    carried = replace(why, reason="below the threshold, carried")
    await record_runs(conn, [RunStep(run, "RunCarried", RunState.EMPTY) for run in empty], carried)


def _run(cycle: Cycle, planned: PlannedRun) -> Run:
    return Run(
        id=derive_id(cycle.cutoff_at, "run", cycle.id, planned.party, planned.netting_set),
        book=cycle.book,
        value_date=cycle.value_date,
        window=cycle.window,
        state=RunState.CALCULATED,
        version=1,
        created_at=cycle.created_at,
        party=planned.party,
        netting_set=planned.netting_set,
        cycle_id=cycle.id,
        affirm_until=cycle.affirm_until,
        top_up_until=cycle.top_up_until,
        release_at=cycle.release_at,
    )


async def _record_cycle(
    conn: AsyncConnection, cycle: Cycle, planned: Sequence[PlannedRun], left: int, why: Why
) -> None:
    event = DomainEvent(
        entity_type=CYCLE,
        entity_id=cycle.id,
        version=await next_version(conn, CYCLE, cycle.id),
        name="CycleOpened",
        at=why.now,
        actor=why.by,
        reason=why.reason,
        payload={
            "window": cycle.window,
            "window_version": cycle.window_version,
            "value_date": cycle.value_date.isoformat(),
            "cutoff_at": cycle.cutoff_at.isoformat(),
            "runs": len(planned),
            "obligations": sum(len(one.obligations) for one in planned),
            "carried": sum(len(one.result.carried) for one in planned),
            "left": left,
        },
    )
    await record(conn, [event])


async def _lapse(conn: AsyncConnection, runs: Sequence[Run], now: datetime) -> None:
    """End what was not affirmed in time: its obligations are open again, the disputed stay so."""
    if not runs:
        return
    why = Why(CLOCK, "not affirmed in time", now)
    within = await store.lock_members(conn, [run.id for run in runs])
    back: list[tuple[Obligation, UUID | None]] = [
        (o, None) for o, _ in within if o.state is ObligationState.CALCULATED
    ]
    await step_members(conn, back, ObligationState.OPEN, why)
    await store.move_runs(conn, runs, RunState.LAPSED)
    await record_runs(conn, [RunStep(run, "RunLapsed", RunState.LAPSED) for run in runs], why)


async def _sealer(conn: AsyncConnection, cycle: Cycle, by: Operator | None, now: datetime) -> str:
    if by is not None:
        return (await require_operator(conn, by, Role.TREASURER)).code
    window = await get_window(conn, cycle.book, cycle.window, cycle.window_version)
    if not window.seals_by_clock:
        raise Refused(f"window {cycle.window} is sealed by a person", remedy="causeway settle seal")
    if now < cycle.top_up_until:
        raise NotYet(f"cycle {cycle.id} can be topped up until {cycle.top_up_until}")
    return CLOCK


def _batch(runs: Sequence[Run], sizes: dict[UUID, int]) -> list[Run]:
    """Return the first runs that come to about `SEAL_BATCH` obligations, at least one."""
    batch: list[Run] = []
    total = 0
    for run in runs:
        total += sizes.get(run.id, 0)
        if batch and total > SEAL_BATCH:
            break
        batch.append(run)
    return batch
