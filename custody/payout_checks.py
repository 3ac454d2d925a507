"""What a request for a payout must satisfy before anything is reserved."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.evm.addresses import parse_address
from custody.allow_list import require_allowed
from custody.errors import NotOurs, NotPossible
from custody.payout_control import get_active_policy
from custody.payout_model import Claim, ClaimKind, Payout, PayoutRequest, Source
from custody.payout_policy import approvals_required
from custody.payout_store import find_hot_source, find_sources
from kernel.errors import BadInput, Refused
from kernel.money import rescale
from registry.model import CLIENT, Chain, ChainAsset, Wallet
from registry.queries import get_asset, get_chain, get_chain_asset, get_wallet

COMPARED: Final = ("rail", "source_wallet", "asset", "amount", "destination", "expires_at")
"""What must be the same when a reference is used again."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What the request means, as the registry and the policy have it now."""

    chain: Chain
    chain_asset: ChainAsset
    chain_amount: int
    wallet: Wallet
    source: Source
    source_path: str
    policy_version: int
    approvals_required: int
    owners: dict[str, str]


async def check_request(conn: AsyncConnection, request: PayoutRequest, *, now: datetime) -> Checked:
    """Return what is needed to make the payout's row.

    Raises:
        Refused: the wallet may not pay for this claim, the destination is not allowed, no policy
            covers it, or the wallet has no such sending address.
    """
    claim = Claim.parse(request.claim)
    wallet = await get_wallet(conn, request.source_wallet)
    require_owner_class(claim, wallet)
    chain = await get_chain(conn, wallet.chain)
    chain_asset = await get_chain_asset(conn, chain.code, request.asset)
    asset = await get_asset(conn, request.asset)
    if request.expires_at is not None and request.expires_at <= now:
        raise BadInput("the payout would have lapsed before it began")
    receiving = await _check_destination(conn, request, claim, chain, now)
    policy = await get_active_policy(conn)
    source = await _find_source(conn, request, wallet)
    if source.address == request.destination:
        raise Refused("the payout would pay the address it comes from")
    owners = {f"custody:{w.code}": w.owner for w in (wallet, receiving) if w is not None}
    return Checked(
        chain=chain,
        chain_asset=chain_asset,
        chain_amount=rescale(request.amount, asset.scale, chain_asset.decimals),
        wallet=wallet,
        source=source,
        source_path=f"{wallet.account_path}/{source.branch}/{source.index}",
        policy_version=policy.version,
        approvals_required=approvals_required(policy, claim, request.asset, request.amount),
        owners=owners,
    )


def require_owner_class(claim: Claim, wallet: Wallet) -> None:
    """Refuse to pay a claim from coins that belong to somebody else.

    A client is paid from clients' coins (its own, if the wallet is segregated), what the desk owes
    from the desk's.
    """
    suits = {
        ClaimKind.CLIENT: wallet.owner in {CLIENT, f"{CLIENT}:{claim.name}"},
        ClaimKind.HELD: wallet.owner in {CLIENT, f"{CLIENT}:{claim.name}"},
        ClaimKind.PAYABLE: not wallet.holds_client_money,
        ClaimKind.OWN: True,
    }[claim.kind]
    if not suits:
        raise NotPossible(
            f"wallet {wallet.code} is owned by {wallet.owner} and cannot pay a {claim.kind}",
            remedy="Pay from a wallet of the right owner class",
        )


def require_same(request: PayoutRequest, known: Payout) -> None:
    """Refuse a reference that was used for another payout; names the first field that differs."""
    for name in COMPARED:
        if getattr(request, name) != getattr(known, name):
            raise Refused(
                f"reference {request.client_ref!r} was used with another {name}",
                where=f"payout {known.id}",
                remedy="Use a new reference for a new payout",
            )
    if request.source_address not in {None, known.sender}:
        raise Refused(
            f"reference {request.client_ref!r} was used with another source_address",
            where=f"payout {known.id}",
        )


async def _check_destination(
    conn: AsyncConnection, request: PayoutRequest, claim: Claim, chain: Chain, now: datetime
) -> Wallet | None:
    """Return the receiving wallet of an own transfer; None for a payment to others."""
    destination = parse_address(request.destination)
    ours = (await find_sources(conn, chain.code, [destination])).get(destination)
    if claim.kind is not ClaimKind.OWN:
        await require_allowed(conn, claim.name, chain.code, destination, now=now)
        if ours is not None:
            raise NotPossible(
                f"{destination} is our own address", remedy="Ask for an own transfer instead"
            )
        return None
    if ours is None or ours.wallet != claim.name:
        raise NotOurs(f"{destination} is not an address of our wallet {claim.name}")
    receiving = await get_wallet(conn, claim.name)
    if receiving.chain != chain.code:
        raise NotPossible(f"wallet {receiving.code} is on {receiving.chain}, not on {chain.code}")
    return receiving


async def _find_source(conn: AsyncConnection, request: PayoutRequest, wallet: Wallet) -> Source:
    if request.source_address is None:
        source = await find_hot_source(conn, wallet.code)
        if source is None:
            raise NotOurs(
                f"wallet {wallet.code} has no hot address",
                remedy='Assign one: assign_address(..., purpose="hot")',
            )
        return source
    found = (await find_sources(conn, wallet.chain, [request.source_address])).get(
        request.source_address
    )
    if found is None or found.wallet != wallet.code:
        raise NotOurs(f"{request.source_address} is not an address of wallet {wallet.code}")
    return found
