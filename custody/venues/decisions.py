"""What two people say about a transfer where the evidence of venue and chain can not tell, or never comes.

Both sign the same bytes, which hold the evidence (the venue's id, the figures, the reason) and the state
that they have looked at: what was signed for one moment says nothing about a later one. Events keep
the signatures.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.errors import NotPossible
from custody.payout_model import PayoutState
from custody.payout_store import lock_payouts
from custody.venues import store
from custody.venues.arrivals import has_come
from custody.venues.model import (
    GIVEN_UP,
    VenueDeposit,
    VenueDepositState,
    VenueWithdrawal,
    WithdrawalState,
)
from custody.venues.moves import move_deposit, move_withdrawal
from custody.venues.postings import accounts, credited, debited, deposit_accounts, lost, released
from kernel.clock import iso
from kernel.errors import BadInput
from ledger.accounts import ensure_accounts
from ledger.posting import post, require_applied
from registry.authority import (
    require_role,
    signatures_document,
    signing_bytes,
    verify_signature,
)
from registry.errors import NotAuthorised
from registry.model import Role
from registry.queries import get_operator

DECIDE_VERB: Final = "venue_withdrawal.decide"
WRITE_OFF_VERB: Final = "venue_withdrawal.write_off"
DECIDE_DEPOSIT_VERB: Final = "venue_deposit.decide"
ROLES: Final = (Role.APPROVER, Role.TREASURER)
W = WithdrawalState
Signed = tuple[str, bytes]
"""An operator's code, and their signature."""


def decision_bytes(
    item: VenueWithdrawal,
    venue_ref: str | None,
    reason: str,
    moved: tuple[int, int] | None = None,
) -> bytes:
    """Return what both people sign: which of the venue's withdrawals it is, or (None) that it is none.

    Args:
        moved: what the venue really sent and kept, where that is not what was asked for.
    """
    sent, fee = (None, None) if moved is None else map(str, moved)
    more = {"venue_ref": venue_ref, "sent": sent, "fee": fee}
    return signing_bytes(DECIDE_VERB, {**_seen(item), **more, "reason": reason})


def write_off_bytes(item: VenueWithdrawal, reason: str) -> bytes:
    """Return what both people sign to write off what never came."""
    more = {"sent": str(item.sent), "tx_id": item.tx_id, "reason": reason}
    return signing_bytes(WRITE_OFF_VERB, {**_seen(item), **more})


def deposit_decision_bytes(item: VenueDeposit, venue_ref: str, amount: int, reason: str) -> bytes:
    """Return what both people sign: what the venue credited of a transfer, and under which id."""
    return signing_bytes(
        DECIDE_DEPOSIT_VERB,
        {
            "id": item.id,
            "place": str(item.place),
            "asset": item.asset,
            "amount": str(item.amount),
            "epoch": item.epoch,
            "venue_ref": venue_ref,
            "credited": str(amount),
            "reason": reason,
        },
    )


async def decide_escalated(
    conn: AsyncConnection,
    withdrawal_id: UUID,
    *,
    venue_ref: str | None,
    reason: str,
    first: Signed,
    second: Signed,
    now: datetime,
    moved: tuple[int, int] | None = None,
) -> VenueWithdrawal:
    """Say what became of an escalated withdrawal, or that one which was given up was made after all.

    Args:
        venue_ref: the venue's id of it; None: the venue never had it, and what is held is free.
        reason: how it is known.
        first, second: two operators' codes, each with their signature over `decision_bytes`.
        moved: (sent, kept) in smallest units, where the venue did something else than it was asked:
            that is posted at once, and what was sent is waited for, or written off (`write_off`).

    Raises:
        Refused: it is not escalated, one person signed twice, a signature does not hold, or the
            venue's id is another withdrawal's.
    """
    item = await store.get_withdrawal(conn, withdrawal_id, lock=True)
    may = {W.ESCALATED, *(GIVEN_UP if venue_ref is not None and moved is None else ())}
    if item.state not in may:
        raise NotPossible(f"withdrawal {item.id} is {item.state}, not escalated")
    if moved is not None and (venue_ref is None or min(moved) < 0):
        raise BadInput(
            "what the venue moved goes with its id", remedy="Name the venue's withdrawal"
        )
    payload = decision_bytes(item, venue_ref, reason, moved)
    told = await _require_two(conn, payload, reason, first, second)
    if venue_ref is not None and await store.list_venue_refs(
        conn, item.place, [venue_ref], but=item.id
    ):
        raise NotPossible(f"{venue_ref} is another withdrawal of {item.place}")
    if venue_ref is None:
        # What was given up before holds nothing any more.
        lines = released(item) if item.released_at is None else ()
        if lines:
            require_applied(await post(conn, item.book, lines, now=now))
        return await move_withdrawal(conn, item, W.NOT_PLACED, now=now, venue_ref=None, **told)
    found = {"venue_ref": venue_ref, "run_after": now, **told}
    if moved is None:
        return await move_withdrawal(conn, item, W.ACKED, now=now, **found)
    await ensure_accounts(conn, item.book, accounts(item), now=now)
    require_applied(await post(conn, item.book, debited(item, *moved), now=now))
    return await move_withdrawal(
        conn, item, W.DEBITED, now=now, sent=moved[0], fee=moved[1], **found
    )


async def write_off(
    conn: AsyncConnection,
    withdrawal_id: UUID,
    *,
    reason: str,
    first: Signed,
    second: Signed,
    now: datetime,
) -> VenueWithdrawal:
    """Give up coins that the venue sent and that never came: they are a loss.

    Should they be recovered, that is a receipt of its own, booked by a manual journal.

    Raises:
        Refused: the venue has not taken them, a block of ours has them, one person signed twice, or a
            signature does not hold.
    """
    item = await store.get_withdrawal(conn, withdrawal_id, lock=True)
    if item.state not in {W.DEBITED, W.SENT}:
        raise NotPossible(f"withdrawal {item.id} is {item.state}: nothing of it is on its way")
    if await has_come(conn, item):
        raise NotPossible(f"a block has the coins of withdrawal {item.id}")
    told = await _require_two(conn, write_off_bytes(item, reason), reason, first, second)
    await ensure_accounts(conn, item.book, accounts(item), now=now)
    lines = lost(item)
    if lines:
        require_applied(await post(conn, item.book, lines, now=now))
    return await move_withdrawal(conn, item, W.LOST, now=now, **told)


async def decide_deposit(
    conn: AsyncConnection,
    deposit_id: UUID,
    *,
    venue_ref: str,
    amount: int,
    reason: str,
    first: Signed,
    second: Signed,
    now: datetime,
) -> VenueDeposit:
    """Say what the venue credited of a transfer whose sending is final, though its list does not tell.

    Args:
        venue_ref: the venue's id of the credit, or of its statement where it credited nothing.
        amount: how much of the transfer it credited, at most all; the rest is a loss. What it credited
            beyond is not of this transfer.

    Raises:
        Refused: it is over, its payout is not confirmed, one person signed twice, a signature does not
            hold, or the venue's id is another transfer's.
    """
    found = await store.get_deposit(conn, deposit_id)
    # The block follower locks payouts first, and so does this.
    payouts = await lock_payouts(conn, {found.payout_id})
    item = await store.get_deposit(conn, deposit_id, lock=True)
    payout = payouts[item.payout_id]
    if item.state is not VenueDepositState.OPEN or payout.state is not PayoutState.CONFIRMED:
        raise NotPossible(f"transfer {item.id} is {item.state}, its payout {payout.state}")
    if not venue_ref or not 0 <= amount <= item.amount:
        raise BadInput(f"a credit of {amount} of {item.amount} as {venue_ref!r}")
    payload = deposit_decision_bytes(item, venue_ref, amount, reason)
    told = await _require_two(conn, payload, reason, first, second)
    if await store.list_credited_refs(conn, item.place, [venue_ref]):
        raise NotPossible(f"{venue_ref} is another transfer to {item.place}")
    await ensure_accounts(conn, item.book, deposit_accounts(item), now=now)
    require_applied(await post(conn, item.book, credited(item, amount), now=now))
    return await move_deposit(
        conn,
        item,
        VenueDepositState.CREDITED,
        now=now,
        venue_ref=venue_ref,
        credited=amount,
        epoch=item.epoch + 1,
        waiting_for="",
        **told,
    )


def _seen(item: VenueWithdrawal) -> Mapping[str, Any]:
    return {
        "id": item.id,
        "place": str(item.place),
        "asset": item.asset,
        "amount": str(item.amount),
        "state": item.state,
        "since": iso(item.updated_at),
    }


async def _require_two(
    conn: AsyncConnection, payload: bytes, reason: str, first: Signed, second: Signed
) -> dict[str, Any]:
    """Return who decided, why and under which signatures, for the event; refuse one person alone."""
    if not reason.strip():
        raise BadInput("a decision needs a reason", remedy="Say how it is known")
    people = [await get_operator(conn, code) for code, _ in (first, second)]
    for operator, (_, signature) in zip(people, (first, second), strict=True):
        require_role(operator, *ROLES)
        verify_signature(operator, payload, signature)
    if people[0].code == people[1].code or people[0].public_key == people[1].public_key:
        raise NotAuthorised(f"{people[0].code} signed twice", remedy="Two people decide")
    signatures = signatures_document(dict((first, second)))
    actor = "+".join(signatures)
    return {"actor": actor, "reason": reason, "payload": {"signatures": signatures}}
