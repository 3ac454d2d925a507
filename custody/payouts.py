"""The verbs of a payout that people and other rooms call, up to the point where it can be paid.

`request_payout` reserves, `approve_payout` adds a signature, `reject_payout`, `cancel_payout` and
`expire_payouts` give the reservation back. From there `custody.payout_worker` signs and sends,
`custody.payout_inclusion` follows the blocks, `custody.payout_finality` confirms.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import payout_explain
from custody import payout_store as store
from custody.errors import NotPossible
from custody.payout_approvals import ApprovalLine, approval_bytes, to_document
from custody.payout_checks import Checked, check_request, require_same
from custody.payout_events import PAYOUT, WORKER, event_name, step_payout
from custody.payout_model import (
    CANCELLABLE,
    Approval,
    ClaimKind,
    Payout,
    PayoutRequest,
    PayoutState,
)
from custody.payout_postings import accounts, released, reserved
from kernel.errors import Refused
from kernel.events import DomainEvent, record
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import PostResult
from ledger.posting import post, require_applied
from ledger.queries import get_balance
from registry.authority import require_role, verify_signature
from registry.model import Operator, Role
from registry.queries import get_operator

APPROVERS: Final = (Role.APPROVER, Role.TREASURER)
CANCELLERS: Final = (Role.APPROVER, Role.TREASURER, Role.OPERATIONS)

get_payout = store.get_payout
list_payouts = store.list_payouts
every_payout = store.every_payout
explain = payout_explain.explain


def derive_payout_id(request: PayoutRequest, *, book: int, now: datetime) -> UUID:
    """Return the id that the payout gets when it is requested at *now*."""
    return derive_id(now, PAYOUT, book, request.claim, request.client_ref)


async def has_signed_bytes(conn: AsyncConnection, payout_id: UUID) -> bool:
    """Tell whether signed bytes of the payout are stored, so that its claim has been debited."""
    return any(item.raw is not None for item in await store.list_attempts(conn, payout_id))


async def request_payout(
    conn: AsyncConnection, request: PayoutRequest, *, book: int, now: datetime
) -> Payout:
    """Reserve the claim and put the payout before its approvers.

    The same claim and reference again returns the payout as it stands. A claim that cannot cover
    the amount leaves a payout that is REJECTED, with the reason in its history.

    Raises:
        Refused: the reference was used for another payout, the destination is not allowed, the
            wallet may not pay for the claim, or no policy covers it.
    """
    known = await store.find_payout_by_reference(conn, book, request.claim, request.client_ref)
    if known is None:
        checked = await check_request(conn, request, now=now)
        values = _row(request, checked, book=book, now=now)
        if await store.insert_payout(conn, values):
            payout = await get_payout(conn, values["id"], lock=True)
            return await _reserve(conn, payout, checked.owners, now)
        # Another transaction was first; it has committed, so its row can be read now.
        known = await store.find_payout_by_reference(conn, book, request.claim, request.client_ref)
        assert known is not None
    require_same(request, known)
    return known


async def approve_payout(
    conn: AsyncConnection,
    payout_id: UUID,
    *,
    by: Operator,
    signature: bytes,
    book: int,
    now: datetime,
) -> Payout:
    """Add an operator's approval; with the last one that is needed the payout is APPROVED.

    Args:
        conn: the caller's transaction.
        payout_id: the payout.
        by: the operator, who is not the one that requested it.
        signature: Ed25519 over ``approval_bytes([approval_line(payout)])``.
        book: the payout's book.
        now: the time of the approval.

    Raises:
        Refused: the operator may not, or the signature is not theirs or not of this payout.
    """
    (payout,) = await approve_payouts(
        conn, [payout_id], by=by, signature=signature, book=book, now=now
    )
    return payout


async def approve_payouts(
    conn: AsyncConnection,
    payout_ids: Sequence[UUID],
    *,
    by: Operator,
    signature: bytes,
    book: int,
    now: datetime,
) -> list[Payout]:
    """Approve many payouts under one signature of ``approval_bytes`` of all their lines.

    This is how the release of a settlement run approves what it pays: all or none.
    """
    operator = await get_operator(conn, by.code)
    require_role(operator, *APPROVERS)
    locked = await store.lock_payouts(conn, payout_ids)
    payouts = [locked[key] for key in payout_ids if key in locked]
    if len(payouts) != len(payout_ids):
        raise NotPossible(f"{len(payout_ids) - len(payouts)} of the payouts do not exist")
    lines = [approval_line(payout) for payout in payouts]
    verify_signature(operator, approval_bytes(lines), signature)
    documents = tuple(to_document(line) for line in lines)
    return [
        await _approve(conn, payout, operator.code, signature, documents, book, now)
        for payout in payouts
    ]


def approval_line(payout: Payout) -> ApprovalLine:
    """Return what an approver signs about this payout: amounts as the chain counts them."""
    return ApprovalLine(
        payout_id=payout.id,
        chain=payout.chain,
        chain_id=payout.chain_id,
        destination=payout.destination,
        asset=payout.asset,
        amount=payout.chain_amount,
        initiator=payout.requested_by,
        policy_version=payout.policy_version,
        rule=payout.rule,
    )


async def reject_payout(
    conn: AsyncConnection,
    payout_id: UUID,
    *,
    by: Operator,
    reason: str,
    book: int,
    now: datetime,
) -> Payout:
    """Say no: the reservation is given back."""
    require_role(await get_operator(conn, by.code), *APPROVERS)
    return await _withdraw(conn, payout_id, PayoutState.REJECTED, by.code, reason, book, now)


async def cancel_payout(
    conn: AsyncConnection,
    payout_id: UUID,
    *,
    by: Operator,
    reason: str,
    book: int,
    now: datetime,
) -> Payout:
    """Take the payout back, as who requested it or as somebody who may approve.

    Raises:
        NotPossible: it has a nonce by now, so signed bytes may exist.
    """
    payout = await get_payout(conn, payout_id)
    if by.code != payout.requested_by:
        require_role(await get_operator(conn, by.code), *CANCELLERS)
    return await _withdraw(conn, payout_id, PayoutState.CANCELLED, by.code, reason, book, now)


async def expire_payouts(conn: AsyncConnection, *, book: int, now: datetime) -> list[Payout]:
    """Withdraw the payouts whose time is over and that have no nonce yet."""
    due = await list_payouts(conn, book=book, states=CANCELLABLE, expired_at=now)
    # All rows are locked before the ledger is: behind it nothing may wait.
    locked = (await store.lock_payouts(conn, {item.id for item in due})).values()
    over = [item for item in locked if item.state in CANCELLABLE]
    return await _give_back(conn, over, PayoutState.EXPIRED, WORKER, "its time is over", now)


async def _reserve(
    conn: AsyncConnection, payout: Payout, owners: dict[str, str], now: datetime
) -> Payout:
    refusal = ""
    if payout.parsed_claim.kind is ClaimKind.OWN:
        await store.lock_sender(conn, payout.chain, payout.sender, payout.source_wallet)
    await ensure_accounts(conn, payout.book, accounts(payout), owners=owners, now=now)
    if payout.parsed_claim.kind is ClaimKind.OWN:
        refusal = await _missing_coins(conn, payout)
    if not refusal:
        refusal = _refusal(await post(conn, payout.book, reserved(payout), now=now))
    by = payout.requested_by
    await record(conn, [_requested(payout, now)])
    if refusal:
        return await step_payout(
            conn, payout, PayoutState.REJECTED, actor=WORKER, reason=refusal, now=now
        )
    payout = await step_payout(conn, payout, PayoutState.RESERVED, actor=by, now=now)
    return await step_payout(conn, payout, PayoutState.PENDING_APPROVAL, actor=by, now=now)


async def _missing_coins(conn: AsyncConnection, payout: Payout) -> str:
    # Custody accounts have no overdraft flag, because blocks are facts; a decision looks first.
    # The sending addresses of the wallet are locked, and whoever promises coins locks them.
    path = f"custody:{payout.source_wallet}"
    available = (await get_balance(conn, payout.book, path, payout.asset)).available
    return "" if available >= payout.amount else f"{path} has {available} available"


async def _approve(
    conn: AsyncConnection,
    payout: Payout,
    by: str,
    signature: bytes,
    lines: tuple[dict[str, Any], ...],
    book: int,
    now: datetime,
) -> Payout:
    _require_book(payout, book)
    if by == payout.requested_by:
        raise Refused(
            f"{by} requested payout {payout.id} and cannot approve it",
            remedy="Ask another operator",
        )
    approvals = await store.list_approvals(conn, payout.id)
    if by in {item.operator for item in approvals}:
        return payout
    if payout.state is not PayoutState.PENDING_APPROVAL:
        raise NotPossible(f"payout {payout.id} is {payout.state}, not waiting for approval")
    await store.insert_approval(
        conn,
        Approval(payout_id=payout.id, operator=by, signature=signature, lines=lines, at=now),
    )
    given = len(approvals) + 1
    complete = given >= payout.approvals_required
    return await step_payout(
        conn,
        payout,
        PayoutState.APPROVED if complete else PayoutState.PENDING_APPROVAL,
        actor=by,
        now=now,
        name="PayoutApproved" if complete else "PayoutApprovalGiven",
        payload={"approvals": given, "required": payout.approvals_required},
    )


async def _withdraw(
    conn: AsyncConnection,
    payout_id: UUID,
    to: PayoutState,
    by: str,
    reason: str,
    book: int,
    now: datetime,
) -> Payout:
    payout = await get_payout(conn, payout_id, lock=True)
    _require_book(payout, book)
    if payout.state is to:
        return payout
    if payout.state not in CANCELLABLE:
        raise NotPossible(
            f"payout {payout.id} is {payout.state} and cannot be {to}",
            remedy="Signed bytes may exist: wait for what the chain says",
        )
    (withdrawn,) = await _give_back(conn, [payout], to, by, reason, now)
    return withdrawn


async def _give_back(
    conn: AsyncConnection,
    payouts: Sequence[Payout],
    to: PayoutState,
    by: str,
    reason: str,
    now: datetime,
) -> list[Payout]:
    """Void the reservations of locked payouts of one book, and write their end."""
    if not payouts:
        return []
    batch = [item for payout in payouts for item in released(payout)]
    require_applied(await post(conn, payouts[0].book, batch, now=now))
    return [
        await step_payout(conn, payout, to, actor=by, reason=reason, now=now) for payout in payouts
    ]


def _require_book(payout: Payout, book: int) -> None:
    if payout.book != book:
        raise NotPossible(f"payout {payout.id} is in book {payout.book}, not {book}")


def _refusal(results: Sequence[PostResult]) -> str:
    for result in results:
        if not result.applied:
            return f"the ledger refused the reservation: {result.outcome}"
    return ""


def _requested(payout: Payout, now: datetime) -> DomainEvent:
    return DomainEvent(
        entity_type=PAYOUT,
        entity_id=payout.id,
        version=1,
        name=event_name("Payout", PayoutState.REQUESTED),
        at=now,
        actor=payout.requested_by,
        reason=payout.reason,
        to_state=PayoutState.REQUESTED,
        payload={
            "claim": payout.claim,
            "asset": payout.asset,
            "amount": str(payout.amount),
            "destination": payout.destination,
            "source_wallet": payout.source_wallet,
            "approvals_required": payout.approvals_required,
        },
    )


def _row(request: PayoutRequest, checked: Checked, *, book: int, now: datetime) -> dict[str, Any]:
    return {
        "id": derive_payout_id(request, book=book, now=now),
        "book": book,
        "client_ref": request.client_ref,
        "claim": request.claim,
        "rail": request.rail,
        "chain": checked.chain.code,
        "chain_id": checked.chain.network_id,
        "source_wallet": request.source_wallet,
        "sender": checked.source.address,
        "sender_path": checked.source_path,
        "asset": request.asset,
        "amount": request.amount,
        "contract": checked.chain_asset.contract,
        "chain_amount": checked.chain_amount,
        "native_asset": checked.chain.native_asset,
        "destination": request.destination,
        "requested_by": request.requested_by,
        "reason": request.reason,
        "policy_version": checked.policy_version,
        "approvals_required": checked.approvals_required,
        "state": PayoutState.REQUESTED,
        "hold_epoch": 0,
        "attempt": 0,
        "fee_cap": 0,
        "waiting_for": "",
        "run_after": now,
        "created_at": now,
        "expires_at": request.expires_at,
    }
