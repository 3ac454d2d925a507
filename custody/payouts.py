"""The verbs of a payout that people and other rooms call, up to the point where it can be paid.

`request_payout` reserves, `approve_payout` adds a signature, `reject_payout`, `cancel_payout` and
`expire_payouts` give the reservation back. From there `custody.payout_worker` signs and sends,
`custody.payout_inclusion` follows the blocks, `custody.payout_finality` confirms.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import control_store, payout_explain, payout_requests, payout_rows
from custody import payout_store as store
from custody.banks import payment_store
from custody.bitcoin import spend_store
from custody.errors import NotPossible
from custody.payout_approvals import LIFETIME, ApprovalLine, approval_bytes, to_document
from custody.payout_control import load_policies
from custody.payout_events import WORKER
from custody.payout_model import CANCELLABLE, Payout, PayoutState
from custody.payout_moves import Move, move_payouts
from custody.payout_policy import APPROVER_ROLES, groups_of, is_complete
from custody.payout_postings import released
from custody.policy_model import APPROVERS, SERVICES, ApprovalPolicy
from custody.restore_gate import find_gate
from kernel.clock import to_unix_ms
from kernel.errors import Refused
from kernel.events import record
from kernel.ids import derive_id
from ledger.posting import post, require_applied
from registry.authority import require_role, verify_signature
from registry.model import Operator, Role
from registry.queries import get_operator

CANCELLERS: Final = (Role.APPROVER, Role.TREASURER, Role.OPERATIONS)

request_payout = payout_requests.request_payout
request_payouts = payout_requests.request_payouts
derive_payout_id = payout_requests.derive_payout_id
get_payout = store.get_payout
list_payouts = store.list_payouts
every_payout = store.every_payout
explain = payout_explain.explain


async def has_signed_bytes(conn: AsyncConnection, payout_id: UUID) -> bool:
    """Tell whether the payout's claim has been debited: signed bytes are stored, or its file is out."""
    if any(item.raw is not None for item in await store.list_attempts(conn, payout_id)):
        return True
    if await payment_store.has_left(conn, payout_id):
        return True
    return await spend_store.has_signed(conn, payout_id)


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
    payouts = await _lock_in_order(conn, payout_ids, book)
    policies = await load_policies(conn, {payout.policy_version for payout in payouts})
    for payout in payouts:
        _require_counted(payout, policies[payout.policy_version], operator, now)
    lines = [approval_line(payout) for payout in payouts]
    verify_signature(operator, approval_bytes(lines), signature)
    given = await control_store.list_approvers(conn, payout_ids)
    new = [payout for payout in payouts if operator.code not in given[payout.id]]
    for payout in new:
        if payout.state is not PayoutState.PENDING_APPROVAL:
            raise NotPossible(f"payout {payout.id} is {payout.state}, not waiting for approval")
    if not new:
        return payouts
    await control_store.insert_statement(
        conn,
        statement_id=derive_id(now, "approval", operator.code, signature),
        operator=operator.code,
        signature=signature,
        lines=[to_document(line) for line in lines],
        payout_ids=[payout.id for payout in new],
        at=now,
    )
    people = await _load_people(conn, {code for payout in new for code in given[payout.id]})
    people[operator.code] = operator
    moves = []
    for payout in new:
        document = policies[payout.policy_version].document
        codes = [*given[payout.id], operator.code]
        approvers = {code: groups_of(document, people[code]) for code in codes}
        moves.append(_approval(payout, approvers, operator.code))
    moved, events = await move_payouts(conn, moves, now=now)
    await record(conn, events)
    return [moved.get(payout.id, payout) for payout in payouts]


def approval_line(payout: Payout) -> ApprovalLine:
    """Return what an approver signs about this payout: amounts as the chain counts them."""
    return ApprovalLine(
        payout_id=payout.id,
        chain=payout.chain,
        chain_id=payout.chain_id,
        wallet=payout.source_wallet,
        client=payout.signed_client,
        destination=payout.destination,
        asset=payout.asset,
        amount=payout.chain_amount,
        initiator=payout.requested_by,
        policy_version=payout.policy_version,
        rule=payout.rule,
        expires_at=to_unix_ms(payout.expires_at or payout.created_at + LIFETIME),
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
    require_role(await get_operator(conn, by.code), *APPROVER_ROLES)
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
    """Withdraw the payouts whose time is over and that have no nonce yet.

    None while it is not known whether the database was restored: they may have been paid.
    """
    if await find_gate(conn) is not None:
        return []
    due = await list_payouts(conn, book=book, states=CANCELLABLE, expired_at=now)
    # All rows are locked before the ledger is: behind it nothing may wait.
    locked = (await store.lock_payouts(conn, {item.id for item in due})).values()
    over = [item for item in locked if item.state in CANCELLABLE]
    return await _give_back(conn, over, PayoutState.EXPIRED, WORKER, "its time is over", now)


async def _lock_in_order(
    conn: AsyncConnection, payout_ids: Sequence[UUID], book: int
) -> list[Payout]:
    locked = await payout_rows.lock_many(conn, payout_ids)
    payouts = [locked[key] for key in payout_ids if key in locked]
    if len(payouts) != len(payout_ids):
        raise NotPossible(f"{len(payout_ids) - len(payouts)} of the payouts do not exist")
    for payout in payouts:
        _require_book(payout, book)
    return payouts


def _require_counted(
    payout: Payout, policy: ApprovalPolicy, operator: Operator, now: datetime
) -> None:
    """Refuse whose approval would not count for this payout."""
    if operator.code == payout.requested_by:
        raise Refused(
            f"{operator.code} requested payout {payout.id} and cannot approve it",
            remedy="Ask another operator",
        )
    groups = {quorum.group for quorum in payout.required}
    if not groups & groups_of(policy.document, operator):
        if groups <= {APPROVERS, SERVICES} and operator.code not in policy.document.services:
            require_role(operator, *APPROVER_ROLES)
        raise Refused(
            f"{operator.code} is in none of the groups that approve payout {payout.id}:"
            f" {', '.join(sorted(groups))}",
            remedy="Ask somebody of these",
        )
    if payout.expires_at is not None and payout.expires_at <= now:
        raise NotPossible(f"the time of payout {payout.id} is over", remedy="Request it anew")


async def _load_people(conn: AsyncConnection, codes: Collection[str]) -> dict[str, Operator]:
    return {code: await get_operator(conn, code) for code in sorted(codes)}


def _approval(payout: Payout, approvers: Mapping[str, frozenset[str]], by: str) -> Move:
    complete = is_complete(payout.required, approvers)
    return Move(
        payout=payout,
        to=PayoutState.APPROVED if complete else PayoutState.PENDING_APPROVAL,
        actor=by,
        name="PayoutApproved" if complete else "PayoutApprovalGiven",
        payload={"approvals": len(approvers), "required": payout.approvals_required},
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
    moves = [Move(payout=payout, to=to, actor=by, reason=reason) for payout in payouts]
    batch = [item for payout in payouts for item in released(payout)]
    require_applied(await post(conn, payouts[0].book, batch, now=now))
    moved, events = await move_payouts(conn, moves, now=now)
    await record(conn, events)
    return [moved[payout.id] for payout in payouts]


def _require_book(payout: Payout, book: int) -> None:
    if payout.book != book:
        raise NotPossible(f"payout {payout.id} is in book {payout.book}, not {book}")
