"""Workers of payment files killed by SIGKILL at any moment: nothing is in two files, no file is two."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Final

from lxml import etree
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local import process_table
from app.local.databases import Database
from banks.pain001 import NAMESPACE
from custody.banks.payment_model import FileState, PaymentFile
from custody.banks.payment_views import list_files
from custody.payout_model import Payout, PayoutState
from tests.crash.bank_payer import BankOrder, as_line
from tests.custody.banks.pay_world import BOOK, CLIENTS, HOUSE, World, make_world

REPOSITORY: Final = Path(__file__).absolute().parents[2]
KILLS: Final = 40 if os.environ.get("CAUSEWAY_HYPOTHESIS") == "soak" else 8
MOMENT_MAX_S: Final = 0.06
LIFE: Final = timedelta(days=1)
"""From one worker to the next: more than any worker's hurried clock can count, and than its leases."""
EXPIRES: Final = timedelta(days=30)
DONE_WITHIN_S: Final = 60.0
GONE_S: Final = 10.0


async def test_killed_at_any_moment_each_payment_is_in_one_file_and_each_file_is_one(
    engine: AsyncEngine, database: Database, tmp_path: Path
) -> None:
    world, random = await make_world(engine), Random(7)
    folder = tmp_path / "out"
    folder.mkdir()
    nursery = await _open_nursery()
    payouts: list[Payout] = []
    for life in range(KILLS):
        for _ in range(2):
            number = len(payouts)
            payouts.append(
                await world.approved(
                    client_ref=f"w-{number}",
                    amount=100 + number,
                    expires_at=world.now + EXPIRES - timedelta(days=1),
                )
            )
        order = _order(world, database, folder, life)
        pid, identity = await _bear(nursery, order)
        await asyncio.sleep(random.uniform(0, MOMENT_MAX_S))
        await _kill(pid, identity)
        await _sign_all(world)
        world.clock.advance(LIFE)
    await _finish(nursery, world, database, folder)

    assert {(await world.get(item)).state for item in payouts} == {PayoutState.SIGNED}
    files = await _files(world)
    assert {file.state for file in files} == {FileState.SUBMITTED}
    assert {path.name: path.read_bytes() for path in _names(folder)} == {
        file.name: file.content for file in files
    }
    paid = Counter(text for path in _names(folder) for text in _end_to_ends(path))
    assert paid == Counter(item.id.hex for item in payouts)
    owed = 500_000 - sum(item.amount for item in payouts)
    assert (await world.books())["client:acme"] == (owed, 0, 0)


async def _finish(
    nursery: asyncio.subprocess.Process, world: World, database: Database, folder: Path
) -> None:
    """Let one worker live until every file is out; people sign what is left."""
    pid, identity = await _bear(nursery, _order(world, database, folder, KILLS))
    async with asyncio.timeout(DONE_WITHIN_S):
        while True:
            await _sign_all(world)
            files = await _files(world)
            drafted = sum(file.line_count for file in files)
            if drafted == 2 * KILLS and {f.state for f in files} == {FileState.SUBMITTED}:
                break
            await asyncio.sleep(0.02)
    await _kill(pid, identity)
    assert nursery.stdin is not None
    nursery.stdin.close()
    await nursery.wait()


async def _open_nursery() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.crash.bank_payer"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def _order(world: World, database: Database, folder: Path, life: int) -> BankOrder:
    return BankOrder(
        url=database.app_url,
        folder=str(folder),
        accounts=[HOUSE.code, CLIENTS.code],
        book=BOOK,
        holder=f"worker-{life}",
        now=world.now.isoformat(),
    )


async def _bear(nursery: asyncio.subprocess.Process, order: BankOrder) -> tuple[int, str]:
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    nursery.stdin.write(as_line(order))
    pid = int(await nursery.stdout.readline())
    return pid, process_table.identity(pid) or ""


async def _kill(pid: int, identity: str) -> None:
    assert process_table.identity(pid) == identity, "the worker ended by itself"
    process_table.send(pid, identity, signal.SIGKILL)
    assert await asyncio.to_thread(process_table.wait_gone, pid, identity, timeout_seconds=GONE_S)


async def _files(world: World) -> list[PaymentFile]:
    return await world.run(lambda conn: list_files(conn, book=BOOK))


async def _sign_all(world: World) -> None:
    for file in await _files(world):
        if file.state is FileState.DRAFTED:
            await world.sign_file(file.id, "ben")
            await world.sign_file(file.id, "cleo")


def _names(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _end_to_ends(path: Path) -> list[str]:
    root = etree.fromstring(path.read_bytes())
    return [found.text or "" for found in root.iter(f"{{{NAMESPACE}}}EndToEndId")]
