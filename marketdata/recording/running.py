"""What is being recorded and is no Parquet yet, derived into a folder of its own, for one look.

Only hours that are over have files. The hour that runs, and what a killed recorder has left, is made
of raw segments again: of the whole session, because a book is made of all that came before. Nothing
of the recording is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from kernel.clock import to_unix_ns
from marketdata.events import MarketEvent
from marketdata.ports import FeedMachine
from marketdata.recording.derive import Deriver
from marketdata.recording.errors import NotARecording, RecordingDamaged
from marketdata.recording.layout import (
    PARQUET_SUFFIX,
    encoded,
    list_open,
    list_segments,
    parquet_folder,
)
from marketdata.recording.model import SegmentHeader
from marketdata.recording.raw_reader import read_header
from marketdata.recording.replay import items_of

BYTES_MAX: Final = 256 << 20
"""Raw frames of a session that are read again for a look; one that has more is left out."""
ATTEMPTS: Final = 3
"""A segment that is finished meanwhile has another name; the next attempt knows it."""
_HOUR: Final = len("2026-01-05T09")


@dataclass(frozen=True, slots=True)
class Running:
    """What came of a look at what is being recorded.

    Attributes:
        files: paths below the folder of what was derived.
        left_out: sentences, one for each session that is not among it.
    """

    files: tuple[str, ...]
    left_out: tuple[str, ...]


def derive_running(
    directory: Path,
    target: Path,
    machine: Callable[[SegmentHeader], FeedMachine],
    *,
    bytes_max: int = BYTES_MAX,
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> Running:
    """Derive into *target* what sessions without an end have recorded and is no Parquet yet.

    Args:
        directory: of the recordings.
        target: a folder that is empty.
        machine: makes the machine that a session's feed had.
        bytes_max: a session with more raw bytes is left out.
        progress: told how many bytes of segments were read, and of how many.
    """
    files: list[str] = []
    left_out: list[str] = []
    sizes = [
        (header, sum(map(_size, _segments(directory, header)))) for header in _running(directory)
    ]
    done, total = 0, sum(size for _, size in sizes)
    for header, size in sizes:
        what = f"what {header.venue} has recorded since its last finished hour is left out: "
        if size > bytes_max:
            left_out.append(f"{what}it follows from {size >> 20:,} MiB of raw frames")
            continue
        try:
            files += _derived(directory, target, header, machine)
        except (RecordingDamaged, FileNotFoundError) as error:
            left_out.append(f"{what}{error}")
        done += size
        progress(done, total)
    return Running(tuple(files), tuple(left_out))


def _running(directory: Path) -> Sequence[SegmentHeader]:
    """Return the headers of sessions without an end, each once."""
    found: dict[tuple[str, str], SegmentHeader] = {}
    for path in list_open(directory):
        # One that has just begun may have no header yet, or have got its name meanwhile.
        with suppress(NotARecording, RecordingDamaged, FileNotFoundError):
            header = read_header(path)
            found[header.venue, header.session] = header
    return tuple(found.values())


def _derived(
    directory: Path,
    target: Path,
    header: SegmentHeader,
    machine: Callable[[SegmentHeader], FeedMachine],
) -> list[str]:
    """Derive one session; give what is not in the recording itself."""
    for attempt in range(ATTEMPTS):
        since_ns = _last_hour_ns(directory, header)
        try:
            with Deriver(target, header.venue, header.session, header.instruments) as deriver:
                player = machine(header)
                for item in items_of(_segments(directory, header), unfinished=True):
                    deriver.write(
                        one
                        for one in player.take(item)
                        if isinstance(one, MarketEvent) and one.received_ns >= since_ns
                    )
        except FileNotFoundError:
            if attempt + 1 == ATTEMPTS:
                raise
        else:
            return [file.path for file in deriver.finished if _is_new(directory, target, file.path)]
    raise AssertionError


def _is_new(directory: Path, target: Path, name: str) -> bool:
    """Return whether the recording lacks a file; if it has it, ours is removed."""
    if not (directory / name).exists():
        return True
    (target / name).unlink()
    return False


def _segments(directory: Path, header: SegmentHeader) -> list[Path]:
    listed = (*list_segments(directory, header.venue), *list_open(directory, header.venue))
    return sorted(path for path in listed if path.name.startswith(f"{header.session}-"))


def _last_hour_ns(directory: Path, header: SegmentHeader) -> int:
    """Return when the last hour began of which the session has a file; 0: it has none."""
    pattern = f"*/venue={encoded(header.venue)}/*/*-{header.session}{PARQUET_SUFFIX}"
    last = max((path.name[:_HOUR] for path in parquet_folder(directory).glob(pattern)), default="")
    return to_unix_ns(datetime.fromisoformat(f"{last}:00:00+00:00")) if last else 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
