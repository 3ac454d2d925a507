"""Verify a live book: derive everything again from its transfers, and name what does not fit.

The journal is streamed up to a watermark, the head's sequence at the start, in short transactions,
so that a long check never holds back the head row's vacuum. Rows that may change (balance, hold,
head) are checked at the version they carry, so the book may go on working meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any, Final

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ledger import merkle, store
from ledger import verification_statements as sql
from ledger.audit import Auditor, Fault, StoredHold, TransferEvidence
from ledger.audit_tree import BlockRow, Record, TreeAuditor
from ledger.errors import BookNotOpen
from ledger.model import (
    AccountEventKind,
    AccountSpec,
    Kind,
    Side,
    canonical_metadata,
    metadata_hash,
)
from ledger.records import account_line, refusal_line, to_unix_us, transfer_line
from ledger.state import Columns, RefusalRow

CHUNK: Final = 4_096
"""Journal records read at once."""

Progress = Callable[[int, int], None]
"""Called with (records verified, records to verify)."""


async def verify(
    engine: AsyncEngine, book: int, *, progress: Progress = lambda _done, _all: None
) -> list[Fault]:
    """Verify a book and return every fault found, at most `ledger.audit.FAULTS_MAX`.

    Args:
        engine: any role that may read the ledger.
        book: the book.
        progress: told after each chunk.
    """
    check = _Check(engine, book)
    await check.start()
    while check.position < check.watermark:
        await check.next_chunk()
        progress(check.position, check.watermark)
    await check.finish()
    return check.auditor.faults


class _Check:
    """One run over one book."""

    def __init__(self, engine: AsyncEngine, book: int) -> None:
        self.engine = engine
        self.book = book
        self.auditor = Auditor()
        self.tree = TreeAuditor(self.auditor)
        self.position = 0
        self.watermark = 0
        self.pending = 0
        self.records: dict[int, Record] = {}
        self.head: Row[Any] | None = None

    async def start(self) -> None:
        rows = await self._read("SELECT * FROM ledger.head WHERE book = $1", self.book)
        if not rows:
            raise BookNotOpen(f"there is no book {self.book}")
        self.head = rows[0]
        self.watermark = rows[0].sequence

    async def _read(self, statement: str, *arguments: Any) -> list[Row[Any]]:
        async with self.engine.connect() as conn:
            return list(await store.run(conn, statement, *arguments))

    async def next_chunk(self) -> None:
        """Verify the next `CHUNK` records and the blocks that end among them."""
        first, last = self.position + 1, min(self.position + CHUNK, self.watermark)
        async with self.engine.connect() as conn:
            events = await store.run(conn, sql.EVENTS, self.book, first, last)
            transfers = await store.run(conn, sql.TRANSFERS, self.book, first, last)
            refusals = await store.run(conn, sql.REFUSALS, self.book, first, last)
            blocks = await store.run(conn, sql.BLOCKS, self.book, first, last)
            kept = await self._kept_leaves(conn, last)
        rows: list[tuple[int, Callable[[Row[Any]], None], Row[Any]]] = [
            *((row.sequence, self._event, row) for row in events),
            *((row.sequence, self._transfer, row) for row in transfers),
            *((row.sequence, self._refusal, row) for row in refusals),
        ]
        expected = first
        for sequence, see, row in sorted(rows, key=lambda item: item[0]):
            self._report_missing(expected, sequence)
            if sequence < expected:
                self.auditor.report("journal", f"sequence {sequence}", "was given twice")
            see(row)
            expected = sequence + 1
        self._report_missing(expected, last + 1)
        for row in blocks:
            block = BlockRow(
                row.height,
                row.recorded_at.astimezone(UTC),
                row.first_sequence,
                row.last_sequence,
                row.root,
            )
            self.tree.block(block, self.records, kept)
            for sequence in range(block.first, block.last + 1):
                self.records.pop(sequence, None)
        await self._check_tiles()
        self.position = last

    def _report_missing(self, first: int, end: int) -> None:
        for sequence in range(first, end):
            self.auditor.report("transfer", f"sequence {sequence}", "is missing from the journal")

    async def _kept_leaves(self, conn: AsyncConnection, last: int) -> Mapping[int, bytes]:
        """Return the leaf hashes that tiles keep, for the records since the last block checked."""
        start = self.tree.size // merkle.TILE_WIDTH
        rows = await store.run(conn, sql.TILES, self.book, 0, start, last // merkle.TILE_WIDTH)
        return {
            row.position * merkle.TILE_WIDTH + place + 1: leaf
            for row in rows
            for place, leaf in enumerate(merkle.unpack(row.hashes))
        }

    async def _check_tiles(self) -> None:
        stored: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        for level in {tile.level for tile in self.tree.completed}:
            indexes = [tile.index for tile in self.tree.completed if tile.level == level]
            for row in await self._read(sql.TILES, self.book, level, min(indexes), max(indexes)):
                stored[level, row.position] = (row.hashes, row.root)
        self.tree.check_tiles(stored)

    def _event(self, row: Row[Any]) -> None:
        sequence = row.sequence
        if row.path is None:
            self.auditor.report("account", f"number {row.account}", "is missing")
            return
        spec = AccountSpec(
            path=row.path,
            asset=row.asset,
            side=Side(row.side),
            owner=row.owner,
            debits_must_not_exceed_credits=row.debits_must_not_exceed_credits,
            credits_must_not_exceed_debits=row.credits_must_not_exceed_debits,
        )
        kind = AccountEventKind(row.kind)
        if kind is AccountEventKind.OPENED:
            self.auditor.opened(row.account, spec, sequence)
        else:
            frozen = kind is AccountEventKind.FROZEN
            self.auditor.frozen(row.account, sequence, frozen=frozen)
        at = row.recorded_at.astimezone(UTC)
        line = account_line(self.book, sequence, at, row.account, kind, spec, row.reason)
        key = f"{spec.path} {spec.asset} (sequence {sequence})"
        self.records[sequence] = Record("account_event", key, at, merkle.leaf_hash(line))

    def _transfer(self, row: Row[Any]) -> None:
        seen = _evidence(row)
        self.pending += seen.row.kind is Kind.PENDING
        self.auditor.transfer(seen)
        line = transfer_line(self.book, seen.row, to_unix_us(seen.row.recorded_at))
        self.records[row.sequence] = Record(
            "transfer",
            f"{seen.row.id} (sequence {row.sequence})",
            seen.row.recorded_at,
            merkle.leaf_hash(line),
        )

    def _refusal(self, row: Row[Any]) -> None:
        at = row.recorded_at.astimezone(UTC)
        line = refusal_line(self.book, RefusalRow(row.sequence, row.id, row.outcome, at))
        key = f"{row.id} (sequence {row.sequence})"
        self.records[row.sequence] = Record("refusal", key, at, merkle.leaf_hash(line))

    async def finish(self) -> None:
        """Check what is not a journal record: sums, heads, balances, holds, rows too many."""
        self.auditor.check_sums()
        self._check_head()
        numbers = sorted(self.auditor.accounts)
        for start in range(0, len(numbers), CHUNK):
            await self._check_balances(numbers[start : start + CHUNK])
        report = self.auditor.report
        for row in await self._read(sql.SURPLUS_ENTRIES, self.book, self.watermark):
            key = f"{self.auditor.name(row.account)}, sequence {row.sequence}"
            report("entry", key, "belongs to no transfer")
        for row in await self._read(sql.SURPLUS_HOLDS, self.book, self.watermark):
            report("hold", str(row.id), "belongs to no pending transfer")
        for row in await self._read(sql.SURPLUS_METADATA, self.book, self.watermark):
            report("transfer_metadata", f"sequence {row.sequence}", "belongs to no transfer")
        for row in await self._read(sql.HOLD_TOTALS, self.book):
            report(
                "hold",
                f"{row.path} {row.asset}",
                f"open holds come to {row.held_debits} debits and {row.held_credits} credits,"
                f" pending are {row.debits_pending} and {row.credits_pending}",
            )
        for row in await self._read(sql.SURPLUS_ACCOUNTS, self.book):
            report("account", f"{row.path} {row.asset}", "was never opened")

    def _check_head(self) -> None:
        head, report = self.head, self.auditor.report
        assert head is not None
        key = f"book {self.book}"
        if self.tree.size != self.watermark or self.tree.height != head.height:
            report("head", key, f"is at height {head.height}, the blocks at {self.tree.height}")
        if not self.tree.lost and merkle.pack(self.tree.frontier) != head.frontier:
            report("head", key, "has another frontier than the records")
        if head.account_count != len(self.auditor.accounts):
            report("head", key, f"counts {head.account_count} accounts")

    async def _check_balances(self, numbers: list[int]) -> None:
        rows = await self._read(sql.BALANCES, self.book, numbers)
        found = {row.account: row for row in rows}
        for number in numbers:
            account = self.auditor.accounts[number]
            row = found.get(number)
            if row is None:
                self.auditor.report("balance", account.name, "is missing")
                continue
            self._check_balance(number, row)

    def _check_balance(self, number: int, row: Row[Any]) -> None:
        account, report = self.auditor.accounts[number], self.auditor.report
        stored = _columns(row, "", row.version)
        assert stored is not None
        moved_on = row.sequence > self.watermark
        expected = _columns(row, "entry_", row.entry_version) if moved_on else account.columns
        if expected is None or stored[:5] != expected[:5]:
            report("balance", account.name, f"is {stored[:5]}, the entries make it {expected}")
        if not moved_on and row.sequence != account.sequence:
            report("balance", account.name, f"names sequence {row.sequence} as its last")
        spec = account.spec
        if (row.asset, row.debits_must_not_exceed_credits, row.credits_must_not_exceed_debits) != (
            spec.asset,
            spec.debits_must_not_exceed_credits,
            spec.credits_must_not_exceed_debits,
        ):
            report("balance", account.name, "has other flags than the account")
        settled = row.head_sequence == self.watermark
        if settled and (row.frozen, row.closed) != (account.frozen, account.columns.closed):
            report("balance", account.name, "is frozen or closed without a record of it")


def _columns(row: Row[Any], prefix: str, version: int | None) -> Columns | None:
    if version is None:
        return None
    names = ("debits_pending", "debits_posted", "credits_pending", "credits_posted")
    dp, d, cp, c = (int(getattr(row, prefix + name)) for name in names)
    return Columns(dp, d, cp, c, version, closed=False)


def _evidence(row: Row[Any]) -> TransferEvidence:
    held = None if row.held is None else int(row.held)
    stored = None
    if row.hold_id is not None:
        stored = StoredHold(
            row.hold_sequence,
            row.hold_debit,
            row.hold_credit,
            int(row.hold_amount),
            row.hold_flags,
            row.hold_purpose,
            row.hold_correlation,
            row.expires_at,
            int(row.remaining),
            row.hold_state,
            row.resolved_sequence,
        )
    resolved = None
    if row.resolver_sequence is not None:
        resolved = (row.resolver_sequence, Kind(row.resolver_kind))
    original = None
    if row.original_amount is not None:
        original = (row.original_debit, row.original_credit, int(row.original_amount))
    metadata = "" if row.data is None else canonical_metadata(json.loads(row.data))
    return TransferEvidence(
        row=store.transfer_row(row, held),
        held=held,
        held_flags=row.held_flags or 0,
        debit_entry=_columns(row, "debit_", row.debit_version),
        credit_entry=_columns(row, "credit_", row.credit_version),
        hold=stored,
        resolved_by=resolved,
        original=original,
        metadata_hash=metadata_hash(metadata),
        refused_too=row.refused,
    )
