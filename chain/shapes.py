"""What shape a part of a node's answer must have: another one proves nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chain.errors import UnreadableAnswer


def as_object(value: object, what: str) -> Mapping[str, Any]:
    """Return a JSON object."""
    if not isinstance(value, Mapping):
        raise UnreadableAnswer(f"{what} is not an object")
    return value


def as_list(value: object, what: str) -> list[Any]:
    """Return a JSON array."""
    if not isinstance(value, list):
        raise UnreadableAnswer(f"{what} is not a list")
    return value
