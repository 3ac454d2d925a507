"""What a simulator with a folder keeps: its blocks and what was said of them, in order, in one file.

Records are written together (``flush_blocks``), so that a killed node comes back below its tip, as
bitcoind does that was killed between two flushes. A record that was cut short is dropped. The pool
is written at a clean end only, as bitcoind does.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Final

import orjson

BLOCKS: Final = "blocks.log"
POOL: Final = "mempool.json"
HEAD_BYTES: Final = 9
"""Kind, length and check sum."""


class Kind(Enum):
    """What a record says."""

    BLOCK = b"B"
    INVALID = b"I"
    RECONSIDERED = b"R"


@dataclass(frozen=True, slots=True)
class Record:
    """A block's bytes, or the hash of the block that is spoken of."""

    kind: Kind
    data: bytes


class Journal:
    """The file of one simulator; without a folder it keeps nothing."""

    def __init__(self, folder: Path | None, *, flush_blocks: int) -> None:
        self._folder = folder
        self._flush_blocks = flush_blocks
        self._waiting: list[bytes] = []
        self._file: IO[bytes] | None = None

    def open(self) -> Iterator[Record]:
        """Yield what was kept, cut off what was not written to its end, and be ready to write."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / BLOCKS
        kept = path.read_bytes() if path.exists() else b""
        at = 0
        while True:
            record = _read(kept, at)
            if record is None:
                break
            yield record
            at += HEAD_BYTES + len(record.data)
        self._file = path.open("ab")
        self._file.truncate(at)

    def write(self, record: Record) -> None:
        """Keep a record, at once or together with later ones."""
        if self._file is None:
            return
        head = record.kind.value + len(record.data).to_bytes(4, "big")
        self._waiting.append(head + zlib.crc32(record.data).to_bytes(4, "big") + record.data)
        if len(self._waiting) >= self._flush_blocks:
            self._flush()

    def _flush(self) -> None:
        if self._file is not None:
            self._file.write(b"".join(self._waiting))
            self._file.flush()
        self._waiting.clear()

    def take_pool(self) -> list[str]:
        """Return the transactions that a clean end left; they are kept no longer."""
        path = None if self._folder is None else self._folder / POOL
        if path is None or not path.exists():
            return []
        kept: list[str] = orjson.loads(path.read_bytes())
        path.unlink()
        return kept

    def close(self, pool: list[str]) -> None:
        """Write everything that waits, and the pool."""
        if self._file is None or self._folder is None:
            return
        self._flush()
        self._file.close()
        self._file = None
        (self._folder / POOL).write_bytes(orjson.dumps(pool))


def _read(kept: bytes, at: int) -> Record | None:
    head = kept[at : at + HEAD_BYTES]
    if len(head) < HEAD_BYTES:
        return None
    size, check = int.from_bytes(head[1:5], "big"), int.from_bytes(head[5:], "big")
    data = kept[at + HEAD_BYTES : at + HEAD_BYTES + size]
    if len(data) < size or zlib.crc32(data) != check:
        return None
    return Record(Kind(head[:1]), data)
