"""Values of recordings. Times are nanoseconds since 1970 by our own clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum, unique
from typing import Final

from kernel.money import Asset
from marketdata.model import Instrument

NS_PER_S: Final = 1_000_000_000
NS_PER_HOUR: Final = 3_600 * NS_PER_S


@unique
class LossReason(StrEnum):
    """Why frames are missing from a recording."""

    OVERFLOW = "overflow"
    """The recorder was slower than the venue for longer than its queue has room."""
    DISK = "disk"
    """The disk was full, or refused to write."""
    KILLED = "killed"
    """The recorder ended without closing its file: killed, or the machine lost power."""
    DAMAGED = "damaged"
    """Bytes of the file are not what was written."""
    OVERSIZED = "oversized"
    """A frame was larger than any that a recording takes."""
    MISSING = "missing"
    """A segment of the session is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A stretch of time of which frames are missing.

    Attributes:
        since_ns, until_ns: everything received up to *since* and from *until* on is there.
        items: how many are missing; None: nobody knows.
        size: bytes that had been written of it and could not be used.
    """

    reason: LossReason
    since_ns: int
    until_ns: int
    items: int | None = None
    size: int = 0
    detail: str = ""

    def text(self) -> str:
        """Return it in words: what a machine is told in its place when it is replayed."""
        count = "an unknown number of" if self.items is None else str(self.items)
        after = f"; {self.detail}" if self.detail else ""
        return f"overflow: {count} items not recorded ({self.reason}){after}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHeader:
    """The first thing in a segment: whose it is, and all that its machine has to be given.

    Attributes:
        feed: which machine reads it: ``binance``, ``kraken``, ``ccxt``.
        session: the life of the process that wrote it; a machine begins anew with each.
        number: counts the segments of a session from 1.
        options: what else the machine was made with: channels, depth.
    """

    venue: str
    feed: str
    session: str
    number: int
    started_ns: int
    instruments: tuple[Instrument, ...]
    options: tuple[tuple[str, str], ...] = ()


@unique
class FileKind(StrEnum):
    """What a file of a recording is."""

    RAW = "raw"
    PARQUET = "parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFile:
    """A finished file.

    Attributes:
        path: within the directory of recordings, with ``/``.
        channel, symbol: of a Parquet file; empty for raw ones, which hold a whole venue.
        sha256: of the whole file, in hex.
        rows: raw items, or rows.
        first_ns, last_ns: when they were received; of a segment that has none, when it was begun.
        first_sequence, last_sequence: as the venue counts: update ids of a book, ids of trades.
        gaps: how many gaps fall into it: losses, and gaps that the feed has seen.
        instrument_version: of the grid that its ticks and units are counted in; 0: not recorded.
    """

    kind: FileKind
    path: str
    venue: str
    session: str
    size: int
    sha256: str
    rows: int
    first_ns: int
    last_ns: int
    channel: str = ""
    symbol: str = ""
    first_sequence: str = ""
    last_sequence: str = ""
    gaps: int = 0
    instrument_version: int = 0
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WritePolicy:
    """When a recorder writes and what it bounds.

    Attributes:
        block_bytes: frames of this size make a block: what a kill between two flushes can cost.
        flush_every: no frame waits longer than this before it is written and synced.
        segment_bytes: a segment of this size is finished, and the next one begun.
        compression: zstd's level.
        free_bytes_min: a disk with less room than this counts as full, so that other files of the
            house can still be written.
        retry_every: how often a full disk is tried again.
    """

    block_bytes: int = 1 << 20
    flush_every: timedelta = timedelta(seconds=1)
    segment_bytes: int = 128 << 20
    compression: int = 1
    free_bytes_min: int = 256 << 20
    retry_every: timedelta = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """How long files are kept; None: for ever. What supports a stored price is held apart."""

    raw: timedelta | None = timedelta(days=90)
    parquet: timedelta | None = None


def size_text(units: int, scale: int) -> str:
    """Return ``units * 10 ** -scale`` as a plain decimal: ``"0.01"``."""
    return Asset("X", scale).format(units, code=False).replace(",", "")
