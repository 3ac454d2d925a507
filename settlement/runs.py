"""The cycle up to the seal: pull, calculate, affirm or dispute, seal.

A run is unique by (book, value date, window). Each calculation version is stored with its inputs
and never changes; a dispute takes the disputed obligations out and makes the next version of the
rest. Only `seal` posts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id, stable_id
from ledger.model import Transfer, chain, transfer
from ledger.posting import ensure_accounts, post, require_applied
from registry.authority import require_role
from registry.model import Operator, Role
from settlement import store
from settlement.errors import NotAffirmed, SamePerson
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
from settlement.netting import calculate, discharges
from trading.legs import list_settlement_legs, mark_pulled, mark_settling
from trading.model import Direction as Owed

SYSTEM: Final = "system:settlement"
DIRECTIONS: Final = {Owed.OWED_BY_US: Direction.PAY, Owed.OWED_TO_US: Direction.RECEIVE}


async def pull_obligations(conn: AsyncConnection, *, book: int, now: datetime) -> list[Obligation]:
    """Take over what booked deals owe; each leg once, however often this runs.

    The deals are locked while their legs become obligations; from then on they cannot be cancelled.
    """
    legs = await list_settlement_legs(conn, book=book)
    obligations = [
        Obligation(
            id=stable_id("obligation", leg.deal_id, str(leg.kind)),
            deal_id=leg.deal_id,
            leg=str(leg.kind),
            party=leg.party,
            asset=leg.asset,
            amount=leg.amount,
            direction=DIRECTIONS[leg.direction],
            value_date=leg.value_date,
            created_at=now,
        )
        for leg in legs
    ]
    new = set(await store.insert_obligations(conn, book, obligations))
    await mark_pulled(conn, sorted({leg.deal_id for leg in legs}), now=now)
    return [o for o in obligations if o.id in new]


async def open_run(
    conn: AsyncConnection, *, book: int, value_date: date, window: str, by: str, now: datetime
) -> tuple[Run, Calculation]:
    """Calculate version 1 of the window's run over everything open; repeat calls return it."""
    existing = await store.find_run(conn, book, value_date, window)
    if existing is not None:
        return existing, await store.get_calculation(conn, existing.id, existing.version)
    run = Run(
        id=derive_id(now, "run", book, value_date.isoformat(), window),
        book=book,
        value_date=value_date,
        window=window,
        state=RunState.CALCULATED,
        version=1,
        created_at=now,
    )
    obligations = await store.lock_open_obligations(conn, book, value_date)
    if not obligations:
        raise Refused(
            f"nothing is owed for {value_date} in window {window}",
            remedy="Book deals first, or look at `causeway obligations list`",
        )
    if not await store.insert_run(conn, run):
        raise Refused(f"the run of {value_date} {window} was calculated by someone else just now")
    result = calculate(
        obligations, await store.get_agreements(conn), value_date=value_date, version=1
    )
    await store.move_obligations(conn, obligations, ObligationState.CALCULATED, run_id=run.id)
    await store.insert_calculation(conn, run.id, result, obligations, now)
    await _record(conn, run, "RunCalculated", to=run.state, actor=by, now=now, result=result)
    return run, result


async def affirm(
    conn: AsyncConnection,
    run_id: UUID,
    *,
    version: int,
    party: str,
    by: Operator,
    witness: Operator,
    evidence_hash: str,
    now: datetime,
) -> Run:
    """Enter that *party* agrees to a version; the run is affirmed when every party has.

    Args:
        witness: a second operator who has seen the evidence.
        evidence_hash: SHA-256 of the message or statement in which the party agreed.
    """
    if by.code == witness.code:
        raise SamePerson(f"{by.code} cannot witness an affirmation that {by.code} entered")
    require_role(by, Role.TREASURER, Role.OPERATIONS)
    require_role(witness, Role.TREASURER, Role.APPROVER, Role.OPERATIONS)
    run = await store.lock_run(conn, run_id)
    if version != run.version or run.state is not RunState.CALCULATED:
        raise Refused(
            f"version {version} of run {run_id} is not open to affirmation",
            remedy=f"The run is {run.state} at version {run.version}",
        )
    result = await store.get_calculation(conn, run_id, version)
    parties = {item.party for item in result.items}
    if party not in parties:
        raise BadInput(f"{party} has no part in run {run_id}")
    await store.insert_affirmation(
        conn,
        run_id=run_id,
        version=version,
        party=party,
        entered_by=by.code,
        witnessed_by=witness.code,
        evidence_hash=evidence_hash,
        at=now,
    )
    members = await store.lock_run_obligations(conn, run_id)
    theirs = [o for o in members if o.party == party and o.state is ObligationState.CALCULATED]
    await store.move_obligations(conn, theirs, ObligationState.AFFIRMED, run_id=run_id)
    state: RunState = run.state
    if await store.affirmed_parties(conn, run_id, version) == parties:
        state = RunState.AFFIRMED
        await store.move_run(conn, run, state, version=version)
    reason = f"{party}, witnessed by {witness.code}"
    await _record(conn, run, "PartyAffirmed", to=state, actor=by.code, reason=reason, now=now)
    return replace(run, state=state)


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

    The other parties' affirmations are for the old version; they affirm the new one.
    """
    require_role(by, Role.TREASURER, Role.OPERATIONS)
    run = await store.lock_run(conn, run_id)
    if run.state not in {RunState.CALCULATED, RunState.AFFIRMED}:
        raise Refused(f"run {run_id} is {run.state}; a sealed run never changes")
    members = await store.lock_run_obligations(conn, run_id)
    live = [o for o in members if o.state is not ObligationState.DISPUTED]
    disputed = [o for o in live if o.id in obligation_ids]
    if len(disputed) != len(set(obligation_ids)):
        raise BadInput(f"not every obligation named is part of run {run_id}")
    rest = [o for o in live if o.id not in obligation_ids]
    if not rest:
        raise Refused(f"nothing would be left of run {run_id}", remedy="Settle the dispute first")
    version = run.version + 1
    await store.move_obligations(conn, disputed, ObligationState.DISPUTED, run_id=run_id)
    await store.move_obligations(
        conn,
        [o for o in rest if o.state is ObligationState.AFFIRMED],
        ObligationState.CALCULATED,
        run_id=run_id,
    )
    result = calculate(
        rest, await store.get_agreements(conn), value_date=run.value_date, version=version
    )
    await store.insert_calculation(conn, run_id, result, rest, now)
    await store.move_run(conn, run, RunState.CALCULATED, version=version)
    changed = replace(run, state=RunState.CALCULATED, version=version)
    await _record(
        conn,
        run,
        "RunDisputed",
        to=changed.state,
        actor=by.code,
        reason=reason,
        now=now,
        result=result,
    )
    return changed, result


async def resolve_dispute(
    conn: AsyncConnection, run_id: UUID, obligation_id: UUID, *, by: Operator
) -> None:
    """Give a disputed obligation back to the pool, for the next run."""
    require_role(by, Role.TREASURER)
    members = await store.lock_run_obligations(conn, run_id)
    found = [o for o in members if o.id == obligation_id]
    if not found:
        raise BadInput(f"obligation {obligation_id} is not part of run {run_id}")
    await store.move_obligations(conn, found, ObligationState.OPEN, run_id=None)


async def seal(conn: AsyncConnection, run_id: UUID, *, by: Operator, now: datetime) -> Run:
    """Post the affirmed version: every open item becomes netted, discharged to the last unit."""
    require_role(by, Role.TREASURER)
    run = await store.lock_run(conn, run_id)
    if run.state is not RunState.AFFIRMED:
        raise NotAffirmed(
            f"run {run_id} is {run.state}", remedy="Seal needs every party to have affirmed it"
        )
    result = await store.get_calculation(conn, run_id, run.version)
    members = [
        o
        for o in await store.lock_run_obligations(conn, run_id)
        if o.state is ObligationState.AFFIRMED
    ]
    by_id = {o.id: o for o in members}
    # Everything that may wait for another transaction comes before the posting.
    await store.move_obligations(conn, members, ObligationState.SEALED, run_id=run_id)
    await store.move_run(conn, run, RunState.SEALED, version=run.version)
    await store.insert_instructions(conn, run.book, _instructions(run, result.items))
    deals = sorted({o.deal_id for o in members})
    await mark_settling(conn, deals, by=by.code, reason=f"run {run.id} sealed", now=now)
    transfers = sealing_transfers(run, result, by_id)
    accounts = {(path, t.asset) for t in transfers for path in (t.debit, t.credit)}
    await _record(conn, run, "RunSealed", to=RunState.SEALED, actor=by.code, now=now)
    await ensure_accounts(conn, run.book, accounts)
    require_applied(await post(conn, run.book, chain(*transfers)))
    return replace(run, state=RunState.SEALED)


def sealing_transfers(
    run: Run, result: Calculation, obligations: Mapping[UUID, Obligation]
) -> list[Transfer]:
    """Return the transfers of `seal`: each names the obligation(s) that it discharges."""
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


def _instructions(run: Run, items: Sequence[NetItem]) -> list[Instruction]:
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
            payout_id=None,
            evidence="",
            created_at=run.created_at,
        )
        for number, item in enumerate(items)
        if item.amount > 0
    ]


async def _record(
    conn: AsyncConnection,
    run: Run,
    name: str,
    *,
    to: RunState,
    actor: str,
    now: datetime,
    reason: str = "",
    result: Calculation | None = None,
) -> None:
    payload = {"window": run.window, "value_date": run.value_date.isoformat()}
    if result is not None:
        payload |= {"calculation": str(result.version), "input_hash": result.input_hash}
    version = await next_version(conn, "settlement-run", run.id)
    event = DomainEvent(
        entity_type="settlement-run",
        entity_id=run.id,
        version=version,
        name=name,
        at=now,
        actor=actor,
        reason=reason,
        from_state=run.state if version > 1 else None,
        to_state=to,
        payload=payload,
    )
    await record(conn, [event])
