"""Another transaction at a payout's nonce: the same payment for more, or one that pays nobody.

At most one transaction of a nonce is ever on a branch of the chain, so whatever is offered next can
only take the place of what was offered before. A payment is cancelled in no other way: its claim
gets its money back when the transaction that pays nobody is final, and never because somebody says
that the payment will not be mined.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.ports import ChainGateway
from custody import payout_store as store
from custody.errors import NotPossible
from custody.evm_rail import EvmRail
from custody.payout_allocate import require_covered
from custody.payout_allocation import FEE_PER_GAS_MAX, Allocation
from custody.payout_events import WORKER, move_attempt, step_payout
from custody.payout_model import SENT, Attempt, AttemptKind, AttemptState, Payout, PayoutState
from custody.payout_postings import replaced
from custody.payout_steps import Bench
from custody.rails import Rail
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import Refused
from kernel.events import record
from ledger.posting import post, require_applied
from registry.authority import require_role, signing_bytes, verify_signature
from registry.model import Operator, Role
from registry.queries import get_operator, get_wallet

BUMPERS: Final = (Role.OPERATIONS, Role.TREASURER)
CANCELLERS: Final = (Role.ADMIN, Role.TREASURER, Role.APPROVER)
CANCEL_VERB: Final = "payout.cancel_by_conflict"
PEOPLE_MIN: Final = 2
WAITING: Final = frozenset({AttemptState.SIGNED, AttemptState.BROADCAST, AttemptState.AMBIGUOUS})
HAS_NONCE: Final = frozenset({PayoutState.ALLOCATED, *SENT})
"""States in which a payment can be cancelled by conflict."""

Write = Callable[[AsyncConnection], Awaitable[Payout]]
"""Writes a replacement whose fee is known; it may be rolled back, or tried again."""


@dataclass(frozen=True, slots=True)
class _Why:
    """Who replaces an attempt, why, and what for."""

    kind: AttemptKind
    actor: str
    reason: str
    at: datetime


async def prepare_bump(
    engine: AsyncEngine,
    gateway: ChainGateway,
    payout_id: UUID,
    *,
    by: Operator,
    reason: str,
    clock: Clock,
) -> Write:
    """Offer the same payment again for a higher fee, on the same nonce.

    The node is asked now; what is returned writes, in the caller's transaction.

    At most one of the two can be mined. Both fee fields rise by an eighth or to what the network
    asks now, whichever is more; coins and fee are held anew in one chain. The worker has the
    replacement signed and sends it. Of a payout that is being cancelled, what cancels it is bumped.

    Raises:
        NotPossible: nothing of the payout waits for a block, or the fee would be out of bounds.
        ClientsUncovered: clients' money would pay for the higher fee.
    """

    async def allowed(conn: AsyncConnection) -> None:
        require_role(await get_operator(conn, by.code), *BUMPERS)

    rail = EvmRail(gateway)
    async with engine.connect() as conn:
        await allowed(conn)
        seen, newest = await _load(conn, payout_id)
    planned = await _plan(rail, seen, newest, newest.kind, FEE_PER_GAS_MAX)
    why = _Why(newest.kind, by.code, reason, clock.now())

    async def write(conn: AsyncConnection) -> Payout:
        await allowed(conn)
        return await _replace(conn, rail, seen, planned, why)

    return write


async def bump_by_rule(bench: Bench, payout: Payout, kind: AttemptKind, reason: str) -> Payout:
    """Do what `custody.payout_rules.BumpPolicy` decided: offer more, or cancel.

    Raises:
        NotPossible: nothing of it waits for a block by now, or the fee would be out of bounds.
        ClientsUncovered: clients' money would pay for the higher fee.
    """
    async with bench.engine.connect() as conn:
        seen, newest = await _load(conn, payout.id)
    planned = await _plan(bench.rail, seen, newest, kind, bench.bump.fee_per_gas_max)
    why = _Why(kind, WORKER, reason, bench.clock.now())
    return await transact(bench.engine, lambda conn: _replace(conn, bench.rail, seen, planned, why))


def cancel_bytes(payout_id: UUID, reason: str) -> bytes:
    """Return what each of the two people signs."""
    return signing_bytes(CANCEL_VERB, {"payout_id": payout_id, "reason": reason})


async def cancel_by_conflict(
    engine: AsyncEngine,
    gateway: ChainGateway,
    payout_id: UUID,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    clock: Clock,
) -> Payout:
    """Do what `prepare_cancellation` returns, in one transaction."""
    write = await prepare_cancellation(
        engine, gateway, payout_id, signatures=signatures, reason=reason, clock=clock
    )
    return await transact(engine, write)


async def prepare_cancellation(
    engine: AsyncEngine,
    gateway: ChainGateway,
    payout_id: UUID,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    clock: Clock,
) -> Write:
    """Let a transaction that pays nobody compete for the payout's nonce: it becomes CANCELLING.

    The node is asked now; what is returned writes, in the caller's transaction.

    If that transaction is mined, the payout is CANCELLED once it is deep and final, and the claim
    has its money back; until then coins and fee stay held. If the payment is mined first, the
    payout is simply paid.

    Args:
        engine: the database.
        gateway: the node, asked for fees.
        payout_id: a payout that is SIGNED, or ALLOCATED and for any reason not signed. An offer that
            waits for its signature is given up: nothing has to let it pass first.
        signatures: Ed25519 over `cancel_bytes`, by operator code; at least two people.
        reason: why it shall not be paid.
        clock: the time.

    Raises:
        NotPossible: nothing of it waits for a block, it is being cancelled already, or the fee
            would be out of bounds.
        NotAuthorised: a signature is not theirs, or their role does not allow it.
        ClientsUncovered: clients' money would pay for the fee.
    """

    async def allowed(conn: AsyncConnection) -> None:
        await require_people(conn, signatures, cancel_bytes(payout_id, reason))

    rail = EvmRail(gateway)
    async with engine.connect() as conn:
        await allowed(conn)
        seen, newest = await _load(conn, payout_id, AttemptKind.CANCEL)
    if newest.kind is AttemptKind.CANCEL:
        raise NotPossible(f"payout {payout_id} is being cancelled", remedy="Bump it instead")
    planned = await _plan(rail, seen, newest, AttemptKind.CANCEL, FEE_PER_GAS_MAX)
    why = _Why(AttemptKind.CANCEL, "+".join(sorted(signatures)), reason, clock.now())

    async def write(conn: AsyncConnection) -> Payout:
        await allowed(conn)
        return await _replace(conn, rail, seen, planned, why)

    return write


async def require_people(
    conn: AsyncConnection,
    signatures: Mapping[str, bytes],
    payload: bytes,
    roles: Sequence[Role] = CANCELLERS,
) -> None:
    """Refuse what fewer than two people signed.

    Raises:
        Refused: they are too few.
        NotAuthorised: a signature is not theirs, or their role does not allow it.
    """
    keys = set()
    for code, signature in signatures.items():
        operator = await get_operator(conn, code)
        require_role(operator, *roles)
        verify_signature(operator, payload, signature)
        keys.add(operator.public_key)
    if len(keys) < PEOPLE_MIN:
        raise Refused("two people decide this", remedy="Have a second one sign the same")


async def _load(
    conn: AsyncConnection, payout_id: UUID, kind: AttemptKind = AttemptKind.PAY
) -> tuple[Payout, Attempt]:
    seen = await store.get_payout(conn, payout_id)
    return seen, await _newest(conn, seen, kind)


async def _newest(conn: AsyncConnection, payout: Payout, kind: AttemptKind) -> Attempt:
    """Return the newest attempt, which is in no block; to pay for more, it is signed.

    Raises:
        NotPossible: there is none.
    """
    cancels = kind is AttemptKind.CANCEL
    if payout.state not in (HAS_NONCE if cancels else SENT):
        raise NotPossible(f"payout {payout.id} is {payout.state}, nothing of it waits for a block")
    attempt = await store.get_attempt(conn, payout.id, payout.attempt)
    # After a deep reorganisation superseded bytes wait for a block again.
    waits = attempt.raw is not None or (cancels and attempt.state is AttemptState.BUILT)
    if not waits:
        raise NotPossible(f"attempt {attempt.number} of payout {payout.id} is {attempt.state}")
    return attempt


async def _plan(
    rail: Rail, seen: Payout, newest: Attempt, kind: AttemptKind, fee_per_gas_max: int
) -> Allocation:
    planned = rail.replace(seen, newest, await rail.look_at_fees(), kind)
    if planned.unsigned.max_fee_per_gas > fee_per_gas_max:
        raise NotPossible(
            f"{planned.unsigned.max_fee_per_gas} wei per gas is more than {fee_per_gas_max}"
        )
    if await rail.count_fee_money(seen.sender) < planned.fee_cap + planned.unsigned.value:
        raise NotPossible(f"{seen.sender} lacks {seen.native_asset} for the higher fee")
    return planned


async def _replace(
    conn: AsyncConnection, rail: Rail, seen: Payout, planned: Allocation, why: _Why
) -> Payout:
    payout = await store.get_payout(conn, seen.id, lock=True)
    newest = await _newest(conn, payout, why.kind)
    if newest.number != seen.attempt:
        raise NotPossible(f"payout {payout.id} was bumped meanwhile")
    await store.lock_sender(conn, payout.chain, payout.sender, payout.source_wallet)
    if newest.state is AttemptState.BUILT:
        payout = await _give_up(conn, payout, newest, why)
    # The one after the newest may have been refused: its number stays its own.
    number = (await store.list_attempts(conn, payout.id))[-1].number + 1
    await store.insert_attempt(conn, rail.draft(payout, number, planned, why.at))
    # The older attempts may still be mined: the dearest of them all has to be paid for.
    fee_cap = max(payout.fee_cap, planned.fee_cap)
    require_applied(await post(conn, payout.book, replaced(payout, fee_cap), now=why.at))
    if (await get_wallet(conn, payout.source_wallet)).holds_client_money:
        more = fee_cap - payout.fee_cap
        await require_covered(conn, payout.book, {payout.native_asset: more} if more else {})
    changed: dict[str, Any] = {
        "attempt": number,
        "fee_cap": fee_cap,
        "hold_epoch": payout.hold_epoch + 1,
        "run_after": why.at,
        "waiting_for": "",
    }
    cancels = why.kind is AttemptKind.CANCEL and not payout.fills_gap
    begins = cancels and newest.kind is AttemptKind.PAY
    return await step_payout(
        conn,
        payout,
        PayoutState.CANCELLING if cancels else PayoutState.SIGNED,
        actor=why.actor,
        now=why.at,
        reason=why.reason,
        name="PayoutCancelling" if begins else "PayoutBumped",
        payload={"attempt": number, "fee_cap": str(fee_cap)},
        **changed,
    )


async def _give_up(conn: AsyncConnection, payout: Payout, built: Attempt, why: _Why) -> Payout:
    """End an attempt before its signature is stored; what a signer says of it then is not kept."""
    _, event = await move_attempt(
        conn, built, AttemptState.SUPERSEDED, now=why.at, reason=why.reason
    )
    await record(conn, [event])
    if payout.state is not PayoutState.ALLOCATED:
        return payout
    # Whether bytes of it exist only the signer knows: people hold it, and then cancel it.
    return await step_payout(
        conn, payout, PayoutState.SECURITY_HOLD, actor=why.actor, now=why.at, reason=why.reason
    )
