"""Asking for payouts: one or many at once, with the same number of statements for either.

What many have in common is read once, the policy decides each on its own facts, and everything that is
reserved is one posting. All rows are written and locked before the ledger is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import control_store, payout_rows
from custody import payout_store as store
from custody.banks.payment_checks import check_bank_request
from custody.destinations import told_as
from custody.lost_payouts import require_not_lost
from custody.payout_checks import (
    Checked,
    Desk,
    check_request,
    decide_request,
    expiry_of,
    list_windows,
    load_desk,
    require_same,
)
from custody.payout_events import PAYOUT, WORKER, event_name
from custody.payout_model import Claim, ClaimKind, Payout, PayoutRequest, PayoutState
from custody.payout_postings import accounts, reserved
from custody.policy_documents import facts_to_document, quorums_to_document
from custody.policy_model import Action, Decision, RequestFacts
from custody.set_off import load_dues, plan_set_off
from custody.velocity import Reserved, count_reserved
from kernel.errors import BadInput
from kernel.events import DomainEvent, record
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import PostResult, Transfer
from ledger.posting import post
from ledger.queries import get_balances
from registry.model import BANK

REQUESTS_MAX: Final = 500
REASON_LENGTH_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Asked:
    """A new payout, what the policy said to it, and on what."""

    payout: Payout
    checked: Checked
    facts: RequestFacts
    decision: Decision


def derive_payout_id(request: PayoutRequest, *, book: int, now: datetime) -> UUID:
    """Return the id that the payout gets when it is requested at *now*."""
    return derive_id(now, PAYOUT, book, request.claim, request.client_ref)


async def request_payout(
    conn: AsyncConnection, request: PayoutRequest, *, book: int, now: datetime
) -> Payout:
    """Reserve the claim and put the payout before its approvers: `request_payouts` of one."""
    (payout,) = await request_payouts(conn, [request], book=book, now=now)
    return payout


async def request_payouts(
    conn: AsyncConnection, requests: Sequence[PayoutRequest], *, book: int, now: datetime
) -> list[Payout]:
    """Reserve the claims and put the payouts before their approvers; return them in order.

    A party's reference again returns the payout as it stands. A payout that the policy blocks, whose
    party owes what comes first, or whose claim cannot cover it, is REJECTED, with the reason in its
    history; its reference is used up.

    Args:
        conn: the caller's transaction.
        requests: up to `REQUESTS_MAX`, no reference of a party twice.
        book: the book of all of them.
        now: the time.

    Raises:
        Refused: of any of them the reference was used for another payout, or for one that was sent
            before the database was restored and is not here again, the destination is not allowed,
            the wallet may not pay for the claim, or something is frozen. Then none is made.
    """
    keys = [_key(item) for item in requests]
    if len(set(keys)) != len(keys) or len(keys) > REQUESTS_MAX:
        raise BadInput(f"up to {REQUESTS_MAX} payouts are requested at once, each reference once")
    known = await _find_known(conn, book, keys)
    fresh = [item for item, key in zip(requests, keys, strict=True) if key not in known]
    made: dict[tuple[str, str], Payout] = {}
    if fresh:
        asked = await _insert(conn, fresh, book=book, now=now)
        mine = {_key(item.checked.request) for item in asked}
        # Another transaction was first with these; it has committed, so its rows can be read now.
        known |= await _find_known(conn, book, [key for key in keys if key not in mine | {*known}])
        made = {
            _key(item.checked.request): payout
            for item, payout in zip(asked, await _reserve(conn, asked, book, now), strict=True)
        }
    for request, key in zip(requests, keys, strict=True):
        if key in known:
            require_same(request, known[key])
    return [made.get(key) or known[key] for key in keys]


async def _find_known(
    conn: AsyncConnection, book: int, keys: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Payout]:
    if not keys:
        return {}
    found = await store.find_payouts_by_reference(conn, book, keys)
    return {(item.party or item.claim, item.client_ref): item for item in found}


async def _insert(
    conn: AsyncConnection, requests: Sequence[PayoutRequest], *, book: int, now: datetime
) -> list[Asked]:
    """Check, count, decide and write new rows; return those that this call has written."""
    desk = await load_desk(conn, requests, now=now)
    await require_not_lost(conn, [(book, *_key(item)) for item in requests])
    checked = [
        check_bank_request(desk, item, book=book)
        if item.rail == BANK
        else check_request(desk, item)
        for item in requests
    ]
    running = await count_reserved(conn, book, list_windows(desk, checked), now=now)
    asked = [_decide(desk, item, running, book) for item in checked]
    # In one order, whoever asks: two that ask for the same wait for each other at the first of them.
    ordered = sorted(asked, key=lambda item: _key(item.checked.request))
    written = await store.insert_payouts(conn, [_row(item) for item in ordered])
    mine = [item for item in asked if item.payout.id in written]
    await control_store.insert_decisions(conn, [_decision_row(item) for item in mine])
    return mine


def _decide(desk: Desk, checked: Checked, running: Reserved, book: int) -> Asked:
    facts, decision = decide_request(desk.policy, checked, running)
    if decision.action is not Action.BLOCK:
        running.take(facts)
    return Asked(_payout(checked, decision, book, desk.now), checked, facts, decision)


async def _reserve(
    conn: AsyncConnection, asked: Sequence[Asked], book: int, now: datetime
) -> list[Payout]:
    """Post what new payouts reserve, write how far they got, and tell."""
    payouts = [item.payout for item in asked]
    if not payouts:
        return []
    refusals = {
        item.payout.id: item.decision.reason
        for item in asked
        if item.decision.action is Action.BLOCK
    }
    open_ones = [item for item in payouts if item.id not in refusals]
    if open_ones:
        refusals |= await _post(conn, asked, open_ones, book, now)
    passed = [item for item in payouts if item.id not in refusals]
    await _write(conn, passed, {"state": PayoutState.RESERVED})
    await _write(conn, passed, {"state": PayoutState.PENDING_APPROVAL})
    rejected = [item for item in payouts if item.id in refusals]
    ended: dict[str, Any] = {"state": PayoutState.REJECTED, "released_at": now}
    await _write(conn, rejected, ended)
    await record(conn, _events(asked, refusals))
    return [
        replace(item, **ended)
        if item.id in refusals
        else replace(item, state=PayoutState.PENDING_APPROVAL)
        for item in payouts
    ]


async def _post(
    conn: AsyncConnection,
    asked: Sequence[Asked],
    payouts: Sequence[Payout],
    book: int,
    now: datetime,
) -> dict[UUID, str]:
    """Set off what is owed, then reserve; return why each one that failed did."""
    own = sorted(
        {(p.chain, p.sender, p.source_wallet) for p in payouts if _is_own(p)},
    )
    for chain, sender, wallet in own:
        await store.lock_sender(conn, chain, sender, wallet)
    dues = await load_dues(conn, book, payouts, now=now)
    owners = {path: owner for item in asked for path, owner in item.checked.owners.items()}
    keys = {key for payout in payouts for key in accounts(payout)}
    await ensure_accounts(conn, book, keys, owners=owners, now=now)
    # An empty batch takes the head's lock: what is owed and free cannot change any more.
    await post(conn, book, [], now=now)
    set_off = await plan_set_off(conn, book, payouts, dues)
    refusals = {UUID(str(key)): reason for key, reason in set_off.refusals.items()}
    if set_off.transfers:
        settled = await post(conn, book, set_off.transfers, now=now)
        refusals |= _refused(set_off.transfers, settled, "set off what is owed")
    refusals |= await _find_missing(conn, book, [p for p in payouts if p.id not in refusals])
    batch = [item for p in payouts if p.id not in refusals for item in reserved(p)]
    results = await post(conn, book, batch, now=now) if batch else []
    return refusals | _refused(batch, results, "reserve")


async def _find_missing(
    conn: AsyncConnection, book: int, payouts: Sequence[Payout]
) -> dict[UUID, str]:
    """Return why own transfers cannot be: each is promised what those before it leave.

    Custody accounts have no overdraft flag, because blocks are facts; a decision looks first. The
    sending addresses of the wallet are locked, and whoever promises coins locks them.
    """
    own = [item for item in payouts if _is_own(item)]
    keys = {(f"custody:{item.source_wallet}", item.asset) for item in own}
    free = {key: b.available for key, b in (await get_balances(conn, book, keys)).items()}
    refusals: dict[UUID, str] = {}
    for item in own:
        key = (f"custody:{item.source_wallet}", item.asset)
        if free[key] < item.amount:
            refusals[item.id] = f"{key[0]} has {free[key]} available"
        else:
            free[key] -= item.amount
    return refusals


def _refused(
    batch: Sequence[Transfer], results: Sequence[PostResult], verb: str
) -> dict[UUID, str]:
    return {
        UUID(str(item.correlation)): f"the ledger refused to {verb}: {result.outcome}"
        for item, result in zip(batch, results, strict=True)
        if not result.applied
    }


async def _write(
    conn: AsyncConnection, payouts: Sequence[Payout], values: Mapping[str, Any]
) -> None:
    rows = [{"id": item.id, **values} for item in payouts]
    await payout_rows.update_payouts(conn, rows, fences={item.id: item.fence for item in payouts})


def _events(asked: Sequence[Asked], refusals: Mapping[UUID, str]) -> list[DomainEvent]:
    events = []
    for item in asked:
        payout = item.payout
        events.append(_event(item, 1, PayoutState.REQUESTED, None, _said(item)))
        if payout.id in refusals:
            reason = refusals[payout.id][:REASON_LENGTH_MAX]
            rejected = _event(item, 2, PayoutState.REJECTED, PayoutState.REQUESTED, {})
            events.append(replace(rejected, actor=WORKER, reason=reason))
            continue
        events.append(_event(item, 2, PayoutState.RESERVED, PayoutState.REQUESTED, {}))
        events.append(_event(item, 3, PayoutState.PENDING_APPROVAL, PayoutState.RESERVED, {}))
    return events


def _event(
    item: Asked,
    version: int,
    to: PayoutState,
    before: PayoutState | None,
    payload: Mapping[str, Any],
) -> DomainEvent:
    payout = item.payout
    return DomainEvent(
        entity_type=PAYOUT,
        entity_id=payout.id,
        version=version,
        name=event_name("Payout", to),
        at=payout.created_at,
        actor=payout.requested_by,
        reason=payout.reason if version == 1 else "",
        from_state=before,
        to_state=to,
        payload=payload,
    )


def _said(item: Asked) -> dict[str, Any]:
    payout = item.payout
    return {
        "claim": payout.claim,
        "asset": payout.asset,
        "amount": str(payout.amount),
        "destination": told_as(payout.destination),
        "source_wallet": payout.source_wallet,
        "policy_version": payout.policy_version,
        "rule": payout.rule,
        "action": item.decision.action,
        "required": quorums_to_document(payout.required),
    }


def _payout(checked: Checked, decision: Decision, book: int, now: datetime) -> Payout:
    request = checked.request
    return Payout(
        id=derive_payout_id(request, book=book, now=now),
        book=book,
        client_ref=request.client_ref,
        claim=request.claim,
        rail=checked.way.rail,
        chain=checked.way.place,
        chain_id=checked.way.network_id,
        source_wallet=request.source_wallet,
        sender=checked.source.address,
        sender_path=checked.source_path,
        asset=request.asset,
        amount=request.amount,
        contract=checked.way.contract,
        chain_amount=checked.chain_amount,
        native_asset=checked.way.native_asset,
        destination=request.destination,
        requested_by=request.requested_by,
        reason=request.reason,
        policy_version=decision.version,
        approvals_required=sum(quorum.approvals for quorum in decision.required) or 1,
        run_after=now,
        created_at=now,
        expires_at=expiry_of(request, decision, now),
        rule=decision.rule,
        required=decision.required,
        party=checked.party,
        destination_id=None if checked.destination is None else checked.destination.id,
        requested_expiry=request.expires_at,
    )


_INSERTED: Final = tuple(
    name
    for name in Payout.__dataclass_fields__
    if name
    not in {
        *("nonce", "fee_paid", "succeeded", "tx_hash", "mined_height", "mined_block"),
        *("fence", "claim_returned", "released_at"),
    }
)


def _row(item: Asked) -> dict[str, Any]:
    values = {name: getattr(item.payout, name) for name in _INSERTED}
    return {**values, "required": quorums_to_document(item.payout.required)}


def _decision_row(item: Asked) -> dict[str, Any]:
    decision = item.decision
    return {
        "payout_id": item.payout.id,
        "book": item.payout.book,
        "decided_at": item.payout.created_at,
        "policy_version": decision.version,
        "rule": decision.rule,
        "action": decision.action,
        "required": quorums_to_document(decision.required),
        "reason": decision.reason,
        "facts": facts_to_document(item.facts),
    }


def _is_own(payout: Payout) -> bool:
    return payout.parsed_claim.kind is ClaimKind.OWN


def _key(request: PayoutRequest) -> tuple[str, str]:
    claim = Claim.parse(request.claim)
    owner = request.claim if claim.kind is ClaimKind.OWN else claim.name
    return owner, request.client_ref
