"""From a sealed run to value that moves, and from moved value to finality.

* What a party owes on chain: `release_run` starts to await it; `settlement.matching` applies the
  receipts.
* What the desk owes on chain: `release_payments` makes one payout each, once everything that the
  party owes in the same run is final (value only against value).
* A prefunded party settles by book: `accept_book` holds both sides, `settle_book` posts them in one
  chain; that commit is the finality.
* `record_finality` reads the payouts' ends and closes runs.

Each step is a transaction of its own, so that a crash between two of them leaves rows to resume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.payout_model import PayoutRequest, PayoutState
from custody.payouts import get_payout, request_payout
from kernel.errors import BadInput, Refused
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from ledger.model import Transfer, chain, hold, post_hold
from ledger.posting import ensure_accounts, post, require_applied
from ledger.queries import get_balance
from registry.authority import require_role
from registry.model import Operator, Role
from registry.queries import get_asset
from settlement import store
from settlement.model import (
    Direction,
    Instruction,
    InstructionState,
    ObligationState,
    Rail,
    Run,
    RunState,
)
from trading.legs import mark_settled

SYSTEM: Final = "system:settlement"
PURPOSE: Final = "settlement"


async def release_run(conn: AsyncConnection, run_id: UUID, *, by: Operator, now: datetime) -> Run:
    """Release a sealed run: awaited receipts are awaited from now on, payments may follow."""
    require_role(by, Role.TREASURER)
    run = await store.lock_run(conn, run_id)
    if run.state is not RunState.SEALED:
        raise Refused(f"run {run_id} is {run.state}", remedy="Only a sealed run is released")
    instructions = await store.list_instructions(conn, run_id=run_id, lock=True)
    for item in instructions:
        if item.rail is Rail.EVM and item.direction is Direction.RECEIVE:
            await _move(conn, item, InstructionState.RELEASED, "awaiting a receipt", by.code, now)
    await store.move_run(conn, run, RunState.RELEASED, version=run.version)
    await _record_run(conn, run, "RunReleased", RunState.RELEASED, by.code, now)
    return await store.lock_run(conn, run_id)


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

    The payout still needs its approvals in `custody`, and leaves from *source_wallet*.
    """
    require_role(by, Role.TREASURER)
    run = await store.lock_run(conn, run_id)
    if run.state is not RunState.RELEASED:
        raise Refused(f"run {run_id} is {run.state}", remedy="Release the run first")
    instructions = await store.list_instructions(conn, run_id=run_id, lock=True)
    chosen = [i for i in releasable(instructions) if i.id == instruction_id]
    if not chosen:
        raise Refused(
            f"instruction {instruction_id} cannot be released",
            remedy="It is done already, or what the party owes in this run is not final yet",
        )
    item = chosen[0]
    destination, version = await store.get_standing_instruction(
        conn, item.party, item.asset, item.rail
    )
    await _require_funds(conn, run.book, source_wallet, item)
    payout = await request_payout(
        conn,
        PayoutRequest(
            client_ref=f"settlement/{item.id}",
            rail=str(item.rail),
            claim=f"payable:{item.party}:netted",
            source_wallet=source_wallet,
            asset=item.asset,
            amount=item.amount,
            destination=destination,
            requested_by=by.code,
            reason=f"settlement run {run.window} of {run.value_date}",
        ),
        book=run.book,
        now=now,
    )
    evidence = f"standing instruction version {version}, payout {payout.id}"
    await _move(conn, item, InstructionState.FUNDED, f"from {source_wallet}", by.code, now)
    funded = replace(item, state=InstructionState.FUNDED)
    await _move(
        conn, funded, InstructionState.RELEASED, evidence, by.code, now, payout_id=payout.id
    )
    return payout.id


def book_holds(items: Sequence[Instruction], run: Run) -> list[Transfer]:
    """Return the holds of a book settlement: what the client gives and what it gets."""
    holds = []
    for item in items:
        client = f"client:{item.party}"
        gives = item.direction is Direction.RECEIVE
        holds.append(
            hold(
                id=derive_id(run.created_at, "book-hold", item.id),
                debit=client if gives else f"payable:{item.party}:netted",
                credit=f"receivable:{item.party}:netted" if gives else client,
                asset=item.asset,
                amount=item.amount,
                code="settlement.book.held",
                purpose=PURPOSE,
                correlation=item.id,
            )
        )
    return holds


async def accept_book(
    conn: AsyncConnection, run_id: UUID, party: str, *, by: Operator, now: datetime
) -> list[Instruction]:
    """Hold both sides of a prefunded party's book settlement; nothing can spend them twice."""
    require_role(by, Role.TREASURER)
    run = await store.lock_run(conn, run_id)
    if run.state is not RunState.RELEASED:
        raise Refused(f"run {run_id} is {run.state}", remedy="Release the run first")
    items = await _lock_book(conn, run, party, InstructionState.PLANNED)
    holds = book_holds(items, run)
    for item, held in zip(items, holds, strict=True):
        await _move(conn, item, InstructionState.RELEASED, "held", by.code, now, hold_id=held.id)
    await ensure_accounts(
        conn, run.book, {(p, t.asset) for t in holds for p in (t.debit, t.credit)}
    )
    require_applied(await post(conn, run.book, chain(*holds)))
    return items


async def settle_book(
    conn: AsyncConnection, run_id: UUID, party: str, *, by: Operator, now: datetime
) -> list[Instruction]:
    """Post both sides in one chain: this commit is the finality of a book settlement."""
    require_role(by, Role.TREASURER)
    run = await store.lock_run(conn, run_id)
    items = await _lock_book(conn, run, party, InstructionState.RELEASED)
    posts = [
        post_hold(
            id=derive_id(run.created_at, "book-post", item.id),
            pending_id=derive_id(run.created_at, "book-hold", item.id),
            code="settlement.book.settled",
            correlation=item.id,
        )
        for item in items
    ]
    for item in items:
        await _move(
            conn,
            item,
            InstructionState.FINAL,
            "ledger commit",
            by.code,
            now,
            applied=item.amount,
        )
    require_applied(await post(conn, run.book, chain(*posts)))
    return items


async def record_finality(conn: AsyncConnection, run_id: UUID, *, now: datetime) -> Run:
    """Close what is final: paid instructions, and the run once nothing of it is open.

    A payment is final when its payout is confirmed to the policy's depth: probable is not final.
    """
    run = await store.lock_run(conn, run_id)
    if run.state is not RunState.RELEASED:
        return run
    for item in await store.list_instructions(
        conn, run_id=run_id, states={InstructionState.RELEASED}, lock=True
    ):
        if item.payout_id is not None:
            await _follow_payout(conn, item, item.payout_id, now)
    left = [
        i
        for i in await store.list_instructions(conn, run_id=run_id)
        if i.state is not InstructionState.FINAL
    ]
    if left:
        return run
    members = [
        o
        for o in await store.lock_run_obligations(conn, run_id)
        if o.state is ObligationState.SEALED
    ]
    await store.move_obligations(conn, members, ObligationState.DISCHARGED, run_id=run_id)
    await store.move_run(conn, run, RunState.FINAL, version=run.version)
    await _record_run(conn, run, "RunFinal", RunState.FINAL, SYSTEM, now)
    deals = await store.discharged_deals(conn, {o.deal_id for o in members})
    await mark_settled(conn, deals, by=SYSTEM, reason=f"run {run_id} final", now=now)
    return await store.lock_run(conn, run_id)


async def _follow_payout(
    conn: AsyncConnection, item: Instruction, payout_id: UUID, now: datetime
) -> None:
    payout = await get_payout(conn, payout_id)
    if payout.state is PayoutState.CONFIRMED:
        await _move(
            conn,
            item,
            InstructionState.FINAL,
            f"payout {payout_id} confirmed",
            SYSTEM,
            now,
            applied=item.amount,
        )
    elif payout.state in {
        PayoutState.FAILED_ON_CHAIN,
        PayoutState.REJECTED,
        PayoutState.CANCELLED,
        PayoutState.EXPIRED,
    }:
        await _move(conn, item, InstructionState.FAILED, f"payout {payout.state}", SYSTEM, now)


async def _require_funds(
    conn: AsyncConnection, book: int, source_wallet: str, item: Instruction
) -> None:
    balance = await get_balance(conn, book, f"custody:{source_wallet}", item.asset)
    if balance.available < item.amount:
        asset = await get_asset(conn, item.asset)
        short = asset.format(item.amount - balance.available)
        raise Refused(
            f"{source_wallet} is short of {short} for instruction {item.id}",
            remedy="Move house coins there first, or choose another wallet",
        )


async def _lock_book(
    conn: AsyncConnection, run: Run, party: str, state: InstructionState
) -> list[Instruction]:
    items = [
        i
        for i in await store.list_instructions(conn, run_id=run.id, states={state}, lock=True)
        if i.rail is Rail.BOOK and i.party == party
    ]
    if not items:
        raise BadInput(f"run {run.id} has nothing of {party} to settle by book in state {state}")
    return items


async def _move(
    conn: AsyncConnection,
    item: Instruction,
    state: InstructionState,
    evidence: str,
    actor: str,
    now: datetime,
    **values: object,
) -> None:
    await store.move_instruction(conn, item, state, evidence=evidence, **values)
    event = DomainEvent(
        entity_type="settlement-instruction",
        entity_id=item.id,
        version=await next_version(conn, "settlement-instruction", item.id),
        name=f"Instruction{state.capitalize()}",
        at=now,
        actor=actor,
        reason=evidence,
        from_state=item.state,
        to_state=state,
        payload=_payload(item, values),
    )
    await record(conn, [event])


def _payload(item: Instruction, values: Mapping[str, object]) -> dict[str, str]:
    extra = {key: str(value) for key, value in values.items()}
    return {"party": item.party, "asset": item.asset, "amount": str(item.amount), **extra}


async def _record_run(
    conn: AsyncConnection, run: Run, name: str, to: RunState, actor: str, now: datetime
) -> None:
    event = DomainEvent(
        entity_type="settlement-run",
        entity_id=run.id,
        version=await next_version(conn, "settlement-run", run.id),
        name=name,
        at=now,
        actor=actor,
        from_state=run.state,
        to_state=to,
        payload={"window": run.window},
    )
    await record(conn, [event])
