"""Days of a simulated house, each with a fresh seed: whatever happens, the books are the outside's truth.

The seeds are printed with what was counted. A day that fails shows its last steps and the command that
plays it again.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.local.databases import Database, Server, cloned
from tests.simulation.play import Day, play

STEPS = 50
SHORT = 25
"""Steps of a day that is played more than once."""


async def play_in(
    server: Server, template: str, folder: Path, seed: int, steps: int = STEPS
) -> Day:
    """Play a day in a database of its own."""
    with cloned(server, template, f"day_{secrets.token_hex(6)}") as database:
        return await play(database.app_url, folder, seed, steps)


@pytest.mark.timeout(600)
async def test_a_day_of_faults_ends_with_everything_at_rest_and_true(
    database: Database,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    seed = secrets.randbelow(2**31)

    played = await play(database.app_url, tmp_path, seed, STEPS)

    record_property("counts", f"simulated day, seed {seed}: {dict(played.counts)}")
    assert played.counts["steps"] == STEPS
    assert played.trace[-1].split()[1] == "journal"


@pytest.mark.timeout(600)
async def test_the_same_seed_is_the_same_day_also_in_another_process(
    database_server: Server, database_template: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    seed = secrets.randbelow(2**31)
    folders = [tmp_path_factory.mktemp(name) for name in ("here", "elsewhere")]

    here = await play_in(database_server, database_template, folders[0], seed, SHORT)

    with cloned(database_server, database_template, f"day_{secrets.token_hex(6)}") as database:
        elsewhere = in_another_process(database, folders[1], seed)
    assert elsewhere["trace"] == here.trace
    assert elsewhere["digest"] == here.digest


def in_another_process(database: Database, folder: Path, seed: int) -> dict[str, object]:
    """Play a day in a process whose hashes of strings are other ones."""
    asked = folder, seed, SHORT
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.once", database.app_url, *map(str, asked)],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        text=True,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found
