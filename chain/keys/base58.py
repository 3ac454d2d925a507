"""Base58Check, decoded strictly: alphabet, length and checksum.

Source: the Bitcoin wiki's "Base58Check encoding", as BIP32 uses it for extended keys.
"""

from __future__ import annotations

from typing import Final

from chain.errors import BadKey
from chain.keys.hashes import double_sha256

ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
CHECKSUM_BYTES: Final = 4
TEXT_LENGTH_MAX: Final = 128

_VALUES: Final = {letter: value for value, letter in enumerate(ALPHABET)}


def decode_base58check(text: str) -> bytes:
    """Return the payload of *text*.

    Raises:
        BadKey: a letter outside the alphabet, too long, or a checksum that does not fit.
    """
    if not 0 < len(text) <= TEXT_LENGTH_MAX:
        raise BadKey(f"a key is written with 1 to {TEXT_LENGTH_MAX} letters, not {len(text)}")
    value = 0
    for letter in text:
        digit = _VALUES.get(letter)
        if digit is None:
            raise BadKey(f"{letter!r} is not a letter of base58", remedy="Copy the key again")
        value = value * 58 + digit
    zeros = len(text) - len(text.lstrip(ALPHABET[0]))
    data = bytes(zeros) + value.to_bytes((value.bit_length() + 7) // 8, "big")
    payload, checksum = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if _checksum(payload) != checksum:
        raise BadKey("the key's checksum does not fit", remedy="A letter is wrong: copy it again")
    return payload


def encode_base58check(payload: bytes) -> str:
    """Return *payload* with its checksum, as text."""
    data = payload + _checksum(payload)
    value = int.from_bytes(data, "big")
    letters: list[str] = []
    while value:
        value, digit = divmod(value, 58)
        letters.append(ALPHABET[digit])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return ALPHABET[0] * zeros + "".join(reversed(letters))


def _checksum(payload: bytes) -> bytes:
    return double_sha256(payload)[:CHECKSUM_BYTES]
