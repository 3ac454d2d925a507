"""A journal as a file: its canonical lines, in order, behind one line that says whose they are.

::

    causeway-journal <TAB> version <TAB> book <TAB> entity <TAB> records
    account <TAB> …                                     record 1
    transfer <TAB> …                                    record 2

UTF-8, each line ended by a line feed. Line n + 1 is record n (`ledger.records`); the leaf of a record
is ``SHA-256(0x00 || line)`` without the line feed, so whoever has a checkpoint can check the file
with any implementation of RFC 6962. The file says what was moved between which accounts; metadata is
in it only as hashes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.errors import BadInput
from ledger import verification_statements as sql
from ledger.audit import Faults
from ledger.errors import BookNotOpen
from ledger.verification_reading import ChunkReader, reading

MAGIC: Final = "causeway-journal"
VERSION: Final = 1
HEADER_LENGTH_MAX: Final = 1_000
CHUNK: Final = 8_192
"""Records read at once."""

BLOCK_BYTES: Final = 1 << 20
"""Bytes of a file read at once."""

LINE_LENGTH_MAX: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class JournalHeader:
    """Whose journal a file holds, and how many records of it."""

    book: int
    entity: str
    records: int

    def line(self) -> bytes:
        """Return the first line of the file."""
        return f"{MAGIC}\t{VERSION}\t{self.book}\t{self.entity}\t{self.records}\n".encode()


def parse_header(line: bytes) -> JournalHeader:
    """Read the first line of a file.

    Raises:
        BadInput: not a journal, or of a version that is not known here.
    """
    fields = line.decode(errors="replace").rstrip("\n").split("\t")
    if len(fields) != 5 or fields[0] != MAGIC:
        raise BadInput("the file is not a journal", remedy="Write one: ledger export-journal")
    _, version, book, entity, records = fields
    if version != str(VERSION) or not book.isdigit() or not records.isdigit():
        raise BadInput(f"the journal is of version {version}", remedy=f"Version {VERSION} is known")
    return JournalHeader(int(book), entity, int(records))


async def export_journal(
    engine: AsyncEngine,
    book: int,
    path: Path,
    *,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> JournalHeader:
    """Write the journal up to now; the file appears when it is complete, or not at all.

    Args:
        engine: any role that may read the ledger.
        book: the book.
        path: the file; an existing one is replaced.
        progress: told after each chunk (records written, records to write).

    Raises:
        BookNotOpen: there is no such book.
        BadInput: the file cannot be written, or the journal has a gap.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("xb") as stream:
            try:
                header = await _write(engine, book, stream, progress)
                stream.flush()
                os.fsync(stream.fileno())
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(f"the file cannot be written: {error.strerror}", where=str(path)) from error
    return header


async def _write(
    engine: AsyncEngine, book: int, stream: BinaryIO, progress: Callable[[int, int], None]
) -> JournalHeader:
    async with reading(engine, book) as reader:
        heads = await reader.fetch(sql.HEAD)
        if not heads:
            raise BookNotOpen(f"there is no book {book}")
        header = JournalHeader(book, heads[0]["entity"], heads[0]["sequence"])
        stream.write(header.line())
        for first in range(1, header.records + 1, CHUNK):
            last = min(first + CHUNK - 1, header.records)
            stream.writelines(line + b"\n" for line in await read_records(reader, first, last))
            progress(last, header.records)
    return header


async def read_records(reader: ChunkReader, first: int, last: int) -> list[bytes]:
    """Return the canonical lines of records *first* to *last*.

    Raises:
        BadInput: one of them is not there, or there twice.
    """
    faults = Faults()
    transfers = await reader.lines(sql.TRANSFERS, first, last)
    others = await reader.others(first, last, faults)
    lines = [b"transfer\t" + line for line in transfers]
    if others:
        placed = {int(line.split(b"\t", 3)[2]): line for line in lines} | others
        lines = [placed[sequence] for sequence in sorted(placed)]
    if faults.found or len(lines) != last - first + 1 or len(transfers) + len(others) != len(lines):
        raise BadInput(
            f"the journal has a gap between {first} and {last}", remedy="Run `causeway verify`"
        )
    return lines


def chunks_of(stream: BinaryIO, size: int) -> Iterator[list[bytes]]:
    """Give the lines of an open file, *size* at a time, in bounded memory.

    Raises:
        BadInput: a line is longer than any record.
    """
    rest = b""
    lines: list[bytes] = []
    while block := stream.read(BLOCK_BYTES):
        *whole, rest = (rest + block).split(b"\n")
        if len(rest) > LINE_LENGTH_MAX:
            raise BadInput("the file is not a journal: a line does not end")
        lines += whole
        while len(lines) >= size:
            yield lines[:size]
            del lines[:size]
    if rest:
        raise BadInput("the file ends in the middle of a line", remedy="Export it again")
    if lines:
        yield lines
