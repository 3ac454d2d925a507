"""Another transaction that spends a spend's anchor: the same payments for more, or one that pays nobody.

At most one transaction that spends the anchor is ever on a branch of the chain, so whatever is offered
next can only take the place of what was offered before. Payments are cancelled in no other way: their
claims get their money back when the transaction that returns everything is final, and never because
somebody says that the payments will not be mined. One transaction carries many payouts, so they are
bumped and cancelled together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.ports import BitcoinReader
from custody import payout_store
from custody.bitcoin import spend_store as store
from custody.bitcoin.spend_model import SENT, Spend, SpendAttempt, SpendState, share_fee
from custody.bitcoin.spend_moves import (
    Carried,
    SpendMove,
    load_carried,
    move_attempt,
    move_spend,
)
from custody.bitcoin.spend_plan import (
    Drafted,
    Market,
    Replaced,
    SpendPolicy,
    draft,
    payee_of,
    plan_replacement,
    require_fee,
)
from custody.bitcoin.spend_steps import (
    SpendBench,
    assign_change,
    build_attempt,
    list_free_coins,
    lock_coins,
    look_at_market,
    script_of,
)
from custody.errors import NotPossible
from custody.payout_allocate import require_covered
from custody.payout_events import WORKER
from custody.payout_model import AttemptKind, AttemptState, Payout
from custody.payout_postings import replaced
from custody.payout_replace import BUMPERS, require_people
from kernel.clock import Clock
from kernel.db import transact
from kernel.events import record
from ledger.posting import post, require_applied
from registry.authority import require_role, signing_bytes
from registry.model import Operator
from registry.queries import get_operator, get_wallet

CANCEL_VERB: Final = "spend.cancel_by_conflict"
HAS_COINS: Final = frozenset({SpendState.ALLOCATED, *SENT})
"""States in which a spend can be cancelled by conflict."""

Write = Callable[[AsyncConnection], Awaitable[Spend]]
"""Writes a replacement; it may be rolled back, or tried again."""


@dataclass(frozen=True, slots=True)
class _Why:
    """Who replaces an attempt, why, what for, and what it may cost."""

    kind: AttemptKind
    actor: str
    reason: str
    at: datetime
    policy: SpendPolicy


async def find_spend(conn: AsyncConnection, payout_id: UUID) -> Spend:
    """Return the spend that carries a payout, or carried it last.

    Raises:
        NotPossible: it was never in one.
    """
    found = (await store.find_spends_of(conn, [payout_id]))[payout_id]
    if not found:
        raise NotPossible(f"payout {payout_id} is in no transaction")
    return await store.get_spend(conn, found[-1].spend_id)


async def prepare_spend_bump(
    engine: AsyncEngine,
    node: BitcoinReader,
    spend_id: UUID,
    *,
    by: Operator,
    reason: str,
    clock: Clock,
    policy: SpendPolicy | None = None,
) -> Write:
    """Offer the same payments again for a higher fee.

    The node is asked now; what is returned writes, in the caller's transaction. The fee comes out of
    the change first; where that is not enough, confirmed coins are added. The worker has the
    replacement signed and sends it. Of a spend that is being cancelled, what cancels it is bumped.

    Raises:
        NotPossible: nothing of it waits for a block, the fee would be out of bounds, or there are
            not coins enough.
        ClientsUncovered: clients' money would pay for the higher fee.
    """
    rules = policy or SpendPolicy()

    async def allowed(conn: AsyncConnection) -> None:
        require_role(await get_operator(conn, by.code), *BUMPERS)

    async with engine.connect() as conn:
        await allowed(conn)
        seen = await load_carried(conn, spend_id)
    _newest(seen, AttemptKind.PAY)
    market = await look_at_market(node, rules)
    why = _Why(seen.current.kind, by.code, reason, clock.now(), rules)

    async def write(conn: AsyncConnection) -> Spend:
        await allowed(conn)
        return await _replace(conn, seen, market, why)

    return write


async def bump_by_rule(
    bench: SpendBench, spend: Spend, kind: AttemptKind, market: Market, reason: str
) -> Spend:
    """Do what `custody.bitcoin.spend_plan.decide_bump` decided: offer more, or cancel.

    Raises:
        NotPossible: nothing of it waits for a block by now, or the fee would be out of bounds.
        ClientsUncovered: clients' money would pay for the higher fee.
        StaleFence: another worker has claimed the spend.
    """
    async with bench.engine.connect() as conn:
        seen = await load_carried(conn, spend.id)
    why = _Why(kind, WORKER, reason, bench.clock.now(), bench.policy)
    return await transact(
        bench.engine, lambda conn: _replace(conn, seen, market, why, fence=spend.fence)
    )


def spend_cancel_bytes(spend_id: UUID, reason: str) -> bytes:
    """Return what each of the two people signs."""
    return signing_bytes(CANCEL_VERB, {"spend_id": spend_id, "reason": reason})


async def prepare_spend_cancellation(
    engine: AsyncEngine,
    node: BitcoinReader,
    spend_id: UUID,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    clock: Clock,
    policy: SpendPolicy | None = None,
) -> Write:
    """Let a transaction that returns everything compete for the anchor: the spend is CANCELLING.

    The node is asked now; what is returned writes, in the caller's transaction. If that transaction
    is mined, all payouts of the spend are CANCELLED once it is deep and final, and their claims have
    their money back; until then coins and fee stay held. If the payments are mined first, they are
    simply paid.

    Args:
        engine: the database.
        node: asked for prices.
        spend_id: a spend that is SIGNED, or ALLOCATED and for any reason not signed.
        signatures: Ed25519 over `spend_cancel_bytes`, by operator code; at least two people.
        reason: why it shall not pay.
        clock: the time.
        policy: what it may cost.

    Raises:
        NotPossible: nothing of it waits for a block, it is being cancelled already, or the fee
            would be out of bounds.
        NotAuthorised: a signature is not theirs, or their role does not allow it.
        ClientsUncovered: clients' money would pay for the fee.
    """
    rules = policy or SpendPolicy()

    async def allowed(conn: AsyncConnection) -> None:
        await require_people(conn, signatures, spend_cancel_bytes(spend_id, reason))

    async with engine.connect() as conn:
        await allowed(conn)
        seen = await load_carried(conn, spend_id)
    if _newest(seen, AttemptKind.CANCEL).kind is AttemptKind.CANCEL:
        raise NotPossible(f"spend {spend_id} is being cancelled", remedy="Bump it instead")
    market = await look_at_market(node, rules)
    actor = "+".join(sorted(signatures))
    why = _Why(AttemptKind.CANCEL, actor, reason, clock.now(), rules)

    async def write(conn: AsyncConnection) -> Spend:
        await allowed(conn)
        return await _replace(conn, seen, market, why)

    return write


def _newest(carried: Carried, kind: AttemptKind) -> SpendAttempt:
    """Return the current attempt, which is in no block; to pay for more, it is signed."""
    spend, attempt = carried.spend, carried.current
    cancels = kind is AttemptKind.CANCEL
    if spend.state not in (HAS_COINS if cancels else SENT):
        raise NotPossible(f"spend {spend.id} is {spend.state}, nothing of it waits for a block")
    if attempt.raw is None and not (cancels and attempt.state is AttemptState.BUILT):
        raise NotPossible(f"attempt {attempt.number} of spend {spend.id} is {attempt.state}")
    return attempt


async def _replace(
    conn: AsyncConnection, seen: Carried, market: Market, why: _Why, *, fence: int | None = None
) -> Spend:
    mine = await load_carried(conn, seen.spend.id, lock=True)
    newest = _newest(mine, why.kind)
    if newest.number != seen.current.number:
        raise NotPossible(f"spend {mine.spend.id} was bumped meanwhile")
    sender = mine.payouts[0].sender
    await payout_store.lock_sender(conn, mine.spend.chain, sender, mine.spend.wallet)
    if newest.state is AttemptState.BUILT:
        mine = await _give_up(conn, mine, newest, why)
    new, changed = await _plan(conn, mine, newest, market, why)
    # One that was refused keeps its number.
    number = mine.attempts[-1].number + 1
    spend = replace(mine.spend, **changed)
    attempt = build_attempt(spend, number, new, why.at)
    await store.insert_attempt(conn, attempt)
    await store.place_payouts(conn, spend.id, new.places)
    await lock_coins(conn, spend, new.coins, why.at)
    # The older attempts may still be mined: the dearest of them all has to be paid for.
    fee_cap = max(spend.fee_cap, new.fee)
    shares = share_fee(fee_cap, mine.parts)
    batch = [t for item in mine.payouts for t in replaced(item, shares[item.id])]
    require_applied(await post(conn, spend.book, batch, now=why.at))
    more = fee_cap - spend.fee_cap
    if more and (await get_wallet(conn, spend.wallet)).holds_client_money:
        await require_covered(conn, spend.book, {mine.payouts[0].native_asset: more})
    cancels = why.kind is AttemptKind.CANCEL

    def of_payout(item: Payout) -> Mapping[str, object]:
        return {
            "attempt": number,
            "fee_cap": shares[item.id],
            "hold_epoch": item.hold_epoch + 1,
            "waiting_for": "",
        }

    begins = cancels and newest.kind is AttemptKind.PAY
    word = "Cancelling" if begins else "Bumped"
    moved, events = await move_spend(
        conn,
        SpendMove(
            carried=mine,
            to=SpendState.CANCELLING if cancels else SpendState.SIGNED,
            name=f"Spend{word}",
            payout_name=f"Payout{word}",
            actor=why.actor,
            reason=why.reason,
            payload={"attempt": number, "fee_cap": str(fee_cap)},
            values={
                **changed,
                "attempt": number,
                "fee_cap": fee_cap,
                "run_after": why.at,
                "waiting_for": "",
            },
            of_payout=of_payout,
            fence=fence,
        ),
        now=why.at,
    )
    await record(conn, events)
    return moved.spend


async def _plan(
    conn: AsyncConnection, mine: Carried, newest: SpendAttempt, market: Market, why: _Why
) -> tuple[Drafted, dict[str, Any]]:
    """Return the transaction, and the change address where the spend had none.

    Raises:
        NotPossible: there are not coins enough, or it would be too dear.
    """
    spend, cancels = mine.spend, why.kind is AttemptKind.CANCEL
    payees = [] if cancels else [payee_of(item) for item in mine.payouts]
    attempts = [*mine.signed, *([newest] if newest.raw is None else [])]
    free = () if cancels else await list_free_coins(conn, spend.chain, spend.wallet)
    found = plan_replacement(attempts, payees, free, market, cancels=cancels)
    if not isinstance(found, Replaced):
        raise NotPossible(found, where=f"spend {spend.id}", remedy="Put coins into the wallet")
    address, changed = spend.change_address, dict[str, Any]()
    if found.change and address is None:
        address, path = await assign_change(conn, spend.wallet, spend.id, why.at)
        changed = {"change_address": address, "change_path": path}
    new = draft(payees, found.coins, found.change, script_of(address, spend.chain_id), why.kind)
    refusal = require_fee(found, new, why.policy)
    if refusal:
        raise NotPossible(refusal, where=f"spend {spend.id}")
    return new, changed


async def _give_up(conn: AsyncConnection, mine: Carried, built: SpendAttempt, why: _Why) -> Carried:
    """End an attempt before its signature is stored; what a signer says of it then is not kept."""
    _, told = await move_attempt(
        conn, built, AttemptState.SUPERSEDED, now=why.at, reason=why.reason
    )
    events = [told]
    if mine.spend.state is SpendState.ALLOCATED:
        # Whether bytes of it exist only the signer knows: people hold it, and then cancel it.
        move = SpendMove(
            carried=mine, to=SpendState.SECURITY_HOLD, actor=why.actor, reason=why.reason
        )
        mine, held = await move_spend(conn, move, now=why.at)
        events += held
    await record(conn, events)
    return mine
