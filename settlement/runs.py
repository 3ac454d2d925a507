"""The cycle up to the seal: pull, calculate, affirm or dispute, seal.

A run is unique by (book, value date, window). Each calculation version is stored with its inputs
and never changes; a dispute takes the disputed obligations out and makes the next version of the
rest. Only `seal` posts. Every verb is one transaction and may be repeated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.set_off import Due, note_due
from kernel.errors import BadInput, Refused
from kernel.ids import derive_id, stable_id
from ledger.accounts import ensure_accounts
from ledger.model import Transfer, chain, transfer
from ledger.posting import post, require_applied
from registry.authority import signing_bytes
from registry.model import Operator, Role
from settlement import instruction_store, store
from settlement.errors import ChangedMeanwhile, NotAffirmed, NothingOwed
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
from settlement.people import require_operator, require_second, require_sha256
from settlement.steps import (
    SYSTEM,
    Why,
    record_obligations,
    record_planned,
    record_run,
    step_obligations,
)
from trading.legs import give_back, list_settlement_legs, mark_pulled, mark_settling
from trading.model import Direction as Owed

DIRECTIONS: Final = {Owed.OWED_BY_US: Direction.PAY, Owed.OWED_TO_US: Direction.RECEIVE}
SEALED: Final = frozenset({RunState.SEALED, RunState.RELEASED, RunState.FINAL})
WINDOW_LENGTH_MAX: Final = 64


async def pull_obligations(conn: AsyncConnection, *, book: int, now: datetime) -> list[Obligation]:
    """Take over what booked deals owe, up to `trading.legs.PULL_MAX` deals; return what is new.

    Each leg is taken once, however often this runs. The deals are locked while their legs become
    obligations; from then on they cannot be cancelled, unless `withdraw_deal` gives them back.
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
    new = await store.insert_obligations(conn, book, obligations)
    await mark_pulled(conn, sorted({leg.deal_id for leg in legs}), now=now)
    await record_obligations(conn, new, Why(SYSTEM, "pulled from its deal", now))
    return new


async def withdraw_deal(
    conn: AsyncConnection, deal_id: UUID, *, by: Operator, reason: str, now: datetime
) -> list[Obligation]:
    """Give a deal's obligations back to trading, which may cancel or amend it then.

    Raises:
        BadInput: settlement has nothing of that deal.
        Refused: one of them is in a run.
    """
    operator = await require_operator(conn, by, Role.TREASURER)
    obligations = await store.lock_deal_obligations(conn, deal_id)
    if not obligations:
        raise BadInput(f"settlement has no obligation of deal {deal_id}")
    if not all(o.has_deal for o in obligations):
        raise Refused("it came with the cut-over: there is no deal to cancel")
    live = [o for o in obligations if o.state is not ObligationState.WITHDRAWN]
    if not live:
        return []
    idle = {ObligationState.OPEN, ObligationState.DISPUTED}
    bound = sorted(f"{o.leg} is {o.state}" for o in live if o.state not in idle)
    if bound:
        raise Refused(
            f"deal {deal_id} cannot be withdrawn: {', '.join(bound)}",
            remedy="Dispute what is in an unsealed run first; what is sealed will settle",
        )
    await give_back(conn, [deal_id], now=now)
    await step_obligations(
        conn,
        live,
        ObligationState.WITHDRAWN,
        Why(operator.code, reason, now),
        run_id=None,
    )
    return live


async def open_run(
    conn: AsyncConnection, *, book: int, value_date: date, window: str, by: str, now: datetime
) -> tuple[Run, Calculation]:
    """Calculate version 1 of the window's run over everything open; repeat calls return it.

    At most `store.OBLIGATIONS_PER_RUN_MAX` obligations, the oldest; the rest is the next window's.

    Args:
        by: operator id, or ``system:<process>``.

    Raises:
        NothingOwed: there is nothing to calculate.
    """
    if not 0 < len(window) <= WINDOW_LENGTH_MAX or not window.isprintable():
        raise BadInput(f"a window has a name of 1 to {WINDOW_LENGTH_MAX} printable characters")
    run = Run(
        id=derive_id(now, "run", book, value_date.isoformat(), window),
        book=book,
        value_date=value_date,
        window=window,
        state=RunState.CALCULATED,
        version=1,
        created_at=now,
    )
    # First of all the row that is unique: whoever comes second waits here, and reads it then.
    if not await store.insert_run(conn, run):
        existing = await store.find_run(conn, book, value_date, window)
        if existing is None:
            raise ChangedMeanwhile(f"the run of {value_date} {window} was made just now")
        return existing, await store.get_calculation(conn, existing.id, existing.version)
    obligations = await store.lock_open_obligations(conn, book, value_date)
    if not obligations:
        raise NothingOwed(
            f"nothing is owed for {value_date} in window {window}",
            remedy="Book deals and pull their obligations first",
        )
    result = await _calculate(conn, run, obligations, now)
    await step_obligations(
        conn,
        obligations,
        ObligationState.CALCULATED,
        Why(by, f"run {run.id}", now),
        run_id=run.id,
    )
    await record_run(conn, run, "RunCalculated", run.state, Why(by, "", now), result=result)
    return run, result


def affirmation_bytes(run: Run, result: Calculation, party: str, evidence_hash: str) -> bytes:
    """Return what the witness of an affirmation signs."""
    return signing_bytes(
        "settlement.affirmation",
        {
            "run": run.id,
            "version": result.version,
            "inputs": result.input_hash,
            "party": party,
            "evidence": evidence_hash,
        },
    )


async def affirm(
    conn: AsyncConnection,
    run_id: UUID,
    *,
    version: int,
    party: str,
    by: Operator,
    witness: Operator,
    signature: bytes,
    evidence_hash: str,
    now: datetime,
) -> Run:
    """Enter that *party* agrees to a version; the run is affirmed when every party has.

    The same affirmation again changes nothing.

    Args:
        witness: a second operator who has seen the evidence.
        signature: the witness's, over `affirmation_bytes`.
        evidence_hash: SHA-256 of the message or statement in which the party agreed.

    Raises:
        Refused: the version is not the run's newest, or not open to affirmation any more.
    """
    require_sha256(evidence_hash, "evidence")
    first = await require_operator(conn, by, Role.TREASURER, Role.OPERATIONS)
    run = await store.lock_run(conn, run_id)
    result = await store.get_calculation(conn, run_id, version)
    second = await require_second(
        conn,
        first,
        witness,
        Role.TREASURER,
        Role.APPROVER,
        Role.OPERATIONS,
        payload=affirmation_bytes(run, result, party, evidence_hash),
        signature=signature,
    )
    parties = {item.party for item in result.items}
    if party not in parties:
        raise BadInput(f"{party} has no part in run {run_id}")
    known = await store.find_affirmation(conn, run_id, version, party)
    if known == evidence_hash:
        return run
    if known is not None:
        raise Refused(
            f"{party} has affirmed version {version} already",
            where=f"evidence {known}",
            remedy="An affirmation is entered once; what is wrong in it is disputed",
        )
    if version != run.version or run.state is not RunState.CALCULATED:
        raise Refused(
            f"version {version} of run {run_id} is not open to affirmation",
            remedy=f"The run is {run.state} at version {run.version}",
        )
    await store.insert_affirmation(
        conn,
        run_id=run_id,
        version=version,
        party=party,
        entered_by=first.code,
        witnessed_by=second.code,
        evidence_hash=evidence_hash,
        at=now,
    )
    return await _affirmed(
        conn, run, parties, party, Why(first.code, f"{party}, witnessed by {second.code}", now)
    )


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

    The other parties' affirmations are for the old version; they affirm the new one. The same
    dispute again changes nothing. If nothing is left, the run ends empty.

    Raises:
        BadInput: an obligation is not part of the run.
        Refused: the run is sealed.
    """
    operator = await require_operator(conn, by, Role.TREASURER, Role.OPERATIONS)
    run = await store.lock_run(conn, run_id)
    members = await store.lock_run_obligations(conn, run_id)
    named = [o for o in members if o.id in obligation_ids]
    if not named or len(named) != len(set(obligation_ids)):
        raise BadInput(f"not every obligation named is part of run {run_id}")
    disputed = [o for o in named if o.state is not ObligationState.DISPUTED]
    if not disputed:
        return run, await store.get_calculation(conn, run_id, run.version)
    if run.state not in {RunState.CALCULATED, RunState.AFFIRMED}:
        raise Refused(
            f"run {run_id} is {run.state}; a sealed run never changes",
            remedy="Correct it by a new deal",
        )
    rest = [
        o for o in members if o.state is not ObligationState.DISPUTED and o.id not in obligation_ids
    ]
    why = Why(operator.code, reason, now)
    await step_obligations(conn, disputed, ObligationState.DISPUTED, why, run_id=run_id)
    back = [o for o in rest if o.state is ObligationState.AFFIRMED]
    await step_obligations(conn, back, ObligationState.CALCULATED, why, run_id=run_id)
    changed = replace(
        run, state=RunState.CALCULATED if rest else RunState.EMPTY, version=run.version + 1
    )
    result = await _calculate(conn, changed, rest, now)
    await store.move_run(conn, run, changed.state, version=changed.version)
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
    """Give a disputed obligation back to the pool, for the next run."""
    operator = await require_operator(conn, by, Role.TREASURER)
    await store.lock_run(conn, run_id)
    members = await store.lock_run_obligations(conn, run_id)
    found = [o for o in members if o.id == obligation_id]
    if not found or found[0].state is not ObligationState.DISPUTED:
        raise BadInput(f"obligation {obligation_id} is not disputed in run {run_id}")
    await step_obligations(
        conn,
        found,
        ObligationState.OPEN,
        Why(operator.code, reason, now),
        run_id=None,
    )
    return replace(found[0], state=ObligationState.OPEN, version=found[0].version + 1)


async def seal(conn: AsyncConnection, run_id: UUID, *, by: Operator, now: datetime) -> Run:
    """Post the affirmed version: every open item becomes netted, discharged to the last unit.

    A run that is sealed already is returned as it stands.

    Raises:
        NotAffirmed: a party has not affirmed the newest version.
    """
    operator = await require_operator(conn, by, Role.TREASURER)
    run = await store.lock_run(conn, run_id)
    if run.state in SEALED:
        return run
    if run.state is not RunState.AFFIRMED:
        raise NotAffirmed(
            f"run {run_id} is {run.state}", remedy="Seal needs every party to have affirmed it"
        )
    result = await store.get_calculation(conn, run_id, run.version)
    members = await _lock_affirmed(conn, run, result)
    instructions = _instructions(run, result.items)
    why = Why(operator.code, f"run {run.id} sealed", now)
    # Everything that may wait for another transaction comes before the posting.
    await step_obligations(conn, members, ObligationState.SEALED, why, run_id=run_id)
    await store.move_run(conn, run, RunState.SEALED, version=run.version)
    await instruction_store.insert_instructions(conn, run.book, instructions)
    await record_planned(conn, instructions, why)
    await note_due(conn, run.book, _dues(run, instructions))
    await mark_settling(
        conn,
        sorted({o.deal_id for o in members if o.has_deal}),
        by=why.by,
        reason=why.reason,
        now=now,
    )
    await record_run(conn, run, "RunSealed", RunState.SEALED, why)
    transfers = sealing_transfers(run, result, {o.id: o for o in members})
    accounts = {(path, t.asset) for t in transfers for path in (t.debit, t.credit)}
    await ensure_accounts(conn, run.book, accounts, now=now)
    require_applied(await post(conn, run.book, chain(*transfers), now=now))
    return replace(run, state=RunState.SEALED)


def _dues(run: Run, instructions: Sequence[Instruction]) -> list[Due]:
    """Return what is owed to the desk by the end of the value date: later, it is set off."""
    end = datetime.combine(run.value_date + timedelta(days=1), time(tzinfo=UTC))
    return [
        Due(f"settlement/{item.id}", item.party, item.asset, item.amount, end)
        for item in instructions
        if item.direction is Direction.RECEIVE and item.amount
    ]


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
            attempt=1,
            payout_id=None,
            standing_version=None,
            evidence="",
            created_at=run.created_at,
        )
        for number, item in enumerate(items)
        if item.amount > 0
    ]


async def _calculate(
    conn: AsyncConnection, run: Run, obligations: Sequence[Obligation], now: datetime
) -> Calculation:
    agreements = await store.get_agreements(conn)
    result = calculate(obligations, agreements, value_date=run.value_date, version=run.version)
    await store.insert_calculation(conn, run.id, result, obligations, agreements, now)
    return result


async def _affirmed(
    conn: AsyncConnection,
    run: Run,
    parties: Collection[str],
    party: str,
    why: Why,
) -> Run:
    members = await store.lock_run_obligations(conn, run.id)
    theirs = [o for o in members if o.party == party and o.state is ObligationState.CALCULATED]
    await step_obligations(
        conn,
        theirs,
        ObligationState.AFFIRMED,
        why,
        run_id=run.id,
    )
    complete = await store.affirmed_parties(conn, run.id, run.version) == parties
    state = RunState.AFFIRMED if complete else RunState.CALCULATED
    if complete:
        await store.move_run(conn, run, state, version=run.version)
    await record_run(conn, run, "PartyAffirmed", state, why)
    return replace(run, state=state)


async def _lock_affirmed(conn: AsyncConnection, run: Run, result: Calculation) -> list[Obligation]:
    members = [
        o
        for o in await store.lock_run_obligations(conn, run.id)
        if o.state is ObligationState.AFFIRMED
    ]
    if {o.id for o in members} != {i for item in result.items for i in item.obligations}:
        raise ChangedMeanwhile(f"run {run.id} does not have the obligations of its calculation")
    return members
