"""From the socket to the book: how long until whoever waits for a book sees what the venue sent?

The real runner over a loopback WebSocket, the venue a process of its own. The time begins before
the venue hands the frame to its socket and ends when a consumer, waiting on the slot of that pair,
holds a view of 100 levels that includes the update. Frames come at random moments, as many in the
mean as ten pairs have with an update every 100 ms, and ten times as many.
"""

from __future__ import annotations

import asyncio
import random
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import orjson

from bench import feed_load
from bench.measure import Measured, Result, Shared, percentile, versions
from kernel.clock import SystemClock
from marketdata.events import Channel
from venues.binance.feed import lanes
from venues.binance.wire import wire
from venues.feeds.runner import FeedRunner
from venues.feeds.web import open_transport

PAIRS: Final = 10
RATE_S: Final = 100
FRAMES: Final = 600
LOADS: Final = (1, 10)
PERCENTILES: Final = (50, 99)
PATIENCE: Final = timedelta(seconds=10)
LINE_BYTES_MAX: Final = 2**24
CLOCK: Final = SystemClock()
ROOT: Final = Path(__file__).parents[1]


def measure(shared: Shared) -> Measured:
    """Stream both loads, one after the other."""
    del shared
    results = []
    for load in LOADS:
        latencies_s = asyncio.run(_latencies(RATE_S * load, FRAMES * load))
        results += [
            Result(
                name=f"feed_latency_{load}x.p{percent}",
                value=percentile(latencies_s, percent) * 1_000,
                unit="ms",
            )
            for percent in PERCENTILES
        ]
    return Measured(
        results,
        {
            "input": f"{PAIRS} pairs, {RATE_S} and {RATE_S * LOADS[-1]:,} frames a second in all",
            "load": feed_load.SHAPE,
            "timed": "before the venue's send to a view of 100 levels in the consumer's hands",
        },
        versions("aiohttp", "msgspec"),
    )


async def _latencies(rate: int, count: int) -> list[float]:
    """Return seconds from sending to seeing, of every frame."""
    pairs = [feed_load.instrument(pair) for pair in range(PAIRS)]
    async with _venue(rate, count) as (venue, port):
        addresses = wire(f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}")
        async with open_transport(addresses) as transport, asyncio.TaskGroup() as group:
            runner = FeedRunner(
                lanes(pairs, channels=[Channel.BOOK]), transport, CLOCK, chance=random.random
            )
            running = group.create_task(runner.run())
            for pair in pairs:
                if await runner.wait_for_book(pair.symbol, PATIENCE) is None:
                    raise AssertionError("there is no book to begin with")
            last = count // PAIRS + 1
            watching = [group.create_task(_watch(runner, pair.symbol, last)) for pair in pairs]
            sent = await _stream(venue)
            async with asyncio.timeout(PATIENCE / timedelta(seconds=1)):
                seen = [await watch for watch in watching]
            running.cancel()
    return [(_when(seen[pair], number) - at_ns) / 1e9 for pair, number, at_ns in sent]


async def _watch(runner: FeedRunner, symbol: str, last: int) -> list[tuple[int, int]]:
    """Return the update ids that were seen until *last*, and when."""
    slot = runner.latest(symbol)
    seen: list[tuple[int, int]] = []
    while not seen or seen[-1][0] < last:
        view = await slot.wait(slot.version)
        seen.append((view.sequence, CLOCK.now_ns()))
    return seen


async def _stream(venue: Process) -> list[tuple[int, int, int]]:
    assert venue.stdin is not None
    assert venue.stdout is not None
    venue.stdin.write(b"go\n")
    found: list[tuple[int, int, int]] = orjson.loads(await venue.stdout.readline())
    return found


def _when(seen: Sequence[tuple[int, int]], number: int) -> int:
    """Return when the first view was seen that includes update *number*."""
    return seen[bisect_left(seen, (number, 0))][1]


@asynccontextmanager
async def _venue(rate: int, count: int) -> AsyncIterator[tuple[Process, int]]:
    venue = await create_subprocess_exec(
        sys.executable,
        *("-m", "bench.feed_server", str(PAIRS), str(rate), str(count)),
        stdin=PIPE,
        stdout=PIPE,
        cwd=ROOT,
        limit=LINE_BYTES_MAX,
    )
    assert venue.stdin is not None
    assert venue.stdout is not None
    try:
        yield venue, int(await venue.stdout.readline())
    finally:
        venue.stdin.close()
        await venue.wait()
