"""Our leg, held: coins are reserved where they lie before the counter-value is there.

A payment that was chosen is FUNDED: an open hold of its coins in the ledger, at one place, with the
purpose of settlement. `settlement.releasing` turns the hold into a payout; `let_go` gives it back. A
hold has no end in the ledger: only these verbs resolve it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import Refused
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import Transfer, hold, void_hold
from ledger.posting import post, require_applied
from registry.model import Operator, Role
from registry.people import require_operator
from registry.queries import get_asset
from settlement import cycle_store, fail_store, release_store, store
from settlement.errors import NotCovered, NotReleasable
from settlement.funding import list_places
from settlement.liquidity_run import scope_of
from settlement.model import Instruction, InstructionState, Run, RunState
from settlement.places import Asked, Place
from settlement.release_model import Earmark, ReleasePlan
from settlement.release_steps import Step, step_instructions
from settlement.steps import SYSTEM, Why
from settlement.value_against_value import OPEN
from settlement.windows import get_window

PURPOSE: Final = "settlement"
"""What the holds of settlement say they are for."""

HOLDS_MAX: Final = 500
"""Payments held in one transaction."""


async def acting(conn: AsyncConnection, by: Operator | None, runs: Collection[Run]) -> str:
    """Return who acts on locked runs: a treasurer, or the clock by the policy of two people (None).

    Raises:
        Refused: the operator is no treasurer, or a window wants a person.
    """
    if by is not None:
        return (await require_operator(conn, by, Role.TREASURER)).code
    for cycle_id in sorted({run.cycle_id or run.id for run in runs}):
        if cycle_id in {run.id for run in runs}:
            raise Refused(f"run {cycle_id} is of no cycle", remedy="A treasurer releases it")
        cycle = await cycle_store.get_cycle(conn, cycle_id)
        window = await get_window(conn, cycle.book, cycle.window, cycle.window_version)
        if not window.releases_by_clock:
            raise Refused(
                f"window {cycle.window} is released by a person", remedy="causeway settle release"
            )
    return SYSTEM


async def hold_chosen(
    conn: AsyncConnection,
    plan: ReleasePlan,
    run_ids: Collection[UUID],
    *,
    by: Operator | None,
    now: datetime,
    limit: int = HOLDS_MAX,
) -> list[Earmark]:
    """Hold the coins of payments that *plan* has chosen, of these runs; return what is new.

    What is held already stays as it is, so the call may be repeated until it returns nothing. Nothing
    is held for a party in default.

    Raises:
        NotCovered: a place has less than it had when the plan was made. Nothing is held then.
        NotReleasable: a run is not released.
    """
    runs = await store.lock_runs(conn, only=run_ids)
    who = await acting(conn, by, runs)
    require_released(runs)
    if scope_of(runs) != plan.scope:
        raise NotReleasable(f"release plan {plan.id} is of another cycle")
    stopped = {one.party for one in await fail_store.list_in_force(conn, plan.book)}
    sources = plan.sources()
    items = await release_store.lock_payments(
        *(conn, run_ids, OPEN),
        only=_chosen(plan, sources),
        without=stopped,
        limit=limit,
    )
    if not items:
        return []
    asked = [
        Asked(item.rail, item.asset, _amount(plan, item), sources[str(item.id)]) for item in items
    ]
    places = {(p.location, p.asset): p for p in await list_places(conn, plan.book, asked)}
    marks = [_mark(item, one, plan, now) for item, one in zip(items, asked, strict=True)]
    why = Why(who, f"held by release plan {plan.number}", now)
    steps = [
        Step(item, InstructionState.FUNDED, hold_id=m.hold_id) for item, m in _pair(items, marks)
    ]
    await step_instructions(conn, steps, why)
    await release_store.insert_earmarks(conn, marks)
    await _post_holds(conn, plan.book, marks, places, now)
    await require_kept(conn, plan.book, asked)
    return marks


async def let_go(
    conn: AsyncConnection,
    run_ids: Collection[UUID],
    instruction_ids: Collection[UUID],
    *,
    by: Operator,
    reason: str,
    now: datetime,
) -> list[Instruction]:
    """Give held coins back: the payments can be planned anew, as their next attempt.

    What holds nothing is left out, and so is what one transaction does not take (`HOLDS_MAX`).
    """
    runs = await store.lock_runs(conn, only=run_ids)
    who = await acting(conn, by, runs)
    items = await release_store.lock_payments(
        conn, run_ids, {InstructionState.FUNDED}, only=instruction_ids, limit=HOLDS_MAX
    )
    if not items:
        return []
    marks = {m.instruction_id: m for m in await open_earmarks(conn, items)}
    after = [
        replace(item, state=InstructionState.RESCHEDULED, attempt=item.attempt + 1)
        for item in items
    ]
    await step_instructions(
        conn,
        [Step(item, InstructionState.RESCHEDULED, attempt=item.attempt + 1) for item in items],
        Why(who, reason, now),
    )
    ends = {(item.id, item.attempt): (None, reason) for item in items}
    await release_store.end_earmarks(conn, ends, by=who, now=now)
    voids = voiding([marks[item.id] for item in items], {i.id: i for i in items})
    require_applied(await post(conn, runs[0].book, voids, now=now))
    return after


async def open_earmarks(conn: AsyncConnection, items: Sequence[Instruction]) -> list[Earmark]:
    """Return what is held for instructions now."""
    return await release_store.list_earmarks(conn, [item.id for item in items], open_only=True)


def voiding(marks: Sequence[Earmark], items: Mapping[UUID, Instruction]) -> list[Transfer]:
    """Return the transfers that free what is held."""
    return [
        void_hold(
            id=_mark_id("earmark-void", items[mark.instruction_id]),
            pending_id=mark.hold_id,
            code="settlement.freed",
            correlation=mark.instruction_id,
        )
        for mark in marks
        if mark.hold_id is not None
    ]


async def require_kept(conn: AsyncConnection, book: int, asked: Sequence[Asked]) -> None:
    """Refuse what leaves a place with less than nothing to promise.

    Asked after the posting, when the ledger's head is locked: nobody else can hold coins until this
    commits or is undone.
    """
    touched = {(one.location, one.asset) for one in asked}
    for place in await list_places(conn, book, asked):
        if (place.location, place.asset) in touched and place.available < 0:
            asset = await get_asset(conn, place.asset)
            raise NotCovered(
                f"{place.location} is short of {asset.format(-place.available)}",
                remedy="Move house coins there first, or plan again",
            )


def require_released(runs: Iterable[Run]) -> None:
    """Refuse what moves value of runs, unless every one of them is released.

    Raises:
        NotReleasable: names a run that is not.
    """
    for run in runs:
        if run.state is not RunState.RELEASED:
            raise NotReleasable(f"run {run.id} is {run.state}", remedy="Only a released run pays")


def _chosen(plan: ReleasePlan, sources: Mapping[str, str]) -> list[UUID]:
    """Return the instructions among what was chosen; a book settlement comes from no one place."""
    keys = plan.choice.chosen | plan.choice.partial.keys()
    return [UUID(key) for key in sorted(keys) if sources.get(key)]


def _amount(plan: ReleasePlan, item: Instruction) -> int:
    return min(plan.choice.partial.get(str(item.id), item.remaining), item.remaining)


def _pair(
    items: Sequence[Instruction], marks: Sequence[Earmark]
) -> list[tuple[Instruction, Earmark]]:
    return list(zip(items, marks, strict=True))


def _mark(item: Instruction, asked: Asked, plan: ReleasePlan, now: datetime) -> Earmark:
    return Earmark(
        instruction_id=item.id,
        attempt=item.attempt,
        book=plan.book,
        plan_id=plan.id,
        location=asked.location,
        asset=asked.asset,
        amount=asked.amount,
        hold_id=_mark_id("earmark", item),
        held_at=now,
    )


def _mark_id(verb: str, item: Instruction) -> UUID:
    return derive_id(item.created_at, verb, item.id, item.attempt)


async def _post_holds(
    conn: AsyncConnection,
    book: int,
    marks: Sequence[Earmark],
    places: Mapping[tuple[str, str], Place],
    now: datetime,
) -> None:
    holds = []
    for mark in marks:
        place = places.get((mark.location, mark.asset))
        if place is None or mark.hold_id is None:
            raise NotCovered(
                f"{mark.location} does not hold {mark.asset} any more", remedy="Plan again"
            )
        holds.append(
            hold(
                id=mark.hold_id,
                debit=place.way,
                credit=place.path,
                asset=mark.asset,
                amount=mark.amount,
                code="settlement.held",
                purpose=PURPOSE,
                correlation=mark.instruction_id,
            )
        )
    keys = {(path, one.asset) for one in holds for path in (one.debit, one.credit)}
    await ensure_accounts(conn, book, keys, now=now)
    require_applied(await post(conn, book, holds, now=now))
