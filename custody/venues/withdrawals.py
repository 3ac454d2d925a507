"""Asking for coins back from a venue, and what people say to it: nothing here speaks to the venue.

A withdrawal goes only to a hot address of a wallet of ours, on a chain for which an address of that
venue and asset is registered: so the venue's word for the network is reference data, too. The approval
policy is that of payouts; its rules say ``venue`` for the claim and ``venue:<venue>/<account>`` for the
wallet. What is asked for is held at the venue until it is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import payout_store
from custody.errors import NotOurs, NotPossible
from custody.freeze_model import find_match
from custody.freezes import load_freezes, refusal
from custody.model import AddressPurpose
from custody.payout_approvals import LIFETIME, LIFETIME_MAX
from custody.payout_control import get_active_policy, load_policies
from custody.payout_model import DestinationKind
from custody.payout_policy import (
    APPROVER_ROLES,
    decide,
    find_windows,
    groups_of,
    is_complete,
)
from custody.policy_model import VENUE, Action, ApprovalPolicy, Decision, RequestFacts
from custody.restore_gate import find_gate, is_found_outside
from custody.store import list_addresses
from custody.velocity import count_reserved
from custody.venues import store
from custody.venues.addresses import find_route
from custody.venues.forgotten import require_not_forgotten
from custody.venues.model import (
    CANCELLABLE,
    DEFAULT_POLICY,
    Place,
    RegisteredAddress,
    TransferPolicy,
    VenueWithdrawal,
    WithdrawalRequest,
    WithdrawalState,
    withdrawal_id_of,
)
from custody.venues.moves import move_withdrawal, tell_withdrawal
from custody.venues.postings import accounts, released, reserved
from kernel.clock import iso
from kernel.errors import BadInput, Refused
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.posting import post, require_applied
from ledger.queries import get_balance
from registry.authority import require_role, signing_bytes, verify_signature
from registry.model import Operator
from registry.queries import get_asset, get_chain, get_operator, get_wallet
from venues.treasury_model import VenueNetwork

APPROVE_VERB: Final = "venue_withdrawal.approve"
COMPARED: Final = ("wallet", "asset", "amount", "requested_by", "reason")
"""What must be the same when a reference is used again."""
W = WithdrawalState


async def request_withdrawal(
    conn: AsyncConnection,
    request: WithdrawalRequest,
    *,
    offered: VenueNetwork | None,
    book: int,
    now: datetime,
    policy: TransferPolicy = DEFAULT_POLICY,
) -> VenueWithdrawal:
    """Hold the coins at the venue and put the withdrawal before its approvers.

    A reference again returns the withdrawal as it stands. One that the policy blocks, or that the venue
    does not cover, is REJECTED, with the reason in its history; its reference is used up.

    Args:
        offered: what the venue says now of the network of `find_route`; None: it was not asked, the
            request has to name the largest fee, and the venue says no when it is sent.

    Raises:
        Refused: the reference was used for another withdrawal, or for one that was made before the
            database was restored, the address is not a hot address of the wallet, the venue does not
            do it, or something is frozen.
    """
    route = await find_route(conn, request.place, request.wallet, request.asset)
    fee_max = _check_offer(request, route, offered)
    item, decision = await _draft(conn, request, route, fee_max, policy=policy, book=book, now=now)
    if await is_found_outside(conn, item.withdrawal_id):
        raise Refused(
            f"reference {request.client_ref!r} was asked for before the database was restored",
            where=f"withdrawal {item.withdrawal_id} of {item.place}",
            remedy="Use a new reference for a new withdrawal",
        )
    if await store.find_withdrawal(conn, book, request.place, request.client_ref) is None:
        await require_not_forgotten(conn, item)
    if not await store.insert_withdrawal(conn, item):
        known = await store.find_withdrawal(conn, book, request.place, request.client_ref)
        assert known is not None
        _require_same(request, known)
        return known
    told = {"policy_version": decision.version, "rule": decision.rule, "action": decision.action}
    await tell_withdrawal(
        conn, item, None, now=now, actor=request.requested_by, reason=request.reason, payload=told
    )
    refused = decision.reason if decision.action is Action.BLOCK else ""
    if not refused:
        refused = await _reserve(conn, item, now)
    if refused:
        return await move_withdrawal(conn, item, W.REJECTED, now=now, reason=refused)
    return await move_withdrawal(conn, item, W.PENDING_APPROVAL, now=now)


def approval_bytes(item: VenueWithdrawal) -> bytes:
    """Return what an approver signs: everything that the venue will be asked, and under what."""
    return signing_bytes(
        APPROVE_VERB,
        {
            "id": item.id,
            "venue": item.venue,
            "account": item.account,
            "asset": item.asset,
            "network": item.network,
            "chain": item.chain,
            "chain_id": item.chain_id,
            "wallet": item.wallet,
            "address": item.address,
            "amount": str(item.amount),
            "fee_max": str(item.fee_max),
            "initiator": item.requested_by,
            "policy_version": item.policy_version,
            "rule": item.rule,
            "expires_at": iso(item.expires_at),
        },
    )


async def approve_withdrawal(
    conn: AsyncConnection, withdrawal_id: UUID, *, by: str, signature: bytes, now: datetime
) -> VenueWithdrawal:
    """Add an approval; with the last one that its rule asks for, the worker may send it.

    Raises:
        Refused: the operator asked for it, is in none of the groups that approve it, or the signature
            is not theirs or not of this.
    """
    item = await store.get_withdrawal(conn, withdrawal_id, lock=True)
    operator = await get_operator(conn, by)
    policy = (await load_policies(conn, [item.policy_version]))[item.policy_version]
    _require_counted(item, policy, operator, now)
    verify_signature(operator, approval_bytes(item), signature)
    given = await store.list_approvals(conn, item.id)
    if by in given:
        return item
    if item.state is not W.PENDING_APPROVAL:
        raise NotPossible(f"withdrawal {item.id} is {item.state}, not waiting for approval")
    await store.insert_approval(conn, item.id, by, signature, now)
    if await find_unapproved(conn, item):
        return await move_withdrawal(
            conn, item, W.PENDING_APPROVAL, now=now, actor=by, name="VenueWithdrawalApprovalGiven"
        )
    return await move_withdrawal(conn, item, W.APPROVED, now=now, actor=by, run_after=now)


async def find_unapproved(conn: AsyncConnection, item: VenueWithdrawal) -> str:
    """Return why the withdrawal is not approved, from the signatures themselves; "" when it is.

    Every signature is checked again, against the operator's key and groups of today.
    """
    policy = (await load_policies(conn, [item.policy_version]))[item.policy_version]
    people: dict[str, frozenset[str]] = {}
    payload = approval_bytes(item)
    for code, signature in (await store.list_approvals(conn, item.id)).items():
        operator = await get_operator(conn, code)
        if code == item.requested_by:
            continue
        verify_signature(operator, payload, signature)
        people[code] = groups_of(policy.document, operator)
    if is_complete(item.required, people):
        return ""
    return f"{len(people)} people have approved it, which is not enough"


async def reject_withdrawal(
    conn: AsyncConnection, withdrawal_id: UUID, *, by: str, reason: str, now: datetime
) -> VenueWithdrawal:
    """Say no: what is held at the venue is free again."""
    require_role(await get_operator(conn, by), *APPROVER_ROLES)
    return await _withdraw(conn, withdrawal_id, W.REJECTED, by, reason, now)


async def cancel_withdrawal(
    conn: AsyncConnection, withdrawal_id: UUID, *, by: str, reason: str, now: datetime
) -> VenueWithdrawal:
    """Take it back, as who requested it or as somebody who may approve, before it is sent."""
    operator = await get_operator(conn, by)
    item = await store.get_withdrawal(conn, withdrawal_id)
    if by != item.requested_by:
        require_role(operator, *APPROVER_ROLES)
    return await _withdraw(conn, withdrawal_id, W.CANCELLED, by, reason, now)


async def expire_withdrawals(
    conn: AsyncConnection, place: Place, *, book: int, now: datetime
) -> list[VenueWithdrawal]:
    """Withdraw those whose time is over and that were never sent.

    None while it is not known whether the database was restored: they may have been sent.
    """
    if await find_gate(conn) is not None:
        return []
    found = await store.list_withdrawals(conn, book=book, place=place, states=CANCELLABLE)
    due = [item.id for item in found if item.expires_at <= now]
    locked = [await store.get_withdrawal(conn, key, lock=True) for key in due]
    over = [item for item in locked if item.state in CANCELLABLE]
    if not over:
        return []
    batch = [line for item in over for line in released(item)]
    require_applied(await post(conn, book, batch, now=now))
    return [
        await move_withdrawal(conn, item, W.EXPIRED, now=now, reason="its time is over")
        for item in over
    ]


async def find_frozen(conn: AsyncConnection, item: VenueWithdrawal) -> str:
    """Return which freeze switch stops the withdrawal, in words; "" where none does."""
    match = find_match(
        await load_freezes(conn),
        chain=item.chain,
        asset=item.asset,
        wallet=item.wallet,
        client="",
    )
    return "" if match is None else refusal(match).what


async def find_unrouted(conn: AsyncConnection, item: VenueWithdrawal) -> str:
    """Return why the registration that names the network does not hold any more; "" where it does."""
    try:
        route = await find_route(conn, item.place, item.wallet, item.asset)
    except NotPossible as error:
        return error.what
    if (route.network, route.chain) != (item.network, item.chain):
        return f"{item.place} is registered for {route.network} now, not for {item.network}"
    return ""


async def find_misplaced(conn: AsyncConnection, item: VenueWithdrawal) -> str:
    """Return why the address is not one where the desk's coins may come to; "" where it is one."""
    wallet = await get_wallet(conn, item.wallet)
    if wallet.holds_client_money:
        return f"wallet {wallet.code} is owned by {wallet.owner}: the desk's coins do not go there"
    found = await list_addresses(conn, item.chain, only={item.address})
    ours = [
        entry
        for entry in found
        if entry.wallet == item.wallet and entry.purpose is AddressPurpose.HOT
    ]
    return "" if ours else f"{item.address} is not a hot address of our wallet {item.wallet}"


async def _draft(
    conn: AsyncConnection,
    request: WithdrawalRequest,
    route: RegisteredAddress,
    fee_max: int,
    *,
    policy: TransferPolicy,
    book: int,
    now: datetime,
) -> tuple[VenueWithdrawal, Decision]:
    chain, asset = await get_chain(conn, route.chain), await get_asset(conn, request.asset)
    address = request.address
    if address is None:
        source = await payout_store.find_hot_source(conn, request.wallet)
        if source is None:
            raise NotOurs(f"wallet {request.wallet} has no hot address")
        address = source.address
    decision = await _decide(conn, request, route, address, book=book, now=now)
    lapses = [] if request.expires_at is None else [request.expires_at]
    if decision.expires_s is not None:
        lapses.append(now + timedelta(seconds=decision.expires_s))
    item = VenueWithdrawal(
        id=derive_id(now, "venue_withdrawal", book, str(request.place), request.client_ref),
        book=book,
        client_ref=request.client_ref,
        venue=request.place.venue,
        account=request.place.account,
        asset=request.asset,
        network=route.network,
        chain=chain.code,
        chain_id=chain.network_id,
        wallet=request.wallet,
        address=address,
        amount=request.amount,
        text=asset.format(request.amount, code=False),
        fee_max=fee_max,
        requested_by=request.requested_by,
        reason=request.reason,
        policy_version=decision.version,
        rule=decision.rule,
        required=decision.required,
        withdrawal_id=withdrawal_id_of(request.place, request.client_ref, book),
        state=W.REQUESTED,
        signed_at=None,
        window=policy.window,
        venue_ref=None,
        sent=None,
        fee=None,
        tx_id=None,
        arrival_id=None,
        not_found=0,
        waiting_for="",
        run_after=now,
        requested_at=now,
        updated_at=now,
        expires_at=min([*(lapses or [now + LIFETIME]), now + LIFETIME_MAX]),
        released_at=None,
        late_since=None,
        fence=0,
    )
    if item.expires_at <= now:
        raise BadInput("the withdrawal would have lapsed before it began")
    for why in (await find_misplaced(conn, item), await find_frozen(conn, item)):
        if why:
            raise NotPossible(why)
    return item, decision


async def _decide(
    conn: AsyncConnection,
    request: WithdrawalRequest,
    route: RegisteredAddress,
    address: str,
    *,
    book: int,
    now: datetime,
) -> Decision:
    policy = await get_active_policy(conn)
    facts = RequestFacts(
        initiator=request.requested_by,
        claim=VENUE,
        party=None,
        chain=route.chain,
        asset=request.asset,
        wallet=request.place.wallet,
        destination=address,
        destination_kind=DestinationKind.OWN,
        destination_age_s=0,
        amount=request.amount,
    )
    windows = find_windows(policy.document, facts)
    running = await count_reserved(conn, book, windows, now=now)
    return decide(policy, replace(facts, reserved=running.of(windows)))


async def _reserve(conn: AsyncConnection, item: VenueWithdrawal, now: datetime) -> str:
    """Hold what is asked for; return why that cannot be."""
    await ensure_accounts(conn, item.book, accounts(item), now=now)
    # An empty batch takes the head's lock: what is free cannot change any more.
    await post(conn, item.book, [], now=now)
    balance = await get_balance(conn, item.book, item.place.path, item.asset)
    if balance.available < item.amount + item.fee_max:
        return f"{item.place.path} has {balance.available} {item.asset} available"
    require_applied(await post(conn, item.book, reserved(item), now=now))
    return ""


async def _withdraw(
    conn: AsyncConnection,
    withdrawal_id: UUID,
    to: WithdrawalState,
    by: str,
    reason: str,
    now: datetime,
) -> VenueWithdrawal:
    item = await store.get_withdrawal(conn, withdrawal_id, lock=True)
    if item.state is to:
        return item
    if item.state not in CANCELLABLE:
        raise NotPossible(
            f"withdrawal {item.id} is {item.state} and cannot be {to}",
            remedy="The venue may have it: wait for what it says",
        )
    require_applied(await post(conn, item.book, released(item), now=now))
    return await move_withdrawal(conn, item, to, now=now, actor=by, reason=reason)


def _check_offer(
    request: WithdrawalRequest, route: RegisteredAddress, offered: VenueNetwork | None
) -> int:
    """Return the largest fee; refuse what the venue does not do."""
    if offered is None:
        if request.fee_max is None:
            raise BadInput("nobody has said what the venue may keep", remedy="Name the largest fee")
        return request.fee_max
    if (offered.asset, offered.network) != (route.asset, route.network):
        raise BadInput(f"{offered.asset} on {offered.network} is not what {route.place} was asked")
    if not offered.withdraws:
        raise NotPossible(f"{route.place} does not let {route.asset} go on {route.network} now")
    if request.amount < offered.least or request.amount % max(offered.step, 1):
        raise BadInput(
            f"{route.place} withdraws at least {offered.least} and multiples of {offered.step}",
            remedy="Amounts are smallest units",
        )
    fee_max = offered.fee if request.fee_max is None else request.fee_max
    if fee_max < offered.fee:
        raise NotPossible(f"{route.place} keeps {offered.fee}, more than the {fee_max} allowed")
    return fee_max


def _require_same(request: WithdrawalRequest, known: VenueWithdrawal) -> None:
    differs = [name for name in COMPARED if getattr(request, name) != getattr(known, name)]
    if request.address not in {None, known.address}:
        differs.append("address")
    if request.fee_max not in {None, known.fee_max}:
        differs.append("fee_max")
    if differs:
        raise Refused(
            f"reference {request.client_ref!r} was used with another {differs[0]}",
            where=f"withdrawal {known.id}",
            remedy="Use a new reference for a new withdrawal",
        )


def _require_counted(
    item: VenueWithdrawal, policy: ApprovalPolicy, operator: Operator, now: datetime
) -> None:
    """Refuse whose approval would not count."""
    if operator.code == item.requested_by:
        raise Refused(
            f"{operator.code} requested withdrawal {item.id} and cannot approve it",
            remedy="Ask another operator",
        )
    groups = {quorum.group for quorum in item.required}
    if not groups & groups_of(policy.document, operator):
        raise Refused(
            f"{operator.code} is in none of the groups that approve withdrawal {item.id}:"
            f" {', '.join(sorted(groups))}",
            remedy="Ask somebody of these",
        )
    if item.expires_at <= now:
        raise NotPossible(f"the time of withdrawal {item.id} is over", remedy="Request it anew")


def describe(item: VenueWithdrawal) -> Mapping[str, str]:
    """Return what an approver reads before signing."""
    return {
        "from": str(item.place),
        "to": f"{item.wallet} {item.address}",
        "network": f"{item.network} ({item.chain})",
        "amount": item.text,
        "asset": item.asset,
    }
