"""Output descriptors that a scan takes: which scripts they stand for. Pure.

Taken are ``addr``, ``raw``, ``pk``, ``pkh``, ``wpkh``, ``sh(wpkh)``, ``multi`` and ``sortedmulti`` in ``wsh``
or ``sh(wsh)``, with keys in hex or extended public keys with a path and ``*``. Sources: BIP 380 to 383, 385.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from chain.bitcoin.addresses import parse_address
from chain.bitcoin.derivation import descriptor_checksum
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.scripts import (
    OP_1,
    OP_CHECKMULTISIG,
    OP_CHECKSIG,
    key_hash_script,
    script_hash_script,
    sorted_multisig_script,
    witness_key_hash_script,
    witness_script_hash_script,
)
from chain.errors import BadAddress, BadKey
from chain.keys.base58 import decode_base58check, encode_base58check
from chain.keys.bip32 import VERSION_PUBLIC, ExtendedPublicKey
from chain.keys.hashes import hash160
from chain.simulators.bitcoin.errors import InvalidParameter, NotFound, WrongType

DEFAULT_RANGE: Final = (0, 1_000)
MAX_RANGE: Final = 1_000_000
TEST_VERSION: Final = bytes.fromhex("043587cf")
"""Of extended public keys of the test networks: ``tpub``."""

_CALL: Final = re.compile(r"^([a-z]+)\((.*)\)$")
_ORIGIN: Final = re.compile(r"^\[[0-9a-fA-F]{8}(/\d+['hH]?)*\]")
_MULTI: Final = frozenset({"multi", "sortedmulti"})


@dataclass(frozen=True, slots=True)
class Scan:
    """One descriptor, and the indices of its ``*``."""

    text: str
    first: int
    last: int

    def scripts(self) -> Iterator[tuple[bytes, str]]:
        """Yield every script, with the descriptor that stands for it alone.

        Raises:
            NotFound: the descriptor cannot be read.
        """
        indices = range(self.first, self.last + 1) if "*" in self.text else range(1)
        for index in indices:
            yield _read(self.text, index), self.text.replace("*", str(index))


def read_scan(value: Any) -> Scan:
    """Return what one scan object asks for: a descriptor, or one with a range.

    Raises:
        WrongType: neither text nor an object with a descriptor.
        NotFound: a checksum that does not fit.
        InvalidParameter: an impossible range.
    """
    first, last = DEFAULT_RANGE
    if isinstance(value, dict):
        first, last = _read_range(value.get("range", list(DEFAULT_RANGE)))
        value = value.get("desc")
    if not isinstance(value, str):
        raise WrongType("Scan object needs to be either a string or an object")
    text, mark, checksum = value.partition("#")
    if mark:
        check_checksum(text, checksum)
    return Scan(text, first, last)


def check_checksum(text: str, checksum: str) -> None:
    """Refuse a checksum that is not the descriptor's.

    Raises:
        NotFound: it is not.
    """
    if len(checksum) != 8:
        raise NotFound(f"Expected 8 character checksum, not {len(checksum)} characters")
    try:
        right = descriptor_checksum(text)
    except BadKey as exc:
        raise NotFound("Invalid characters in payload") from exc
    if checksum != right:
        raise NotFound(f"Provided checksum '{checksum}' does not match computed checksum '{right}'")


def _read_range(value: Any) -> tuple[int, int]:
    low, high = (0, value) if isinstance(value, int) else (value[0], value[1])
    if low < 0:
        raise InvalidParameter("Range should be greater or equal than 0")
    if high < low:
        raise InvalidParameter("Range specified as [begin,end] must not have begin after end")
    if high - low >= MAX_RANGE:
        raise InvalidParameter("Range is too large")
    return low, high


def _read(text: str, index: int) -> bytes:
    found = _CALL.match(text)
    if found is None:
        raise NotFound(f"'{text}' is not a valid descriptor function")
    name, inner = found.groups()
    try:
        return _read_call(name, inner, index)
    except BadAddress as exc:
        raise NotFound("Address is not valid") from exc
    except (BadKey, ValueError) as exc:
        raise NotFound(f"{name}(): {exc}") from exc


def _read_call(name: str, inner: str, index: int) -> bytes:
    if name == "addr":
        return parse_address(inner, REGTEST)
    if name == "raw":
        return bytes.fromhex(inner)
    if name == "sh":
        return script_hash_script(hash160(_read(inner, index)))
    if name == "wsh":
        return witness_script_hash_script(_read(inner, index))
    if name in _MULTI:
        return _read_multi(name, inner, index)
    key = _read_key(inner, index)
    if name == "pk":
        return bytes([len(key)]) + key + bytes([OP_CHECKSIG])
    if name == "pkh":
        return key_hash_script(hash160(key))
    if name == "wpkh":
        return witness_key_hash_script(key)
    raise NotFound(f"'{name}' is not a valid descriptor function")


def _read_multi(name: str, inner: str, index: int) -> bytes:
    required, *texts = inner.split(",")
    keys = [_read_key(text, index) for text in texts]
    if name == "sortedmulti":
        return sorted_multisig_script(int(required), keys)
    low = OP_1 - 1
    pushed = b"".join(bytes([len(key)]) + key for key in keys)
    return bytes([low + int(required)]) + pushed + bytes([low + len(keys), OP_CHECKMULTISIG])


def _read_key(text: str, index: int) -> bytes:
    text = _ORIGIN.sub("", text)
    head, *steps = text.split("/")
    if not steps and len(head) in {66, 130}:
        return bytes.fromhex(head)
    key = _read_extended(head)
    for step in steps:
        key = key.child(index if step == "*" else int(step))
    return key.public_key


def _read_extended(text: str) -> ExtendedPublicKey:
    """Return an extended key of a test network: the same as another, with other first bytes."""
    data = decode_base58check(text)
    if data[: len(TEST_VERSION)] != TEST_VERSION:
        raise BadKey(f"key '{text}' is not valid")
    return ExtendedPublicKey.parse(encode_base58check(VERSION_PUBLIC + data[len(TEST_VERSION) :]))
