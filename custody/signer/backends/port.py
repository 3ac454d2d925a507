"""What the signer asks of whoever holds the private keys. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from chain.evm.transactions import CURVE_ORDER

DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Signature:
    """An ECDSA signature with the parity of R's y coordinate; s is in the lower half."""

    r: int
    s: int
    y_parity: int


class KeyBackend(Protocol):
    """Private keys that sign and are never read.

    A *path* names one key: a derivation path (``m/44'/60'/0'/1/0``) where keys are derived from a
    seed, a label where a token holds them one by one. Two signatures of one digest may differ:
    tokens draw randomness. Whoever promises the same bytes for the same question keeps the first.
    """

    @property
    def key_id(self) -> str:
        """The name of the keystore or token."""
        ...

    def account_xpub(self, path: str) -> str:
        """Return the extended public key of an account, and of nothing below or above it.

        Raises:
            SignerRefused: *path* is no account, or this backend derives nothing.
        """
        ...

    def public_key(self, path: str) -> bytes:
        """Return the public key of a sending address as ``04 || x || y``, 65 bytes.

        Raises:
            SignerRefused: there is no such key.
            OutsideUnavailable: the token does not answer.
        """
        ...

    def sign_digest(self, path: str, digest: bytes) -> Signature:
        """Sign a 32-byte hash with the key at *path*; s is in the lower half (EIP-2).

        Raises:
            SignerRefused: there is no such key.
            OutsideUnavailable: the token does not answer; nothing was signed that anybody saw.
        """
        ...


def low_s(r: int, s: int, y_parity: int) -> Signature:
    """Return the signature with s in the lower half: negating s turns R's parity over."""
    if s > CURVE_ORDER // 2:
        return Signature(r, CURVE_ORDER - s, y_parity ^ 1)
    return Signature(r, s, y_parity)
