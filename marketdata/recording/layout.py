"""Where files of recordings are: names say venue, session and time, so a listing is in order.

::

    raw/<venue>/<day>/<session>-<number>.raw            a whole segment
    raw/<venue>/<day>/<session>-<number>.raw.open       one being written, or cut off
    raw/<venue>/.lock                                   held by the process that records the venue
    parquet/<channel>/venue=<venue>/symbol=<symbol>/<day>T<hour>-<session>.parquet

Venues and symbols are percent-encoded: a symbol may have a slash in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from kernel.clock import from_unix_ns
from marketdata.recording.model import SegmentHeader

OPEN_SUFFIX: Final = ".open"
RAW_SUFFIX: Final = ".raw"
PARQUET_SUFFIX: Final = ".parquet"
UNFINISHED_SUFFIX: Final = ".unfinished"


def raw_folder(directory: Path, venue: str) -> Path:
    """Return where the segments of a venue are."""
    return directory / "raw" / encoded(venue)


def parquet_folder(directory: Path) -> Path:
    """Return where what is derived is."""
    return directory / "parquet"


def segment_path(directory: Path, header: SegmentHeader) -> Path:
    """Return the final path of a segment."""
    day = from_unix_ns(header.started_ns).strftime("%Y-%m-%d")
    name = f"{header.session}-{header.number:06}{RAW_SUFFIX}"
    return raw_folder(directory, header.venue) / day / name


def open_path(path: Path) -> Path:
    """Return the path of a segment while it is being written."""
    return path.with_name(path.name + OPEN_SUFFIX)


def parquet_path(
    directory: Path, *, venue: str, channel: str, symbol: str, hour_ns: int, session: str
) -> Path:
    """Return the final path of what is derived of one hour of one session."""
    folder = (
        parquet_folder(directory)
        / encoded(channel)
        / f"venue={encoded(venue)}"
        / f"symbol={encoded(symbol)}"
    )
    hour = from_unix_ns(hour_ns).strftime("%Y-%m-%dT%H")
    return folder / f"{hour}-{session}{PARQUET_SUFFIX}"


def list_segments(directory: Path, venue: str | None = None) -> Sequence[Path]:
    """Return whole segments, by session and number."""
    return _segments(directory, venue, RAW_SUFFIX)


def list_open(directory: Path, venue: str | None = None) -> Sequence[Path]:
    """Return segments that have no end: being written, or cut off."""
    return _segments(directory, venue, RAW_SUFFIX + OPEN_SUFFIX)


def list_parquet(directory: Path) -> Sequence[Path]:
    """Return all that is derived, in the order of the names."""
    return sorted(parquet_folder(directory).glob(f"*/*/*/*{PARQUET_SUFFIX}"))


def list_unfinished(directory: Path, venue: str) -> Sequence[Path]:
    """Return what a recorder of *venue* was writing when it ended: nobody reads it by that name.

    What others derive for the venue, a backfill say, is of sessions that are no numbers: not here.
    """
    raw = raw_folder(directory, venue).glob(f"*/*{UNFINISHED_SUFFIX}")
    derived = parquet_folder(directory).glob(f"*/venue={encoded(venue)}/*/*{UNFINISHED_SUFFIX}")
    return sorted([*raw, *[path for path in derived if _session_of(path).isdigit()]])


def _session_of(path: Path) -> str:
    return path.name[len("2026-01-05T09-") :].partition(".")[0]


def encoded(name: str) -> str:
    """Return *name* as one part of a path."""
    return quote(name, safe="") or "-"


def _segments(directory: Path, venue: str | None, suffix: str) -> Sequence[Path]:
    folder = "*" if venue is None else encoded(venue)
    found = (directory / "raw").glob(f"{folder}/*/*{suffix}")
    return sorted(found, key=lambda path: (path.parent.parent.name, path.name))
