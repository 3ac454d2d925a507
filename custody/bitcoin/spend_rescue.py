"""A spend on SECURITY_HOLD: two people resume it, or give it up once it can never be mined."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.bitcoin import coins
from custody.bitcoin.spend_model import SPEND_ATTEMPT_STATES, Spend, SpendState
from custody.bitcoin.spend_moves import (
    SPEND,
    Carried,
    SpendMove,
    load_carried,
    move_attempt,
    move_spend,
)
from custody.errors import NotPossible
from custody.payout_model import AttemptKind, AttemptState, PayoutState
from custody.payout_postings import abandoned, released
from custody.payout_replace import require_people
from custody.payout_rescue import RESUMERS
from kernel.events import list_history, record
from ledger.posting import post, require_applied
from registry.authority import signing_bytes

RESUME_VERB: Final = "spend.resume"
ABANDON_VERB: Final = "spend.abandon"


def spend_resume_bytes(spend_id: UUID, reason: str) -> bytes:
    """Return what each of the two people signs to resume."""
    return signing_bytes(RESUME_VERB, {"spend_id": spend_id, "reason": reason})


def spend_abandon_bytes(spend_id: UUID, reason: str) -> bytes:
    """Return what each of the two people signs to give up."""
    return signing_bytes(ABANDON_VERB, {"spend_id": spend_id, "reason": reason})


async def resume_spend(
    conn: AsyncConnection,
    spend_id: UUID,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    now: datetime,
) -> Spend:
    """Go on with the spend's bytes, or with asking for them; a frozen wallet is opened apart.

    Args:
        conn: the caller's transaction.
        spend_id: a spend on SECURITY_HOLD.
        signatures: Ed25519 over `spend_resume_bytes`, by operator code; at least two people.
        reason: what was found: it names the incident, so each is used once.
        now: the time of the decision.

    Raises:
        NotPossible: it is not on hold, its claims have their money back, or the same decision was
            carried out before.
    """
    await require_people(conn, signatures, spend_resume_bytes(spend_id, reason), RESUMERS)
    mine = await _load_held(conn, spend_id)
    if mine.spend.claims_returned:
        raise NotPossible(f"the claims of spend {spend_id} have their money back")
    history = await list_history(conn, SPEND, spend_id)
    if any(item.name == "SpendResumed" and item.reason == reason for item in history):
        raise NotPossible(
            f"the decision to resume spend {spend_id} because {reason!r} was carried out before",
            remedy="Sign again, with a reason that names this incident",
        )
    to, attempt = SpendState.ALLOCATED, mine.current
    if mine.signed:
        never = attempt.state is AttemptState.SUPERSEDED and attempt.raw is None
        attempt = mine.signed[-1] if never else attempt
        cancels = attempt.kind is AttemptKind.CANCEL
        to = SpendState.CANCELLING if cancels else SpendState.SIGNED
    values = {"attempt": attempt.number, "run_after": now, "waiting_for": ""}
    move = SpendMove(
        carried=mine,
        to=to,
        name="SpendResumed",
        payout_name="PayoutResumed",
        actor="+".join(sorted(signatures)),
        reason=reason,
        values=values,
        of_payout=lambda _: values,
    )
    moved, events = await move_spend(conn, move, now=now)
    await record(conn, events)
    return moved.spend


async def abandon_spend(
    conn: AsyncConnection,
    spend_id: UUID,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    finalized: int,
    now: datetime,
) -> Spend:
    """Give a held spend up and the claims back, once none of its transactions can be mined.

    Args:
        conn: the caller's transaction.
        spend_id: a spend on SECURITY_HOLD.
        signatures: Ed25519 over `spend_abandon_bytes`, by operator code; at least two people.
        reason: what was found.
        finalized: the height that the chain itself calls final.
        now: the time of the decision.

    Raises:
        NotPossible: our bytes could still be mined: no final transaction of somebody else spends a
            coin of each attempt.
    """
    await require_people(conn, signatures, spend_abandon_bytes(spend_id, reason), RESUMERS)
    mine = await _load_held(conn, spend_id)
    await _require_dead(conn, mine, finalized)
    events = []
    for attempt in mine.attempts:
        if SPEND_ATTEMPT_STATES.allows(attempt.state, AttemptState.SUPERSEDED):
            to = AttemptState.SUPERSEDED
            _, told = await move_attempt(conn, attempt, to, now=now, reason=reason)
            events.append(told)
    await coins.unlock(conn, spend_id)
    move = SpendMove(
        carried=mine,
        to=SpendState.DROPPED,
        payouts_to=PayoutState.FAILED_ON_CHAIN,
        name="SpendAbandoned",
        payout_name="PayoutAbandoned",
        actor="+".join(sorted(signatures)),
        reason=reason,
        values={"waiting_for": ""},
        of_payout=lambda _: {"waiting_for": ""},
    )
    moved, more = await move_spend(conn, move, now=now)
    if not mine.spend.claims_returned:
        how = abandoned if mine.signed else released
        batch = [transfer for item in mine.payouts for transfer in how(item)]
        require_applied(await post(conn, mine.spend.book, batch, now=now))
    await record(conn, [*events, *more])
    return moved.spend


async def _load_held(conn: AsyncConnection, spend_id: UUID) -> Carried:
    mine = await load_carried(conn, spend_id, lock=True)
    if mine.spend.state is not SpendState.SECURITY_HOLD:
        raise NotPossible(f"spend {spend_id} is {mine.spend.state}, not on hold")
    return mine


async def _require_dead(conn: AsyncConnection, mine: Carried, finalized: int) -> None:
    """Refuse while any attempt could be mined: some coin of each is spent for good by others."""
    chain = mine.spend.chain
    ours = {item.tx_id for item in mine.attempts}
    keys = {coin.outpoint for item in mine.attempts for coin in item.coins}
    gone = {
        item.outpoint
        for item in await coins.list_coins(conn, chain, outpoints=keys)
        if item.spent_by is not None
        and item.spent_by not in ours
        and item.spent_height is not None
        and item.spent_height <= finalized
    }
    for attempt in mine.attempts:
        # Also one without bytes here: the signer may have signed it, and the answer was lost.
        if not any(coin.outpoint in gone for coin in attempt.coins):
            raise NotPossible(
                f"attempt {attempt.number} of spend {mine.spend.id} could still be mined",
                remedy="Wait until a transaction that spends one of its coins is final",
            )
