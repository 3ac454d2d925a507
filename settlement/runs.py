"""Runs up to the seal: pull, affirm, seal; and runs of all parties in one, as they were before.

The runs of a cycle, one for each party and netting set, are opened by `settlement.cycles`. Each
calculation version is stored with its inputs and never changes. Only `seal` posts. Every verb is
one transaction and may be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import Refused
from kernel.ids import derive_id, stable_id
from registry.authority import signing_bytes
from registry.model import Operator, Role
from registry.people import require_operator, require_second, require_sha256
from settlement import calculation_store, store
from settlement.affirmations import Proof, enter
from settlement.documents import inputs_json
from settlement.errors import ChangedMeanwhile, NotAffirmed, NothingOwed
from settlement.model import (
    Calculation,
    Direction,
    Obligation,
    ObligationState,
    Run,
    RunState,
    require_window_name,
)
from settlement.netting.bilateral import calculate
from settlement.sealing import seal_affirmed
from settlement.steps import (
    SYSTEM,
    Why,
    record_obligations,
    record_run,
    step_obligations,
)
from trading.legs import give_back, list_settlement_legs, mark_pulled
from trading.model import Direction as Owed
from trading.model import SettlementLeg
from trading.terms.agreements import get_agreements

DIRECTIONS: Final = {Owed.OWED_BY_US: Direction.PAY, Owed.OWED_TO_US: Direction.RECEIVE}
SEALED: Final = frozenset({RunState.SEALED, RunState.RELEASED, RunState.FINAL})


async def pull_obligations(conn: AsyncConnection, *, book: int, now: datetime) -> list[Obligation]:
    """Take over what booked deals owe, up to `trading.legs.PULL_MAX` deals; return what is new.

    Each leg is taken once, however often this runs. The deals are locked while their legs become
    obligations; from then on they cannot be cancelled, unless `withdraw_deal` gives them back.
    """
    legs = await list_settlement_legs(conn, book=book)
    obligations = [obligation_of(leg) for leg in legs]
    new = await store.insert_obligations(conn, book, obligations)
    await mark_pulled(conn, sorted({leg.deal_id for leg in legs}), now=now)
    await record_obligations(conn, new, Why(SYSTEM, "pulled from its deal", now))
    return new


def obligation_of(leg: SettlementLeg) -> Obligation:
    """Return what a leg of a deal is as an obligation; the same leg is always the same one."""
    return Obligation(
        id=stable_id("obligation", leg.deal_id, str(leg.kind)),
        deal_id=leg.deal_id,
        leg=str(leg.kind),
        party=leg.party,
        asset=leg.asset,
        amount=leg.amount,
        direction=DIRECTIONS[leg.direction],
        value_date=leg.value_date,
        created_at=leg.booked_at,
        trade_date=leg.trade_date,
    )


async def withdraw_deal(
    conn: AsyncConnection, deal_id: UUID, *, by: Operator, reason: str, now: datetime
) -> list[Obligation]:
    """Give a deal's obligations back to trading, which may cancel or amend it then.

    Raises:
        Refused: settlement has nothing of that deal, or one of its obligations is in a run.
    """
    operator = await require_operator(conn, by, Role.TREASURER)
    obligations = await store.lock_deal_obligations(conn, deal_id)
    if not obligations:
        raise Refused(f"settlement has no obligation of deal {deal_id}")
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
    require_window_name(window)
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
        return existing, await calculation_store.get_calculation(
            conn, existing.id, existing.version
        )
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
        TooLate: the time to affirm is over.
    """
    require_sha256(evidence_hash, "evidence")
    first = await require_operator(conn, by, Role.TREASURER, Role.OPERATIONS)
    run = await store.lock_run(conn, run_id)
    result = await calculation_store.get_calculation(conn, run_id, version)
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
    proof = Proof(evidence_hash=evidence_hash, witnessed_by=second.code)
    why = Why(first.code, f"{party}, witnessed by {second.code}", now)
    return await enter(conn, run, result, party, proof, why)


async def seal(conn: AsyncConnection, run_id: UUID, *, by: Operator, now: datetime) -> Run:
    """Post the affirmed version: every open item becomes netted, discharged to the last unit.

    A run that is sealed already is returned as it stands. Many runs of a cycle are sealed at once
    by `settlement.cycles.seal_cycle`.

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
    (sealed,) = await seal_affirmed(
        conn, run.book, [run], Why(operator.code, f"run {run.id} sealed", now)
    )
    return sealed


async def _calculate(
    conn: AsyncConnection, run: Run, obligations: Sequence[Obligation], now: datetime
) -> Calculation:
    agreements = await get_agreements(conn)
    result = calculate(obligations, agreements, value_date=run.value_date, version=run.version)
    inputs = inputs_json(obligations, agreements)
    await calculation_store.insert_calculations(conn, [(run.id, result, inputs)], now)
    return result
