"""A chunk of the journal as bytes: what `ledger.verification` compares, read ahead of it.

Everything crosses as the text that COPY prints, which is the journal's own: no value is made of what
is only to be hashed or compared. Each statement is a transaction of its own, and what it reads up to
the watermark never changes.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger import verification_statements as sql
from ledger.audit import Faults
from ledger.audit_rows import NULL, Row
from ledger.audit_tree import BlockRow, tiles_completed
from ledger.opaque import metadata_hash

SETTINGS: Final = (
    "SET timezone = 'UTC'",
    "SET datestyle = 'ISO'",
    "SET bytea_output = 'hex'",
    # Every statement here is one by index; what the planner believes about a growing table is not.
    "SET enable_seqscan = off",
)
TWICE: Final = "there twice"
"""Stands for the hash of metadata that has two rows; no hash is that."""

RESET: Final = "RESET enable_seqscan"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records *first* to *last*, and everything that is stored beside them.

    Attributes:
        transfers, entries, effective: as COPY prints them.
        links: what transfers refer to, by sequence; None: nothing that is there or free.
        holds: how many holds a transfer has, by sequence, where that is not one.
        metadata: hashes of the stored metadata, by sequence.
        others: lines of records that are not transfers, by sequence.
        tiles: by level and index.
        faults: what was found wrong while reading.
    """

    first: int
    last: int
    transfers: list[bytes] = field(default_factory=list)
    entries: bytes = b""
    effective: bytes = b""
    links: dict[int, Row | None] = field(default_factory=dict)
    holds: dict[int, int] = field(default_factory=dict)
    metadata: dict[int, str] = field(default_factory=dict)
    others: dict[int, bytes] = field(default_factory=dict)
    blocks: list[BlockRow] = field(default_factory=list)
    tiles: dict[tuple[int, int], tuple[bytes, bytes]] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)


@asynccontextmanager
async def reading(engine: AsyncEngine, book: int) -> AsyncIterator[ChunkReader]:
    """Give a reader over a connection of its own, in no transaction."""
    async with engine.connect() as conn:
        raw = (await conn.get_raw_connection()).driver_connection
        assert raw is not None
        for setting in SETTINGS:
            await raw.execute(setting)
        with suppress(asyncpg.LockNotAvailableError, asyncpg.InsufficientPrivilegeError):
            # It only makes ranges quicker to find: a vacuum that holds the lock does the same.
            await raw.execute(sql.SUMMARIZE)
        try:
            yield ChunkReader(raw, book)
        except BaseException:
            # A COPY may be under way: nobody else can use this connection.
            await conn.invalidate()
            raise
        await raw.execute(RESET)


class ChunkReader:
    """Reads chunks of a book over one connection that is in no transaction."""

    def __init__(self, raw: asyncpg.Connection, book: int) -> None:
        self.raw = raw
        self.book = book

    async def read(self, first: int, last: int) -> Chunk:
        """Read records *first* to *last* and what is stored beside them."""
        faults = Faults()
        links, holds = await self._links(first, last)
        return Chunk(
            first,
            last,
            transfers=await self.lines(sql.TRANSFERS, first, last),
            entries=await self.copy(sql.ENTRIES, first, last),
            effective=await self.copy(sql.EFFECTIVE, first, last),
            links=links,
            holds=holds,
            metadata=await self._metadata(first, last),
            others=await self.others(first, last, faults),
            blocks=await self._blocks(first, last),
            tiles=await self._tiles(first, last, faults),
            faults=faults,
        )

    async def copy(self, statement: str, *numbers: int) -> bytes:
        """Return what COPY prints."""
        parts: list[bytes] = []

        async def keep(data: bytes) -> None:
            parts.append(data)

        query = sql.filled(statement, self.book, *numbers)
        await self.raw.copy_from_query(query, output=keep)
        return b"".join(parts)

    async def lines(self, statement: str, *numbers: int) -> list[bytes]:
        """Return the lines that COPY prints."""
        return (await self.copy(statement, *numbers)).split(b"\n")[:-1]

    async def fetch(self, statement: str, *arguments: Any) -> Sequence[Any]:
        """Return rows."""
        found: Sequence[Any] = await self.raw.fetch(statement, self.book, *arguments)
        return found

    async def others(self, first: int, last: int, faults: Faults) -> dict[int, bytes]:
        """Return the lines of the records that are not transfers, by sequence."""
        found: dict[int, bytes] = {}
        for line in await self.lines(sql.EVENTS, first, last):
            fields = line.split(b"\t")
            _keep(found, fields, _account_line(fields, faults), faults)
        refusals = await self.lines(sql.REFUSALS, first, last)
        for line in [*refusals, *await self.lines(sql.PERIODS, first, last)]:
            _keep(found, line.split(b"\t"), line, faults)
        if refusals:
            for row in await self.fetch(sql.REFUSED_TOO, first, last):
                key = f"{row['id']} (sequence {row['sequence']})"
                faults.report("refusal", key, "the id was spent by a transfer too")
        return found

    async def _links(self, first: int, last: int) -> tuple[dict[int, Row | None], dict[int, int]]:
        links: dict[int, Row | None] = {}
        holds: dict[int, int] = {}
        for line in await self.lines(sql.LINKS, first, last):
            number, count, is_taken, *fields = line.split(b"\t")
            sequence = int(number)
            found = None if fields[0] == NULL or is_taken == b"t" else Row(*fields)
            links[sequence] = found
            if count != b"1":
                holds[sequence] = int(count)
        return links, holds

    async def _metadata(self, first: int, last: int) -> dict[int, str]:
        found: dict[int, str] = {}
        for row in await self.fetch(sql.METADATA, first, last):
            is_second = row["sequence"] in found
            found[row["sequence"]] = TWICE if is_second else canonical_hash(row["data"])
        return found

    async def _blocks(self, first: int, last: int) -> list[BlockRow]:
        rows = [line.split(b"\t") for line in await self.lines(sql.BLOCKS, first, last)]
        # COPY doubles the backslash of a bytea's prefix.
        return [
            BlockRow(int(h), at, int(start), int(end), bytes.fromhex(root[3:].decode()))
            for h, at, start, end, root in rows
        ]

    async def _tiles(
        self, first: int, last: int, faults: Faults
    ) -> dict[tuple[int, int], tuple[bytes, bytes]]:
        found: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        for level, start, end in tiles_completed(first - 1, last - first + 1):
            for row in await self.fetch(sql.TILES, level, start, end):
                key = row["level"], row["position"]
                if key in found:
                    faults.report("tile", f"level {key[0]} index {key[1]}", "is there twice")
                found[key] = row["hashes"], row["root"]
        return found


def canonical_hash(stored: str) -> str:
    """Return the hash of metadata as stored, whatever it holds."""
    value = json.loads(stored)
    text = json.dumps(value, sort_keys=True, separators=(",", ":")) if value != {} else ""
    return metadata_hash(text)


def _account_line(fields: list[bytes], faults: Faults) -> bytes:
    """Return an account's line from the columns of `sql.EVENTS`."""
    *line, reason, recorded_at, metadata, opened_at = fields
    number, kind, path, asset = line[3:7]
    if path == NULL:
        faults.report("account", f"number {number.decode()}", "is missing")
        described = ""
    else:
        described = canonical_hash(metadata.replace(b"\\\\", b"\\").decode())
        if kind == b"opened" and opened_at != recorded_at:
            key = f"{path.decode()} {asset.decode()}"
            faults.report("account", key, "was opened at another time than its record says")
    return b"\t".join([*line, described.encode(), reason, recorded_at])


def _keep(found: dict[int, bytes], fields: list[bytes], line: bytes, faults: Faults) -> None:
    sequence = int(fields[2])
    if sequence in found:
        table, key = name_of(sequence, line)
        faults.report(table, key, "is there twice, or another record of that number is")
    found[sequence] = line


def name_of(sequence: int, line: bytes) -> tuple[str, str]:
    """Return table and key of a record that is not a transfer, in the words of a fault."""
    kind, _, _, *fields = line.decode(errors="replace").split("\t")
    match kind:
        case "account":
            return "account_event", f"{fields[2]} {fields[3]} (sequence {sequence})"
        case "refusal":
            return "refusal", f"{fields[0]} (sequence {sequence})"
        case _:
            return "period_event", f"sequence {sequence}"
