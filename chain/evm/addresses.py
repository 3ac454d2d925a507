"""Addresses in EIP-55 mixed case, the only spelling that leaves this package."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from eth_utils.crypto import keccak

from chain.errors import BadAddress

ADDRESS_BYTES: Final = 20
PUBLIC_KEY_BYTES: Final = 65
CACHE_MAX: Final = 65_536

_HEX_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


@lru_cache(maxsize=CACHE_MAX)
def checksum_address(raw: bytes) -> str:
    """Return 20 bytes as an address in EIP-55 mixed case.

    A letter is upper case where the same nibble of the Keccak-256 of the lower-case hexadecimal
    text is 8 or more. Source: EIP-55.
    """
    if len(raw) != ADDRESS_BYTES:
        raise BadAddress(f"an address has {ADDRESS_BYTES} bytes, not {len(raw)}")
    digits = raw.hex()
    nibbles = keccak(digits.encode()).hex()
    cased = (d.upper() if n >= "8" else d for d, n in zip(digits, nibbles, strict=False))
    return "0x" + "".join(cased)


def parse_address(text: str) -> str:
    """Return *text* if it is an address with a right EIP-55 checksum.

    Raises:
        BadAddress: not 20 bytes of hexadecimal, or one spelling in which nothing can be checked
            (all lower or all upper case, though the checksum has both), or a wrong checksum.
    """
    if not _HEX_ADDRESS.fullmatch(text):
        raise BadAddress(f"{text!r} is not an address", remedy="Write 0x and 40 hexadecimal digits")
    right = checksum_address(bytes.fromhex(text[2:]))
    if text != right:
        raise BadAddress(
            f"{text} does not carry its EIP-55 checksum",
            remedy="Copy it again from where it came; a mistyped address loses the money",
        )
    return right


def address_from_node(text: object) -> str:
    """Return an address that a node wrote (any case) in EIP-55 mixed case."""
    if not isinstance(text, str) or not _HEX_ADDRESS.fullmatch(text):
        raise BadAddress(f"{text!r} is not an address")
    return checksum_address(bytes.fromhex(text[2:]))


def address_bytes(address: str) -> bytes:
    """Return the 20 bytes of an EIP-55 *address*."""
    return bytes.fromhex(parse_address(address)[2:])


def bytes_to_ask(address: str) -> bytes:
    """Return the 20 bytes of an address that was read before, without its checksum checked again.

    For questions, which move nothing: a hundred thousand addresses are asked about at once.
    """
    if not _HEX_ADDRESS.fullmatch(address):
        raise BadAddress(f"{address!r} is not an address")
    return bytes.fromhex(address[2:])


def address_of_public_key(uncompressed: bytes) -> str:
    """Return the address of a secp256k1 public key (65 bytes, ``04 || x || y``).

    It is the last 20 bytes of Keccak-256 over x and y. Source: Ethereum yellow paper, appendix F.
    """
    if len(uncompressed) != PUBLIC_KEY_BYTES or uncompressed[0] != 4:
        raise BadAddress("an address needs an uncompressed public key of 65 bytes")
    return checksum_address(keccak(uncompressed[1:])[-ADDRESS_BYTES:])
