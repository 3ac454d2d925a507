"""How many frames a second go from the queue to the disk, and does memory stay as it is?

A million depth updates of a busy pair (`bench.feed_load`) are put into a recorder's bounded queue as
fast as it takes them, none dropped, and are written as a recording is: packed, with checksums, synced
every second, by a thread beside the loop. The limit packs the same bytes in pieces of the same size
and keeps nothing.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

import zstandard

from bench.feed_load import SHAPE, frames
from bench.measure import Measured, Result, Shared, versions
from kernel.clock import SystemClock
from marketdata.consumers import LosslessQueue
from marketdata.raw import RawItem, RawKind
from marketdata.recording.layout import list_segments
from marketdata.recording.model import WritePolicy
from marketdata.recording.raw_reader import read
from marketdata.recording.raw_writer import RawWriter
from marketdata.recording.recorder import Recorder

FRAMES: Final = 1_000_000
DISTINCT: Final = 20_000
"""Frames that are made; they come round again far behind what a block is packed from."""

QUEUE: Final = 65_536
STEADY_AFTER: Final = 200_000
"""Frames after which whatever is kept has been allocated."""

LOOK_EVERY: Final = 50_000
RATE_AT_LEAST: Final = 100_000
GROWTH_AT_MOST_MIB: Final = 32
STEP_NS: Final = 10_000
PAGE_KIB: Final = 4


def measure(shared: Shared) -> Measured:
    """Record a million frames, or *size* of them."""
    count = shared.size or FRAMES
    made = frames(DISTINCT)
    with TemporaryDirectory(prefix="causeway-recorder-") as folder:
        rate, memory_kib, lost = asyncio.run(_recorded(Path(folder), made, count))
        paths = list_segments(Path(folder))
        size = sum(path.stat().st_size for path in paths)
        began = perf_counter()
        there = sum(1 for path in paths for _ in read(path))
        read_rate = there / (perf_counter() - began)
    if lost or there != count:
        raise AssertionError(f"{there} of {count} frames were recorded, {lost} lost")
    steady = memory_kib[STEADY_AFTER // LOOK_EVERY :]
    growth_mib = (max(steady) - steady[0]) / 1024 if steady else 0.0
    plain = sum(map(len, made)) / DISTINCT * count
    return Measured(
        results=[
            Result(
                name="recorder_queue",
                value=rate,
                unit="frames/s",
                baseline="",
                at_least=RATE_AT_LEAST,
            ),
            Result(
                name="recorder_queue.packing",
                value=rate,
                unit="frames/s",
                baseline="zstd alone on the same bytes (limit)",
                baseline_value=_packed(made, count),
            ),
            Result(
                name="recorder_queue.memory",
                value=growth_mib,
                unit="MiB",
                at_most=GROWTH_AT_MOST_MIB,
            ),
            Result(name="recorder_queue.size", value=plain / size, unit="bytes per byte on disk"),
            Result(name="recorder_queue.read", value=read_rate, unit="frames/s"),
        ],
        conditions={
            "input": f"{count:,} frames of {plain / count:,.0f} bytes: {SHAPE}",
            "queue": f"{QUEUE:,} items",
            "memory": f"resident, from frame {STEADY_AFTER:,} to the last",
        },
        versions=versions("zstandard", "msgspec"),
    )


async def _recorded(
    folder: Path, made: Sequence[bytes], count: int
) -> tuple[float, list[float], int]:
    """Return the rate, the memory as it went, and how many frames were lost."""
    queue = LosslessQueue[RawItem](QUEUE)
    policy = WritePolicy(free_bytes_min=0)
    writer = RawWriter(folder, "binance", SystemClock(), feed="binance", policy=policy)
    recorder = Recorder(queue, writer)
    memory_kib: list[float] = []
    # What was imported and made before is no garbage of the recorder's.
    gc.collect()
    gc.freeze()
    began = perf_counter()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(recorder.run())
        items = _items(made, count)
        put = 0
        while batch := list(islice(items, 1_000)):
            while len(queue) > QUEUE // 2:  # noqa: ASYNC110  the queue tells nobody that it has room
                await asyncio.sleep(0.001)
            for item in batch:
                queue.put_nowait(item)
            put += len(batch)
            if put % LOOK_EVERY == 0:
                memory_kib.append(_resident_kib())
            await asyncio.sleep(0)
        task.cancel()
        # It ends when everything is written, synced and closed.
        await asyncio.wait([task])
    rate = count / (perf_counter() - began)
    gc.unfreeze()
    return rate, memory_kib, queue.dropped + writer.lost


def _items(made: Sequence[bytes], count: int) -> Iterator[RawItem]:
    start_ns = SystemClock().now_ns()
    for number in range(count):
        yield RawItem(RawKind.FRAME, start_ns + STEP_NS * number, 1, "", made[number % len(made)])


def _packed(made: Sequence[bytes], count: int) -> float:
    """Return how many frames a second zstd alone packs, in blocks as the recorder has them."""
    policy = WritePolicy()
    compressor = zstandard.ZstdCompressor(level=policy.compression)
    plain = b"".join(made)
    per_frame = len(plain) / len(made)
    blocks = [
        plain[at : at + policy.block_bytes] for at in range(0, len(plain), policy.block_bytes)
    ]
    began = perf_counter()
    done = 0.0
    while done < count / 4:
        for block in blocks:
            compressor.compress(block)
            done += len(block) / per_frame
    return done / (perf_counter() - began)


def _resident_kib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_KIB
