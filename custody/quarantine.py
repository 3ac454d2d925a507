"""The ways out of quarantine: let in by two people once the token is registered, or dismissed.

What is quarantined is in no book. Adopting judges the movement anew, as if its contract had been
registered when it came: then it goes its way by policy, screening and credit, like any other deposit.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.follow import require_running
from chain.model import Movement
from custody import arrivals, store
from custody.books import apply_plan
from custody.compliance import people
from custody.compliance.decisions import load_people, record_decision
from custody.deposit_model import OUTSIDE, Deposit, DepositKind, DepositState
from custody.errors import NotPossible
from custody.inclusion import load_tokens, shut_accounts
from custody.model import AddressPurpose, custody_account
from custody.plan import Plan
from custody.policy import ConfirmationPolicy
from custody.remainders import move_remainders
from custody.surplus import begin_anew, find_booked
from registry.queries import get_wallet


async def adopt(
    conn: AsyncConnection,
    deposit_id: UUID,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    book: int,
    now: datetime,
    policy: ConfirmationPolicy | None = None,
) -> Deposit:
    """Let a quarantined or dismissed deposit into the books: held for whoever it is for. Two people.

    Args:
        signatures: by operator, over ``deposit_bytes(ADOPT_VERB, deposit, reason)``.
        policy: names the smallest deposits; None: every deposit counts.

    Raises:
        NotPossible: it is not quarantined, its contract is still not registered, nothing arrived, or
            its coins are in the books as a surplus.
        NotAuthorised: the two are one, or may not say so, or did not sign this.
    """
    deposit = await _lock(conn, deposit_id, people.ADOPT_VERB, signatures, reason, people.BOTH)
    if deposit.received is not None:
        raise NotPossible(f"nothing arrived of deposit {deposit.id}: there is nothing to let in")
    await begin_anew(conn, deposit.chain, deposit.address, now=now)
    booked = await find_booked(conn, deposit)
    if booked is not None:
        raise NotPossible(
            f"the coins of deposit {deposit.id} are booked as a surplus: deposit {booked}",
            remedy="Attribute that one: what is in the books once is not let in twice",
        )
    tokens = await load_tokens(conn, deposit.chain)
    judged = await _judge(conn, deposit, tokens, policy, book)
    if judged.kind is DepositKind.QUARANTINED:
        raise NotPossible(
            f"deposit {deposit.id} is still not to be believed: {judged.reason}",
            remedy="Register the contract, or its larger supply, first; two administrators do",
        )
    after = arrivals.adopted(deposit, judged, reason=reason)
    await store.save_arrival(conn, after)
    signers = await load_people(conn, signatures)
    await record_decision(conn, deposit.id, people.ADOPT_VERB, signers, reason, now)
    plan, by = Plan(), min(signatures)
    owner = (await get_wallet(conn, after.wallet)).owner
    plan.need(custody_account(after.wallet), after.asset, owner=owner)
    plan.post(arrivals.included(after))
    plan.tell(arrivals.event(deposit, after, "DepositAdopted", at=now, actor=by, reason=reason))
    if after.remainder != deposit.remainder:
        await move_remainders(conn, plan, [after], tokens, sign=1, now=now)
    await apply_plan(conn, plan, book=book, now=now)
    return after


async def dismiss(
    conn: AsyncConnection,
    deposit_id: UUID,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    now: datetime,
) -> Deposit:
    """Leave a quarantined deposit out of the books for good, with a reason; one person.

    Args:
        signatures: by operator, over ``deposit_bytes(DISMISS_VERB, deposit, reason)``.

    Raises:
        NotPossible: it is not quarantined.
    """
    deposit = await _lock(conn, deposit_id, people.DISMISS_VERB, signatures, reason, 1)
    if deposit.state is not DepositState.QUARANTINED:
        raise NotPossible(f"deposit {deposit.id} is {deposit.state} already")
    after = arrivals.moved(deposit, DepositState.DISMISSED, reason=reason)
    await store.save_arrival(conn, after)
    signers = await load_people(conn, signatures)
    await record_decision(conn, deposit.id, people.DISMISS_VERB, signers, reason, now)
    plan, by = Plan(), min(signatures)
    plan.tell(arrivals.event(deposit, after, "DepositDismissed", at=now, actor=by, reason=reason))
    await apply_plan(conn, plan, book=0, now=now)
    return after


async def _lock(
    conn: AsyncConnection,
    deposit_id: UUID,
    verb: str,
    signatures: Mapping[str, bytes],
    reason: str,
    count: int,
) -> Deposit:
    deposit = await store.get_arrival(conn, Deposit, deposit_id, lock=True)
    await require_running(conn, deposit.chain)
    if deposit.state not in OUTSIDE:
        raise NotPossible(f"deposit {deposit.id} is {deposit.state}, not quarantined")
    signers = await load_people(conn, signatures)
    payload = people.deposit_bytes(verb, deposit, reason)
    people.require_people(payload, signers, count=count, roles=people.DECIDERS, reason=reason)
    return deposit


async def _judge(
    conn: AsyncConnection,
    deposit: Deposit,
    tokens: Mapping[str | None, arrivals.Token],
    policy: ConfirmationPolicy | None,
    book: int,
) -> arrivals.Judgement:
    token = tokens.get(deposit.contract)
    asset = "" if token is None else token.asset.code
    (address,) = await store.list_addresses(conn, deposit.chain, only=[deposit.address])
    if address.purpose is AddressPurpose.SETTLEMENT:
        raise NotPossible(
            f"deposit {deposit.id} lies at a settlement address: a deposit it cannot become",
            remedy="Post it as a receipt by a manual journal, or dismiss it",
        )
    blocked = await shut_accounts(conn, {deposit.party} - {None}, book=book)
    # Quarantined rows carry the chain's own amount.
    movement = Movement(
        *(deposit.tx_hash, deposit.position, deposit.sender, deposit.address),
        *(deposit.contract, deposit.amount),
    )
    return arrivals.judge(
        movement,
        address,
        token,
        minimum=0 if policy is None else policy.minimum(deposit.chain, asset),
        blocked=(deposit.party, asset) in blocked,
    )
