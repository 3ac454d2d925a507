"""A rolling upgrade: code of an earlier commit at work while the schema becomes today's.

The earlier code is that of the last tag, or, before there is one, of the commit before the newest
``_pre_`` migration was added. It runs from a folder of its own, as a whole: alembic, house, watcher,
posters. While it works the schema is migrated by today's code; then a payout worker and a poster of today
work beside it, on the same chain and the same rows; then the earlier code ends. Nobody may fail.

``scripts/rolling-upgrade`` runs it by itself, as long as wanted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import secrets
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg

from app.local import process_table
from app.local.databases import Database, cloned, opened_server
from app.local.migrate import URL_VARIABLE, current, head, migrate
from kernel.clock import SystemClock
from kernel.db import APP_ROLE, create_engine
from ledger.verification import verify
from tests.crash.ledger.nursery import opened_nursery
from tests.crash.ledger.workload import prepare_book
from tests.crash.payer import Order
from tests.crash.test_payouts_killed import opened_nursery as opened_watchers

REPOSITORY: Final = Path(__file__).absolute().parents[2]
LOAD: Final = Path("tests/migrations/rolling_load.py")
VERSIONS: Final = Path("alembic/versions")
TODAYS_BOOK: Final = 3
LINE_S_MAX: Final = 180.0


@dataclass(frozen=True, slots=True)
class Rolled:
    """What a rolling upgrade did.

    Attributes:
        commit: the earlier code's.
        before, after: revisions of the schema.
        rounds: of the earlier code: on its own schema, on today's alone, beside today's code.
        promises: batches that today's poster was promised meanwhile.
    """

    commit: str
    before: str
    after: str
    rounds: tuple[int, int, int]
    promises: int


def earlier_commit() -> str | None:
    """Return the commit whose code is to be upgraded from; None where the clone has no history."""
    tag = _git("describe", "--tags", "--abbrev=0")
    if tag is not None:
        return _git("rev-parse", f"{tag}^{{commit}}")
    newest = max(path.name for path in (REPOSITORY / VERSIONS).glob("*_pre_*.py"))
    added = _git("log", "--diff-filter=A", "--format=%H", "-1", "--", str(VERSIONS / newest))
    return _git("rev-parse", "--verify", "--quiet", f"{added}^" if added else "HEAD")


def unpack(commit: str, folder: Path) -> None:
    """Put the tree of a commit into *folder*; the repository is not touched."""
    packed = subprocess.run(
        ["git", "archive", "--format=tar", commit], cwd=REPOSITORY, capture_output=True, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")


def environment_of(tree: Path) -> dict[str, str]:
    """Return the environment in which Python finds the packages of *tree* before all others."""
    return {**os.environ, "PYTHONPATH": str(tree)}


def migrate_by(tree: Path, url: str) -> None:
    """Bring a database to the newest revision of *tree*, by its own code."""
    subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=tree,
        env={**environment_of(tree), URL_VARIABLE: url},
        check=True,
        capture_output=True,
    )


@dataclass(slots=True)
class Load:
    """The earlier code at work; see `tests.migrations.rolling_load`."""

    process: asyncio.subprocess.Process
    rounds: int = 0

    async def line(self) -> Mapping[str, Any]:
        """Return what it says next.

        Raises:
            AssertionError: it ended instead.
        """
        assert self.process.stdout is not None
        async with asyncio.timeout(LINE_S_MAX):
            line = await self.process.stdout.readline()
        assert line, f"the earlier code ended with {await self.process.wait()}; see its trace"
        said: Mapping[str, Any] = json.loads(line)
        self.rounds = said.get("round", self.rounds)
        return said

    async def more(self, rounds: int) -> int:
        """Wait for so many rounds more, and return how many there were."""
        before = self.rounds
        while self.rounds < before + rounds:
            await self.line()
        return self.rounds - before

    async def end(self) -> Mapping[str, Any]:
        """Let it finish its round and prove its books."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        said: Mapping[str, Any] = {}
        while "faults" not in said:
            said = await self.line()
        assert await self.process.wait() == 0
        return said


@contextlib.asynccontextmanager
async def opened_load(tree: Path, database: Database) -> AsyncIterator[Load]:
    """Start the earlier code's load: its own script where it has one."""
    script = tree / LOAD
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script if script.exists() else REPOSITORY / LOAD)),
        *(database.name, database.owner_url, database.app_url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=tree,
        env=environment_of(tree),
    )
    try:
        yield Load(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def roll(commit: str, database: Database, *, rounds: int = 2) -> Rolled:
    """Upgrade *database*, which has no schema yet, under the load of the code of *commit*.

    Args:
        rounds: at least so many in each of the three parts.

    Raises:
        AssertionError: somebody failed, or the books do not add up.
    """
    with tempfile.TemporaryDirectory(prefix="earlier-") as folder:
        tree = Path(folder)
        await asyncio.to_thread(unpack, commit, tree)
        await asyncio.to_thread(migrate_by, tree, database.owner_url)
        before = await current(database.owner_url) or ""
        await _let_in(database)
        async with opened_load(tree, database) as load:
            ready = await load.line()
            alone = await load.more(rounds)
            await migrate(database.owner_url)
            upgraded = await load.more(rounds)
            promises, beside = await _beside(load, ready, database, rounds)
            assert (await load.end())["faults"] == []
    engine = create_engine(database.app_url, role=APP_ROLE)
    try:
        for book in (1, 2, TODAYS_BOOK):
            assert await verify(engine, book) == []
    finally:
        await engine.dispose()
    return Rolled(commit, before, head(), (alone, upgraded, beside), promises)


async def _beside(
    load: Load, ready: Mapping[str, Any], database: Database, rounds: int
) -> tuple[int, int]:
    """Let today's payout worker and poster work beside the earlier code; return promises and rounds."""
    engine = create_engine(database.app_url, role=APP_ROLE)
    await prepare_book(engine, TODAYS_BOOK, ["today"])
    await engine.dispose()
    order = Order(
        url=database.app_url,
        node=ready["node"],
        socket=ready["socket"],
        book=ready["book"],
        holder="today",
        now=(SystemClock().now() + timedelta(seconds=ready["ahead_s"])).isoformat(),
    )
    with tempfile.TemporaryDirectory(prefix="acks-") as folder:
        async with opened_watchers() as watchers, opened_nursery(Path(folder)) as posters:
            pid, identity = await watchers.bear(order)
            try:
                poster = await posters.bear(
                    database.app_url, "today", batches=1_000_000, book=TODAYS_BOOK
                )
                done = await load.more(rounds)
                while not posters.acks("today"):
                    done += await load.more(1)
                assert process_table.identity(pid) == identity, (
                    "today's payout worker ended by itself"
                )
                assert process_table.is_alive(poster.pid, poster.identity), "today's poster ended"
            finally:
                process_table.send(pid, identity, signal.SIGKILL)
            return len(posters.acks("today")), done


async def _let_in(database: Database) -> None:
    connection = await asyncpg.connect(
        database.owner_url.replace("postgresql+asyncpg", "postgresql", 1)
    )
    try:
        await connection.execute(f"ALTER ROLE {APP_ROLE} LOGIN")
    finally:
        await connection.close()


def _git(*arguments: str) -> str | None:
    """Return the first line of what git says; None where it has nothing to say."""
    try:
        told = subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    lines = told.stdout.split()
    return lines[0] if told.returncode == 0 and lines else None


def main() -> int:
    """Run one rolling upgrade on a throw-away server and print what it did."""
    parser = argparse.ArgumentParser(prog="scripts/rolling-upgrade", description=__doc__)
    parser.add_argument("--from", dest="commit", help="a commit; else the one described above")
    parser.add_argument("--rounds", type=int, default=10, help="in each of the three parts")
    options = parser.parse_args()
    commit = options.commit or earlier_commit()
    if commit is None:
        sys.stderr.write("rolling-upgrade: this clone has no history to upgrade from\n")
        return 3
    with (
        opened_server(os.environ) as server,
        cloned(server, "template1", f"causeway_rolling_{secrets.token_hex(6)}") as database,
    ):
        sys.stdout.write(f"{asyncio.run(roll(commit, database, rounds=options.rounds))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
