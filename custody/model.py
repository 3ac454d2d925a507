"""The nouns that deposits and payouts share: addresses, and the paths of their accounts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final


class AddressPurpose(StrEnum):
    """What an address was handed out for; it decides who owns what arrives there."""

    DEPOSIT = "deposit"
    """One client pays in; what arrives is a deposit."""
    SETTLEMENT = "settlement"
    """One party pays what it owes; what arrives is a receipt."""
    HOT = "hot"
    """Payouts leave from here; what strangers send here is unattributed."""
    CHANGE = "change"
    """What is left of the coins that a payment spends comes back here (Bitcoin); each is used once."""
    SKIPPED = "skipped"
    """A database that was set back may have given it out (`custody.skipped`): what arrives is nobody's
    until two people say whose it is."""


OWN_PURPOSES: Final = frozenset({AddressPurpose.HOT, AddressPurpose.CHANGE})
"""Nobody is told these addresses: what strangers send there is nobody's."""

BRANCHES: Final = {
    AddressPurpose.DEPOSIT: 0,
    AddressPurpose.SETTLEMENT: 0,
    AddressPurpose.HOT: 1,
    AddressPurpose.CHANGE: 1,
    AddressPurpose.SKIPPED: 0,
}
"""The branch under a wallet's account (BIP-44: 0 is given to others, 1 is for our own use).

No wallet has both deposit and settlement addresses: the ones are clients', the others the house's.
"""


@dataclass(frozen=True, slots=True)
class Address:
    """One of our addresses.

    Attributes:
        address: as the chain spells it (EIP-55).
        branch, index: below the wallet's account: ``<account_path>/<branch>/<index>``.
        party: whose deposits or payments arrive there; None for a hot, change or skipped address.
        reference: what it was handed out for, opaque.
        chain_asset: what its client is told to send there; None: anything of the chain. Whatever
            else arrives is the client's all the same.
    """

    chain: str
    address: str
    wallet: str
    branch: int
    index: int
    purpose: AddressPurpose
    party: str | None
    reference: str
    assigned_at: datetime
    chain_asset: str | None = None


def custody_account(wallet: str) -> str:
    """Return the account of the coins in a wallet."""
    return f"custody:{wallet}"


def venue_account(place: str) -> str:
    """Return the account of what a venue owes us; *place* is ``<venue>/<account>``."""
    return f"venue:{place}"


def bank_account_path(account: str) -> str:
    """Return the account of what is in an account of ours at a bank."""
    return f"bank:{account}"


def route_account(source: str, target: str) -> str:
    """Return the account of what is on its way between two locations of ours."""
    return f"transit:{source}-{target}"


def client_account(party: str) -> str:
    """Return the account of what we owe a client."""
    return f"client:{party}"


def held_account(party: str) -> str:
    """Return the account of what compliance holds back from a client."""
    return f"client:{party}:held"


def reorg_account(party: str) -> str:
    """Return the account of what a client owes us since a deposit vanished that was spent."""
    return f"receivable:{party}:reorg"


def unattributed_account(chain: str) -> str:
    """Return the account of coins that arrived and that nobody was named for."""
    return f"suspense:unattributed:{chain}"


def rail_account(rail: str) -> str:
    """Return the account of receipts on a rail (a chain's code) that are not matched yet."""
    return f"suspense:{rail}"


DUST_ACCOUNT: Final = "suspense:dust"
