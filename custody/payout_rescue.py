"""What two people do about a security hold: go on with the same bytes, or give the payout up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import payout_store as store
from custody.errors import NotPossible
from custody.payout_events import move_attempt, step_payout
from custody.payout_model import (
    ATTEMPT_STATES,
    Attempt,
    AttemptKind,
    AttemptState,
    ForeignSpend,
    NonceState,
    Payout,
    PayoutState,
)
from custody.payout_postings import NETWORK_FEE, abandoned, released
from custody.payout_replace import require_people
from kernel.events import DomainEvent, list_history, record
from kernel.ids import stable_id
from ledger.posting import post, require_applied
from registry.authority import signing_bytes
from registry.model import BITCOIN, Role
from registry.queries import get_chain

RESUMERS: Final = (Role.ADMIN, Role.TREASURER, Role.APPROVER)
SENDER: Final = "payout_sender"
RESUME_VERB: Final = "payout_sender.resume"
ABANDON_VERB: Final = "payout.abandon"


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
        NotPossible: the address is not ours, the same decision was carried out before, or it is on
            Bitcoin, where a transaction is on hold with all its payouts.
    """
    await require_people(conn, signatures, resume_bytes(chain, sender, reason), RESUMERS)
    if (await get_chain(conn, chain)).kind == BITCOIN:
        # Its payouts follow their spend: one that went on without it would be in no transaction.
        raise NotPossible(
            f"{chain} is a chain of Bitcoin, where no address is on hold",
            remedy="Resume the transaction: causeway custody resume PAYOUT",
        )
    locked = await store.lock_payouts(conn, await store.list_held(conn, chain, sender))
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
    await require_people(conn, signatures, abandon_bytes(payout_id, reason), RESUMERS)
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


async def _resume(
    conn: AsyncConnection, payout: Payout, actor: str, reason: str, now: datetime
) -> Payout:
    attempts = await store.list_attempts(conn, payout.id)
    newest = next((item for item in attempts if item.number == payout.attempt), None)
    cancels = newest is not None and newest.kind is AttemptKind.CANCEL and not payout.fills_gap
    signed = PayoutState.CANCELLING if cancels else PayoutState.SIGNED
    has_bytes = any(item.raw is not None for item in attempts)
    return await step_payout(
        conn,
        payout,
        signed if has_bytes else PayoutState.ALLOCATED,
        actor=actor,
        now=now,
        reason=reason,
        name="PayoutResumed",
        waiting_for="",
        run_after=now,
    )
