"""What requests for payouts must satisfy before anything is reserved.

Everything that many requests have in common is read once (`load_desk`); each request is then judged
by itself, and pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from banks.payee import canonical_payee
from chain.addressing import canonical_address
from chain.bitcoin.addresses import parse_address as parse_bitcoin
from chain.bitcoin.fees import dust_limit
from chain.bitcoin.networks import network_of
from custody.allow_list import Place, find_allowed, require_usable
from custody.banks.payment_desk import NO_BANKS, BankDesk, load_bank_desk
from custody.errors import NotOurs, NotPossible
from custody.freeze_model import Freeze, find_match
from custody.freezes import load_freezes, refusal
from custody.payout_approvals import LIFETIME, LIFETIME_MAX
from custody.payout_control import get_active_policy
from custody.payout_model import (
    OWN_PARTY,
    AllowedDestination,
    Claim,
    ClaimKind,
    DestinationKind,
    Payout,
    PayoutRequest,
    Source,
)
from custody.payout_policy import decide, find_windows
from custody.payout_store import find_hot_source, find_sources
from custody.policy_model import VENUE, ApprovalPolicy, Decision, RequestFacts, Window
from custody.velocity import Reserved
from custody.venues.addresses import find_registered
from kernel.errors import BadInput, Refused
from kernel.money import Asset, rescale
from registry.model import BANK, BITCOIN, CLIENT, BankAccount, Chain, ChainAsset, Wallet
from registry.queries import get_asset, get_chain, get_chain_asset, get_wallet

COMPARED: Final = {
    "claim": "claim",
    "rail": "rail",
    "source_wallet": "source_wallet",
    "asset": "asset",
    "amount": "amount",
    "destination": "destination",
    "reason": "reason",
    "expires_at": "requested_expiry",
}
"""What must be the same when a reference is used again: fields of the request and of the payout."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What the registry, the allow-list, the policy and the switches say now.

    Attributes:
        spelled: the one spelling of each destination, by (chain, text).
        ours: our addresses among destinations and sources, by (chain, address).
        hot: the first hot address of each wallet that has one.
        allowed: entries in force, cooling off or not.
        registered: (place, chain, asset, address) of where venues take our coins.
        banks: the same of what goes through banks.
    """

    now: datetime
    wallets: Mapping[str, Wallet]
    chains: Mapping[str, Chain]
    chain_assets: Mapping[tuple[str, str], ChainAsset]
    assets: Mapping[str, Asset]
    spelled: Mapping[tuple[str, str], str]
    ours: Mapping[tuple[str, str], Source]
    hot: Mapping[str, Source]
    allowed: Mapping[Place, AllowedDestination]
    policy: ApprovalPolicy
    freezes: Sequence[Freeze]
    registered: frozenset[tuple[str, str, str, str]] = frozenset()
    banks: BankDesk = NO_BANKS


@dataclass(frozen=True, slots=True)
class Way:
    """By which rail and through which place a payout goes; *place* is a chain's code, or ``bank``."""

    rail: str
    place: str
    network_id: int
    native_asset: str
    contract: str | None


@dataclass(frozen=True, slots=True)
class Checked:
    """A request with what it means; *destination* is None of a move between our wallets.

    *chain_amount* is in smallest units of the asset where it goes.
    """

    request: PayoutRequest
    claim: Claim
    way: Way
    chain_amount: int
    source: Source
    source_path: str
    destination: AllowedDestination | None
    owners: Mapping[str, str]
    facts: RequestFacts

    @property
    def party(self) -> str | None:
        """Return whose claim it is; None of an own transfer."""
        return None if self.claim.kind is ClaimKind.OWN else self.claim.name


async def load_desk(
    conn: AsyncConnection, asked: Sequence[PayoutRequest], *, now: datetime
) -> Desk:
    """Read once what these requests are checked against.

    Raises:
        Refused: a code that the registry does not know, or no policy is in force.
    """
    requests = [item for item in asked if item.rail != BANK]
    through_banks = [item for item in asked if item.rail == BANK]
    claims = [Claim.parse(item.claim) for item in requests]
    own = {claim.name for claim in claims if claim.kind is ClaimKind.OWN and claim.venue is None}
    codes = sorted({item.source_wallet for item in requests} | own)
    wallets = {code: await get_wallet(conn, code) for code in codes}
    chains = {code: await get_chain(conn, code) for code in {w.chain for w in wallets.values()}}
    on_chain = {(wallets[item.source_wallet].chain, item.asset) for item in requests}
    spelled = {
        (chain.code, item.destination): canonical_address(
            item.destination, kind=chain.kind, network_id=chain.network_id
        )
        for item in requests
        for chain in (chains[wallets[item.source_wallet].chain],)
    }
    addresses = {*spelled.values()}
    addresses |= {item.source_address for item in requests if item.source_address is not None}
    places = {
        (_allowed_for(claim), chain, spelled[chain, item.destination])
        for claim, item in zip(claims, requests, strict=True)
        for chain in (wallets[item.source_wallet].chain,)
    }
    ours = {
        (code, text): source
        for code in chains
        for text, source in (await find_sources(conn, code, addresses)).items()
    }
    hot = {code: await find_hot_source(conn, code) for code in {r.source_wallet for r in requests}}
    banks = await load_bank_desk(conn, through_banks)
    return Desk(
        now=now,
        wallets=wallets,
        chains=chains,
        chain_assets={key: await get_chain_asset(conn, *key) for key in sorted(on_chain)},
        assets={code: await get_asset(conn, code) for code in {item.asset for item in asked}},
        spelled=spelled,
        ours=ours,
        hot={code: source for code, source in hot.items() if source is not None},
        allowed=await find_allowed(conn, places | banks.places),
        policy=await get_active_policy(conn),
        freezes=await load_freezes(conn),
        registered=frozenset(
            (str(item.place), item.chain, item.asset, item.address)
            for item in await find_registered(conn, {c.venue for c in claims if c.venue})
        ),
        banks=banks,
    )


def check_request(desk: Desk, request: PayoutRequest) -> Checked:
    """Return what the request means, and the facts that the policy decides on. Pure.

    Raises:
        Refused: the wallet may not pay for this claim, the destination is not allowed, something
            of it is frozen, or the wallet has no such sending address.
    """
    claim, wallet = Claim.parse(request.claim), desk.wallets[request.source_wallet]
    require_owner_class(claim, wallet)
    chain = desk.chains[wallet.chain]
    request = replace(request, destination=desk.spelled[chain.code, request.destination])
    _require_rail(request, chain)
    party = None if claim.kind is ClaimKind.OWN else claim.name
    require_open(desk, request, chain.code, party)
    chain_asset = desk.chain_assets[chain.code, request.asset]
    require_future(desk, request)
    receiving = _find_receiving(desk, request, claim, chain)
    entry = _find_entry(desk, request, claim, chain)
    source = _find_source(desk, request, wallet)
    if source.address == request.destination and chain.kind != BITCOIN:
        raise Refused("the payout would pay the address it comes from")
    chain_amount = rescale(request.amount, desk.assets[request.asset].scale, chain_asset.decimals)
    _require_relayed(request, chain, chain_amount)
    return Checked(
        request=request,
        claim=claim,
        way=Way(chain.kind, chain.code, chain.network_id, chain.native_asset, chain_asset.contract),
        chain_amount=chain_amount,
        source=source,
        source_path=wallet.key_path(source.branch, source.index),
        destination=entry,
        owners={f"custody:{w.code}": w.owner for w in (wallet, receiving) if w is not None},
        facts=RequestFacts(
            initiator=request.requested_by,
            claim=claim.kind if claim.venue is None else VENUE,
            party=party,
            chain=chain.code,
            asset=request.asset,
            wallet=wallet.code,
            destination=request.destination,
            destination_kind=_kind_of(claim, entry),
            destination_age_s=age_of(desk, entry),
            amount=request.amount,
        ),
    )


def require_future(desk: Desk, request: PayoutRequest) -> None:
    """Refuse a request whose time is over."""
    if request.expires_at is not None and request.expires_at <= desk.now:
        raise BadInput("the payout would have lapsed before it began")


def list_windows(desk: Desk, checked: Sequence[Checked]) -> set[Window]:
    """Return what has to be added up before these requests can be decided. Pure."""
    return {window for item in checked for window in find_windows(desk.policy.document, item.facts)}


def decide_request(
    policy: ApprovalPolicy, checked: Checked, reserved: Reserved
) -> tuple[RequestFacts, Decision]:
    """Return the facts with what is reserved by now, and what the policy says to them. Pure."""
    windows = find_windows(policy.document, checked.facts)
    facts = replace(checked.facts, reserved=reserved.of(windows))
    return facts, decide(policy, facts)


def expiry_of(request: PayoutRequest, decision: Decision, now: datetime) -> datetime:
    """Return when the payout lapses: as it was asked, or earlier if its rule says so.

    Where neither says it, after `LIFETIME`; never after `LIFETIME_MAX`: so long approvals hold.
    """
    said = [] if request.expires_at is None else [request.expires_at]
    if decision.expires_s is not None:
        said.append(now + timedelta(seconds=decision.expires_s))
    return min([*(said or [now + LIFETIME]), now + LIFETIME_MAX])


def require_owner_class(claim: Claim, wallet: Wallet | BankAccount) -> None:
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
    if claim.venue is not None and wallet.holds_client_money:
        raise NotPossible(
            f"wallet {wallet.code} is owned by {wallet.owner}, and {claim.venue} by the desk",
            remedy="Send the desk's own coins",
        )


def require_same(request: PayoutRequest, known: Payout) -> None:
    """Refuse a reference that was used for another payout; names the first field that differs."""
    if known.rail == BANK:
        request = replace(request, destination=canonical_payee(request.destination))
    if known.rail == BITCOIN:
        destination = canonical_address(
            request.destination, kind=known.rail, network_id=known.chain_id
        )
        request = replace(request, destination=destination)
    if not request.rail:
        request = replace(request, rail=known.rail)
    differs = [
        asked for asked, kept in COMPARED.items() if getattr(request, asked) != getattr(known, kept)
    ]
    if request.source_address not in {None, known.sender}:
        differs.append("source_address")
    if differs:
        raise Refused(
            f"reference {request.client_ref!r} was used with another {differs[0]}",
            where=f"payout {known.id}",
            remedy="Use a new reference for a new payout",
        )


def require_open(desk: Desk, request: PayoutRequest, place: str, party: str | None) -> None:
    """Refuse what is frozen; *place* is a chain's code, or ``bank``."""
    found = find_match(
        desk.freezes,
        chain=place,
        asset=request.asset,
        wallet=request.source_wallet,
        client=party or "",
    )
    if found is not None:
        raise refusal(found)


def _require_rail(request: PayoutRequest, chain: Chain) -> None:
    if request.rail not in {"", chain.kind}:
        raise NotPossible(
            f"{chain.code} is of kind {chain.kind}, and nothing leaves it by rail {request.rail}"
        )
    if request.source_address is not None and chain.kind == BITCOIN:
        raise NotPossible(
            f"coins of wallet {request.source_wallet} are chosen wherever they are",
            remedy="Name no source address",
        )


def _require_relayed(request: PayoutRequest, chain: Chain, amount: int) -> None:
    """Refuse an amount that nodes of Bitcoin do not relay to this destination."""
    if chain.kind != BITCOIN:
        return
    least = dust_limit(parse_bitcoin(request.destination, network_of(chain.network_id)))
    if amount < least:
        raise BadInput(
            f"{amount} satoshi to {request.destination} is dust: nodes do not relay it",
            remedy=f"Pay at least {least} satoshi",
        )


def _find_entry(
    desk: Desk, request: PayoutRequest, claim: Claim, chain: Chain
) -> AllowedDestination | None:
    """Return the entry that lets coins go there; an entry of another chain never counts."""
    if claim.kind is ClaimKind.OWN and claim.venue is None:
        return None
    where = (claim.venue or "", chain.code, request.asset, request.destination)
    if claim.venue is not None and where not in desk.registered:
        raise NotPossible(
            f"{request.destination} is not where {claim.venue} takes {request.asset}"
            f" on {chain.code}, as two people registered it",
            remedy="Register the address that the venue names",
        )
    place = (_allowed_for(claim), chain.code, request.destination)
    entry = require_usable(desk.allowed.get(place), place, now=desk.now)
    if (chain.code, request.destination) in desk.ours:
        raise NotPossible(
            f"{request.destination} is our own address", remedy="Ask for an own transfer instead"
        )
    if entry.chain_id != chain.network_id:
        raise NotPossible(
            f"{request.destination} is allowed on network {entry.chain_id},"
            f" and {chain.code} is {chain.network_id}"
        )
    return entry


def _find_receiving(
    desk: Desk, request: PayoutRequest, claim: Claim, chain: Chain
) -> Wallet | None:
    """Return the receiving wallet of a move between our wallets; None for any other payment."""
    if claim.kind is not ClaimKind.OWN or claim.venue is not None:
        return None
    ours = desk.ours.get((chain.code, request.destination))
    if ours is None or ours.wallet != claim.name:
        raise NotOurs(f"{request.destination} is not an address of our wallet {claim.name}")
    receiving = desk.wallets[claim.name]
    if receiving.chain != chain.code:
        raise NotPossible(f"wallet {receiving.code} is on {receiving.chain}, not on {chain.code}")
    return receiving


def _find_source(desk: Desk, request: PayoutRequest, wallet: Wallet) -> Source:
    if request.source_address is None:
        source = desk.hot.get(wallet.code)
        if source is None:
            raise NotOurs(
                f"wallet {wallet.code} has no hot address",
                remedy='Assign one: assign_address(..., purpose="hot")',
            )
        return source
    found = desk.ours.get((wallet.chain, request.source_address))
    if found is None or found.wallet != wallet.code:
        raise NotOurs(f"{request.source_address} is not an address of wallet {wallet.code}")
    return found


def _allowed_for(claim: Claim) -> str:
    """Return on whose allow-list the destination has to be."""
    return claim.name if claim.venue is None else OWN_PARTY


def _kind_of(claim: Claim, entry: AllowedDestination | None) -> DestinationKind:
    if claim.venue is not None:
        return DestinationKind.VENUE
    return DestinationKind.OWN if entry is None else entry.kind


def age_of(desk: Desk, entry: AllowedDestination | None) -> int:
    """Return how many seconds ago two people allowed the destination; 0 of our own."""
    if entry is None or entry.approved_at is None:
        return 0
    return int((desk.now - entry.approved_at).total_seconds())
