"""From a sealed run to value that moves, and from moved value to finality.

* What a party owes on a chain or through a bank: `release_run` starts to await it;
  `settlement.matching` applies the receipts.
* What the desk owes: `settlement.holding` holds what was chosen, `settlement.releasing` makes the
  payouts once there is a ground (value only against value); `release_payment` does both for one payment
  whose place a person names. A payout that failed leaves a failed instruction; `reschedule` begins its
  next attempt.
* A prefunded party settles by book: `settlement.book_rail`.
* `record_finality` reads the payouts' ends and closes runs.

Each verb is a transaction of its own and may be repeated, so that a crash between two of them leaves
rows to resume. Lock order: run, instructions, obligations, deals; the ledger last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.model import bank_account_path, custody_account
from custody.payout_lookup import find_payouts
from custody.payout_model import Payout, PayoutState
from kernel.errors import BadInput
from ledger.queries import get_balances
from registry.model import Operator, Role
from registry.people import require_operator
from registry.queries import get_asset
from settlement import instruction_store, release_store, store
from settlement.errors import NotCovered, NotReleasable
from settlement.evidence import find_stale_matches
from settlement.funding import list_places
from settlement.holding import open_earmarks, require_released
from settlement.model import (
    Direction,
    Instruction,
    InstructionState,
    ObligationState,
    Run,
    RunState,
)
from settlement.places import Asked
from settlement.release_steps import Step, step_instructions
from settlement.releasing import (
    ENDED,
    Leaving,
    find_grounds,
    pay,
    release_runs,
    require_ended,
)
from settlement.steps import SYSTEM, RunStep, Why, record_runs, step_instruction, step_members
from settlement.value_against_value import PAYABLE, is_payment, judge
from trading.legs import lock_deals, mark_settled
from trading.terms.model import Rail

PAYING: Final = frozenset({InstructionState.RELEASED, InstructionState.FINAL})
"""States of an instruction in which its payout counts."""


async def release_run(
    conn: AsyncConnection, run_id: UUID, *, by: Operator | None, now: datetime
) -> Run:
    """Release one run: `settlement.releasing.release_runs` of one."""
    found = await release_runs(conn, [run_id], by=by, now=now)
    return found[0] if found else await store.get_run(conn, run_id)


async def find_ripe_runs(conn: AsyncConnection, book: int) -> dict[UUID, int]:
    """Return the released runs for which `record_finality` has something to do, by id: their obligations."""
    sent = await release_store.list_sent(conn, book)
    payouts = await find_payouts(conn, {payout_id for _, payout_id in sent})
    over = {
        run_id
        for run_id, payout_id in sent
        if payouts[payout_id].state in ENDED | {PayoutState.CONFIRMED}
    }
    ripe = sorted(over | set(await release_store.list_done_runs(conn, book)))
    sizes = await store.count_members(conn, ripe)
    return {run_id: sizes.get(run_id, 0) for run_id in ripe}


def releasable(instructions: Sequence[Instruction]) -> list[Instruction]:
    """Return the payments whose counter-value, if any, is final: value against value."""
    return [
        item
        for item in instructions
        if is_payment(item, PAYABLE) and judge(item, instructions).cover is not None
    ]


async def release_payment(
    conn: AsyncConnection,
    run_id: UUID,
    instruction_id: UUID,
    *,
    source_wallet: str,
    by: Operator,
    now: datetime,
) -> UUID:
    """Make the payout of one releasable instruction and return the payout's id.

    The payout still needs its approvals in `custody`, and leaves from *source_wallet*: a wallet, or an
    account at a bank. An instruction that is released already keeps the payout it has; its id is
    returned.

    Raises:
        NotReleasable: in another state, or what the party owes in the run is not final.
        NotCovered: the place is short.
        NoStandingInstruction: nobody has said where the party is paid.
        Refused: `custody` refuses: the wallet's owner class, the destination, the policy.
    """
    operator = await require_operator(conn, by, Role.TREASURER)
    run = await store.lock_run(conn, run_id)
    instructions = await instruction_store.list_instructions(conn, run_id=run_id, lock=True)
    item = _choose(instructions, instruction_id)
    if item.payout_id is not None and item.state in PAYING:
        return item.payout_id
    require_released([run])
    leaving = await _leaving(conn, run, instructions, item, source_wallet, now)
    if leaving.mark is None:
        await _require_funds(conn, run.book, source_wallet, item)
    payouts = await pay(conn, [leaving], operator.code, now)
    return payouts[item.id].id


async def _leaving(
    conn: AsyncConnection,
    run: Run,
    instructions: Sequence[Instruction],
    item: Instruction,
    place: str,
    now: datetime,
) -> Leaving:
    """Return the payment as it may leave from *place*.

    Raises:
        NotReleasable: it may not.
    """
    if item.direction is not Direction.PAY or item.rail is Rail.BOOK:
        raise NotReleasable(
            f"instruction {item.id} is to {item.direction} by {item.rail}",
            remedy="Only a payment on a chain or through a bank has a payout",
        )
    found = (await find_grounds(conn, [item], instructions, run.book, now=now))[item.id]
    if item.state not in PAYABLE or found.cover is None:
        waits = ", ".join(f"{i.remaining} of {i.asset} ({i.id})" for i in found.owing)
        raise NotReleasable(
            found.detail
            or f"instruction {item.id} is {item.state}"
            + (f" and {item.party} still owes {waits}" if waits else ""),
            remedy="Value leaves only against final value; what failed is rescheduled first",
        )
    marks = await open_earmarks(conn, [item])
    if marks and marks[0].location != place:
        raise NotReleasable(
            f"instruction {item.id} is held at {marks[0].location}, not at {place}",
            remedy="Release it from there, or let go of what is held first",
        )
    mark = marks[0] if marks else None
    amount = item.remaining if mark is None else mark.amount
    return Leaving(item, run, place, amount, found.cover, found.detail, mark)


async def reschedule(
    conn: AsyncConnection,
    run_id: UUID,
    instruction_id: UUID,
    *,
    by: Operator,
    reason: str,
    now: datetime,
) -> Instruction:
    """Begin the next attempt of a failed instruction: it can be released again.

    An instruction that is rescheduled already is returned as it stands.

    Raises:
        NotReleasable: it has not failed, or its payout may pay after all.
    """
    operator = await require_operator(conn, by, Role.TREASURER)
    require_released([await store.lock_run(conn, run_id)])
    instructions = await instruction_store.list_instructions(conn, run_id=run_id, lock=True)
    item = _choose(instructions, instruction_id)
    if item.state is InstructionState.RESCHEDULED:
        return item
    if item.state is not InstructionState.FAILED:
        raise NotReleasable(
            f"instruction {item.id} is {item.state}, not failed",
            remedy="Only a failed instruction is rescheduled",
        )
    await require_ended(conn, item)
    after = replace(item, state=InstructionState.RESCHEDULED, attempt=item.attempt + 1)
    await step_instruction(
        conn, item, after.state, Why(operator.code, reason, now), attempt=after.attempt
    )
    return replace(after, evidence=reason)


async def record_finality(
    conn: AsyncConnection, run_ids: Collection[UUID], *, now: datetime
) -> list[Run]:
    """Close what is final: paid instructions, and each run once nothing of it is open.

    A payment is final when its payout is confirmed to the policy's depth: probable is not final.

    Returns:
        The runs, by id, as they stand then.
    """
    runs = await store.lock_runs(conn, only=run_ids)
    open_runs = [run.id for run in runs if run.state is RunState.RELEASED]
    items = await release_store.list_instructions_of(conn, open_runs, lock=True)
    final = set(open_runs) - await _follow_payouts(conn, items, now)
    paid = [item for item in items if item.run_id in final]
    stale = {match.instruction_id for match in await find_stale_matches(conn, paid)}
    final -= {item.run_id for item in paid if item.id in stale}
    closing = [run for run in runs if run.id in final]
    if closing:
        await _close(conn, closing, now)
    return [replace(r, state=RunState.FINAL) if r.id in final else r for r in runs]


async def _close(conn: AsyncConnection, runs: Sequence[Run], now: datetime) -> None:
    """Discharge the obligations of locked runs, and settle the deals that have no other ones."""
    members = [
        (item, run_id)
        for item, run_id in await store.lock_members(conn, [run.id for run in runs])
        if item.state is ObligationState.SEALED
    ]
    why = Why(SYSTEM, "the run is final", now)
    await step_members(conn, members, ObligationState.DISCHARGED, why)
    await store.move_runs(conn, runs, RunState.FINAL)
    await record_runs(conn, [RunStep(run, "RunFinal", RunState.FINAL) for run in runs], why)
    deals = {item.deal_id for item, _ in members if item.has_deal}
    # The other leg may be in a run that somebody else closes now: whoever comes second sees both.
    await lock_deals(conn, deals)
    whole = await store.discharged_deals(conn, deals)
    await mark_settled(conn, whole, by=SYSTEM, reason="all its obligations are discharged", now=now)


def _choose(instructions: Collection[Instruction], instruction_id: UUID) -> Instruction:
    for item in instructions:
        if item.id == instruction_id:
            return item
    raise BadInput(f"instruction {instruction_id} is not part of the run")


async def _follow_payouts(
    conn: AsyncConnection, items: Sequence[Instruction], now: datetime
) -> set[UUID]:
    """Move released payments whose payouts have ended; return the runs that have an open instruction."""
    payouts = await find_payouts(conn, {i.payout_id for i in items if i.payout_id is not None})
    steps = [
        step
        for item in items
        if item.payout_id is not None and item.state is InstructionState.RELEASED
        if (step := _step(item, payouts[item.payout_id])) is not None
    ]
    await step_instructions(conn, steps, Why(SYSTEM, "", now))
    after = {step.item.id: step.state for step in steps}
    return {
        item.run_id
        for item in items
        if after.get(item.id, item.state) is not InstructionState.FINAL
        or not _still_paid(item, payouts)
    }


def _step(item: Instruction, payout: Payout) -> Step | None:
    words = f"payout {payout.id} {payout.state}"
    if payout.state is PayoutState.CONFIRMED:
        applied = item.applied + payout.amount
        if applied >= item.amount:
            return Step(item, InstructionState.FINAL, words, applied=item.amount)
        rest = item.attempt + 1
        return Step(item, InstructionState.RESCHEDULED, words, applied=applied, attempt=rest)
    return Step(item, InstructionState.FAILED, words) if payout.state in ENDED else None


def _still_paid(item: Instruction, payouts: Mapping[UUID, Payout]) -> bool:
    # A payment that was final may have vanished with its block; its run must not close over it.
    if item.state is not InstructionState.FINAL or item.payout_id is None:
        return True
    return payouts[item.payout_id].state is PayoutState.CONFIRMED


async def _require_funds(conn: AsyncConnection, book: int, place: str, item: Instruction) -> None:
    """Refuse what *place* cannot pay beside everything that is promised from it already."""
    asked = Asked(item.rail, item.asset, item.remaining, place)
    found = await list_places(conn, book, [asked])
    available = next((p.available for p in found if p.location == place), None)
    if available is None:
        # Whether such a place may pay at all, custody decides.
        path = (bank_account_path if item.rail is Rail.BANK else custody_account)(place)
        balances = await get_balances(conn, book, {(path, item.asset)})
        available = sum(balance.available for balance in balances.values())
    if available < item.remaining:
        asset = await get_asset(conn, item.asset)
        raise NotCovered(
            f"{place} is short of {asset.format(item.remaining - available)}"
            f" for instruction {item.id}",
            remedy="Move house coins there first, or choose another place",
        )
