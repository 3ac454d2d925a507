"""What sections of the house file have in common: known keys, kinds of values, one section a subject."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from kernel.errors import BadInput

S = TypeVar("S")


def several(
    tables: object,
    parse: Callable[[object], S],
    subject: Callable[[S], Hashable],
    path: Path,
    *,
    missing: str,
    twice: str,
) -> tuple[S, ...]:
    """Return the sections of one heading, each of a subject of its own.

    Args:
        missing: what to say where there is no list of sections.
        twice: what to say where two are of one subject.

    Raises:
        BadInput: that, or what *parse* refuses.
    """
    if not isinstance(tables, list):
        raise BadInput(missing, where=str(path))
    found = tuple(map(parse, tables))
    if len(set(map(subject, found))) != len(found):
        raise BadInput(twice, where=str(path))
    return found


def values_of(
    table: object, defaults: Mapping[str, Any], required: frozenset[str], where: str
) -> dict[str, Any]:
    """Return the values of a section, defaults where it says nothing.

    Raises:
        BadInput: a key is unknown, or missing without a default.
    """
    if not isinstance(table, dict):
        raise BadInput("write the section's name and its keys below", where=where)
    known = required | defaults.keys()
    values = {**defaults, **table}
    for key in sorted(values.keys() ^ known):
        what = "has the key" if key in values else "does not say"
        raise BadInput(
            f"the section {what} {key}", where=where, remedy=f"Known are {', '.join(sorted(known))}"
        )
    return values


def require_text(key: str, value: object, where: str, *, is_required: bool) -> None:
    """Refuse what is no text, or an empty one that has to be there."""
    if not isinstance(value, str) or (is_required and not value):
        raise BadInput(f"{key} is {value!r}, not a text", where=where)


def require_switch(key: str, value: object, where: str) -> None:
    """Refuse what is neither true nor false."""
    if not isinstance(value, bool):
        raise BadInput(f"{key} is {value!r}", where=where, remedy="Write true or false")


def require_number(key: str, value: object, limits: tuple[int, int], where: str) -> None:
    """Refuse what is no whole number, or one beyond *limits*, both of which are allowed."""
    low, high = limits
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadInput(f"{key} is {value!r}", where=where, remedy=f"Write {low} to {high}")
