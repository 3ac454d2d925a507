"""A feed that is recorded: what happens as bytes, what follows from it as Parquet, both at once.

The queues stand before the feed runs, and are emptied after it has stopped, so that the recording
begins with the connection and ends with its last frame. The Parquet files are a convenience: the
same follow from the bytes (`causeway marketdata replay --check`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event
from typing import Final

import structlog

from app.metrics import QueueFigures
from kernel.clock import Clock
from kernel.errors import CausewayError
from marketdata.consumers import LosslessQueue
from marketdata.events import MarketEvent
from marketdata.raw import RawItem
from marketdata.recording.derive import Deriver, derive_recovered
from marketdata.recording.model import RecordedFile
from marketdata.recording.raw_writer import RawWriter
from marketdata.recording.recorder import Recorder
from venues.feeds.factory import FeedPlan, machine_of
from venues.feeds.runner import FeedRunner

RAW_MAX: Final = 100_000
"""Raw items that may wait for the disk: some seconds of a very busy venue, some 100 MB."""
EVENTS_MAX: Final = 100_000
FINISHED_MAX: Final = 10_000
"""Finished files that wait for the manifest; further ones are found there at the next start."""

log = structlog.get_logger("recording")


@dataclass(slots=True, kw_only=True)
class Recording:
    """What is being recorded of one venue.

    Attributes:
        finished: files that are whole, until somebody enters them in the manifest.
    """

    venue: str
    writer: RawWriter
    raw: LosslessQueue[RawItem]
    events: LosslessQueue[MarketEvent]
    finished: deque[RecordedFile] = field(default_factory=lambda: deque(maxlen=FINISHED_MAX))

    def queues(self) -> Mapping[str, QueueFigures]:
        """Return how full the queues are."""
        return {
            f"{self.venue} raw": QueueFigures(len(self.raw), self.raw.maxsize, self.raw.dropped),
            f"{self.venue} events": QueueFigures(
                len(self.events), self.events.maxsize, self.events.dropped
            ),
        }

    def counters(self) -> Mapping[tuple[str, str], int]:
        """Return what was recorded and what was lost."""
        return {
            ("recorded_items", self.venue): self.writer.items,
            ("recording_lost_items", self.venue): self.writer.lost,
        }


@contextlib.asynccontextmanager
async def recorded(
    feed: FeedRunner, plan: FeedPlan, folder: Path, *, clock: Clock
) -> AsyncIterator[Recording]:
    """Record a feed, which does not run yet, while the context is open.

    What a killed recorder had recorded and not derived is derived meanwhile.

    Raises:
        RecorderRunning: another process records this venue into this folder.
        OSError: the disk refuses in a way that no waiting cures.
    """

    def opened() -> RawWriter:
        folder.mkdir(parents=True, exist_ok=True)
        return RawWriter(
            folder,
            feed.venue,
            clock,
            feed=plan.feed,
            instruments=plan.instruments,
            options=plan.options,
        )

    # What a killed recorder has left is made whole first, which may take its time.
    writer = await asyncio.to_thread(opened)
    deriver = Deriver(folder, feed.venue, writer.session, plan.instruments)
    recording = Recording(
        venue=feed.venue,
        writer=writer,
        raw=LosslessQueue(RAW_MAX),
        events=LosslessQueue(EVENTS_MAX),
    )
    keep = recording.finished.append
    recorders = (
        Recorder(recording.raw, writer, on_finished=keep),
        Recorder(recording.events, deriver, on_finished=keep),
    )
    with feed.raw(recording.raw), feed.events(recording.events):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(recorder.run()) for recorder in recorders]
            tasks.append(group.create_task(_derive_left(recording, folder)))
            try:
                yield recording
            finally:
                for task in tasks:
                    task.cancel()


async def _derive_left(recording: Recording, folder: Path) -> None:
    """Derive what a killed recorder had not, in a thread; whoever is cancelled leaves it at once."""
    left = recording.writer.recovery
    for path in left.put_aside:
        log.error("a recording cannot be read and was put aside", path=str(path))
    if not left.files:
        return
    ended = Event()
    derive = partial(
        derive_recovered, folder, left.files, machine_of, is_wanted=lambda: not ended.is_set()
    )
    try:
        made = await asyncio.to_thread(derive)
    except CausewayError as error:
        # The frames are whole, or say what is missing; only the tables of them are not there.
        log.error("what was recorded cannot be derived", venue=recording.venue, error=str(error))  # noqa: TRY400  foreseen
        return
    finally:
        ended.set()
    recording.finished.extend(made)
