"""Ids in Kraken's form, derived from the core's numbers and readable back into them.

`OQCLML-BW3P3-BUCMWZ`: a letter for the kind and sixteen characters of base 32, which hold 80 bits.
The bits are a number of the core and a small second one (the market, the side of a trade) sent through
a four-round Feistel network, so that ids look unordered, never collide and need no table.
"""

import hashlib
import re
from enum import Enum, unique
from typing import Final

_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_HALF_BITS: Final = 40
_HALF_MASK: Final = (1 << _HALF_BITS) - 1
_ROUNDS: Final = 4
_NUMBER_BITS: Final = 64
_FORM: Final = re.compile(r"[A-Z][A-Z2-7]{5}-[A-Z2-7]{5}-[A-Z2-7]{6}")


@unique
class Kind(Enum):
    """What an id names; the value is its first letter and its own permutation."""

    ORDER = "O"
    TRADE = "T"
    LEDGER = "L"
    AMEND = "TA"
    DEPOSIT = "F"
    WITHDRAWAL = "A"


def encode(kind: Kind, number: int, part: int) -> str:
    """The id of a number (64 bits) and a part (16 bits)."""
    assert 0 <= number < 1 << _NUMBER_BITS
    assert 0 <= part < 1 << 16
    mixed = _permuted(kind, part << _NUMBER_BITS | number, range(_ROUNDS))
    text = "".join(_LETTERS[mixed >> shift & 31] for shift in range(75, -1, -5))
    return f"{kind.value[0]}{text[:5]}-{text[5:10]}-{text[10:]}"


def decode(kind: Kind, text: str) -> tuple[int, int] | None:
    """The (number, part) of an id, or None for what is no id of this kind."""
    if _FORM.fullmatch(text) is None or text[0] != kind.value[0]:
        return None
    mixed = 0
    for letter in text[1:].replace("-", ""):
        mixed = mixed << 5 | _LETTERS.index(letter)
    value = _swapped(_permuted(kind, _swapped(mixed), range(_ROUNDS - 1, -1, -1)))
    return value & (1 << _NUMBER_BITS) - 1, value >> _NUMBER_BITS


def _permuted(kind: Kind, value: int, rounds: range) -> int:
    left, right = value >> _HALF_BITS, value & _HALF_MASK
    for number in rounds:
        left, right = right, left ^ _mixed(kind, number, right)
    return left << _HALF_BITS | right


def _mixed(kind: Kind, number: int, half: int) -> int:
    key = f"{kind.value}/{number}/{half}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=5).digest(), "big")


def _swapped(value: int) -> int:
    return (value & _HALF_MASK) << _HALF_BITS | value >> _HALF_BITS
