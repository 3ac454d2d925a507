"""A day of a simulated house with a fresh seed: whatever happens, the books are the outside's truth.

The seed is printed with what was counted. A day that fails shows its last steps and the command that
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
from tests.simulation.play import play

STEPS = 40


@pytest.mark.timeout(900)
async def test_a_day_of_faults_ends_at_rest_and_true_and_is_the_same_in_another_process(
    database_server: Server,
    database_template: str,
    tmp_path_factory: pytest.TempPathFactory,
    record_property: Callable[[str, object], None],
) -> None:
    seed = secrets.randbelow(2**31)
    folders = [tmp_path_factory.mktemp(name) for name in ("here", "elsewhere")]

    with cloned(database_server, database_template, f"day_{secrets.token_hex(6)}") as database:
        here = await play(database.app_url, folders[0], seed, STEPS)

    record_property("counts", f"simulated day, seed {seed}: {dict(here.counts)}")
    assert here.counts["steps"] == STEPS
    assert here.trace[-1].split()[1] == "journal"
    with cloned(database_server, database_template, f"day_{secrets.token_hex(6)}") as database:
        elsewhere = in_another_process(database, folders[1], seed)
    assert elsewhere["trace"] == here.trace
    assert elsewhere["digest"] == here.digest


def in_another_process(database: Database, folder: Path, seed: int) -> dict[str, object]:
    """Play a day in a process whose hashes of strings are other ones."""
    asked = folder, seed, STEPS
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.once", database.app_url, *map(str, asked)],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        text=True,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found
