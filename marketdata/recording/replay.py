"""Replay: a recording through the machine that its feed had, as fast as it can or at a speed.

At a speed, an item is given at its time of receipt, counted from the first: whoever listens sees the
market as it was. The machine is told the recorded times, so the events are the same at any speed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from marketdata.events import MarketEvent, WantCheck, WantReconnect, WantResubscribe, WantSnapshot
from marketdata.ports import FeedMachine
from marketdata.raw import RawItem
from marketdata.recording.errors import RecordingDamaged
from marketdata.recording.model import NS_PER_S, Loss, LossReason, SegmentHeader
from marketdata.recording.raw_reader import item_of, read, read_header

PROGRESS_ITEMS: Final = 10_000
BREATH_ITEMS: Final = 1_000
"""After so many items others get their turn."""

SLEEP_MIN_S: Final = 0.001
_REQUESTS: Final = (WantSnapshot, WantResubscribe, WantReconnect, WantCheck)


def items_of(paths: Sequence[Path], *, unfinished: bool = False) -> Iterator[RawItem]:
    """Yield the items of one session's segments; a segment that is not there comes as a LOST item.

    Args:
        paths: of one session, in order.
        unfinished: the last one may be without its end: it is being written.

    Raises:
        RecordingDamaged: a segment is not what was written, or of another session.
    """
    expected, last_ns = 1, 0
    session = read_header(paths[0]).session if paths else ""
    for path in paths:
        header = read_header(path)
        if header.session != session:
            raise RecordingDamaged(f"it is of another session than {session}", where=str(path))
        if header.number != expected:
            missing = Loss(
                reason=LossReason.MISSING,
                since_ns=last_ns or header.started_ns,
                until_ns=header.started_ns,
                detail=f"segments {expected} to {header.number - 1}",
            )
            yield item_of(missing)
        expected = header.number + 1
        for item in read(path, unfinished=unfinished and path == paths[-1]):
            last_ns = item.received_ns
            yield item


def events_of(
    paths: Sequence[Path],
    machine: FeedMachine,
    *,
    progress: Callable[[int], object] = lambda _: None,
) -> Iterator[Sequence[MarketEvent]]:
    """Yield what a machine says to the items of one session, as fast as it can."""
    count = 0
    for item in items_of(paths):
        events = [one for one in machine.take(item) if not isinstance(one, _REQUESTS)]
        count += 1
        if count % PROGRESS_ITEMS == 0:
            progress(count)
        if events:
            yield events
    progress(count)


async def replay(
    paths: Iterable[Path],
    machine: Callable[[SegmentHeader], FeedMachine],
    *,
    speed: float,
    sink: Callable[[Sequence[MarketEvent]], object],
    unfinished: bool = False,
) -> int:
    """Give what a recording's machines say to *sink*, and return how many items were played.

    Args:
        paths: segments of one or more sessions of one venue, in order.
        machine: makes the machine that a session's feed had.
        speed: 1 as it was, 10 ten times as fast; 0 as fast as it can.
        sink: told of each item's events, in order. It must not block.
        unfinished: the last segment may be one that is being written.

    Raises:
        RecordingDamaged: a segment is not what was written; what came before it was played.
    """
    loop = asyncio.get_running_loop()
    began_s, first_ns, count = loop.time(), 0, 0
    for _, segments in groupby(paths, lambda path: read_header(path).session):
        listed = list(segments)
        player = machine(read_header(listed[0]))
        for item in items_of(listed, unfinished=unfinished):
            first_ns = first_ns or item.received_ns
            if speed > 0:
                due_s = began_s + (item.received_ns - first_ns) / NS_PER_S / speed
                if due_s - loop.time() >= SLEEP_MIN_S:
                    await asyncio.sleep(due_s - loop.time())
            count += 1
            if count % BREATH_ITEMS == 0:
                await asyncio.sleep(0)
            events = [one for one in player.take(item) if not isinstance(one, _REQUESTS)]
            if events:
                sink(events)
    return count
