"""Take guards out, one at a time, and watch the test of each fail: ``python -m tests.guards [NAME…]``.

A name stands for every guard that begins so; no name, for all. The code is copied; what is changed is
the copy. Exit code 0: every test failed for want of its guard. 1: a test passed without it. 2: usage.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from tests.guards.catalogue import REPOSITORY, Guard, catalogue, without

LIMIT_S: Final = 600
"""A test that runs longer without its guard counts as failed: it waits for what cannot come."""
TESTS_FAILED: Final = 1
"""What pytest exits with when tests ran and failed; a module that cannot be imported exits otherwise."""
_SUMMARY: Final = re.compile(r"^FAILED .+?(?: - (?P<why>.*))?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a test ended without its guard."""

    guard: Guard
    failed: bool
    why: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Take out what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.guards", description=__doc__)
    parser.add_argument("name", nargs="*", help="beginning of the names of guards; none: all")
    parser.add_argument("--list", action="store_true", help="say the names and end")
    parser.add_argument("--jobs", type=int, default=2, help="copies to work in at once")
    asked = parser.parse_args(arguments)
    guards = [g for g in catalogue() if not asked.name or g.name.startswith(tuple(asked.name))]
    if not guards:
        sys.stderr.write(f"no guard is called {' or '.join(asked.name)}; see --list\n")
        return 2
    if asked.list:
        sys.stdout.writelines(f"{guard.name:<48} {guard.guarantee}\n" for guard in guards)
        return 0
    held = 0
    with tempfile.TemporaryDirectory(prefix="guards-") as folder:
        free: SimpleQueue[Path] = SimpleQueue()
        for number in range(asked.jobs):
            free.put(_copy(Path(folder) / str(number)))

        def work(guard: Guard) -> Ended:
            place = free.get()
            try:
                return _taken_out(guard, place)
            finally:
                free.put(place)

        with ThreadPoolExecutor(asked.jobs) as pool:
            for ended in pool.map(work, guards):
                held += ended.failed
                sys.stdout.write(_told(ended))
                sys.stdout.flush()
    sys.stdout.write(f"{held} of {len(guards)} guards: without it, its test fails\n")
    return 0 if held == len(guards) else 1


def _copy(to: Path) -> Path:
    """Copy the working tree without what is made in it."""
    made = [line.rstrip("/") for line in (REPOSITORY / ".gitignore").read_text().split()]
    shutil.copytree(REPOSITORY, to, ignore=shutil.ignore_patterns(".git", *made))
    for tools in (".cache", ".venv"):
        if (REPOSITORY / tools).exists():
            (to / tools).symlink_to(REPOSITORY / tools)
    return to


def _taken_out(guard: Guard, place: Path) -> Ended:
    """Run a guard's test where the guard is not, and put it back."""
    before = {change.file: (place / change.file).read_text() for change in guard.change}
    try:
        for change in guard.change:
            path = place / change.file
            path.write_text(without(change, path.read_text()))
        return _judged(guard, place)
    except ValueError as error:
        return Ended(guard, failed=False, why=str(error))
    finally:
        for file, text in before.items():
            (place / file).write_text(text)


def _judged(guard: Guard, place: Path) -> Ended:
    command = [sys.executable, "-B", "-m", "pytest", guard.test, "-q", "-x", "-rf", "-n", "0"]
    quiet = ["-p", "no:randomly", "-p", "no:cacheprovider", "--tb=short", "--no-header"]
    try:
        run = subprocess.run(
            [*command, *quiet],
            cwd=place,
            # The copy is what is imported, whatever is installed.
            env={**os.environ, "PYTHONPATH": str(place), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Ended(guard, failed=True, why=f"it waited for more than {LIMIT_S} s")
    found = _SUMMARY.search(run.stdout)
    if run.returncode == TESTS_FAILED and found is not None:
        return Ended(guard, failed=True, why=found["why"] or "it failed")
    last = [line for line in (run.stdout + run.stderr).splitlines() if line.strip()]
    return Ended(guard, failed=False, why=last[-1] if last else f"exit code {run.returncode}")


def _told(ended: Ended) -> str:
    guard = ended.guard
    verdict = "fails without it" if ended.failed else "DOES NOT FAIL WITHOUT IT"
    return (
        f"{guard.name}: {guard.guarantee}\n"
        f"    test       {guard.test}\n"
        f"    {verdict}: {ended.why}\n"
        f"    disaster   {guard.disaster}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
