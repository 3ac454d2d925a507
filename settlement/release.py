"""From a sealed run to value that moves, and from moved value to finality.

* What a party owes on chain: `release_run` starts to await it; `settlement.matching` applies the
  receipts.
* What the desk owes on chain: `release_payment` makes one payout of an instruction, once everything
  that the party owes in the same run is final (value only against value). A payout that failed
  leaves a failed instruction; `reschedule` begins its next attempt.
* A prefunded party settles by book: `settlement.book_rail`.
* `record_finality` reads the payouts' ends and closes runs.

Each verb is a transaction of its own and may be repeated, so that a crash between two of them leaves
rows to resume. Lock order: run, instructions, obligations, deals; the ledger last.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.freezes import require_open
from custody.model import custody_account
from custody.payout_model import Payout, PayoutRequest, PayoutState
from custody.payouts import get_payout, request_payout
from kernel.errors import BadInput, Refused
from ledger.queries import list_accounts
from registry.model import Operator, Role
from registry.queries import get_asset
from settlement import instruction_store, store
from settlement.errors import NotCovered, NotReleasable
from settlement.evidence import find_stale_matches
from settlement.model import (
    Direction,
    Instruction,
    InstructionState,
    ObligationState,
    Rail,
    Run,
    RunState,
)
from settlement.people import require_operator
from settlement.steps import SYSTEM, Why, record_run, step_instruction, step_obligations
from trading.legs import mark_settled

PURPOSE: Final = "settlement"
"""What the holds of settlement say they are for."""

PAYING: Final = frozenset({InstructionState.RELEASED, InstructionState.FINAL})
"""States of an instruction in which its payout counts."""

ENDED: Final = frozenset(
    {
        PayoutState.FAILED_ON_CHAIN,
        PayoutState.REJECTED,
        PayoutState.CANCELLED,
        PayoutState.EXPIRED,
    }
)
"""States of a payout in which it has not paid and, as far as its chain is final, never will."""


async def release_run(conn: AsyncConnection, run_id: UUID, *, by: Operator, now: datetime) -> Run:
    """Release a sealed run: awaited receipts are awaited from now on, payments may follow.

    A run that is released already is returned as it stands.
    """
    operator = await require_operator(conn, by, Role.TREASURER)
    run = await store.lock_run(conn, run_id)
    if run.state in {RunState.RELEASED, RunState.FINAL}:
        return run
    if run.state is not RunState.SEALED:
        raise Refused(f"run {run_id} is {run.state}", remedy="Only a sealed run is released")
    await require_open(conn)
    for item in await instruction_store.list_instructions(conn, run_id=run_id, lock=True):
        if item.rail is Rail.EVM and item.direction is Direction.RECEIVE:
            why = Why(operator.code, "awaiting a receipt", now)
            await step_instruction(conn, item, InstructionState.RELEASED, why)
    await store.move_run(conn, run, RunState.RELEASED, version=run.version)
    await record_run(conn, run, "RunReleased", RunState.RELEASED, Why(operator.code, "", now))
    return replace(run, state=RunState.RELEASED)


def releasable(instructions: Sequence[Instruction]) -> list[Instruction]:
    """Return the on-chain payments whose counter-value, if any, is final: value against value."""
    owing = {
        i.party
        for i in instructions
        if i.direction is Direction.RECEIVE and i.state is not InstructionState.FINAL
    }
    return [
        i
        for i in instructions
        if i.direction is Direction.PAY
        and i.rail is Rail.EVM
        and i.state in {InstructionState.PLANNED, InstructionState.RESCHEDULED}
        and i.party not in owing
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

    The payout still needs its approvals in `custody`, and leaves from *source_wallet*. An
    instruction that is released already keeps the payout it has; its id is returned.

    Raises:
        NotReleasable: in another state, or what the party owes in the run is not final.
        NotCovered: the wallet is short.
        NoStandingInstruction: nobody has said where the party is paid.
        Refused: `custody` refuses: the wallet's owner class, the destination, the policy.
    """
    operator = await require_operator(conn, by, Role.TREASURER)
    run = await store.lock_run(conn, run_id)
    instructions = await instruction_store.list_instructions(conn, run_id=run_id, lock=True)
    item = _choose(instructions, instruction_id)
    if item.payout_id is not None and item.state in PAYING:
        return item.payout_id
    _require_released(run)
    await _require_releasable(conn, instructions, item)
    destination, version = await store.get_standing_instruction(
        conn, item.party, item.asset, item.rail
    )
    await _require_funds(conn, run.book, source_wallet, item)
    why = Why(operator.code, f"from {source_wallet}", now)
    await step_instruction(conn, item, InstructionState.FUNDED, why, standing_version=version)
    payout = await request_payout(
        conn,
        _payout_request(run, item, source_wallet, destination, operator.code),
        book=run.book,
        now=now,
    )
    await step_instruction(
        conn,
        replace(item, state=InstructionState.FUNDED),
        InstructionState.RELEASED,
        Why(operator.code, f"standing instruction {version}, payout {payout.id}", now),
        payout_id=payout.id,
    )
    return payout.id


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
    await lock_released(conn, run_id)
    instructions = await instruction_store.list_instructions(conn, run_id=run_id, lock=True)
    item = _choose(instructions, instruction_id)
    if item.state is InstructionState.RESCHEDULED:
        return item
    if item.state is not InstructionState.FAILED:
        raise NotReleasable(
            f"instruction {item.id} is {item.state}, not failed",
            remedy="Only a failed instruction is rescheduled",
        )
    await _require_ended(conn, item)
    after = replace(item, state=InstructionState.RESCHEDULED, attempt=item.attempt + 1)
    await step_instruction(
        conn, item, after.state, Why(operator.code, reason, now), attempt=after.attempt
    )
    return replace(after, evidence=reason)


async def record_finality(conn: AsyncConnection, run_id: UUID, *, now: datetime) -> Run:
    """Close what is final: paid instructions, and the run once nothing of it is open.

    A payment is final when its payout is confirmed to the policy's depth: probable is not final.
    """
    run = await store.lock_run(conn, run_id)
    if run.state is not RunState.RELEASED:
        return run
    instructions = await instruction_store.list_instructions(conn, run_id=run_id, lock=True)
    done = [await _follow_payout(conn, item, now) for item in instructions]
    if any(state is not InstructionState.FINAL for state in done):
        return run
    if await find_stale_matches(conn, instructions):
        return run
    why = Why(SYSTEM, f"run {run_id} final", now)
    members = await store.lock_run_obligations(conn, run_id)
    sealed = [o for o in members if o.state is ObligationState.SEALED]
    await step_obligations(conn, sealed, ObligationState.DISCHARGED, why, run_id=run_id)
    await store.move_run(conn, run, RunState.FINAL, version=run.version)
    await record_run(conn, run, "RunFinal", RunState.FINAL, why)
    deals = await store.discharged_deals(conn, {o.deal_id for o in sealed if o.has_deal})
    await mark_settled(conn, deals, by=SYSTEM, reason=why.reason, now=now)
    return replace(run, state=RunState.FINAL)


async def lock_released(conn: AsyncConnection, run_id: UUID) -> Run:
    """Lock and return a released run."""
    run = await store.lock_run(conn, run_id)
    _require_released(run)
    return run


def _require_released(run: Run) -> None:
    if run.state is not RunState.RELEASED:
        raise NotReleasable(f"run {run.id} is {run.state}", remedy="Only a released run pays")


def _choose(instructions: Collection[Instruction], instruction_id: UUID) -> Instruction:
    for item in instructions:
        if item.id == instruction_id:
            return item
    raise BadInput(f"instruction {instruction_id} is not part of the run")


def _payout_request(
    run: Run, item: Instruction, source_wallet: str, destination: str, by: str
) -> PayoutRequest:
    # A reference of its own for each attempt: the payout of an earlier one can never be paid twice
    # under this one, and never be mistaken for it.
    return PayoutRequest(
        client_ref=f"settlement/{item.id}/{item.attempt}",
        rail=str(item.rail),
        claim=f"payable:{item.party}:netted",
        source_wallet=source_wallet,
        asset=item.asset,
        amount=item.amount,
        destination=destination,
        requested_by=by,
        reason=f"settlement run {run.window} of {run.value_date}",
    )


async def _require_releasable(
    conn: AsyncConnection, instructions: Sequence[Instruction], item: Instruction
) -> None:
    if item.direction is not Direction.PAY or item.rail is not Rail.EVM:
        raise NotReleasable(
            f"instruction {item.id} is to {item.direction} by {item.rail}",
            remedy="Only a payment on chain has a payout",
        )
    theirs = [i for i in instructions if i.party == item.party and i.direction is Direction.RECEIVE]
    if item not in releasable(instructions):
        open_ones = [i for i in theirs if i.state is not InstructionState.FINAL]
        waits = ", ".join(f"{i.remaining} of {i.asset} ({i.id})" for i in open_ones)
        raise NotReleasable(
            f"instruction {item.id} is {item.state}"
            + (f" and {item.party} still owes {waits}" if waits else ""),
            remedy="Value leaves only against final value; what failed is rescheduled first",
        )
    stale = await find_stale_matches(conn, theirs)
    if stale:
        raise NotReleasable(
            f"receipt {stale[0].receipt_id}, which {item.party} had paid with, has vanished",
            remedy="Take the match back, and await the receipt again",
        )
    await _require_ended(conn, item)


async def _require_ended(conn: AsyncConnection, item: Instruction) -> None:
    """Refuse a further attempt while the payout of the last one could still pay."""
    if item.payout_id is None:
        return
    payout = await get_payout(conn, item.payout_id)
    if payout.state not in ENDED:
        raise NotReleasable(
            f"payout {payout.id} of instruction {item.id} is {payout.state} and may still pay",
            remedy="Clear it up in custody first",
        )


async def _follow_payout(
    conn: AsyncConnection, item: Instruction, now: datetime
) -> InstructionState:
    """Move a released payment where its payout has ended; return the state it is in then."""
    if item.payout_id is None or item.state is not InstructionState.RELEASED:
        return await _still_paid(conn, item)
    payout = await get_payout(conn, item.payout_id)
    if payout.state is PayoutState.CONFIRMED:
        why = Why(SYSTEM, f"payout {payout.id} confirmed", now)
        await step_instruction(conn, item, InstructionState.FINAL, why, applied=item.amount)
        return InstructionState.FINAL
    if payout.state in ENDED:
        why = Why(SYSTEM, f"payout {payout.id} {payout.state}", now)
        await step_instruction(conn, item, InstructionState.FAILED, why)
        return InstructionState.FAILED
    return item.state


async def _still_paid(conn: AsyncConnection, item: Instruction) -> InstructionState:
    # A payment that was final may have vanished with its block; its run must not close over it.
    if item.state is not InstructionState.FINAL or item.payout_id is None:
        return item.state
    payout: Payout = await get_payout(conn, item.payout_id)
    return item.state if payout.state is PayoutState.CONFIRMED else InstructionState.RELEASED


async def _require_funds(
    conn: AsyncConnection, book: int, source_wallet: str, item: Instruction
) -> None:
    path = custody_account(source_wallet)
    available = sum(
        account.balance.available
        for account in await list_accounts(conn, book, path)
        if account.path == path and account.asset == item.asset
    )
    if available < item.amount:
        asset = await get_asset(conn, item.asset)
        raise NotCovered(
            f"{source_wallet} is short of {asset.format(item.amount - available)}"
            f" for instruction {item.id}",
            remedy="Move house coins there first, or choose another wallet",
        )
