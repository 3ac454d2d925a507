"""Two processes take the same files in at the same moment: everything is booked once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database
from tests.custody.banks.bank_house import BankHouse

WAIT_S: Final = 30
PROGRAM: Final = """
import asyncio, sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from custody.banks.importing import import_file
from kernel.db import APP_ROLE, create_engine, transact

async def main(url, paths):
    engine = create_engine(url, role=APP_ROLE, injected_clock=True)
    now = datetime(2026, 1, 9, tzinfo=UTC)
    print("ready", flush=True)
    sys.stdin.readline()
    booked = 0
    for path in paths:
        work = partial(import_file, raw=Path(path).read_bytes(), name=path, now=now)
        booked += (await transact(engine, work)).booked
    await engine.dispose()
    print(booked, flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2:]))
"""


def keep(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)


def at_the_same_time(url: str, folder: Path) -> list[int]:
    """Let two processes take every file of a folder in; return how many entries each has booked."""
    paths = sorted(str(path) for path in folder.iterdir())
    pipe, command = subprocess.PIPE, [sys.executable, "-c", PROGRAM, url, *paths]
    running = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    booked = [int(process.communicate(timeout=WAIT_S)[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0]
    return booked


async def test_two_processes_book_every_entry_once(
    engine: AsyncEngine, database: Database, tmp_path: Path
) -> None:
    house = await BankHouse(engine).open()
    days = 6
    for day in range(days):
        house.credit(100 + day, f"RUN-{day}")
        keep(tmp_path / f"{day}.xml", *house.end_of_day())
    assert sum(at_the_same_time(database.app_url, tmp_path)) == days
    total = sum(100 + day for day in range(days))
    assert await house.balances() == {"bank:desk-eur": total, "suspense:bank": -total}
