"""What people decide: hold back, let go, give back; and an authority's order on a client.

One person holds back; two let go. Each signs the same bytes, which are kept with what they said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.follow import require_running
from custody import arrivals
from custody import store as deposit_store
from custody.books import apply_plan
from custody.compliance import answers, people, store
from custody.compliance.cases import find_legal_hold
from custody.compliance.identity import case_id
from custody.compliance.model import (
    CASE_STATES,
    PASSED,
    Case,
    CaseState,
    Decision,
    Direction,
    LegalHold,
    LegalHoldState,
    Subject,
)
from custody.compliance.refunds import find_refund, require_same_way, settle_shortfall
from custody.deposit_model import Deposit, DepositState
from custody.deposits import pay_back
from custody.errors import NotPossible
from custody.freezes import require_open
from custody.payout_model import Payout, PayoutRequest
from custody.payouts import derive_payout_id, request_payout
from custody.plan import Plan
from kernel.errors import BadInput
from kernel.events import DomainEvent, record
from kernel.ids import derive_id
from registry.model import Operator
from registry.queries import get_operator, get_party

LEGAL_HOLD: Final = "legal_hold"
ORDER_LENGTH_MAX: Final = 120


async def hold(
    conn: AsyncConnection,
    subject_id: UUID,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    now: datetime,
) -> Case:
    """Hold back a deposit that is not credited, or a payout that has no nonce; one person.

    What is credited or signed already is only marked for review: `place_legal_hold` stops the rest.

    Args:
        subject_id: of the case, or of what it is about.
        signatures: by operator, over ``case_bytes(HOLD_VERB, case, reason)``.

    Raises:
        NotPossible: it is held already, or given back.
        UnknownRow: nobody has looked at it yet (`open_case` makes the case).
    """
    case = await store.get_case(conn, subject_id)
    await _lock_deposit(conn, case)
    case = await store.get_case(conn, case.id, lock=True)
    signers = await load_people(conn, signatures)
    if case.state is CaseState.REFUNDED:
        # Only the payout that gives it back brings it back to the held account.
        raise NotPossible(f"case {case.id} is {case.state}", where=case.reason)
    payload = people.case_bytes(people.HOLD_VERB, case, reason)
    people.require_people(payload, signers, count=1, roles=people.HOLDERS, reason=reason)
    return await _move(conn, case, CaseState.HELD, people.HOLD_VERB, signers, reason, now)


async def open_deposit_case(conn: AsyncConnection, deposit_id: UUID, *, now: datetime) -> Case:
    """Return the case of a deposit, made if nobody has looked at it yet."""
    deposit = await deposit_store.get_arrival(conn, Deposit, deposit_id, lock=True)
    case = Case(
        id=case_id(Subject.DEPOSIT, deposit.id, deposit.epoch, deposit.first_seen_at),
        subject=Subject.DEPOSIT,
        subject_id=deposit.id,
        epoch=deposit.epoch,
        direction=Direction.IN,
        chain=deposit.chain,
        address=deposit.sender,
        party=deposit.party,
        asset=deposit.asset,
        amount=deposit.amount,
        state=CaseState.OPEN,
        provider="",
        list_version="",
        reason="",
        opened_at=now,
        answered_at=None,
        version=0,
    )
    await store.insert_cases(conn, [case])
    return await store.get_case(conn, case.id)


async def release(
    conn: AsyncConnection,
    subject_id: UUID,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    book: int,
    now: datetime,
) -> Case:
    """Let go what is held; a deposit on the held account is credited to its client. Two people.

    Args:
        subject_id: of the case, or of the deposit, payout or destination.
        signatures: by operator, over ``case_bytes(RELEASE_VERB, case, reason)``.

    Raises:
        NotPossible: it is not held, or a legal hold stands on the client.
        ChainHalted: the block that holds the deposit may be gone; people have to look first.
        NotAuthorised: the two are one, or may not say so, or did not sign this.
        Frozen: something of the deposit is frozen.
    """
    # A deposit's row is locked before its case, here as in the crediting turn.
    case = await store.get_case(conn, subject_id)
    deposit = await _lock_deposit(conn, case)
    case = await store.get_case(conn, case.id, lock=True)
    signers = await load_people(conn, signatures)
    payload = people.case_bytes(people.RELEASE_VERB, case, reason)
    people.require_people(payload, signers, count=people.BOTH, roles=people.DECIDERS, reason=reason)
    await _require_no_legal_hold(conn, case)
    after = await _move(conn, case, CaseState.RELEASED, people.RELEASE_VERB, signers, reason, now)
    if deposit is not None and deposit.state is DepositState.HELD and _is_current(case, deposit):
        await _credit(conn, deposit, signers, reason, book=book, now=now)
    return after


async def refund(
    conn: AsyncConnection,
    subject_id: UUID,
    *,
    destination: str,
    source_wallet: str,
    signatures: Mapping[str, bytes],
    reason: str,
    book: int,
    now: datetime,
) -> Payout:
    """Give a held deposit back: a payout at the expense of the held account. Two people.

    The payout is a payout like any other: to an allowed destination of the client, under the policy,
    approved by others. An authority that takes the coins is such a destination. One that was given back
    before the database was restored, or before a fork mined it anew, is not given back again: the payout
    that there is becomes its refund.

    Args:
        source_wallet: which wallet pays.
        signatures: by operator, over `people.refund_bytes`; the first of them, by code, is who
            requests the payout.

    Raises:
        NotPossible: it is not a deposit on the held account, a legal hold stands on the client, or it
            was given back another way.
        Refused: the payout is refused, as `custody.payouts.request_payout`.
    """
    case = await store.get_case(conn, subject_id)
    deposit = await _lock_deposit(conn, case)
    case = await store.get_case(conn, case.id, lock=True)
    if deposit is None or deposit.state is not DepositState.HELD or not _is_current(case, deposit):
        state = "no deposit" if deposit is None else deposit.state
        raise NotPossible(f"only what is held is given back; {case.subject_id} is {state}")
    signers = await load_people(conn, signatures)
    payload = people.refund_bytes(case, reason, destination=destination, wallet=source_wallet)
    people.require_people(payload, signers, count=people.BOTH, roles=people.DECIDERS, reason=reason)
    await _require_no_legal_hold(conn, case)
    await _move(conn, case, CaseState.REFUNDED, people.REFUND_VERB, signers, reason, now)
    reference, known = await find_refund(conn, deposit, book=book)
    if known is not None:
        require_same_way(known, destination=destination, source_wallet=source_wallet)
    request = PayoutRequest(
        client_ref=reference,
        claim=f"client:{deposit.party}:held",
        source_wallet=source_wallet,
        asset=deposit.asset,
        amount=deposit.amount,
        destination=destination,
        requested_by=min(signatures),
        reason=reason,
    )
    # The deposit's row is written first: requesting the payout posts to the ledger.
    planned = known.id if known else derive_payout_id(request, book=book, now=now)
    after = arrivals.moved(deposit, DepositState.REFUNDING, refund=planned)
    await deposit_store.save_arrival(conn, after)
    told = arrivals.event(
        deposit, after, "DepositRefunding", at=now, actor=request.requested_by, reason=reason
    )
    await record(conn, [told])
    if known is None:
        return await request_payout(conn, request, book=book, now=now)
    plan = Plan()
    await settle_shortfall(conn, deposit, known, plan, book=book, now=now)
    await apply_plan(conn, plan, book=book, now=now)
    return known


async def place_legal_hold(
    conn: AsyncConnection,
    party: str,
    *,
    order: str,
    signatures: Mapping[str, bytes],
    reason: str,
    now: datetime,
) -> LegalHold:
    """Stop everything of a client's that would leave or be let go; one person, at once.

    Args:
        order: the authority's reference, opaque.
        signatures: by operator, over ``legal_hold_bytes(LEGAL_HOLD_VERB, party, order, reason)``.
    """
    if not 0 < len(order) <= ORDER_LENGTH_MAX:
        raise BadInput(f"an order's reference has 1 to {ORDER_LENGTH_MAX} characters")
    await get_party(conn, party)
    signers = await load_people(conn, signatures)
    payload = people.legal_hold_bytes(people.LEGAL_HOLD_VERB, party, order, reason)
    people.require_people(payload, signers, count=1, roles=people.HOLDERS, reason=reason)
    new = LegalHold(
        id=derive_id(now, LEGAL_HOLD, party, order),
        party=party,
        order=order,
        reason=reason,
        state=LegalHoldState.PLACED,
        placed_by=min(signatures),
        placed_at=now,
        lifted_at=None,
        version=1,
    )
    await store.insert_legal_hold(conn, new)
    await record_decision(conn, new.id, people.LEGAL_HOLD_VERB, signers, reason, now)
    await record(conn, [_legal_event(None, new, new.placed_by, reason, now)])
    return new


async def lift_legal_hold(
    conn: AsyncConnection,
    hold_id: UUID,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    now: datetime,
) -> LegalHold:
    """Lift a legal hold; two people.

    Args:
        signatures: by operator, over ``lift_bytes(hold, reason)``.

    Raises:
        NotPossible: it was lifted before.
    """
    found = await store.get_legal_hold(conn, hold_id, lock=True)
    if found.state is not LegalHoldState.PLACED:
        raise NotPossible(f"legal hold {found.id} is {found.state} already")
    signers = await load_people(conn, signatures)
    payload = people.lift_bytes(found, reason)
    people.require_people(payload, signers, count=people.BOTH, roles=people.DECIDERS, reason=reason)
    after = replace(found, state=LegalHoldState.LIFTED, lifted_at=now, version=found.version + 1)
    await store.save_legal_hold(conn, after)
    await record_decision(conn, found.id, people.LIFT_VERB, signers, reason, now)
    await record(conn, [_legal_event(found, after, min(signatures), reason, now)])
    return after


async def _credit(
    conn: AsyncConnection,
    deposit: Deposit,
    signers: Sequence[tuple[Operator, bytes]],
    reason: str,
    *,
    book: int,
    now: datetime,
) -> None:
    await require_running(conn, deposit.chain)
    party = str(deposit.party)
    await require_open(
        conn, chain=deposit.chain, asset=deposit.asset, wallet=deposit.wallet, client=party
    )
    move = arrivals.released(deposit, party)
    after = arrivals.moved(
        deposit,
        DepositState.CREDITED,
        postings=(*deposit.postings, move.id),
        shortfall=0,
        reason=reason,
    )
    await deposit_store.save_arrival(conn, after)
    plan = Plan()
    plan.post(move)
    by = signers[0][0].code
    plan.tell(arrivals.event(deposit, after, "DepositReleased", at=now, actor=by, reason=reason))
    await pay_back(conn, [deposit] if deposit.shortfall else [], plan, book=book, now=now)
    await apply_plan(conn, plan, book=book, now=now)


async def _lock_deposit(conn: AsyncConnection, case: Case) -> Deposit | None:
    if case.subject is not Subject.DEPOSIT:
        return None
    return await deposit_store.get_arrival(conn, Deposit, case.subject_id, lock=True)


def _is_current(case: Case, deposit: Deposit) -> bool:
    return case.epoch == deposit.epoch


async def _require_no_legal_hold(conn: AsyncConnection, case: Case) -> None:
    standing = None if case.party is None else await find_legal_hold(conn, case.party)
    if standing is not None:
        raise NotPossible(
            f"legal hold {standing.order} stands on {standing.party}",
            where=f"legal hold {standing.id}",
            remedy="Two people lift it first",
        )


async def load_people(
    conn: AsyncConnection, signatures: Mapping[str, bytes]
) -> list[tuple[Operator, bytes]]:
    """Return who signed, as registered, in the order of their codes."""
    return [(await get_operator(conn, code), signatures[code]) for code in sorted(signatures)]


async def _move(
    conn: AsyncConnection,
    case: Case,
    to: CaseState,
    verb: str,
    signers: Sequence[tuple[Operator, bytes]],
    reason: str,
    now: datetime,
) -> Case:
    if case.state is to or (case.state, to) not in CASE_STATES.edges:
        wanted = "held" if to in PASSED or to is CaseState.REFUNDED else "open or cleared"
        raise NotPossible(f"case {case.id} is {case.state}, not {wanted}", where=case.reason)
    after = replace(
        case,
        state=to,
        reason=reason,
        version=case.version + 1,
        answered_at=case.answered_at or now,
    )
    await store.save_cases(conn, [after])
    await record_decision(conn, case.id, verb, signers, reason, now)
    name = f"Case{to.capitalize()}"
    by = signers[0][0].code
    await record(conn, [answers.event(case, after, name, at=now, actor=by, reason=reason)])
    return after


async def record_decision(
    conn: AsyncConnection,
    subject_id: UUID,
    verb: str,
    signers: Sequence[tuple[Operator, bytes]],
    reason: str,
    now: datetime,
) -> None:
    """Keep what people said about something whose row is locked."""
    number = await store.count_decisions(conn, subject_id) + 1
    await store.insert_decision(
        conn,
        Decision(
            subject_id=subject_id,
            number=number,
            verb=verb,
            reason=reason,
            operators=tuple(operator.code for operator, _ in signers),
            signatures=tuple(signature for _, signature in signers),
            at=now,
        ),
    )


def _legal_event(
    before: LegalHold | None, after: LegalHold, by: str, reason: str, now: datetime
) -> DomainEvent:
    payload: dict[str, Any] = {"party": after.party, "order": after.order}
    return DomainEvent(
        entity_type=LEGAL_HOLD,
        entity_id=after.id,
        version=after.version,
        name=f"LegalHold{after.state.capitalize()}",
        at=now,
        actor=by,
        reason=reason,
        from_state=None if before is None else str(before.state),
        to_state=str(after.state),
        payload=payload,
    )
