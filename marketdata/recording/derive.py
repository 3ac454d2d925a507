"""What is derived of a session: Parquet files by venue, channel, symbol and hour.

The same events in the same order give the same bytes, whether they came from a live feed or from its
recording: rows are grouped by counting them, hours follow our own time of receipt and never go back,
and nothing about the run is written. A file appears under its name when it is whole and synced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from marketdata.consumers import Overflow
from marketdata.events import Channel, GapReason, GapSeen, MarketEvent
from marketdata.model import Instrument
from marketdata.ports import FeedMachine
from marketdata.recording.columns import GAPS, Grid, Row, Table, table_of
from marketdata.recording.durable import DISK_ERRNOS, make_folder, rename, sha256_of, sync_file
from marketdata.recording.errors import RecordingDamaged
from marketdata.recording.layout import UNFINISHED_SUFFIX, list_segments, parquet_path
from marketdata.recording.model import NS_PER_HOUR, FileKind, RecordedFile, SegmentHeader
from marketdata.recording.raw_reader import read_header
from marketdata.recording.replay import events_of

GROUP_ROWS: Final = 65_536
"""Rows of one row group of a file."""

HELD_ROWS_MAX: Final = 500_000
"""Rows that wait in memory, of all files together; above it the longest file writes its own."""

WANTED_EVENTS: Final = 1_000
"""After so many items with events it is asked whether anybody still wants to have them."""

FORMAT: Final = "1"

log = structlog.get_logger()

Key = tuple[str, str]
"""Channel and symbol."""


class Deriver:
    """Writes the events of one session of one venue. Belongs to one thread at a time.

    While the disk is full, what is derived of the hour is given up, and begins anew with the next:
    the truth is in the raw files, from which it can be derived again.

    Attributes:
        finished: files finished, until whoever keeps the manifest takes them out.
        given_up: hours of which not everything was kept, as nanoseconds since 1970.
    """

    def __init__(
        self,
        directory: Path,
        venue: str,
        session: str,
        instruments: Sequence[Instrument],
        *,
        keep: bool = False,
    ) -> None:
        self.finished: list[RecordedFile] = []
        self.given_up: list[int] = []
        self._directory = directory
        self._venue = venue
        self._session = session
        self._keep = keep
        self._grids = {one.symbol: Grid(one) for one in instruments}
        self._files: dict[Key, _HourFile] = {}
        self._hour_ns = 0
        self._held = 0

    def write(self, events: Iterable[MarketEvent | Overflow]) -> None:
        """Take events in their order; hours that are over are finished."""
        for event in events:
            told = self._gap_of(event) if isinstance(event, Overflow) else event
            if told.received_ns >= self._hour_ns + NS_PER_HOUR:
                self.close()
                self._hour_ns = told.received_ns // NS_PER_HOUR * NS_PER_HOUR
            if self._hour_ns in self.given_up[-1:]:
                continue
            try:
                self._add(told)
            except OSError as error:
                self._give_up(error)

    def _add(self, event: MarketEvent) -> None:
        table = table_of(event)
        file = self._files.get((table.channel, event.symbol)) or self._open(table, event.symbol)
        self._held += file.add(event)
        if self._held > HELD_ROWS_MAX:
            self._relieve()

    def _give_up(self, error: OSError) -> None:
        """Leave nothing of the hour, rather than a part of it that looks like all."""
        if error.errno not in DISK_ERRNOS:
            raise error
        self.abandon()
        self.given_up.append(self._hour_ns)
        log.error(
            "an hour is not derived: derive it again when there is room",
            venue=self._venue,
            session=self._session,
            error=str(error),
        )

    def flush(self) -> None:
        """Do nothing: before a file is whole nobody can read it, and the truth is in the raw ones."""

    def close(self) -> None:
        """Finish every file, as far as it goes."""
        try:
            self._finish_hour()
        except OSError as error:
            self._give_up(error)

    def abandon(self) -> None:
        """Let go of what is not finished; nothing of it stays."""
        for file in self._files.values():
            file.abandon()
        self._files.clear()
        self._held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    def _open(self, table: Table, symbol: str) -> _HourFile:
        path = parquet_path(
            self._directory,
            venue=self._venue,
            channel=table.channel,
            symbol=symbol,
            hour_ns=self._hour_ns,
            session=self._session,
        )
        grid = self._grids.get(symbol, Grid(None))
        facts = {
            "causeway.format": FORMAT,
            "causeway.venue": self._venue,
            "causeway.channel": table.channel,
            "causeway.symbol": symbol,
            "causeway.session": self._session,
            "causeway.hour_ns": str(self._hour_ns),
            **grid.facts(),
        }
        file = _HourFile(path, table, grid, facts)
        self._files[table.channel, symbol] = file
        return file

    def _relieve(self) -> None:
        """Write the rows of the file that holds most; of several, of the first by name."""
        longest = min(self._files, key=lambda key: (-len(self._files[key].rows), key))
        self._held -= self._files[longest].write_group()

    def _finish_hour(self) -> None:
        for key in sorted(self._files):
            path = self._files[key].finish(keep=self._keep)
            self.finished.append(describe_parquet(self._directory, path))
            del self._files[key]
        self._held = 0

    def _gap_of(self, overflow: Overflow) -> GapSeen:
        """Return the gap of what the queue dropped: it may have been of any stream."""
        return GapSeen(
            venue=self._venue,
            symbol="",
            channel=Channel.BOOK,
            reason=GapReason.OVERFLOW,
            since_ns=overflow.since_ns,
            until_ns=overflow.until_ns,
            detail=f"{overflow.dropped} events of all channels",
            received_ns=overflow.until_ns,
        )


@dataclass(slots=True)
class _HourFile:
    """One file while it grows."""

    path: Path
    table: Table
    grid: Grid
    facts: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    first: str = ""
    last: str = ""
    events: int = 0
    _writer: Any = None

    def add(self, event: MarketEvent) -> int:
        """Take the rows of an event; return by how many more rows are held."""
        before = len(self.rows)
        self.rows += self.table.rows(event)
        first, last = self.table.sequence(event)
        self.first = self.first or first
        self.last = last or self.last
        self.events += 1
        while len(self.rows) >= GROUP_ROWS:
            self.write_group()
        return len(self.rows) - before

    def write_group(self) -> int:
        """Write up to one group of rows, and return how many."""
        rows, self.rows = self.rows[:GROUP_ROWS], self.rows[GROUP_ROWS:]
        schema = self.table.schema(self.facts)
        if self._writer is None:
            make_folder(self.path.parent)
            self._writer = pq.ParquetWriter(self._unfinished, schema, compression="zstd")
        if rows:
            arrays = self.table.arrays(rows, self.grid)
            self._writer.write_table(pa.table(arrays, schema=schema), row_group_size=GROUP_ROWS)
        return len(rows)

    def finish(self, *, keep: bool) -> Path:
        """Write the rest, sync, and give the file its name, unless one of that name is kept."""
        if keep and self.path.exists():
            self.abandon()
            return self.path
        self.write_group()
        self._writer.add_key_value_metadata(
            {
                "causeway.first_sequence": self.first,
                "causeway.last_sequence": self.last,
                "causeway.events": str(self.events),
            }
        )
        self._writer.close()
        sync_file(self._unfinished)
        rename(self._unfinished, self.path)
        return self.path

    def abandon(self) -> None:
        """Leave nothing of it."""
        if self._writer is not None:
            # Its last bytes have no more room than those before.
            with suppress(OSError):
                self._writer.close()
            self._unfinished.unlink(missing_ok=True)

    @property
    def _unfinished(self) -> Path:
        return self.path.with_name(self.path.name + UNFINISHED_SUFFIX)


def describe_parquet(directory: Path, path: Path) -> RecordedFile:
    """Return what the manifest says of a file that is whole.

    Raises:
        RecordingDamaged: it is no Parquet file, or none of ours.
    """
    try:
        with pq.ParquetFile(path) as file:
            found = file.metadata
            told = {key.decode(): value.decode() for key, value in (found.metadata or {}).items()}
            names = file.schema_arrow.names
            spans = _spans(found, names.index("received_ns"))
        is_gaps = told["causeway.channel"] == GAPS
    except (pa.ArrowInvalid, KeyError, ValueError) as error:
        raise RecordingDamaged(f"it is not what was derived: {error}", where=str(path)) from error
    return RecordedFile(
        kind=FileKind.PARQUET,
        path=path.relative_to(directory).as_posix(),
        venue=told["causeway.venue"],
        session=told["causeway.session"],
        size=path.stat().st_size,
        sha256=sha256_of(path),
        rows=found.num_rows,
        first_ns=min(first for first, _ in spans),
        last_ns=max(last for _, last in spans),
        channel=told["causeway.channel"],
        symbol=told["causeway.symbol"],
        first_sequence=told["causeway.first_sequence"],
        last_sequence=told["causeway.last_sequence"],
        gaps=found.num_rows if is_gaps else 0,
        instrument_version=int(told.get("causeway.instrument_version", "0")),
    )


def derive(
    paths: Iterable[Path],
    directory: Path,
    machine: Callable[[SegmentHeader], FeedMachine],
    *,
    keep: bool = False,
    progress: Callable[[int], object] = lambda _: None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> list[RecordedFile]:
    """Derive whole sessions from their segments, and return the files; they replace older ones.

    Args:
        paths: every segment of the sessions, in order.
        directory: of the recordings.
        machine: makes the machine that a session's feed had, from what its segments say.
        keep: leave a file that is there already as it is: the live feed may have told more than
            was recorded.
        progress: told how many items were read, now and then.
        is_wanted: asked now and then; once it says no, what is not finished is let go.

    Of a session of which segments are missing, nothing takes the place of a file that is there; of
    one that goes on behind *paths*, the last hour is left out.

    Raises:
        RecordingDamaged: a segment is not what was written: nothing of its session's hour is kept.
    """
    files: list[RecordedFile] = []
    for _, one in groupby(paths, _session_of):
        segments = list(one)
        headers = [read_header(path) for path in segments]
        header = headers[0]
        is_whole = [item.number for item in headers] == list(range(1, len(headers) + 1))
        goes_on = _last_number(segments[-1], header.session) > headers[-1].number
        deriver = Deriver(
            directory,
            header.venue,
            header.session,
            header.instruments,
            keep=keep or not is_whole,
        )
        with deriver:
            for number, events in enumerate(
                events_of(segments, machine(header), progress=progress)
            ):
                if number % WANTED_EVENTS == 0 and not is_wanted():
                    deriver.abandon()
                    return files + deriver.finished
                deriver.write(events)
            if goes_on:
                deriver.abandon()
        files += deriver.finished
    return files


def _last_number(segment: Path, session: str) -> int:
    """Return the number of the last segment of a session that is there, also if it has no end."""
    names = (path.name for path in segment.parent.parent.glob(f"*/{session}-*"))
    return max(int(name.partition("-")[2].partition(".")[0]) for name in names)


def _session_of(path: Path) -> tuple[str, str]:
    header = read_header(path)
    return header.venue, header.session


def derive_recovered(
    directory: Path,
    recovered: Iterable[RecordedFile],
    machine: Callable[[SegmentHeader], FeedMachine],
    *,
    is_wanted: Callable[[], bool] = lambda: True,
) -> list[RecordedFile]:
    """Derive what a killed recorder had recorded and not derived; see `RawWriter.recovery`.

    *is_wanted* is asked now and then; see `derive`.

    Raises:
        RecordingDamaged: a segment is not what was written.
    """
    wanted = {(file.venue, file.session) for file in recovered}
    files: list[RecordedFile] = []
    for venue, session in sorted(wanted):
        paths = [
            path for path in list_segments(directory, venue) if path.name.startswith(f"{session}-")
        ]
        files += derive(paths, directory, machine, keep=True, is_wanted=is_wanted)
    return files


def _spans(metadata: Any, column: int) -> list[tuple[int, int]]:
    groups = [
        metadata.row_group(at).column(column).statistics for at in range(metadata.num_row_groups)
    ]
    return [(one.min, one.max) for one in groups if one is not None and one.has_min_max] or [(0, 0)]
