"""A journey of the matrix: a story of people and workers, told on a stage of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.local.databases import Database
from tests.crash.matrix.mortal import Mortal


@dataclass(frozen=True, slots=True)
class Stage:
    """What a journey is told on.

    Attributes:
        folder: an empty one.
        patch: undone when the story has ended.
    """

    mortal: Mortal
    database: Database
    folder: Path
    patch: pytest.MonkeyPatch


@dataclass(frozen=True, slots=True)
class Journey:
    """One story.

    Attributes:
        family: what of the house it is about.
        name: of the story in its family.
        play: tells it, asserts how it has to end, and returns what people and books see then.
        compared: what they see has to be what a telling in peace ends with.
    """

    family: str
    name: str
    play: Callable[[Stage], Awaitable[Any]]
    compared: bool = False

    def __str__(self) -> str:
        """Return how the journey is known."""
        return f"{self.family}: {self.name}"
