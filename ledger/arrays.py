"""Lists as PostgreSQL array literals (PostgreSQL manual, section 8.15.2, "Array Value Input")."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any


def numbers(values: Iterable[Any]) -> str:
    """Return values whose text needs no quotes: integers, booleans, UUIDs, words of an enum."""
    return "{" + ",".join(map(str, values)) + "}"


def nullable(values: Sequence[Any]) -> str:
    """Return such values, or None for NULL."""
    if values.count(None) == len(values):
        return "{" + ",".join(["NULL"] * len(values)) + "}"
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def times(values: Sequence[datetime | None]) -> str:
    """Return times, or None for NULL."""
    return nullable([None if value is None else f'"{value.isoformat()}"' for value in values])


def texts(values: Sequence[str]) -> str:
    """Return any text, quoted."""
    quoted = {
        value: '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in set(values)
    }
    return "{" + ",".join([quoted[value] for value in values]) + "}"
