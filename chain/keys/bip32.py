"""Extended public keys and their public children. Source: BIP32."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final, Self

from coincurve import PublicKey

from chain.errors import BadKey
from chain.keys.base58 import decode_base58check, encode_base58check
from chain.keys.hashes import hash160

VERSION_PUBLIC: Final = bytes.fromhex("0488b21e")
"""``xpub``, the main network's; used for EVM accounts too."""
VERSION_TEST_PUBLIC: Final = bytes.fromhex("043587cf")
"""What nodes of the test networks want in its place; written, never read."""
VERSION_PRIVATE: Final = bytes.fromhex("0488ade4")
"""``xprv``; recognised only to say what is wrong."""
PAYLOAD_BYTES: Final = 78
HARDENED: Final = 2**31
"""Child numbers from here on need the private key."""
DEPTH_MAX: Final = 255


@dataclass(frozen=True, slots=True)
class ExtendedPublicKey:
    """A node of a key tree: a public key and the chain code its children are derived with.

    Attributes:
        depth: 0 for the master key.
        parent_fingerprint: first four bytes of the parent's identifier; zero for the master key.
        child_number: its number among its siblings; `HARDENED` and above are hardened.
        public_key: compressed, 33 bytes, a point on secp256k1.
    """

    depth: int
    parent_fingerprint: bytes
    child_number: int
    chain_code: bytes
    public_key: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an ``xpub…``.

        Raises:
            BadKey: any of the faults that BIP32 lists as invalid (test vector 5), a private key, or
                a key of another network.
        """
        payload = decode_base58check(text)
        if len(payload) != PAYLOAD_BYTES:
            raise BadKey(f"an extended key has {PAYLOAD_BYTES} bytes, not {len(payload)}")
        if payload[:4] == VERSION_PRIVATE:
            raise BadKey(
                "this is a private key",
                remedy="Give the public one (xpub) and treat this key as disclosed",
            )
        if payload[:4] != VERSION_PUBLIC:
            raise BadKey(f"0x{payload[:4].hex()} is not the version of an xpub")
        key = cls(
            depth=payload[4],
            parent_fingerprint=payload[5:9],
            child_number=int.from_bytes(payload[9:13], "big"),
            chain_code=payload[13:45],
            public_key=payload[45:],
        )
        key.check()
        return key

    def check(self) -> None:
        """Refuse a key that contradicts itself or is no point on the curve."""
        if self.depth == 0 and any(self.parent_fingerprint):
            raise BadKey("a key of depth 0 has a parent fingerprint")
        if self.depth == 0 and self.child_number:
            raise BadKey("a key of depth 0 has a child number")
        if self.public_key[0] not in {2, 3}:
            raise BadKey(f"0x{self.public_key[:1].hex()} does not begin a compressed public key")
        try:
            PublicKey(self.public_key)
        except ValueError as error:
            raise BadKey("the public key is not a point on the curve") from error

    @property
    def fingerprint(self) -> bytes:
        """Return the first four bytes of the key's identifier (RIPEMD-160 of SHA-256)."""
        return hash160(self.public_key)[:4]

    def uncompressed(self) -> bytes:
        """Return the public key in 65 bytes."""
        return bytes(PublicKey(self.public_key).format(compressed=False))

    def child(self, number: int) -> ExtendedPublicKey:
        """Return the child with the given *number* (function CKDpub of BIP32).

        Raises:
            BadKey: a hardened or impossible number, or one of the about 2**-127 that have no child.
        """
        if not 0 <= number < HARDENED:
            raise BadKey(
                f"child {number} cannot be derived from a public key",
                remedy=f"Use 0 to {HARDENED - 1}; hardened children need the private key",
            )
        if self.depth >= DEPTH_MAX:
            raise BadKey(f"a key tree is at most {DEPTH_MAX} deep")
        data = self.public_key + number.to_bytes(4, "big")
        digest = hmac.new(self.chain_code, data, hashlib.sha512).digest()
        try:
            point = PublicKey(self.public_key).add(digest[:32])
        except ValueError as error:
            raise BadKey(f"child {number} of this key does not exist; use the next one") from error
        return ExtendedPublicKey(
            depth=self.depth + 1,
            parent_fingerprint=self.fingerprint,
            child_number=number,
            chain_code=digest[32:],
            public_key=bytes(point.format(compressed=True)),
        )

    def serialize(self, *, test: bool = False) -> str:
        """Return the key as ``xpub…``, for a test network of Bitcoin as ``tpub…``."""
        return encode_base58check(
            (VERSION_TEST_PUBLIC if test else VERSION_PUBLIC)
            + bytes([self.depth])
            + self.parent_fingerprint
            + self.child_number.to_bytes(4, "big")
            + self.chain_code
            + self.public_key
        )
