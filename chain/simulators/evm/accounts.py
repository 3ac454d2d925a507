"""The development accounts: the published test mnemonic, the same ten addresses as anvil.

These keys are public knowledge. They exist so that tests and demonstrations have somebody who can
pay, and they must never hold anything on a real network.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from eth_account.hdaccount import seed_from_mnemonic
from eth_account.hdaccount.deterministic import HDPath
from eth_keys.datatypes import PrivateKey

#: BIP-44 for Ethereum; the account index is appended.
DERIVATION_PREFIX = "m/44'/60'/0'/0"


@dataclass(frozen=True, slots=True)
class DevAccount:
    """One development account."""

    address: bytes
    key: PrivateKey = field(repr=False)


def derive_accounts(mnemonic: str, count: int) -> tuple[DevAccount, ...]:
    """Return the first *count* accounts of a BIP-39 mnemonic without passphrase."""
    seed = seed_from_mnemonic(mnemonic, "")
    keys = (
        PrivateKey(HDPath(f"{DERIVATION_PREFIX}/{index}").derive(seed)) for index in range(count)
    )
    return tuple(DevAccount(key.public_key.to_canonical_address(), key) for key in keys)
