"""Handing out addresses: one after the other, each derived twice, each for one purpose."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.bitcoin.derivation import SegwitAccount
from chain.bitcoin.networks import network_of
from chain.bitcoin.second_opinion import confirm_key
from chain.errors import DerivationDisagrees
from chain.model import WatchList
from custody import store
from custody.derivation import derive_address, descriptor_of
from custody.errors import NotPossible
from custody.model import BRANCHES, OWN_PURPOSES, Address, AddressPurpose
from custody.restore_gate import require_compared
from custody.skipped import count_written, keep_clear
from kernel.errors import BadInput
from kernel.events import DomainEvent, record
from kernel.ids import derive_id
from registry.model import BITCOIN, Chain, Party, PartyKind, Wallet, WalletPurpose
from registry.queries import (
    get_chain,
    get_party,
    get_wallet,
    list_chain_assets,
    list_wallets,
)

REFERENCE_LENGTH_MAX: Final = 200


_ALLOWED: Final = {
    WalletPurpose.DEPOSIT: frozenset({AddressPurpose.DEPOSIT, *OWN_PURPOSES}),
    WalletPurpose.SETTLEMENT: frozenset({AddressPurpose.SETTLEMENT, *OWN_PURPOSES}),
    WalletPurpose.HOT: frozenset({AddressPurpose.SETTLEMENT, *OWN_PURPOSES}),
}
"""Which addresses a wallet may hand out; a settlement address also needs a wallet of the house, and a
change address a chain of outputs."""


async def assign_address(
    conn: AsyncConnection,
    wallet: str,
    *,
    purpose: AddressPurpose,
    party: str | None = None,
    reference: str = "",
    chain_asset: str | None = None,
    now: datetime,
    by: str = "system:custody",
) -> Address:
    """Return the wallet's next address, never handed out before.

    Indexes have no gaps but those that a restore of the database skips (`custody.skipped`): the branch's
    row stays locked until the transaction ends. Two libraries derive the address, and the wallet's known
    answer, at every hand-out, also of one handed out before.

    Args:
        wallet: code of a wallet in the registry.
        party: whose deposits or payments will arrive; none for a hot or change address.
        reference: what it is for, opaque; the same reference again returns the same address.
        chain_asset: code of what the client is told to pay in there (``evm:USDT``); a client has one
            such address in a wallet, and asking again returns it.
        by: operator id, or ``system:<process>``.

    Raises:
        NotPossible: this wallet does not hand out such addresses, or not to this party.
        Frozen: nobody has looked yet whether the database was set back.
        BadKey: the wallet's key is not valid, or not at its path.
        DerivationDisagrees: two libraries derive different addresses, or the key is not the one that
            the wallet began with.
    """
    if len(reference) > REFERENCE_LENGTH_MAX:
        raise BadInput(f"a reference has at most {REFERENCE_LENGTH_MAX} characters")
    owner = await get_wallet(conn, wallet)
    chain = await get_chain(conn, owner.chain)
    require_allowed(chain, owner, purpose, None if party is None else await get_party(conn, party))
    await require_asset(conn, owner, purpose, chain_asset)
    branch = BRANCHES[purpose]
    if party is not None:
        await require_compared(conn)
    await keep_clear(conn, owner, branch, now=now)
    index = await store.lock_branch(conn, wallet, branch)
    await check_wallet_key(conn, owner, now=now)
    # Looked for under the branch's lock, so that two who ask at once get one address.
    known = await _find_known(conn, chain, owner, purpose, party, reference, chain_asset)
    if known is not None:
        return known
    new = Address(
        chain=owner.chain,
        address=derive_address(chain, owner, branch, index),
        wallet=wallet,
        branch=branch,
        index=index,
        purpose=purpose,
        party=party,
        reference=reference,
        assigned_at=now,
        chain_asset=chain_asset,
    )
    confirmed_by = _ask_another(chain, owner, new)
    await store.insert_address(conn, new)
    await record(conn, [_assigned(new, by, confirmed_by)])
    return new


def _ask_another(chain: Chain, wallet: Wallet, new: Address) -> str | None:
    """Have the key of a new Bitcoin address confirmed; return by which library.

    Raises:
        DerivationDisagrees: the other library derives another key.
    """
    if chain.kind != BITCOIN or not wallet.account_xpub:
        return None
    network = network_of(chain.network_id)
    account = SegwitAccount.parse(wallet.account_xpub, network=network, path=wallet.account_path)
    key = account.public_key(new.branch, new.index)
    return confirm_key(wallet.account_xpub, new.branch, new.index, key)


async def check_wallet_key(conn: AsyncConnection, wallet: Wallet, *, now: datetime) -> str:
    """Derive the wallet's first address by both libraries, and hold it to the known answer.

    The answer is stored with the key when the key is seen first, and never changes: a key that was
    swapped, or a library that changed its mind, hands out nothing.

    Raises:
        BadKey: the account key is not valid, or not at its path.
        DerivationDisagrees: the libraries, or the answer and they, do not agree.
    """
    first = derive_address(await get_chain(conn, wallet.chain), wallet, 0, 0)
    known = await store.keep_wallet_key(
        conn, wallet.code, wallet.key_text, wallet.key_root, first, now
    )
    if known != (wallet.key_text, first):
        raise DerivationDisagrees(
            f"wallet {wallet.code} began with {known[1]}, and its key gives {first}",
            remedy="Give out no address of it until it is understood why",
        )
    return first


@dataclass(frozen=True, slots=True)
class Described:
    """A branch of a wallet as the operator's own node or wallet reads it.

    Attributes:
        descriptor: with its checksum (BIP 380).
        handed_out: the next index: addresses below it are somebody's, or were skipped after a restore.
    """

    wallet: str
    branch: int
    descriptor: str
    handed_out: int


async def list_descriptors(
    conn: AsyncConnection, chain: str, *, wallet: str | None = None
) -> list[Described]:
    """Return the descriptors of the Bitcoin wallets on a chain (of one, if named), by branch.

    Raises:
        BadInput: the chain is of another kind.
    """
    on_chain = await get_chain(conn, chain)
    handed_out = await store.list_branches(conn, chain)
    return [
        Described(
            item.code,
            branch,
            descriptor_of(on_chain, item, branch),
            handed_out.get((item.code, branch), 0),
        )
        for item in await list_wallets(conn, chain)
        if wallet in {None, item.code}
        for branch in sorted(set(BRANCHES.values()))
    ]


async def list_addresses(
    conn: AsyncConnection, chain: str, *, wallet: str | None = None
) -> list[Address]:
    """Return our addresses on a chain (of one wallet, if named), by wallet, branch and index."""
    return await store.list_addresses(conn, chain, wallet=wallet)


async def find_owner(conn: AsyncConnection, chain: str, address: str) -> Address | None:
    """Return the address if it is ours."""
    found = await store.list_addresses(conn, chain, only=[address])
    return found[0] if found else None


async def watch_list(conn: AsyncConnection, chain: str) -> WatchList:
    """Return whose movements on the chain count: every address of ours, registered contracts.

    Whoever asks again and again keeps a `WatchListReader`.
    """
    return await WatchListReader().read(conn, chain)


@dataclass(slots=True)
class WatchListReader:
    """Reads the watch list and keeps it: asking again costs what was handed out since.

    Addresses are never taken back, and each branch's next index moves with every one that is added, but
    those that a restore skipped: of these it is said how many are written. The row is locked by whoever
    adds one. So the branches of which neither has moved need not be read.
    """

    _lists: dict[str, WatchList] = field(default_factory=dict)
    _read: dict[str, dict[store.Branch, int]] = field(default_factory=dict)
    _skipped: dict[str, dict[store.Branch, tuple[int, int]]] = field(default_factory=dict)

    async def read(self, conn: AsyncConnection, chain: str) -> WatchList:
        """Return whose movements on the chain count now."""
        known = self._lists.get(chain, WatchList(frozenset(), frozenset()))
        before = self._read.get(chain, {})
        now = await store.list_branches(conn, chain)
        addresses = known.addresses
        grown = {
            branch: before.get(branch, 0) for branch in now if now[branch] != before.get(branch)
        }
        skipped, known_skipped = await count_written(conn, chain), self._skipped.get(chain, {})
        for branch, (first, written) in skipped.items():
            if known_skipped.get(branch) != (first, written):
                grown[branch] = min(first, grown.get(branch, first))
        if grown:
            fresh = await store.list_addresses_from(conn, chain, grown)
            addresses = addresses.union(fresh)
        assets = await list_chain_assets(conn, chain)
        contracts = frozenset(item.contract for item in assets if item.contract is not None)
        if (addresses, contracts) != (known.addresses, known.contracts) or chain not in self._lists:
            self._lists[chain] = WatchList(addresses, contracts)
        self._read[chain], self._skipped[chain] = now, skipped
        return self._lists[chain]


async def _find_known(
    conn: AsyncConnection,
    chain: Chain,
    wallet: Wallet,
    purpose: AddressPurpose,
    party: str | None,
    reference: str,
    chain_asset: str | None,
) -> Address | None:
    """Return what was handed out for exactly this, derived again by both libraries."""
    if wallet.token_key:
        # The one address, whatever it is asked for.
        known = next(iter(await store.list_addresses(conn, wallet.chain, wallet=wallet.code)), None)
    else:
        known = await store.find_handed_out(
            conn, wallet.code, purpose, party, reference=reference, chain_asset=chain_asset
        )
    if known is None:
        return None
    again = derive_address(chain, wallet, known.branch, known.index)
    if again != known.address:
        raise DerivationDisagrees(
            f"{known.branch}/{known.index} was {known.address}, and is {again} now",
            remedy="Give out no address of this key until it is understood why",
        )
    return known


async def require_asset(
    conn: AsyncConnection, wallet: Wallet, purpose: AddressPurpose, chain_asset: str | None
) -> None:
    """Refuse an asset that is not on the wallet's chain, or for an address that is for none.

    Raises:
        NotPossible, BadInput: say which, and why.
    """
    if chain_asset is None:
        return
    if purpose is not AddressPurpose.DEPOSIT:
        raise BadInput("only a deposit address is for one asset")
    if chain_asset not in {item.code for item in await list_chain_assets(conn, wallet.chain)}:
        raise NotPossible(
            f"{chain_asset} is not registered on {wallet.chain}", where=f"wallet {wallet.code}"
        )


def require_allowed(
    chain: Chain, wallet: Wallet, purpose: AddressPurpose, party: Party | None
) -> None:
    """Refuse an address that a wallet gives to nobody, or not to this party.

    Raises:
        NotPossible, BadInput: say which, and why.
    """
    where = f"wallet {wallet.code}"
    if wallet.token_key and purpose is not AddressPurpose.HOT:
        raise NotPossible(
            f"the key of wallet {wallet.code} is in a token: it has one address, and nobody is"
            f" given it as a {purpose} address",
            where=where,
            remedy="Take a wallet with an account of keys; each party has an address of its own",
        )
    settles = purpose is AddressPurpose.SETTLEMENT
    if purpose not in _ALLOWED[wallet.purpose] or (settles and wallet.holds_client_money):
        raise NotPossible(
            f"a {wallet.purpose} wallet of {wallet.owner} has no {purpose} addresses",
            where=where,
            remedy="Take a wallet of that purpose",
        )
    if purpose is AddressPurpose.CHANGE and chain.kind != BITCOIN:
        raise NotPossible(f"{chain.code} is a chain of accounts: it has no change", where=where)
    if (purpose in OWN_PURPOSES) != (party is None):
        raise BadInput(
            f"a {purpose} address is {'nobody' if party else 'some party'}'s",
            where=where,
            remedy="Name the party for deposit and settlement addresses only",
        )
    if party is None or purpose is not AddressPurpose.DEPOSIT:
        return
    if party.kind is not PartyKind.CLIENT:
        raise NotPossible(f"{party.code} is a {party.kind}, not a client", where=where)
    if wallet.owner_party not in {None, party.code}:
        raise NotPossible(f"the wallet is segregated for {wallet.owner_party}", where=where)


def _assigned(new: Address, by: str, confirmed_by: str | None) -> DomainEvent:
    return DomainEvent(
        entity_type="address",
        entity_id=derive_id(new.assigned_at, "address", new.chain, new.address),
        version=1,
        name="AddressAssigned",
        at=new.assigned_at,
        actor=by,
        reason=new.reference,
        payload={
            "chain": new.chain,
            "address": new.address,
            "wallet": new.wallet,
            "path": f"{new.branch}/{new.index}",
            "purpose": str(new.purpose),
            "party": new.party,
            "confirmed_by": confirmed_by,
        },
    )
