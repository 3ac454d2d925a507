"""A desk at work, turn after turn, in the code of whichever tree it is started in.

``python rolling_load.py NAME OWNER_URL APP_URL`` with ``PYTHONPATH`` at the root of a tree: it founds a
house on a node of its own, starts a watcher process of that tree, and lets the house post, pay and be
paid in rounds until standard input ends. It says one line of JSON when it is ready, after each round
and in the end; whatever goes wrong ends it with a trace.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from random import Random
from typing import Any, Final

from app.local.databases import Database
from chain.simulators.testing import dev_account, sign_transaction
from kernel.clock import SystemClock
from ledger.verification import verify
from tests.crash.ledger.workload import answers, expected, prepare_book, send
from tests.crash.test_payouts_killed import opened_desk
from tests.crash.test_watchers_killed import Play
from tests.custody.payout_world import BOOK, ETH

POSTED: Final = 2
"""The book of the batches; the house has the other one."""
STREAM: Final = "rolling"
ROUND_S_MAX: Final = 150.0
ROUNDS_MAX: Final = 1_000
BLOCK_S: Final = 0.5
OUTPUT: Final = os.dup(1)
"""Where it says its lines; what is logged goes where errors go."""


def say(line: Mapping[str, object]) -> None:
    """Say it to whoever started us, at once."""
    os.write(OUTPUT, json.dumps(dict(line)).encode() + b"\n")


async def one_round(play: Play, number: int) -> None:
    """Post a batch, pay once, be paid once; return when both are confirmed and credited."""
    world, rpc = play.desk.world, play.desk.world.rpc
    assert rpc is not None
    assert answers(await send(world.engine, POSTED, STREAM, number)) == expected(STREAM)
    await play.desk.ask(1)
    raw = sign_transaction(dev_account(8), number, to=play.client, value=ETH // 1_000 + number)
    await rpc.call("eth_sendRawTransaction", raw)
    async with asyncio.timeout(ROUND_S_MAX):
        while True:
            await play.mine(1)
            seen = await play.seen()
            confirmed = sum(n for name, n in seen.items() if name.startswith("confirmed"))
            if confirmed > number and seen["deposit credited"] > number:
                return
            # A chain that grows faster than it can be followed would be followed for ever.
            await asyncio.sleep(BLOCK_S)


async def work(name: str, owner_url: str, app_url: str, stop: asyncio.Event) -> None:
    """Work until told to stop."""
    database = Database(name=name, owner_url=owner_url, app_url=app_url)
    async with opened_desk(database) as desk:
        play, world = Play(desk, 0, Random(0)), desk.world
        await play.found()
        await prepare_book(world.engine, POSTED, [STREAM])
        number = 0
        async with desk.worker(100, start=world.start_height):
            # The clock of the house is ahead of the machine's: the leases of the dead have ended.
            ahead = world.clock.now() - SystemClock().now()
            say(
                {
                    "node": desk.node,
                    "socket": str(desk.socket),
                    "book": BOOK,
                    "start": world.start_height,
                    "ahead_s": ahead.total_seconds(),
                }
            )
            while number < ROUNDS_MAX and not (stop.is_set() and number):
                await one_round(play, number)
                number += 1
                say({"round": number})
        faults = [
            str(fault) for book in (BOOK, POSTED) for fault in await verify(world.engine, book)
        ]
        say({"rounds": number, "faults": faults})


async def main(arguments: list[str]) -> None:
    """Work until standard input ends."""
    stop = asyncio.Event()

    async def watch_input() -> None:
        reader = asyncio.StreamReader()
        protocol: Any = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: protocol, sys.stdin)
        await reader.read()
        transport.close()
        stop.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(watch_input())
        name, owner_url, app_url = arguments
        await work(name, owner_url, app_url, stop)


if __name__ == "__main__":
    os.dup2(2, 1)
    asyncio.run(main(sys.argv[1:]))
