"""The journal: one file of JSON lines, the genesis first, then every accepted command in order.

A command is appended before it is applied, and flushed to the disk before a client is told that it
was accepted. A crash in the middle of a write leaves a last line without its
newline: that command was never answered, so it is cut off at the next start.
"""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from venues.simulator.commands import Command, Record
from venues.simulator.errors import JournalDamaged, JournalInUse, JournalMismatch
from venues.simulator.model import Genesis

FILE_NAME: Final = "journal.jsonl"

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final[msgspec.json.Decoder[Record]] = msgspec.json.Decoder(Record)


class Journal:
    """An append-only file of records, open and locked for the life of the simulator.

    Raises on opening:
        JournalInUse: another simulator has it open.
    """

    def __init__(self, path: Path, *, fsync: bool = True) -> None:
        self._path = path
        self._fsync = fsync
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # the genesis holds API secrets, if only simulated ones
        self._file = path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise JournalInUse(
                f"{path} is in use by another simulator: stop it, or give another --data-dir"
            ) from error
        self._cut_torn_line()

    @property
    def path(self) -> Path:
        """Where the records are."""
        return self._path

    def size_bytes(self) -> int:
        """How long the journal is."""
        return os.fstat(self._file.fileno()).st_size

    def append(self, record: Record) -> None:
        """Write a record. It survives the end of the process now, that of the machine once flushed.

        Raises:
            JournalDamaged, OSError: the disk did not take it; nothing may be appended after it.
        """
        line = _ENCODER.encode(record) + b"\n"
        written = self._file.write(line)
        if written != len(line):
            raise JournalDamaged(f"{self._path}: only {written} of {len(line)} bytes written")

    def flush(self) -> None:
        """Wait until all that was written is on the disk."""
        if self._fsync:
            os.fsync(self._file.fileno())

    def genesis(self) -> Genesis | None:
        """The first record; None when the journal is empty.

        Raises:
            JournalDamaged: the first record is something else.
        """
        with self._path.open("rb") as file:
            line = file.readline()
        if not line:
            return None
        record = self._decoded(line, 0)
        if not isinstance(record, Genesis):
            raise JournalDamaged(f"{self._path}: the first line is not the genesis record")
        return record

    def commands(self, from_byte: int) -> Iterator[Command]:
        """Commands from a byte on, or after the genesis for byte 0.

        Raises:
            JournalDamaged: a complete line is no command, or the journal is shorter than that.
        """
        if from_byte > self.size_bytes():
            raise JournalDamaged(f"{self._path} is shorter than the checkpoint beside it says")
        with self._path.open("rb") as file:
            file.seek(from_byte)
            if from_byte == 0:
                file.readline()
            at = file.tell()
            for line in file:
                record = self._decoded(line, at)
                if isinstance(record, Genesis):
                    raise JournalDamaged(f"{self._path}, byte {at}: a second genesis record")
                at += len(line)
                yield record

    def close(self) -> None:
        """Flush to the disk, unlock and close."""
        if not self._file.closed:
            self.flush()
            self._file.close()

    def _decoded(self, line: bytes, at: int) -> Record:
        try:
            return _DECODER.decode(line)
        except msgspec.DecodeError as error:
            raise JournalDamaged(f"{self._path}, byte {at}: {error}") from error

    def _cut_torn_line(self) -> None:
        content = self._path.read_bytes()
        if content and not content.endswith(b"\n"):
            self._file.truncate(content.rfind(b"\n") + 1)
            os.fsync(self._file.fileno())


def require_same(path: Path, stored: Genesis, wanted: Genesis) -> None:
    """Refuse a journal that was begun under other settings.

    Raises:
        JournalMismatch: names what differs and what to do.
    """
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
