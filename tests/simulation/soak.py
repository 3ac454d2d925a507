"""Days one after the other on a server of their own, which is killed now and then.

``python -m tests.simulation.soak --minutes 30`` plays fresh seeds until the time is over;
``--seed N --steps M`` plays one day again. A day that fails ends it, with its last steps and the command
that plays it again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TextIO

import structlog
from sqlalchemy import make_url

from app.local.databases import Server, cloned, migrated_template, server_folder
from app.local.postgres import THROWAWAY, LocalPostgres
from kernel.db import APP_ROLE
from tests.simulation.play import Broken, Day, play

STEPS: Final = 100
GONE_WITHIN_S: Final = 20.0
SURVIVES_A_KILL: Final = {**THROWAWAY, "synchronous_commit": "on"}
"""What was acknowledged is with the operating system, and outlives the server's processes."""


def main() -> int:
    """Play days as the command line says; return the exit code."""
    asked = _arguments()
    be_quiet()
    counts: Counter[str] = Counter()
    failed: list[int] = []
    edges: set[str] = set()
    end = time.monotonic() + 60 * asked.minutes
    with opened() as (server, local), migrated_template(server, TEMPLATE):
        while not counts["seeds"] or (asked.seed is None and time.monotonic() < end):
            seed = asked.seed if asked.seed is not None else secrets.randbelow(2**31)
            counts["seeds"] += 1
            day = one_day(server, killer(local), seed, asked.steps)
            if day is None:
                failed.append(seed)
                continue
            counts += day.counts
            edges |= day.edges
            say(f"seed {seed}: {day.counts['steps']} steps, digest {day.digest}")
            if asked.trace:
                say("\n".join(day.trace))
    say(", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
    say(f"{len(edges)} edges of machines:\n  " + "\n  ".join(sorted(edges)))
    if failed:
        say(f"failed: seeds {', '.join(map(str, failed))}", sys.stderr)
    return 1 if failed else 0


@contextlib.contextmanager
def opened() -> Iterator[tuple[Server, LocalPostgres]]:
    """Give a server of our own and how to kill it."""
    folder = server_folder()
    try:
        with LocalPostgres(folder / "pg", settings=SURVIVES_A_KILL) as local:
            yield Server(admin_url=make_url(local.url()), app_user=APP_ROLE), local
    finally:
        shutil.rmtree(folder, ignore_errors=True)


TEMPLATE: Final = "causeway_simulation"


def one_day(server: Server, kill: Callable[[int], None], seed: int, steps: int) -> Day | None:
    """Play one day in a database of its own; None: it failed, and said how."""
    with (
        cloned(server, TEMPLATE, f"day_{seed}") as database,
        tempfile.TemporaryDirectory() as folder,
    ):
        try:
            return asyncio.run(play(database.app_url, Path(folder), seed, steps, server=kill))
        except Broken as broken:
            say("\n".join([f"{broken}", *broken.__notes__]), sys.stderr)
        except Exception:  # noqa: BLE001  who plays days goes on after one that nobody foresaw
            traceback.print_exc()
        return None


def killer(local: LocalPostgres) -> Callable[[int], None]:
    """Return what kills the server under one of its backends, and starts it again."""

    def kill(backend: int) -> None:
        # The backend first: what it is sent afterwards is lost for certain.
        os.kill(backend, signal.SIGKILL)
        os.kill(local.pid, signal.SIGKILL)
        local.restart_if_dead()

    return kill


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30, help="play fresh seeds for so long")
    parser.add_argument("--seed", type=int, help="play the day of this seed, once")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of a day")
    parser.add_argument("--trace", action="store_true", help="print every step")
    return parser.parse_args()


def say(text: str, to: TextIO = sys.stdout) -> None:
    """Say something at once: a soak takes long."""
    to.write(f"{text}\n")
    to.flush()


def be_quiet() -> None:
    """Log nothing: what is foreseen is counted, and what is not is raised."""
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


if __name__ == "__main__":
    sys.exit(main())
