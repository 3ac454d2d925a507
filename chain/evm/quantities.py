"""Reading JSON-RPC values strictly: an answer that is not exactly in form proves nothing.

Source: Ethereum JSON-RPC specification, "Hex value encoding".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from chain.errors import BadAddress, UnreadableAnswer
from chain.evm.addresses import address_from_node
from kernel.money import AMOUNT_MAX

_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
_DATA = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
_HASH = re.compile(r"0x[0-9a-fA-F]{64}")

Json = Mapping[str, Any]


def as_int(value: object, what: str, maximum: int = AMOUNT_MAX) -> int:
    """Return a hexadecimal quantity. Leading zeros are tolerated: some nodes write them."""
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise UnreadableAnswer(f"{what} is {value!r}, not a quantity")
    number = int(value, 16)
    if number > maximum:
        raise UnreadableAnswer(f"{what} is {number}, more than {maximum}")
    return number


def as_bytes(value: object, what: str) -> bytes:
    """Return hexadecimal data."""
    if not isinstance(value, str) or not _DATA.fullmatch(value):
        raise UnreadableAnswer(f"{what} is not hexadecimal data")
    return bytes.fromhex(value[2:])


def as_hash(value: object, what: str) -> str:
    """Return a hash in lower case."""
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise UnreadableAnswer(f"{what} is {value!r}, not a hash")
    return value.lower()


def as_address(value: object, what: str) -> str:
    """Return an address in EIP-55 mixed case."""
    try:
        return address_from_node(value)
    except BadAddress as error:
        raise UnreadableAnswer(f"{what} is not an address: {value!r}") from error


def get(body: Json, key: str) -> object:
    """Return a member that the protocol requires."""
    if key not in body:
        raise UnreadableAnswer(f"{key} is missing from the node's answer")
    value: object = body[key]
    return value
