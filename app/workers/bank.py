"""The worker of what banks send: files of a folder are taken in, each once.

The folder is where a bank's files land (SFTP, EBICS, a simulated bank's ``out``). Nothing in it is changed: what
has been taken in is known by its bytes, in the database. What is no statement is given to whoever reads it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from banks.safe_xml import BYTES_MAX
from custody.banks.entry_model import BankFileState
from custody.banks.importing import (
    ImportReport,
    ParsedFile,
    find_bank_file,
    import_file,
    parse_bank_file,
)
from kernel.clock import Clock
from kernel.db import transact

FILES_PER_TURN_MAX: Final = 50
SETTLED: Final = timedelta(seconds=2)
"""A file that has changed within this time may still be written, and waits."""
ENDINGS: Final = frozenset({".xml", ".sta", ".mt940", ".txt", ".940"})
SNIFFED_BYTES: Final = 2_000
_ROOT: Final = re.compile(rb"<[A-Za-z_][^<>]*>")
"""The first element says what a message is; a word in a payer's text says nothing."""

log = structlog.get_logger("bank-statements")

Reader = Callable[[str, bytes], Awaitable[None]]
"""Takes a file that is no statement: (name, bytes). It may be called again with the same."""


@dataclass(slots=True)
class InboxTurn:
    """What one turn did: reports by file, and names that were handed on."""

    reports: list[ImportReport] = field(default_factory=list)
    handed_on: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class StatementInbox:
    """Everything that is needed; `turn` is safe to call again after any error or crash.

    Attributes:
        readers: what else a bank sends, by a word of its namespace: ``pain.002``.
    """

    engine: AsyncEngine
    clock: Clock
    folder: Path
    readers: Mapping[str, Reader] = field(default_factory=dict)
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)

    async def turn(self) -> InboxTurn:
        """Take in what is new, oldest name first; each file in a transaction of its own."""
        done = InboxTurn()
        for path, mark in await asyncio.to_thread(self._new):
            raw = await asyncio.to_thread(path.read_bytes)
            reader = self._reader(raw)
            if reader is not None:
                await reader(path.name, raw)
                done.handed_on.append(path.name)
            else:
                report = await self._take_in(path.name, raw)
                done.reports.append(report)
                self._warn(report)
            self._seen[path.name] = mark
        return done

    def _new(self) -> list[tuple[Path, tuple[int, int]]]:
        """Return files that have come or changed, and have been left alone for a while."""
        before = self.clock.now() - SETTLED
        found = []
        for path in sorted(self.folder.iterdir()):
            if path.suffix.lower() not in ENDINGS or path.name.startswith("."):
                continue
            status = path.stat()
            mark = (status.st_mtime_ns, status.st_size)
            if self._seen.get(path.name) == mark:
                continue
            if status.st_size > BYTES_MAX:
                log.warning("bank file is too large", name=path.name, size=status.st_size)
                self._seen[path.name] = mark
                continue
            if datetime.fromtimestamp(status.st_mtime_ns // 10**9, UTC) <= before:
                found.append((path, mark))
        return found[:FILES_PER_TURN_MAX]

    def _reader(self, raw: bytes) -> Reader | None:
        head = raw[:SNIFFED_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n")
        root = _ROOT.search(head) if head.startswith(b"<") else None
        if root is None:
            return None
        return next(
            (reader for word, reader in self.readers.items() if word.encode() in root.group()), None
        )

    async def _take_in(self, name: str, raw: bytes) -> ImportReport:
        # After a restart the whole folder is new to this process: what is known is not parsed again.
        known = await transact(self.engine, partial(find_bank_file, raw=raw))
        if known is not None:
            return ImportReport(file=known, new=False)
        parsed = await asyncio.to_thread(parse_bank_file, raw)
        return await transact(self.engine, partial(self._import, name, raw, parsed))

    async def _import(
        self, name: str, raw: bytes, parsed: ParsedFile, conn: AsyncConnection
    ) -> ImportReport:
        return await import_file(conn, raw, name=name, parsed=parsed, now=self.clock.now())

    def _warn(self, report: ImportReport) -> None:
        if report.new and report.file.state is not BankFileState.IMPORTED:
            log.warning("bank file in quarantine", file=str(report.file.id))
        for gap in report.gaps:
            log.warning("bank statements are missing", file=str(report.file.id), gap=gap)
