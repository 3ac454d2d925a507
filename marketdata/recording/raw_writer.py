"""Writing what happened at a venue: a session of segments, every loss said where it happened.

Blocks are written as soon as they are full, so they survive the end of the process; `flush` writes
the rest and syncs, after which they survive a power cut. A block that could not be written whole is
cut off again: a disk that is full costs the frames that came meanwhile, never those before.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kernel.clock import Clock
from marketdata.consumers import Overflow
from marketdata.model import Instrument
from marketdata.raw import RawItem
from marketdata.recording.durable import DISK_ERRNOS, make_folder
from marketdata.recording.errors import RecorderRunning
from marketdata.recording.framing import ITEM_BYTES_MAX, Packer
from marketdata.recording.layout import list_open, list_segments, raw_folder
from marketdata.recording.model import (
    NS_PER_HOUR,
    NS_PER_S,
    Loss,
    LossReason,
    RecordedFile,
    SegmentHeader,
    WritePolicy,
)
from marketdata.recording.recovery import Recovery, recover
from marketdata.recording.segment_file import SegmentFile

LOCK_NAME: Final = ".lock"
BLOCK_ITEMS_MAX: Final = 65_536
ITEM_BYTES: Final = 32
"""What an item counts for besides its data, so that a block of empty ones has an end too."""

LOSSES_MAX: Final = 64
"""Losses kept apart while the disk refuses; further ones are added to the last."""


class RawWriter:
    """Writes what happened at one venue. Belongs to one thread at a time.

    Attributes:
        items: written so far.
        lost: known to be lost so far.
        recovery: what an earlier process had left open.
        finished: segments finished, until whoever keeps the manifest takes them out.

    Raises on opening:
        RecorderRunning: another process writes this venue here.
    """

    def __init__(
        self,
        directory: Path,
        venue: str,
        clock: Clock,
        *,
        feed: str = "",
        instruments: Sequence[Instrument] = (),
        options: Sequence[tuple[str, str]] = (),
        policy: WritePolicy | None = None,
    ) -> None:
        self.items = 0
        self.lost = 0
        self.recovery = Recovery()
        self.finished: list[RecordedFile] = []
        self._directory = directory
        self._clock = clock
        self._policy = policy or WritePolicy()
        self._packer = Packer(self._policy.compression)
        self._lock = locked(directory, venue)
        started_ns = clock.now_ns()
        self._header = SegmentHeader(
            venue=venue,
            feed=feed,
            session=_next_session(directory, venue, started_ns),
            number=0,
            started_ns=started_ns,
            instruments=tuple(instruments),
            options=tuple(sorted(options)),
        )
        self._segment: SegmentFile | None = None
        self._pending: list[RawItem] = []
        self._pending_bytes = 0
        self._losses: list[Loss] = []
        self._blocked_until_ns = 0
        self._synced_ns = started_ns
        try:
            self.recovery = recover(directory, venue, self._packer, started_ns)
            self.finished += self.recovery.files
            self._begin(started_ns)
        except OSError as error:
            self._refused(error, started_ns)
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def session(self) -> str:
        """Return the name of this life of the recorder."""
        return self._header.session

    @property
    def pending(self) -> int:
        """Return how many items would be lost if the process were killed now."""
        return len(self._pending)

    @property
    def is_blocked(self) -> bool:
        """Tell whether the disk refuses, so that what comes now is lost."""
        return self._blocked_until_ns > 0

    def write(self, items: Sequence[RawItem | Overflow]) -> None:
        """Take *items*; full blocks are written at once, the rest waits for `flush`."""
        limit = self._policy.block_bytes
        for item in items:
            if isinstance(item, Overflow):
                self._cut()
                self._lose(LossReason.OVERFLOW, item.since_ns, item.until_ns, item.dropped)
                continue
            size = len(item.data)
            if size > ITEM_BYTES_MAX:
                self._cut()
                at_ns = item.received_ns
                self._lose(LossReason.OVERSIZED, at_ns, at_ns, 1, f"{size} bytes")
                continue
            self._pending.append(item)
            self._pending_bytes += size + ITEM_BYTES
            if self._pending_bytes >= limit or len(self._pending) >= BLOCK_ITEMS_MAX:
                self._cut()

    def flush(self) -> None:
        """Write and sync everything that was taken; finish a segment that is full or of an hour ago."""
        self._cut()
        now_ns = self._clock.now_ns()
        try:
            if self._segment is not None:
                self._segment.sync()
                self._synced_ns = now_ns
        except OSError as error:
            # What a failed sync has dropped, no later one tells: the file is left as it is.
            self._refused(error, now_ns)
            self._leave(f"sync: {os.strerror(error.errno or 0)}", now_ns)

    def close(self) -> None:
        """Write everything, finish the segment, and let another process record.

        While the disk refuses, the segment stays without its end, to be recovered.
        """
        try:
            self._blocked_until_ns = 0
            self._cut()
            self._say_last(self._clock.now_ns())
            if self._segment is not None:
                self._finish(self._segment, self._clock.now_ns())
        finally:
            os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _lose(
        self,
        reason: LossReason,
        since_ns: int,
        until_ns: int,
        items: int | None,
        detail: str = "",
    ) -> None:
        """Note a loss behind everything written so far, joined to the last one of its kind."""
        # A clock that was set back meanwhile: what is missing is of the time in between.
        since_ns, until_ns = sorted((since_ns, until_ns))
        self.lost += items or 0
        last = self._losses[-1] if self._losses else None
        if last is not None and (last.reason is reason or len(self._losses) >= LOSSES_MAX):
            known = items is not None and last.items is not None
            self._losses[-1] = replace(
                last,
                since_ns=min(last.since_ns, since_ns),
                until_ns=max(last.until_ns, until_ns),
                items=(last.items or 0) + (items or 0) if known else None,
            )
            return
        self._losses.append(
            Loss(reason=reason, since_ns=since_ns, until_ns=until_ns, items=items, detail=detail)
        )

    def _cut(self) -> None:
        """Write what is pending as one block, behind the losses that were before it."""
        items, self._pending, self._pending_bytes = self._pending, [], 0
        now_ns = self._clock.now_ns()
        if self._blocked_until_ns > now_ns:
            self._lose_items(items, "")
            return
        try:
            if items or self._losses:
                self._write(items, now_ns)
        except OSError as error:
            self._lose_items(items, os.strerror(error.errno or 0))
            self._refused(error, now_ns)
            return
        self._blocked_until_ns = 0
        self.items += len(items)
        self._roll(now_ns)

    def _say_last(self, now_ns: int) -> None:
        """Write what was lost, into the room that is kept for others if there is no other.

        A segment that does not even take that is left without its end: who recovers it will say so.
        """
        if not self._losses:
            return
        try:
            self._append([], now_ns)
        except OSError as error:
            self._refused(error, now_ns)
            if self._segment is not None:
                self._segment.abandon()
                self._segment = None

    def _write(self, items: Sequence[RawItem], now_ns: int) -> None:
        """Write losses and items, or nothing at all of them, if there is room beside that of others."""
        told = os.statvfs(self._directory)
        if told.f_bavail * told.f_frsize < self._policy.free_bytes_min:
            raise OSError(errno.ENOSPC, "less room than is kept for others")
        self._append(items, now_ns)

    def _append(self, items: Sequence[RawItem], now_ns: int) -> None:
        segment = self._segment or self._begin(now_ns)
        with segment.all_or_nothing():
            for loss in self._losses:
                segment.add_loss(loss)
            if items:
                segment.add_items(items)
        self._losses.clear()

    def _lose_items(self, items: Sequence[RawItem], detail: str) -> None:
        if items:
            times = [item.received_ns for item in items]
            self._lose(LossReason.DISK, min(times), max(times), len(items), detail)

    def _refused(self, error: OSError, now_ns: int) -> None:
        """Wait before the disk is tried again; what is no word of a disk is a fault of ours."""
        if error.errno not in DISK_ERRNOS:
            raise error
        every_ns = round(self._policy.retry_every.total_seconds() * NS_PER_S)
        self._blocked_until_ns = now_ns + every_ns

    def _leave(self, detail: str, now_ns: int) -> None:
        if self._segment is not None:
            self._segment.abandon()
            self._segment = None
        self._lose(LossReason.DISK, self._synced_ns, now_ns, None, detail)

    def _begin(self, now_ns: int) -> SegmentFile:
        header = replace(self._header, number=self._header.number + 1, started_ns=now_ns)
        self._segment = SegmentFile.create(self._directory, header, self._packer)
        self._header = header
        return self._segment

    def _roll(self, now_ns: int) -> None:
        """Finish a segment that is full, or that was begun in another hour.

        The next one is begun before, so that a kill at any moment leaves an open one to be found.
        One in which nothing is yet goes on: its number would be missing.
        """
        full = self._segment
        if full is None or full.is_empty:
            return
        is_full = full.size >= self._policy.segment_bytes
        if not is_full and full.header.started_ns // NS_PER_HOUR == now_ns // NS_PER_HOUR:
            return
        try:
            self._begin(now_ns)
        except OSError as error:
            self._refused(error, now_ns)
            return
        self._finish(full, now_ns)

    def _finish(self, segment: SegmentFile, now_ns: int) -> None:
        """Finish a segment; one that the disk does not let finish is left to be recovered."""
        try:
            if segment.is_empty:
                segment.discard()
            else:
                self.finished.append(segment.finish())
        except OSError as error:
            self._refused(error, now_ns)
            segment.abandon()


def _next_session(directory: Path, venue: str, started_ns: int) -> str:
    """Return a name behind those of all sessions of the venue, also if a clock was set back."""
    names = [path.name for path in (*list_segments(directory, venue), *list_open(directory, venue))]
    last = max((name.partition("-")[0] for name in names), default="")
    return f"{max(started_ns, int(last) + 1 if last.isdigit() else 0):019}"


def locked(directory: Path, venue: str) -> int:
    """Take the right to write a venue's recording, and return what holds it until it is closed.

    The system lets go of it when the process ends, however it ends.

    Raises:
        RecorderRunning: another process has it.
    """
    folder = raw_folder(directory, venue)
    make_folder(folder)
    fd = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise RecorderRunning(
            f"another process records {venue}",
            where=str(folder),
            remedy="One recorder per venue and directory: end the other one, or record elsewhere",
        ) from error
    return fd
