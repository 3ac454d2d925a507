"""The parameters of a JSON-RPC call, read with errors that say which one is wrong and how."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chain.simulators.evm.errors import InvalidParams
from chain.simulators.evm.logs import LogFilter

ADDRESS_BYTES = 20
HASH_BYTES = 32
MAX_QUANTITY_BITS = 256
MAX_FILTER_TOPICS = 4
MAX_FILTER_VALUES = 1_000

_HEX_BASE = 16


def read_data(value: Any, what: str, *, length: int | None = None) -> bytes:
    """Return hex data as bytes, of exactly *length* bytes when that is given."""
    if not isinstance(value, str) or not value.startswith("0x"):
        raise InvalidParams(f"invalid {what}: expected a hex string with 0x, got {_show(value)}")
    try:
        raw = binascii.unhexlify(value[2:])  # bytes.fromhex would skip white space
    except ValueError as exc:
        raise InvalidParams(f"invalid {what}: {_show(value)} is not hex of even length") from exc
    if length is not None and len(raw) != length:
        raise InvalidParams(f"invalid {what}: expected {length} bytes, got {len(raw)}")
    return raw


def read_address(value: Any, what: str = "address") -> bytes:
    """Return an address as 20 bytes."""
    return read_data(value, what, length=ADDRESS_BYTES)


def read_hash(value: Any, what: str = "hash") -> bytes:
    """Return a hash or a topic as 32 bytes."""
    return read_data(value, what, length=HASH_BYTES)


def read_quantity(value: Any, what: str) -> int:
    """Return a number given as 0x-hex, as decimal digits or as a JSON number."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InvalidParams(f"invalid {what}: expected a quantity, got {_show(value)}")
    try:
        number = value if isinstance(value, int) else _digits(value)
    except ValueError as exc:
        raise InvalidParams(f"invalid {what}: {_show(value)} is not a number") from exc
    if number < 0 or number.bit_length() > MAX_QUANTITY_BITS:
        raise InvalidParams(f"invalid {what}: {_show(value)} is not in the range of uint256")
    return number


def read_filter(value: Mapping[str, Any]) -> LogFilter:
    """Return the ``address`` and ``topics`` members of a log filter."""
    addresses = value.get("address")
    topics = value.get("topics") or []
    if not isinstance(topics, list) or len(topics) > MAX_FILTER_TOPICS:
        raise InvalidParams(f"invalid topics: expected a list of at most {MAX_FILTER_TOPICS}")
    return LogFilter(
        addresses=frozenset(read_address(one) for one in _one_or_many(addresses, "address")),
        topics=tuple(
            None
            if topic is None or topic == []
            else frozenset(read_hash(one, "topic") for one in _one_or_many(topic, "topic"))
            for topic in topics
        ),
    )


@dataclass(frozen=True, slots=True)
class Params:
    """The positional parameters of one call."""

    method: str
    values: tuple[Any, ...]

    def get(self, index: int, default: Any = None) -> Any:
        """Return the parameter at *index*, or *default* when it is absent or null."""
        value = self.values[index] if index < len(self.values) else None
        return default if value is None else value

    def need(self, index: int, what: str) -> Any:
        """Return the parameter at *index*, which must be there."""
        value = self.get(index)
        if value is None:
            raise InvalidParams(f"{self.method}: missing parameter {index} ({what})")
        return value

    def address(self, index: int) -> bytes:
        """Return the address at *index*."""
        return read_address(self.need(index, "address"))

    def hash(self, index: int) -> bytes:
        """Return the hash at *index*."""
        return read_hash(self.need(index, "hash"))

    def data(self, index: int, what: str) -> bytes:
        """Return the hex data at *index*."""
        return read_data(self.need(index, what), what)

    def quantity(self, index: int, what: str, default: int | None = None) -> int:
        """Return the number at *index*, or *default* when it is absent and there is one."""
        value = self.get(index, default)
        return read_quantity(self.need(index, what) if value is None else value, what)

    def flag(self, index: int, what: str, *, default: bool | None = None) -> bool:
        """Return the boolean at *index*."""
        value = self.get(index, default)
        if not isinstance(value, bool):
            raise InvalidParams(f"{self.method}: parameter {index} ({what}) must be true or false")
        return value

    def mapping(self, index: int, what: str) -> Mapping[str, Any]:
        """Return the object at *index*."""
        value = self.need(index, what)
        if not isinstance(value, dict):
            raise InvalidParams(f"{self.method}: parameter {index} ({what}) must be an object")
        return value


def _digits(text: str) -> int:
    """Read digits strictly: Python alone would also take underscores, signs and spaces."""
    digits, base = (text[2:], _HEX_BASE) if text.startswith("0x") else (text, 10)
    if not digits.isascii() or not digits.isalnum():
        raise ValueError(text)
    return int(digits, base)


def _one_or_many(value: Any, what: str) -> list[Any]:
    if value is None:
        return []
    many = value if isinstance(value, list) else [value]
    if len(many) > MAX_FILTER_VALUES:
        raise InvalidParams(f"too many values for {what}: the limit is {MAX_FILTER_VALUES}")
    return many


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
