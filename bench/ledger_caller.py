"""How fast are single transfers, each in a transaction of its caller, on eight connections?

This is the slow way to post: every transaction locks the same head from its first statement to
its commit. pgbench's TPC-B is alike: at scale 1 each of its transactions updates the one branch. It
runs with as many connections on the same server, in turn, from one thread.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Final

from app.local.postgres import LocalPostgres
from bench.ledger_book import ACCOUNTS, CONNECTIONS, Book, Books, books, used
from bench.measure import Measured, Result, Shared, Turn, alternate

ROUNDS: Final = 3
SECONDS_PER_TURN: Final = 4
TRANSFERS_PER_TURN_MAX: Final = 20_000
SCALES: Final = (1, 10)
AT_LEAST: Final = 0.5
DEBIAN: Final = Path("/usr/lib/postgresql")
DONE: Final = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)


def measure(shared: Shared) -> Measured:
    """Post one by one and run TPC-B in turn."""
    found = shared.once(books)
    program = _find_pgbench(found.server)
    with found.book("ledger_caller") as book, ExitStack() as stack:
        contestants: dict[str, Callable[[], Turn]] = {"ours": lambda: _one_by_one(book)}
        if program is not None:
            for scale in SCALES:
                contestants[_words(scale)] = stack.enter_context(_tpcb(found, program, scale))
        rates = alternate(contestants, ROUNDS)
    absent = "" if program is not None else ", which is not installed here"
    return Measured(
        [
            Result(
                name=name,
                value=rates["ours"],
                unit="transfers/s",
                baseline=_words(scale) + absent,
                baseline_value=rates.get(_words(scale)),
                at_least=goal,
            )
            for name, scale, goal in (
                ("ledger_caller", SCALES[0], AT_LEAST),
                ("ledger_caller.scale_10", SCALES[1], None),
            )
        ],
        found.conditions(
            f"{CONNECTIONS} connections, one transfer in each transaction, {ACCOUNTS:,} accounts with "
            f"an overdraft guard, pairs at random; {ROUNDS} turns of {SECONDS_PER_TURN} s; "
            f"pgbench -c {CONNECTIONS} -j 1 beside it"
        ),
        used(),
    )


def _words(scale: int) -> str:
    return f"pgbench TPC-B, scale {scale}"


def _one_by_one(book: Book) -> Turn:
    (transfers,) = book.batches(TRANSFERS_PER_TURN_MAX, 1)

    async def work() -> int:
        waiting, done = iter(transfers), 0
        until = perf_counter() + SECONDS_PER_TURN

        async def connection() -> None:
            nonlocal done
            for item in waiting:
                await book.post([item])
                done += 1
                if perf_counter() > until:
                    return

        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(connection())
        return done

    return lambda: book.runner.run(work())


@contextmanager
def _tpcb(found: Books, program: Path, scale: int) -> Iterator[Callable[[], Turn]]:
    """Fill a database for pgbench and give its turns."""
    name = f"bench_tpcb_{scale}"
    url = found.server.psql_url(name)

    def turn() -> int:
        asked = ("-c", str(CONNECTIONS), "-j", "1", "-T", str(SECONDS_PER_TURN))
        said = _run(program, *asked, url)
        done = DONE.search(said)
        if done is None:
            raise RuntimeError(f"pgbench does not say what it did: {said}")
        return int(done[1])

    asyncio.run(found.administer(f"CREATE DATABASE {name}"))
    try:
        _run(program, "--initialize", "--quiet", "--scale", str(scale), url)
        yield lambda: turn
    finally:
        asyncio.run(found.administer(f"DROP DATABASE {name}"))


def _run(program: Path, *arguments: str) -> str:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def _find_pgbench(server: LocalPostgres) -> Path | None:
    """Return pgbench: the server's own, else any; None where there is none."""
    on_path = shutil.which("pgbench")
    candidates = [
        server.binaries.folder / "pgbench",
        *([Path(on_path)] if on_path else []),
        *sorted(DEBIAN.glob("*/bin/pgbench"), reverse=True),
    ]
    return next((path for path in candidates if path.is_file()), None)
