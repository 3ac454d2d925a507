"""The journal: one file of JSON lines, the genesis first, then every accepted command in order.

A command is appended, and flushed to the disk where a client is about to be told that it was
accepted, before it is applied. A crash in the middle of a write leaves a last line without its
newline: that command was never answered, so it is cut off at the next start.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from venues.simulator.commands import Command, Record
from venues.simulator.errors import JournalDamaged, JournalMismatch
from venues.simulator.model import Genesis

FILE_NAME: Final = "journal.jsonl"

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final[msgspec.json.Decoder[Record]] = msgspec.json.Decoder(Record)


class Journal:
    """An append-only file of records, open for the life of the simulator."""

    def __init__(self, path: Path, *, fsync: bool = True) -> None:
        self._path = path
        self._fsync = fsync
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    @property
    def path(self) -> Path:
        """Where the records are."""
        return self._path

    def append(self, record: Record, *, durable: bool) -> None:
        """Write a record; with `durable` it is on the disk when this returns.

        A record that is not durable survives the end of the process, though not of the machine.
        """
        line = _ENCODER.encode(record) + b"\n"
        written = self._file.write(line)
        assert written == len(line), f"{self._path}: only {written} of {len(line)} bytes written"
        if durable and self._fsync:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush to the disk and close."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()


def open_journal(
    directory: Path, genesis: Genesis, *, fsync: bool
) -> tuple[Journal, Genesis, Iterator[Command]]:
    """Open or begin the journal of a data directory: what to build on and what to apply again.

    Raises:
        JournalMismatch: the directory was written under other settings.
        JournalDamaged: a complete line cannot be read.
    """
    path = directory / FILE_NAME
    _cut_torn_line(path)
    records = list(_read(path))
    if not records:
        journal = Journal(path, fsync=fsync)
        journal.append(genesis, durable=True)
        return journal, genesis, iter(())
    first, rest = records[0], records[1:]
    if not isinstance(first, Genesis):
        raise JournalDamaged(f"{path}: the first line is not the genesis record")
    _require_same(path, first, genesis)
    return Journal(path, fsync=fsync), first, (_as_command(path, record) for record in rest)


def _require_same(path: Path, stored: Genesis, wanted: Genesis) -> None:
    differing = [
        name
        for name in Genesis.__struct_fields__
        if name != "at_ms" and getattr(stored, name) != getattr(wanted, name)
    ]
    if differing:
        raise JournalMismatch(
            f"{path} was written with other settings ({', '.join(differing)} differ): start with the "
            f"same settings, or give another --data-dir, or delete the directory to begin anew"
        )


def _as_command(path: Path, record: Record) -> Command:
    if isinstance(record, Genesis):
        raise JournalDamaged(f"{path}: a second genesis record")
    return record


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
            os.fsync(file.fileno())


def _read(path: Path) -> Iterator[Record]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield _DECODER.decode(line)
            except msgspec.DecodeError as error:
                raise JournalDamaged(f"{path}, line {number}: {error}") from error
