"""The guards that can be taken out: what the code is without each of them, and what happens then.

The catalogue is the ``*.toml`` files of this folder, a table ``[[guard]]`` for each guard. A guard
is a row of GUARANTEES.md under "Shown by taking the mechanism out"; its changes remove the mechanism
from a copy of the code, and then its test has to fail.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

REPOSITORY: Final = Path(__file__).parents[2]
FOLDER: Final = Path(__file__).parent
GUARANTEES: Final = REPOSITORY / "GUARANTEES.md"
HEADING: Final = "## Shown by taking the mechanism out"
_TEST: Final = re.compile(r"`(tests/[\w/]+\.py::\w+)`")


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Text of a file that is taken out: *old* stands there exactly once, *new* takes its place."""

    file: str
    old: str
    new: str


class Guard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A guard and how it is taken out.

    Attributes:
        name: lower-case words with hyphens, unique; what ``make guards GUARD=`` asks for.
        guarantee: the first cell of its row in GUARANTEES.md, word for word.
        test: the test that has to fail, as ``tests/….py::test_…``; one of its row.
        disaster: what happens to somebody's money without it, in one sentence.
        change: what removes it.
    """

    name: str
    guarantee: str
    test: str
    disaster: str
    change: tuple[Change, ...]


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the catalogue."""

    guard: tuple[Guard, ...]


def catalogue() -> Sequence[Guard]:
    """Return every guard, by name."""
    found = [
        guard
        for path in sorted(FOLDER.glob("*.toml"))
        for guard in msgspec.toml.decode(path.read_bytes(), type=Page).guard
    ]
    return sorted(found, key=lambda guard: guard.name)


def promised() -> dict[str, frozenset[str]]:
    """Return the tests of each guarantee that is shown by taking its mechanism out."""
    section = GUARANTEES.read_text().split(HEADING)[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if _TEST.search(line)]
    return {row.split("|")[1].strip(): frozenset(_TEST.findall(row)) for row in rows}


def without(change: Change, text: str) -> str:
    """Return the text of a file with *change* made.

    Raises:
        ValueError: the old text does not stand there exactly once, or nothing would change.
    """
    found = text.count(change.old)
    if found != 1 or change.old == change.new:
        raise ValueError(f"{change.file}: {change.old!r} stands there {found} times, not once")
    return text.replace(change.old, change.new)
