"""An address that a restore skipped is given back to whom it was: two people say so.

What was paid in there meanwhile is seen already where the address is watched; it is taken for the
owner's from then on (`custody.inclusion.include_again`). Where it was not, blocks are read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.follow import read_again, require_running
from custody import store as addresses
from custody import tables
from custody.addresses import (
    REFERENCE_LENGTH_MAX,
    check_wallet_key,
    require_allowed,
    require_asset,
)
from custody.derivation import derive_address
from custody.errors import NotPossible, UnknownRow
from custody.freezes import MAY_OPEN
from custody.inclusion import include_again
from custody.model import Address, AddressPurpose
from custody.payout_replace import require_people
from custody.policy import ConfirmationPolicy
from custody.restore import store
from custody.restore.given import given_again
from custody.restore.model import REASON_LENGTH_MAX
from custody.restore.signer_log import MARGIN
from custody.restore_tables import address_return
from custody.skipped import GIVEN, Skip, list_skips, write_skipped
from kernel.errors import BadInput
from kernel.events import DomainEvent, record
from kernel.ids import derive_id
from registry.authority import signatures_document, signing_bytes
from registry.model import Chain, Wallet
from registry.queries import get_chain, get_party, get_wallet

VERB: Final = "address.return"
SEARCHED: Final = 2_000
"""Addresses of each skipped range that are derived when one is looked for by its text."""
_NAMES: Final = ("wallet", "party", "purpose", "reference", "chain_asset", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """What two people say of an address.

    Attributes:
        address: as the chain spells it.
        index: of the branch whose addresses others are given.
        party: whose it is: the client who pays in, or whoever settles.
        reference, chain_asset: as for `custody.addresses.assign_address`.
        reason: how it is known.
    """

    chain: str
    wallet: str
    address: str
    index: int
    party: str
    purpose: AddressPurpose
    reference: str = ""
    chain_asset: str | None = None
    reason: str


@dataclass(frozen=True, slots=True)
class Returned:
    """An address that is somebody's again, and how many arrivals there are theirs from now on."""

    address: Address
    arrivals: int


def return_bytes(item: Return) -> bytes:
    """Return what each of the two signs."""
    told = {name: str(getattr(item, name) or "") for name in _NAMES}
    return signing_bytes(
        VERB,
        {**told, "chain": item.chain, "address": item.address, "path": f"{GIVEN}/{item.index}"},
    )


async def find_skipped(
    conn: AsyncConnection,
    wallet: str,
    *,
    text: str | None = None,
    index: int | None = None,
    searched: int = SEARCHED,
) -> tuple[str, int]:
    """Return a skipped address of a wallet and its index, by either of the two.

    Args:
        conn: reads.
        wallet: code of the wallet.
        text: as the chain spells it; it is looked for among those that have a row, and then derived.
        index: of the branch whose addresses others are given.
        searched: how many addresses of each skipped range are derived, at most.

    Raises:
        UnknownRow: no address of that text is found.
        BadInput: neither is named.
        NotPossible: it was not skipped, or is somebody's already, or the index is another address's.
        DerivationDisagrees: two libraries derive different addresses.
    """
    owner = await get_wallet(conn, wallet)
    chain = await get_chain(conn, owner.chain)
    skips = await list_skips(conn, wallet=wallet)
    if index is not None and text is not None:
        _require_address(owner, derive_address(chain, owner, GIVEN, index), index, text)
    known = await addresses.list_addresses(conn, owner.chain, wallet=wallet)
    for item in known:
        if item.branch == GIVEN and (item.index == index or item.address == text):
            _require_nobodys(item)
            return item.address, item.index
    if index is not None:
        if not any(skip.first <= index <= skip.last for skip in skips):
            raise NotPossible(
                f"index {index} of wallet {wallet} was skipped by no restore",
                remedy="Hand out an address: `causeway custody address assign`",
            )
        return derive_address(chain, owner, GIVEN, index), index
    if text is None:
        raise BadInput("name the address, or its index")
    return text, _find_by_text(chain, owner, skips, text, searched)


async def give_back(
    conn: AsyncConnection,
    wanted: Return,
    *,
    signatures: Mapping[str, bytes],
    book: int,
    now: datetime,
    policy: ConfirmationPolicy | None = None,
) -> Returned:
    """Give a skipped address to the party that had it before the database was set back.

    Args:
        conn: the caller's transaction; the ledger is posted to last.
        wanted: what they say.
        signatures: Ed25519 over `return_bytes`, by operator code; two people's.
        book: of the ledger.
        now: the time.
        policy: names the smallest deposits; None: every deposit counts.

    Raises:
        NotPossible: it was not skipped, is somebody's already, or the party cannot have it or has another
            one for the same.
        DerivationDisagrees: it is not the address at this index, or two libraries do not agree.
        Refused: not two different people, one may not, or a signature is not theirs or not of this.
        ChainHalted: people have to look at the chain first.
    """
    if not 0 < len(wanted.reason) <= REASON_LENGTH_MAX:
        raise BadInput(f"a reason has 1 to {REASON_LENGTH_MAX} characters")
    if len(wanted.reference) > REFERENCE_LENGTH_MAX:
        raise BadInput(f"a reference has at most {REFERENCE_LENGTH_MAX} characters")
    owner = await get_wallet(conn, wanted.wallet)
    if wanted.chain != owner.chain:
        raise BadInput(f"wallet {owner.code} is on {owner.chain}, and not on {wanted.chain}")
    chain = await get_chain(conn, owner.chain)
    party = await get_party(conn, wanted.party)
    require_allowed(chain, owner, wanted.purpose, party)
    await require_asset(conn, owner, wanted.purpose, wanted.chain_asset)
    await require_people(conn, signatures, return_bytes(wanted), MAY_OPEN)
    standing = await store.find_standing(conn, lock=True)
    await addresses.lock_branch(conn, wanted.wallet, GIVEN)
    # A block that is being taken in knows the address as nobody's: it is waited for.
    await require_running(conn, owner.chain, lock=True)
    await check_wallet_key(conn, owner, now=now)
    row = await _row(conn, chain, owner, wanted, now)
    await _require_no_other(conn, wanted)
    given = replace(
        row,
        purpose=wanted.purpose,
        party=wanted.party,
        reference=wanted.reference,
        chain_asset=wanted.chain_asset,
        assigned_at=now,
    )
    await _write(conn, given, wanted, signatures)
    if standing is not None:
        back = given_again(standing, given, wanted.party, now)
        if await store.has_unresolved(conn, back):
            await store.save_item(conn, back)
    await record(conn, [_event(given, wanted, signatures, now)])
    arrivals = await include_again(conn, given, book=book, now=now, policy=policy)
    return Returned(given, arrivals)


async def _row(
    conn: AsyncConnection, chain: Chain, owner: Wallet, wanted: Return, now: datetime
) -> Address:
    """Return the address's row, derived again; one that was not watched until now is, from now on."""
    derived = derive_address(chain, owner, GIVEN, wanted.index)
    _require_address(owner, derived, wanted.index, wanted.address)
    for item in await addresses.list_addresses(conn, owner.chain, only=[derived]):
        _require_nobodys(item)
        return item
    for skip in await list_skips(conn, wallet=owner.code):
        if skip.first <= wanted.index <= skip.last:
            (new,) = await write_skipped(conn, skip, chain, owner, [wanted.index], now=now)
            since = (await store.get_restore(conn, skip.restore_id)).since
            await read_again(conn, owner.chain, since=since - MARGIN)
            return new
    raise NotPossible(f"index {wanted.index} of wallet {owner.code} was skipped by no restore")


async def _require_no_other(conn: AsyncConnection, wanted: Return) -> None:
    other = await addresses.find_handed_out(
        conn,
        wanted.wallet,
        wanted.purpose,
        wanted.party,
        reference=wanted.reference,
        chain_asset=wanted.chain_asset,
    )
    if other is not None:
        raise NotPossible(
            f"{wanted.party} has {other.address} for that since",
            where=f"wallet {wanted.wallet}",
            remedy="Give it back without that reference, or without that asset",
        )


async def _write(
    conn: AsyncConnection, given: Address, wanted: Return, signatures: Mapping[str, bytes]
) -> None:
    signed = signatures_document(signatures)
    values = {
        "purpose": given.purpose,
        "party": given.party,
        "reference": given.reference,
        "chain_asset": given.chain_asset,
    }
    await conn.execute(
        insert(address_return).values(
            chain=given.chain,
            address=given.address,
            at=given.assigned_at,
            reason=wanted.reason,
            signed_by=signed,
            **values,
        )
    )
    mine = (tables.address.c.chain == given.chain) & (tables.address.c.address == given.address)
    changed = {**values, "assigned_at": given.assigned_at}
    await conn.execute(update(tables.address).where(mine).values(changed))


def _require_address(wallet: Wallet, derived: str, index: int, wanted: str) -> None:
    if derived != wanted:
        raise NotPossible(f"{wallet.code} has {derived} at index {index}, and not {wanted}")


def _require_nobodys(item: Address) -> None:
    if item.purpose is not AddressPurpose.SKIPPED:
        raise NotPossible(
            f"{item.address} is {item.party}'s since {item.assigned_at.isoformat()}",
            where=f"wallet {item.wallet}",
            remedy="Only what a restore skipped, and is nobody's, is given back",
        )


def _find_by_text(chain: Chain, owner: Wallet, skips: list[Skip], text: str, searched: int) -> int:
    for skip in skips:
        for index in range(skip.first, min(skip.first + searched, skip.last + 1)):
            if derive_address(chain, owner, GIVEN, index) == text:
                return index
    raise UnknownRow(
        f"{text} is none of the {searched} first addresses that a restore skipped",
        where=f"wallet {owner.code}",
        remedy="Look at its spelling and at the wallet; if it is a later one, name its index",
    )


def _event(
    given: Address, wanted: Return, signatures: Mapping[str, bytes], now: datetime
) -> DomainEvent:
    return DomainEvent(
        entity_type="address",
        entity_id=derive_id(now, "address", given.chain, given.address),
        version=1,
        name="AddressGivenBack",
        at=now,
        actor=" and ".join(sorted(signatures)),
        reason=wanted.reason,
        payload={
            "chain": given.chain,
            "address": given.address,
            "wallet": given.wallet,
            "path": f"{given.branch}/{given.index}",
            "purpose": str(given.purpose),
            "party": given.party,
            "reference": given.reference,
        },
    )
