"""Keys derived from one seed, in this process's memory (BIP 32, BIP 44)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from custody.signer.backends.port import Signature
from custody.signer.errors import SignerRefused
from custody.signer.hd_keys import PrivateNode
from custody.signer.paths import HARDENED, parse_path

ACCOUNT_DEPTH: Final = 3
"""BIP 44: purpose, coin and account are hardened; below them only addresses."""
ADDRESS_DEPTH: Final = ACCOUNT_DEPTH + 2
DERIVED_MAX: Final = 1_000


@dataclass(frozen=True, slots=True, repr=False)
class LocalKeys:
    """A seed's keys; implements `custody.signer.backends.port.KeyBackend`.

    Attributes:
        accounts: numbers of the BIP 44 accounts that the seed is for; empty: all of them.
    """

    key_id: str
    root: PrivateNode
    accounts: frozenset[int] = field(default_factory=frozenset)
    _derived: dict[str, PrivateNode] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        return f"LocalKeys({self.key_id!r}, …)"

    def serves(self, path: str) -> bool:
        """Tell whether *path* names a key of this seed."""
        if not path.startswith("m/"):
            return False
        steps = parse_path(path)
        if len(steps) < ACCOUNT_DEPTH:
            return False
        return not self.accounts or steps[ACCOUNT_DEPTH - 1] - HARDENED in self.accounts

    def account_xpub(self, path: str) -> str:
        """Return the extended public key of an account, and of nothing below or above it."""
        steps = parse_path(path)
        if len(steps) != ACCOUNT_DEPTH or any(step < HARDENED for step in steps):
            raise SignerRefused(f"{path} is not an account", remedy="Ask for m/44'/60'/0'")
        self._require_served(path)
        return self.root.derive(path).xpub()

    def public_key(self, path: str) -> bytes:
        """Return the public key of the address at *path*, 65 bytes."""
        return self._address(path).uncompressed_key

    def sign_digest(self, path: str, digest: bytes) -> Signature:
        """Sign a 32-byte hash, deterministically (RFC 6979)."""
        return self._address(path).sign(digest)

    def _address(self, path: str) -> PrivateNode:
        known = self._derived.get(path)
        if known is not None:
            return known
        steps = parse_path(path)
        if len(steps) != ADDRESS_DEPTH or any(step < HARDENED for step in steps[:ACCOUNT_DEPTH]):
            raise SignerRefused(f"{path} is not the path of an address")
        self._require_served(path)
        if len(self._derived) >= DERIVED_MAX:
            self._derived.clear()
        # A few sending addresses sign everything, and a derivation costs five times a signature.
        self._derived[path] = self.root.derive(path)
        return self._derived[path]

    def _require_served(self, path: str) -> None:
        if not self.serves(path):
            raise SignerRefused(f"the seed of {self.key_id} is not for {path}")
