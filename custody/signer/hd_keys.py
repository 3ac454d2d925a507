"""Private keys: BIP 32 derivation and secp256k1 signatures.

Nothing here prints: a key has no repr of its secret and no method that returns it as text.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final, Self

from coincurve import PrivateKey

from chain.evm.transactions import CURVE_ORDER
from chain.keys.base58 import encode_base58check
from chain.keys.hashes import hash160
from custody.signer.backends.port import DIGEST_BYTES, Signature, low_s
from custody.signer.paths import DEPTH_MAX, HARDENED, parse_path
from kernel.errors import BadInput

SEED_BYTES_MIN: Final = 16
SEED_BYTES_MAX: Final = 64
XPUB_VERSION: Final = bytes.fromhex("0488b21e")


@dataclass(frozen=True, slots=True, repr=False)
class PrivateNode:
    """A node of the BIP 32 tree: a private key and its chain code."""

    secret: bytes
    chain_code: bytes
    depth: int
    parent_fingerprint: bytes
    child_number: int

    @classmethod
    def from_seed(cls, seed: bytes | bytearray) -> Self:
        """Return the master node (BIP 32, "Master key generation")."""
        if not SEED_BYTES_MIN <= len(seed) <= SEED_BYTES_MAX:
            raise BadInput(f"a seed has {SEED_BYTES_MIN} to {SEED_BYTES_MAX} bytes")
        digest = hmac.digest(b"Bitcoin seed", seed, "sha512")
        _require_scalar(int.from_bytes(digest[:32], "big"))
        return cls(digest[:32], digest[32:], 0, bytes(4), 0)

    def __repr__(self) -> str:
        return f"PrivateNode(depth={self.depth}, …)"

    @property
    def public_key(self) -> bytes:
        """Return the compressed public key, 33 bytes."""
        return bytes(PrivateKey(self.secret).public_key.format(compressed=True))

    @property
    def uncompressed_key(self) -> bytes:
        """Return the public key as ``04 || x || y``, 65 bytes: what an address is made of."""
        return bytes(PrivateKey(self.secret).public_key.format(compressed=False))

    def child(self, number: int) -> PrivateNode:
        """Return the child node (BIP 32, CKDpriv); hardened from 2**31 on."""
        if not 0 <= number < 2**32 or self.depth >= DEPTH_MAX:
            raise BadInput(f"a key has no child {number} at depth {self.depth}")
        head = b"\x00" + self.secret if number >= HARDENED else self.public_key
        digest = hmac.digest(self.chain_code, head + number.to_bytes(4, "big"), "sha512")
        tweak = int.from_bytes(digest[:32], "big")
        _require_scalar(tweak)
        secret = (tweak + int.from_bytes(self.secret, "big")) % CURVE_ORDER
        _require_scalar(secret)
        return PrivateNode(
            secret=secret.to_bytes(32, "big"),
            chain_code=digest[32:],
            depth=self.depth + 1,
            parent_fingerprint=hash160(self.public_key)[:4],
            child_number=number,
        )

    def derive(self, path: str) -> PrivateNode:
        """Return the node at *path*: ``m/44'/60'/0'/1/0``."""
        node = self
        for number in parse_path(path):
            node = node.child(number)
        return node

    def xpub(self) -> str:
        """Return the extended public key (BIP 32, "Serialization format")."""
        payload = (
            XPUB_VERSION
            + self.depth.to_bytes(1, "big")
            + self.parent_fingerprint
            + self.child_number.to_bytes(4, "big")
            + self.chain_code
            + self.public_key
        )
        return encode_base58check(payload)

    def sign(self, digest: bytes) -> Signature:
        """Sign a 32-byte hash, deterministically (RFC 6979), s in the lower half (EIP-2)."""
        if len(digest) != DIGEST_BYTES:
            raise BadInput("what is signed is a hash of 32 bytes")
        signed = PrivateKey(self.secret).sign_recoverable(digest, hasher=None)
        r, s = int.from_bytes(signed[:32], "big"), int.from_bytes(signed[32:64], "big")
        return low_s(r, s, signed[64])


def _require_scalar(value: int) -> None:
    # Happens once in 2**127 derivations; BIP 32 says that such a key does not exist.
    if not 0 < value < CURVE_ORDER:
        raise BadInput("this derivation gives no key")
