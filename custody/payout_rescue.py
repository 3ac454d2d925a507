"""What people do for a payout that is stuck: pay more for its block, or end a security hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.evm.transactions import UnsignedTransaction, decode_unsigned
from chain.ports import ChainGateway
from custody import payout_store as store
from custody.errors import ClientsUncovered, NotPossible
from custody.payout_allocation import FEE_PER_GAS_MAX, bumped
from custody.payout_coverage import count_spare
from custody.payout_events import move_attempt, step_payout
from custody.payout_model import (
    ATTEMPT_STATES,
    Attempt,
    AttemptState,
    ForeignSpend,
    NonceState,
    Payout,
    PayoutState,
)
from custody.payout_postings import NETWORK_FEE, abandoned, released, replaced
from custody.payout_steps import new_attempt
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import Refused
from kernel.events import DomainEvent, list_history, record
from kernel.ids import stable_id
from ledger.posting import post, require_applied
from registry.authority import require_role, signing_bytes, verify_signature
from registry.model import Operator, Role
from registry.queries import get_operator, get_wallet

BUMPERS: Final = (Role.OPERATIONS, Role.TREASURER)
RESUMERS: Final = (Role.ADMIN, Role.TREASURER, Role.APPROVER)
SENDER: Final = "payout_sender"
RESUME_VERB: Final = "payout_sender.resume"
ABANDON_VERB: Final = "payout.abandon"
WAITING: Final = frozenset({AttemptState.SIGNED, AttemptState.BROADCAST, AttemptState.AMBIGUOUS})
PEOPLE_MIN: Final = 2


async def bump_payout(
    engine: AsyncEngine,
    gateway: ChainGateway,
    payout_id: UUID,
    *,
    by: Operator,
    reason: str,
    clock: Clock,
) -> Payout:
    """Offer the same payment again for a higher fee, on the same nonce.

    At most one of the two can be mined. Both fee fields rise by an eighth or to what the network
    asks now, whichever is more; coins and fee are held anew in one chain. The worker has the
    replacement signed and sends it.

    Raises:
        NotPossible: nothing of the payout waits for a block, or the fee would be out of bounds.
        ClientsUncovered: clients' money would pay for the higher fee.
    """
    quote = await gateway.fees()
    async with engine.connect() as conn:
        seen = await store.get_payout(conn, payout_id)
        attempt = await _waiting_attempt(conn, seen)
    old = decode_unsigned(attempt.unsigned, chain_id=seen.chain_id)
    fees = bumped(old, quote)
    if fees.max_fee_per_gas > FEE_PER_GAS_MAX:
        raise NotPossible(f"{fees.max_fee_per_gas} wei per gas is more than {FEE_PER_GAS_MAX}")
    tx = replace(
        old,
        max_fee_per_gas=fees.max_fee_per_gas,
        max_priority_fee_per_gas=fees.max_priority_fee_per_gas,
    )
    funds = await gateway.balance(seen.sender, None, at=await gateway.head())
    if funds < tx.fee_max + tx.value:
        raise NotPossible(f"{seen.sender} lacks {seen.native_asset} for the higher fee")
    return await transact(
        engine, lambda conn: _replace(conn, seen, tx, by=by, reason=reason, now=clock.now())
    )


async def _replace(
    conn: AsyncConnection,
    seen: Payout,
    tx: UnsignedTransaction,
    *,
    by: Operator,
    reason: str,
    now: datetime,
) -> Payout:
    require_role(await get_operator(conn, by.code), *BUMPERS)
    payout = await store.get_payout(conn, seen.id, lock=True)
    attempt = await _waiting_attempt(conn, payout)
    if attempt.number != seen.attempt:
        raise NotPossible(f"payout {payout.id} was bumped meanwhile")
    await store.lock_sender(conn, payout.chain, payout.sender, payout.source_wallet)
    number = attempt.number + 1
    await store.insert_attempt(conn, new_attempt(payout, number, tx, now))
    require_applied(await post(conn, payout.book, replaced(payout, tx.fee_max), now=now))
    await _require_covered(conn, payout, tx.fee_max - payout.fee_cap)
    return await step_payout(
        conn,
        payout,
        PayoutState.SIGNED,
        actor=by.code,
        now=now,
        reason=reason,
        name="PayoutBumped",
        payload={"attempt": number, "fee_cap": str(tx.fee_max)},
        attempt=number,
        fee_cap=tx.fee_max,
        hold_epoch=payout.hold_epoch + 1,
        run_after=now,
    )


async def _require_covered(conn: AsyncConnection, payout: Payout, more: int) -> None:
    """Refuse a fee that clients' money would pay; the ledger's head is locked already."""
    if not (await get_wallet(conn, payout.source_wallet)).holds_client_money:
        return
    native = payout.native_asset
    spare = (await count_spare(conn, payout.book, {native}))[native]
    if spare < more:
        raise ClientsUncovered(
            f"clients' {native} would not be covered: {spare} to spare",
            remedy="Move house coins into the wallet first",
        )


async def _waiting_attempt(conn: AsyncConnection, payout: Payout) -> Attempt:
    if payout.state is not PayoutState.SIGNED:
        raise NotPossible(f"payout {payout.id} is {payout.state}, nothing of it waits for a block")
    attempt = await store.get_attempt(conn, payout.id, payout.attempt)
    if attempt.state not in WAITING:
        raise NotPossible(f"attempt {attempt.number} of payout {payout.id} is {attempt.state}")
    return attempt


def resume_bytes(chain: str, sender: str, reason: str) -> bytes:
    """Return what each of the two people signs."""
    return signing_bytes(RESUME_VERB, {"chain": chain, "sender": sender, "reason": reason})


async def resume_sender(
    conn: AsyncConnection,
    chain: str,
    sender: str,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    now: datetime,
) -> Sequence[Payout]:
    """Thaw a sending address and go on with its payouts on SECURITY_HOLD, as two people say.

    Nothing can be paid twice by it: each payout goes on with the nonce and the bytes that it has,
    and one whose claim has its money back stays on hold.

    Args:
        conn: the caller's transaction.
        chain: the chain's code.
        sender: the address.
        signatures: Ed25519 over `resume_bytes`, by operator code; at least two.
        reason: why it is safe; each decision needs one of its own.
        now: the time of the decision.

    Raises:
        NotPossible: the address is not ours, or the same decision was carried out before.
    """
    await _require_people(conn, signatures, resume_bytes(chain, sender, reason))
    held = await store.list_payouts(conn, chain=chain, states={PayoutState.SECURITY_HOLD})
    locked = await store.lock_payouts(conn, {item.id for item in held if item.sender == sender})
    source = (await store.find_sources(conn, chain, [sender])).get(sender)
    if source is None:
        raise NotPossible(f"{sender} is not our address")
    await store.freeze_sender(conn, chain, sender, source.wallet, None)
    actor = "+".join(sorted(signatures))
    await _record_once(conn, chain, sender, actor, reason, now)
    return [
        await _resume(conn, payout, actor, reason, now)
        for payout in locked.values()
        if payout.state is PayoutState.SECURITY_HOLD and not payout.claim_returned
    ]


async def _record_once(
    conn: AsyncConnection, chain: str, sender: str, actor: str, reason: str, now: datetime
) -> None:
    # What was signed names no incident but its reason: the same signatures must not end the next.
    entity = stable_id(SENDER, chain, sender)
    history = await list_history(conn, SENDER, entity)
    if any(event.reason == reason for event in history):
        raise NotPossible(
            f"the decision to resume {sender} because {reason!r} was carried out before",
            remedy="Sign again, with a reason that names this incident",
        )
    event = DomainEvent(
        entity_type=SENDER,
        entity_id=entity,
        version=len(history) + 1,
        name="SenderResumed",
        at=now,
        actor=actor,
        reason=reason,
        payload={"chain": chain, "sender": sender},
    )
    await record(conn, [event])


def abandon_bytes(payout_id: UUID, reason: str) -> bytes:
    """Return what each of the two people signs."""
    return signing_bytes(ABANDON_VERB, {"payout_id": payout_id, "reason": reason})


async def abandon_payout(
    conn: AsyncConnection,
    payout_id: UUID,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    finalized: int,
    now: datetime,
) -> Payout:
    """Give a held payout up and its claim back, once its nonce is spent beyond return.

    Args:
        conn: the caller's transaction.
        payout_id: a payout on SECURITY_HOLD.
        signatures: Ed25519 over `abandon_bytes`, by operator code; at least two.
        reason: what was found.
        finalized: the height that the chain itself calls final.
        now: the time of the decision.

    Raises:
        NotPossible: our bytes could still be mined: the stranger's transaction is not final. Or
            the nonce's transaction is ours, and moved coins otherwise than it was made for.
    """
    await _require_people(conn, signatures, abandon_bytes(payout_id, reason))
    payout = await store.get_payout(conn, payout_id, lock=True)
    if payout.state is not PayoutState.SECURITY_HOLD or payout.nonce is None:
        raise NotPossible(f"payout {payout_id} is {payout.state}, not on hold")
    spent = await store.find_nonce_spend(conn, payout.chain, payout.sender, payout.nonce)
    if spent is None or spent.height > finalized:
        raise NotPossible(
            f"nonce {payout.nonce} of {payout.sender} is not spent in a final block",
            remedy="Wait: until then the signed bytes can be mined",
        )
    events, attempts = [], await store.list_attempts(conn, payout_id)
    _require_unpaid(payout, attempts, spent)
    for attempt in attempts:
        if ATTEMPT_STATES.allows(attempt.state, AttemptState.SUPERSEDED):
            how = AttemptState.SUPERSEDED
            events.append((await move_attempt(conn, attempt, how, now=now, reason=reason))[1])
    await store.end_nonce(conn, payout.chain, payout.sender, payout.nonce, NonceState.SPENT, now)
    signed = any(item.raw is not None for item in attempts)
    if not payout.claim_returned:
        chain = abandoned(payout) if signed else released(payout)
        require_applied(await post(conn, payout.book, chain, now=now))
    await record(conn, events)
    return await step_payout(
        conn,
        payout,
        PayoutState.FAILED_ON_CHAIN,
        actor="+".join(sorted(signatures)),
        now=now,
        reason=reason,
        name="PayoutAbandoned",
        waiting_for="",
    )


def _require_unpaid(payout: Payout, attempts: Sequence[Attempt], spent: ForeignSpend) -> None:
    """Refuse to call a payout failed when its own transaction took the nonce, and coins with it."""
    is_ours = spent.tx_hash in {item.tx_hash for item in attempts}
    moved = [leg for leg in spent.legs if leg.account != NETWORK_FEE]
    if is_ours and moved:
        raise NotPossible(
            f"transaction {spent.tx_hash} is this payout's own and moved"
            f" {moved[0].amount} of {moved[0].asset}",
            where=f"payout {payout.id}",
            remedy="The payee may have been paid: have finance correct the books by hand",
        )


async def _require_people(
    conn: AsyncConnection, signatures: Mapping[str, bytes], payload: bytes
) -> None:
    if len(signatures) < PEOPLE_MIN:
        raise Refused("a security hold is ended by two people")
    for code, signature in signatures.items():
        operator = await get_operator(conn, code)
        require_role(operator, *RESUMERS)
        verify_signature(operator, payload, signature)


async def _resume(
    conn: AsyncConnection, payout: Payout, actor: str, reason: str, now: datetime
) -> Payout:
    attempts = await store.list_attempts(conn, payout.id)
    signed = any(item.raw is not None for item in attempts)
    return await step_payout(
        conn,
        payout,
        PayoutState.SIGNED if signed else PayoutState.ALLOCATED,
        actor=actor,
        now=now,
        reason=reason,
        name="PayoutResumed",
        waiting_for="",
        run_after=now,
    )
