"""The development accounts: the published test mnemonic, the same ten addresses as anvil.

These keys are public knowledge. They exist so that tests and demonstrations have somebody who can
pay, and they must never hold anything on a real network.

The derivation is spelled out here because the libraries that have it take a third of a second to
import, and every simulator would pay that at its start. The tests compare it with eth-account.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from dataclasses import dataclass, field

from eth.constants import SECPK1_N
from eth_keys.datatypes import PrivateKey

HARDENED = 1 << 31

#: BIP-44 for Ethereum, m/44'/60'/0'/0; the account's index is appended.
DERIVATION_PREFIX = (44 | HARDENED, 60 | HARDENED, HARDENED, 0)

_SEED_ROUNDS = 2048


@dataclass(frozen=True, slots=True)
class DevAccount:
    """One development account."""

    address: bytes
    key: PrivateKey = field(repr=False)


def derive_accounts(mnemonic: str, count: int) -> tuple[DevAccount, ...]:
    """Return the first *count* accounts of a BIP-39 mnemonic without passphrase."""
    words = unicodedata.normalize("NFKD", mnemonic).encode()
    seed = hashlib.pbkdf2_hmac("sha512", words, b"mnemonic", _SEED_ROUNDS)
    node = _split(hmac.digest(b"Bitcoin seed", seed, "sha512"))
    for index in DERIVATION_PREFIX:
        node = _child(node, index)
    keys = (PrivateKey(_child(node, index)[0]) for index in range(count))
    return tuple(DevAccount(key.public_key.to_canonical_address(), key) for key in keys)


def _child(node: tuple[bytes, bytes], index: int) -> tuple[bytes, bytes]:
    """Return the private child of (key, chain code): BIP-32, ``CKDpriv``.

    The cases that BIP-32 excludes (a factor not below the group order, a key of zero) happen with
    a probability below 2**-127 and are not provided for.
    """
    key, chain_code = node
    if index & HARDENED:
        message = b"\x00" + key
    else:
        message = PrivateKey(key).public_key.to_compressed_bytes()
    factor, child_code = _split(
        hmac.digest(chain_code, message + index.to_bytes(4, "big"), "sha512")
    )
    number = (int.from_bytes(factor, "big") + int.from_bytes(key, "big")) % SECPK1_N
    return number.to_bytes(32, "big"), child_code


def _split(digest: bytes) -> tuple[bytes, bytes]:
    return digest[:32], digest[32:]
