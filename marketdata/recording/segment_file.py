"""One segment while it is being written: what cannot be written whole is cut off again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from marketdata.raw import RawItem
from marketdata.recording.durable import make_folder, rename, sync_folder, write_all
from marketdata.recording.framing import (
    BlockHead,
    End,
    Packer,
    encode_end,
    encode_header,
    encode_items,
    encode_loss,
)
from marketdata.recording.layout import UNFINISHED_SUFFIX, open_path, segment_path
from marketdata.recording.model import FileKind, Loss, RecordedFile, SegmentHeader

CHUNK_BYTES: Final = 1 << 20


class SegmentFile:
    """A segment that grows: make it with `create`. Not for two threads at once."""

    def __init__(self, directory: Path, header: SegmentHeader, packer: Packer) -> None:
        self.header = header
        self.path = segment_path(directory, header)
        self.size = 0
        self.items = 0
        self._directory = directory
        self._packer = packer
        self._blocks = 0
        self._losses: list[Loss] = []
        self._first_ns = 0
        self._last_ns = 0
        self._digest = hashlib.sha256()
        self._fd = -1

    @classmethod
    def create(cls, directory: Path, header: SegmentHeader, packer: Packer) -> Self:
        """Begin a segment; under its name it has its whole header.

        Raises:
            OSError: the disk refuses; nothing is left of it.
        """
        segment = cls(directory, header, packer)
        make_folder(segment.path.parent)
        segment.rewrite([])
        return segment

    def rewrite(self, parts: Iterable[Sequence[RawItem] | Loss]) -> None:
        """Write the file anew with *parts* in it; it takes the place of what was there."""
        unnamed = self.path.with_name(self.path.name + UNFINISHED_SUFFIX)
        self.abandon()
        self._fd = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            self._append(encode_header(self.header))
            for part in parts:
                if isinstance(part, Loss):
                    self.add_loss(part)
                else:
                    self.add_items(part)
            os.fsync(self._fd)
            rename(unnamed, open_path(self.path))
        except BaseException:
            self.abandon()
            unnamed.unlink(missing_ok=True)
            raise

    def resume(self, size: int, found: Iterable[BlockHead | Loss]) -> None:
        """Go on behind the first *size* bytes of the file that is there, in which *found* is."""
        self._fd = os.open(open_path(self.path), os.O_RDWR | os.O_CLOEXEC)
        for one in found:
            if isinstance(one, Loss):
                self._count_loss(one)
            else:
                self._count_items(one.items, one.first_ns, one.last_ns)
        os.ftruncate(self._fd, size)
        while chunk := os.read(self._fd, CHUNK_BYTES):
            self._digest.update(chunk)
        self.size = size

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Take back everything added inside if the disk refuses a part of it."""
        before = (self.size, self.items, self._blocks, self._first_ns, self._last_ns)
        losses, digest = len(self._losses), self._digest.copy()
        try:
            yield
        except OSError:
            self.size, self.items, self._blocks, self._first_ns, self._last_ns = before
            self._digest = digest
            del self._losses[losses:]
            os.ftruncate(self._fd, self.size)
            os.lseek(self._fd, self.size, os.SEEK_SET)
            raise

    def add_items(self, items: Sequence[RawItem]) -> None:
        """Write a block of at least one item."""
        self._append(encode_items(items, self._blocks, self._packer))
        times = [item.received_ns for item in items]
        self._count_items(len(items), min(times), max(times))

    def add_loss(self, loss: Loss) -> None:
        """Write what is missing here."""
        self._append(encode_loss(loss, self._blocks, self._packer))
        self._count_loss(loss)

    def sync(self) -> None:
        """Let everything added survive a power cut."""
        os.fdatasync(self._fd)

    def finish(self) -> RecordedFile:
        """Write the end, sync, and give the file its final name.

        Raises:
            OSError: the disk refuses; the segment is as it was.
        """
        end = End(
            items=self.items,
            blocks=self._blocks,
            first_ns=self._first_ns,
            last_ns=self._last_ns,
            sha256=self._digest.hexdigest(),
        )
        with self.all_or_nothing():
            self._append(encode_end(end, self._blocks, self._packer))
            os.fsync(self._fd)
        rename(open_path(self.path), self.path)
        self.abandon()
        return self._described()

    def abandon(self) -> None:
        """Let go of the file as it is: without an end, it will be recovered."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Remove a segment in which nothing is."""
        self.abandon()
        open_path(self.path).unlink()
        sync_folder(self.path.parent)

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing was added."""
        return self._blocks == 0

    def _count_items(self, count: int, first_ns: int, last_ns: int) -> None:
        self._blocks += 1
        self.items += count
        self._first_ns = min(self._first_ns or first_ns, first_ns)
        self._last_ns = max(self._last_ns, last_ns)

    def _count_loss(self, loss: Loss) -> None:
        self._blocks += 1
        self._losses.append(loss)

    def _append(self, data: bytes) -> None:
        write_all(self._fd, data)
        self.size += len(data)
        self._digest.update(data)

    def _described(self) -> RecordedFile:
        return RecordedFile(
            kind=FileKind.RAW,
            path=self.path.relative_to(self._directory).as_posix(),
            venue=self.header.venue,
            session=self.header.session,
            size=self.size,
            sha256=self._digest.hexdigest(),
            rows=self.items,
            first_ns=self._first_ns or self.header.started_ns,
            last_ns=self._last_ns or self.header.started_ns,
            gaps=len(self._losses),
            losses=tuple(self._losses),
        )
