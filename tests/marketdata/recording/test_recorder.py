"""The recorder: it carries everything from the queue to the disk, and never holds the queue up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from kernel.clock import ManualClock
from marketdata.consumers import LosslessQueue, Overflow
from marketdata.events import MarketEvent
from marketdata.raw import RawItem, RawKind
from marketdata.recording.derive import Deriver
from marketdata.recording.layout import list_open, list_segments
from marketdata.recording.model import LossReason, RecordedFile, WritePolicy
from marketdata.recording.raw_reader import read
from marketdata.recording.raw_writer import RawWriter
from marketdata.recording.recorder import Recorder
from marketdata.recording.testing import TinyMachine, session_items
from marketdata.testing import eth_usdt

PATIENCE_S = 10
START_NS = ManualClock().now_ns()
POLICY = WritePolicy(free_bytes_min=0)


class StuckSink:
    """A disk that does not answer until it is let."""

    def __init__(self) -> None:
        self.finished: list[RecordedFile] = []
        self.seen: list[RawItem | Overflow] = []
        self.began = threading.Event()
        self.let = threading.Event()
        self.is_closed = False

    def write(self, items: Sequence[RawItem | Overflow]) -> None:
        self.began.set()
        assert self.let.wait(PATIENCE_S)
        self.seen += items

    def flush(self) -> None:
        return

    def close(self) -> None:
        self.is_closed = True


def frame(number: int) -> RawItem:
    return RawItem(RawKind.FRAME, START_NS + number, 1, "", b"%d" % number)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  conditions of many kinds
            await asyncio.sleep(0.001)


async def stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_waits_in_the_queue_is_written_before_the_recorder_ends(tmp_path: Path) -> None:
    items = list(session_items(500, start_ns=START_NS))
    queue = LosslessQueue[RawItem](1_000)
    finished: list[RecordedFile] = []
    writer = RawWriter(tmp_path, "sim", ManualClock(), policy=POLICY)
    recorder = Recorder(queue, writer, on_finished=finished.append)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(recorder.run())
        for item in items[:300]:
            queue.put_nowait(item)
        await until(lambda: recorder.taken == 300)
        for item in items[300:]:
            queue.put_nowait(item)
        await stopped(task)

    (path,) = list_segments(tmp_path)
    assert list(read(path)) == items
    assert [file.rows for file in finished] == [len(items)]


async def test_what_came_is_synced_though_nothing_more_comes(tmp_path: Path) -> None:
    queue = LosslessQueue[RawItem](10)
    writer = RawWriter(tmp_path, "sim", ManualClock(), policy=POLICY)
    recorder = Recorder(queue, writer, flush_every=timedelta(milliseconds=10))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(recorder.run())
        queue.put_nowait(frame(1))
        await until(lambda: writer.items == 1)
        (path,) = list_open(tmp_path)
        assert list(read(path, unfinished=True)) == [frame(1)]
        await stopped(task)


async def test_a_stuck_disk_holds_nobody_up_and_what_it_costs_is_said() -> None:
    queue, sink = LosslessQueue[RawItem](10), StuckSink()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(Recorder(queue, sink).run())
        queue.put_nowait(frame(0))
        await until(sink.began.is_set)
        # The loop goes on, the queue fills, and then drops.
        kept = [queue.put_nowait(frame(number)) for number in range(1, 16)]
        assert kept == [True] * 10 + [False] * 5
        sink.let.set()
        await until(lambda: len(sink.seen) == 12)
        await stopped(task)

    assert sink.seen == [*map(frame, range(11)), Overflow(START_NS + 11, START_NS + 15, 5)]
    assert sink.is_closed


async def test_a_batch_in_hand_when_it_is_stopped_is_written() -> None:
    queue, sink = LosslessQueue[RawItem](10), StuckSink()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(Recorder(queue, sink).run())
        queue.put_nowait(frame(0))
        await until(sink.began.is_set)
        queue.put_nowait(frame(1))
        task.cancel()
        await asyncio.sleep(0)
        sink.let.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert sink.seen == [frame(0), frame(1)]
    assert sink.is_closed


async def test_events_are_recorded_like_frames(tmp_path: Path) -> None:
    queue = LosslessQueue[MarketEvent](1_000)
    finished: list[RecordedFile] = []
    deriver = Deriver(tmp_path, "sim", "s", [eth_usdt()])
    machine = TinyMachine()
    recorder = Recorder[MarketEvent](queue, deriver, on_finished=finished.append)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(recorder.run())
        for item in session_items(100, start_ns=START_NS):
            for event in machine.take(item):
                queue.put_nowait(event)  # type: ignore[arg-type]
        await until(lambda: recorder.taken > 100)
        await stopped(task)

    assert sum(file.rows for file in finished) > 100


async def test_overflow_is_a_loss_in_the_file(tmp_path: Path) -> None:
    queue = LosslessQueue[RawItem](5)
    for number in range(9):
        queue.put_nowait(frame(number))
    writer = RawWriter(tmp_path, "sim", ManualClock(), policy=POLICY)
    finished: list[RecordedFile] = []
    async with asyncio.TaskGroup() as group:
        task = group.create_task(Recorder(queue, writer, on_finished=finished.append).run())
        await until(lambda: not len(queue))
        await stopped(task)

    ((loss,),) = [file.losses for file in finished]
    assert (loss.reason, loss.items) == (LossReason.OVERFLOW, 4)
