"""The fields of a partially signed transaction: which there are, and what each may hold. Pure.

Types that another purpose needs (proofs of reserves, proprietary ones, types of the future) are kept
as they came. Those of taproot and MuSig2 are kept, too, once their sizes and points are right.
Sources: BIP 174, 371, 373.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Final

from coincurve import PublicKey

from chain.errors import BadTransaction
from chain.keys.hashes import double_sha256, hash160


class Global(IntEnum):
    """Types of the first map."""

    UNSIGNED = 0x00
    XPUB = 0x01
    VERSION = 0xFB


class In(IntEnum):
    """Types of an input's map."""

    PREVIOUS = 0x00
    WITNESS_UTXO = 0x01
    SIGNATURE = 0x02
    SIGHASH = 0x03
    REDEEM_SCRIPT = 0x04
    WITNESS_SCRIPT = 0x05
    DERIVATION = 0x06
    FINAL_SCRIPT = 0x07
    FINAL_WITNESS = 0x08


class Out(IntEnum):
    """Types of an output's map."""

    REDEEM_SCRIPT = 0x00
    WITNESS_SCRIPT = 0x01
    DERIVATION = 0x02


XONLY_BYTES: Final = 32
KEY_BYTES: Final = 33
SCHNORR_BYTES: Final = frozenset({64, 65})

Check = Callable[[bytes, bytes], bool]
"""Tells whether a field's key data and value can be."""


def is_point(key: bytes) -> bool:
    """Tell whether *key* is a public key, compressed or not."""
    if (len(key), key[:1]) not in {(33, b"\x02"), (33, b"\x03"), (65, b"\x04")}:
        return False
    try:
        PublicKey(key)
    except ValueError:
        return False
    return True


def _is_compressed(key: bytes) -> bool:
    return len(key) == KEY_BYTES and is_point(key)


def _leaves_then_path(value: bytes) -> bool:
    # A count of leaf hashes below 253, that many hashes, a fingerprint and the steps of a path.
    rest = len(value) - 1 - 32 * value[0] if value else -1
    return rest >= 4 and rest % 4 == 0


def _is_tree(_: bytes, value: bytes) -> bool:
    """Tell whether *value* is a list of (depth, leaf version, script) that makes one tree."""
    at, depths = 0, []
    while at + 2 < len(value) and value[at + 2] < 0xFD:
        depths.append(value[at])
        if value[at + 1] & 1:
            return False
        at += 3 + value[at + 2]
    while len(depths) > 1:
        deepest = max(depths)
        place = depths.index(deepest)
        if depths[place : place + 2] != [deepest, deepest] or not deepest:
            return False
        depths[place : place + 2] = [deepest - 1]
    return at == len(value) and depths == [0]


def _preimage(digest: Callable[[bytes], bytes]) -> Check:
    return lambda key, value: digest(value) == key


def _ripemd160(data: bytes) -> bytes:
    return hashlib.new("ripemd160", data).digest()


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _participants(key: bytes, value: bytes) -> bool:
    if not _is_compressed(key) or len(value) % KEY_BYTES:
        return False
    keys = [value[at : at + KEY_BYTES] for at in range(0, len(value), KEY_BYTES)]
    return all(map(_is_compressed, keys))


def _musig(value_bytes: int) -> Check:
    def check(key: bytes, value: bytes) -> bool:
        pair = [key[:KEY_BYTES], key[KEY_BYTES : 2 * KEY_BYTES]]
        fits = len(key) - 2 * KEY_BYTES in {0, 32} and len(value) == value_bytes
        return fits and all(map(_is_compressed, pair))

    return check


IN_KEPT: Final[Mapping[int, Check]] = {
    0x0A: _preimage(_ripemd160),
    0x0B: _preimage(_sha256),
    0x0C: _preimage(hash160),
    0x0D: _preimage(double_sha256),
    0x13: lambda key, value: not key and len(value) in SCHNORR_BYTES,
    0x14: lambda key, value: len(key) == 2 * XONLY_BYTES and len(value) in SCHNORR_BYTES,
    0x15: lambda key, value: len(key) >= KEY_BYTES and len(key) % 32 == 1 and bool(value),
    0x16: lambda key, value: len(key) == XONLY_BYTES and _leaves_then_path(value),
    0x17: lambda key, value: not key and len(value) == XONLY_BYTES,
    0x18: lambda key, value: not key and len(value) == XONLY_BYTES,
    0x1A: _participants,
    0x1B: _musig(66),
    0x1C: _musig(32),
}
OUT_KEPT: Final[Mapping[int, Check]] = {
    0x05: lambda key, value: not key and len(value) == XONLY_BYTES,
    0x06: lambda key, value: not key and _is_tree(key, value),
    0x07: lambda key, value: len(key) == XONLY_BYTES and _leaves_then_path(value),
    0x08: _participants,
}


def check_kept(kept: Mapping[int, Check], kind: int, key: bytes, value: bytes) -> None:
    """Refuse a field that is kept unread and cannot be what its type says.

    Raises:
        BadTransaction: names the type.
    """
    check = kept.get(kind)
    if check is not None and not check(key, value):
        raise BadTransaction(f"a field of type {kind:#04x} that cannot be")
