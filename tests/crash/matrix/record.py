"""What each journey takes when nobody dies: written down by a run of all, and checked by every run.

So the points of the matrix are known without telling every story first. The file is written by
``CAUSEWAY_CRASH=learn pytest tests/crash/matrix/test_matrix.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from app.faults.edges import Edge
from tests.crash.matrix.scope import IN_SCOPE
from tests.crash.matrix.stage import Journey

FILE: Final = Path(__file__).with_name("taken.json")


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a journey.

    Attributes:
        edges: those in scope that it takes.
        found: names of the oracles that have something to find in its half of a house.
    """

    edges: frozenset[Edge]
    found: frozenset[str]


def recorded(edges: Iterable[Edge], found: Iterable[str]) -> Record:
    """Return the record of a telling in which nobody died."""
    return Record(frozenset(e for e in edges if e.machine in IN_SCOPE), frozenset(found))


@cache
def read() -> Mapping[str, Record]:
    """Return all records, by how the journey is known."""
    return {
        name: Record(frozenset(map(Edge.parse, row["edges"])), frozenset(row["found"]))
        for name, row in json.loads(FILE.read_text()).items()
    }


def record_of(journey: Journey) -> Record:
    """Return the record of a journey; a new one has none and takes nothing yet."""
    return read().get(str(journey), Record(frozenset(), frozenset()))


def write(records: Mapping[str, Record]) -> None:
    """Write the file anew."""
    rows = {
        name: {"edges": sorted(map(str, item.edges)), "found": sorted(item.found)}
        for name, item in sorted(records.items())
    }
    FILE.write_text(json.dumps(rows, indent=1) + "\n")
