"""Telling journeys: once in peace, and once for each point that is to strike."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from app.faults.edges import Edge, Point
from app.local.databases import Database, scratch
from app.oracles.run import examine
from tests.crash.matrix.mortal import mortals
from tests.crash.matrix.stage import Journey, Stage

MEMORY: Final = scratch()
"""A signer synchronises its store with the disk at every signature; here nobody waits for a disk."""

Databases = Callable[[], AbstractContextManager[Database]]


@dataclass(frozen=True, slots=True)
class Told:
    """How a telling went.

    Attributes:
        seen: what people and books see at its end.
        edges: what its acts took.
        found: names of the oracles that found something. Some stories are told of half a house (coins
            that no block brought, a state that was set by hand), so that a few have something to find
            whether anybody dies or not.
        findings: what they found, in words.
        struck: the point struck.
    """

    seen: Any
    edges: frozenset[Edge]
    found: frozenset[str]
    findings: tuple[str, ...]
    struck: bool


async def tell(journey: Journey, databases: Databases, point: Point | None = None) -> Told:
    """Tell a journey in a database of its own, with a point that strikes once, or in peace."""
    with (
        databases() as database,
        tempfile.TemporaryDirectory(prefix="cw", dir=MEMORY) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        async with mortals(database, point, MEMORY) as mortal:
            try:
                seen = await journey.play(Stage(mortal, database, Path(folder), patch))
                report = await examine(mortal.direct, counting=False)
            except Exception as error:
                error.add_note(f"{journey}, struck at {point}")
                raise
            return Told(
                seen,
                frozenset(mortal.wire.taken),
                frozenset(item.oracle.name for item in report.examined if item.findings),
                tuple(str(finding) for item in report.examined for finding in item.findings),
                mortal.struck,
            )
