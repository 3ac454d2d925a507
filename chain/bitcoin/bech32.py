"""Bech32 and bech32m, and witness programs written in them.

Sources: BIP 173, BIP 350. Ours, because a library that writes version 2 as version 1, or takes
another network's address, pays a script that nobody can spend.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from chain.errors import BadAddress

LETTERS: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
TEXT_LENGTH_MAX: Final = 90
CHECKSUM_LETTERS: Final = 6
VERSION_MAX: Final = 16
PROGRAM_BYTES_MIN: Final = 2
PROGRAM_BYTES_MAX: Final = 40
PROGRAM_0_BYTES: Final = frozenset({20, 32})
"""Version 0 is defined: a hash of a key or of a script (BIP 141)."""

_VALUES: Final = {letter: value for value, letter in enumerate(LETTERS)}


def _shifted_out(top: int) -> int:
    """Return what the five bits that leave the remainder add to it (BIP 173, ``GEN``)."""
    generator = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
    added = 0
    for place, part in enumerate(generator):
        if top >> place & 1:
            added ^= part
    return added


_ADDED: Final = tuple(_shifted_out(top) for top in range(32))
"""For every five bits, once: an address takes some forty steps."""


class Checksum(IntEnum):
    """Which of the two codes a text is written in: what its remainder must be."""

    BECH32 = 1
    BECH32M = 0x2BC830A3


def encode_program(hrp: str, version: int, program: bytes) -> str:
    """Return the address of a witness program, in lower case.

    Raises:
        BadAddress: no witness program has this version and length.
    """
    _check_program(version, program)
    data = [version, *_regroup(program, 8, 5, pad=True)]
    return encode(hrp, data, _checksum_of(version))


def decode_program(hrp: str, text: str) -> tuple[int, bytes]:
    """Return version and program of an address that begins with *hrp*.

    Raises:
        BadAddress: another network's, mistyped, or not a witness program.
    """
    found, data, checksum = decode(text)
    if found != hrp:
        raise BadAddress(
            f"{text} begins with {found!r}, addresses of this network with {hrp!r}",
            remedy="Ask for an address of this network",
        )
    if not data:
        raise BadAddress(f"{text} holds no witness program")
    version, program = data[0], bytes(_regroup(data[1:], 5, 8, pad=False))
    _check_program(version, program)
    if checksum is not _checksum_of(version):
        raise BadAddress(
            f"{text} carries the checksum of another witness version",
            remedy="Ask for the address again: what wrote it is defective",
        )
    return version, program


def encode(hrp: str, data: list[int], checksum: Checksum) -> str:
    """Return *data* (numbers of five bits) as text."""
    remainder = _polymod([*_expand(hrp), *data, *[0] * CHECKSUM_LETTERS]) ^ checksum
    tail = [(remainder >> 5 * (5 - place)) & 31 for place in range(CHECKSUM_LETTERS)]
    return hrp + "1" + "".join(LETTERS[value] for value in (*data, *tail))


def decode(text: str) -> tuple[str, list[int], Checksum]:
    """Return the human-readable part (in lower case), the data, and which code it is.

    Raises:
        BadAddress: neither code is written like this, or the checksum does not fit.
    """
    if len(text) > TEXT_LENGTH_MAX or not all(33 <= ord(letter) <= 126 for letter in text):
        raise BadAddress(f"{text!r} is not an address")
    lower = text.lower()
    if text not in {lower, text.upper()}:
        raise BadAddress(
            f"{text} mixes upper and lower case", remedy="Copy it again from where it came"
        )
    hrp, separator, tail = lower.rpartition("1")
    if not separator or not hrp or len(tail) < CHECKSUM_LETTERS:
        raise BadAddress(f"{text!r} is not an address")
    unknown = next((letter for letter in tail if letter not in _VALUES), None)
    if unknown is not None:
        raise BadAddress(f"{unknown!r} does not occur in an address", where=text)
    data = [_VALUES[letter] for letter in tail]
    try:
        checksum = Checksum(_polymod([*_expand(hrp), *data]))
    except ValueError as error:
        raise BadAddress(
            f"the checksum of {text} does not fit",
            remedy="A letter is wrong: copy it again from where it came",
        ) from error
    return hrp, data[:-CHECKSUM_LETTERS], checksum


def _checksum_of(version: int) -> Checksum:
    return Checksum.BECH32 if version == 0 else Checksum.BECH32M


def _check_program(version: int, program: bytes) -> None:
    if not 0 <= version <= VERSION_MAX:
        raise BadAddress(f"there is no witness version {version}")
    if not PROGRAM_BYTES_MIN <= len(program) <= PROGRAM_BYTES_MAX:
        raise BadAddress(f"a witness program of {len(program)} bytes does not exist")
    if version == 0 and len(program) not in PROGRAM_0_BYTES:
        raise BadAddress(f"a witness program of version 0 has 20 or 32 bytes, not {len(program)}")


def _expand(hrp: str) -> list[int]:
    codes = [ord(letter) for letter in hrp]
    return [*(code >> 5 for code in codes), 0, *(code & 31 for code in codes)]


def _polymod(values: Iterable[int]) -> int:
    """Return the remainder of the code's polynomial division (BIP 173, "Checksum")."""
    remainder = 1
    for value in values:
        remainder = (remainder & 0x1FFFFFF) << 5 ^ value ^ _ADDED[remainder >> 25]
    return remainder


def _regroup(values: Iterable[int], width: int, into: int, *, pad: bool) -> list[int]:
    """Return the same bits in numbers of another width.

    Raises:
        BadAddress: bits are left over that are no padding (only without *pad*).
    """
    held, bits, result = 0, 0, []
    for value in values:
        held = held << width | value
        bits += width
        while bits >= into:
            bits -= into
            result.append(held >> bits & (1 << into) - 1)
    rest = held & (1 << bits) - 1
    if pad:
        return [*result, rest << into - bits] if bits else result
    if bits >= width or rest:
        raise BadAddress("the address is padded with something else than a few zeros")
    return result
