"""Verification of the rows that may change, and of rows that no transfer has made.

Each statement takes a range of keys, at one instant: a balance is compared with the replay or, if
the account has moved on since the watermark, with the entry that it names as its last.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from ledger import verification_statements as sql
from ledger.audit import Replay
from ledger.audit_rows import AuditedAccount
from ledger.verification_reading import ChunkReader

ROWS: Final = 8_192
"""Rows of a range of keys."""

NIL: Final = UUID(int=0)
COLUMNS: Final = ("debits_pending", "debits_posted", "credits_pending", "credits_posted")


class RowChecks:
    """The checks behind the last chunk."""

    def __init__(self, reader: ChunkReader, replay: Replay, watermark: int) -> None:
        self.reader = reader
        self.replay = replay
        self.report = replay.report
        self.watermark = watermark

    async def run(self) -> None:
        """Check balances, holds, effective entries, and rows that lie beyond the journal."""
        count = len(self.replay.accounts)
        for start in range(1, count + 1, ROWS):
            await self._balances(start, min(start + ROWS - 1, count))
        await self._holds()
        await self._effective()
        for row in await self.reader.fetch(sql.BEYOND):
            self.report(row[0], row[1], "lies beyond the journal")

    async def _balances(self, start: int, end: int) -> None:
        accounts = [self.replay.accounts.get(str(n).encode()) for n in range(start, end + 1)]
        found: dict[bytes, bytes] = {}
        for line in await self.reader.lines(sql.BALANCES, start, end):
            number = line.split(b"\t", 2)[1]
            if number in found:
                self.report("balance", self.replay.name(number), "is there twice")
            found[number] = line
        for account in accounts:
            if account is None:
                continue
            stored = found.get(account.key.encode())
            if stored is None:
                self.report("balance", account.name, "is missing")
            elif stored != _balance_line(self.reader.book, account):
                await self._balance(account)
        for row in await self.reader.fetch(sql.HOLD_TOTALS, start, end):
            self.report(
                "hold",
                self.replay.name(str(row["account"]).encode()),
                f"open holds come to {row['held_debits']} debits and {row['held_credits']} credits,"
                f" pending are {row['debits_pending']} and {row['credits_pending']}",
            )

    async def _balance(self, account: AuditedAccount) -> None:
        """Look closer at a balance that is not the replay's: it may have moved on."""
        for row in await self.reader.fetch(sql.BALANCE, int(account.key), self.watermark):
            self._check_balance(account, row)

    def _check_balance(self, account: AuditedAccount, row: Any) -> None:
        stored = (row["version"], *(int(row[name]) for name in COLUMNS))
        moved_on = row["sequence"] > self.watermark
        expected: tuple[int, ...] | None = None
        if not moved_on:
            expected = (account.version, *(getattr(account, name) for name in COLUMNS))
        elif row["entry_version"] is not None:
            expected = (
                row["entry_version"],
                *(int(row[f"entry_{name}"]) for name in COLUMNS),
            )
        if stored != expected:
            self.report("balance", account.name, f"is {stored}, the entries make it {expected}")
        if (not moved_on and row["sequence"] != account.sequence) or row["entries_beyond"]:
            self.report("balance", account.name, f"names sequence {row['sequence']} as its last")
        if (row["asset"], *_flags(row)) != (
            account.asset,
            account.debits_capped,
            account.credits_capped,
        ):
            self.report("balance", account.name, "has other flags than the account")
        if row["limit_set"] != row["credit_limit"]:
            what = f"has the limit {row['credit_limit']}, set was {row['limit_set']}"
            self.report("balance", account.name, what)
        closing = row["closed"] != account.closed and not row["closing_moved"]
        if closing or row["frozen"] is not (row["freezing"] == "frozen"):
            self.report("balance", account.name, "is frozen or closed without a record of it")

    async def _holds(self) -> None:
        """Compare every hold with its transfer and its resolution, a page at a time."""
        after, counted = NIL, 0
        while True:
            rows = await self.reader.fetch(sql.HOLDS, after, ROWS, self.watermark)
            if not rows:
                break
            for row in rows:
                if row["id"] is not None:
                    self._check_hold(row)
            after, counted = rows[0]["last_id"], counted + rows[0]["counted"]
        if counted != self.replay.pending:
            key = f"book {self.reader.book}"
            what = f"are {counted} up to sequence {self.watermark}, pending transfers {self.replay.pending}"
            self.report("hold", key, what)

    def _check_hold(self, row: Any) -> None:
        if row["sequence"] is None:
            self.report("hold", str(row["id"]), "belongs to no pending transfer")
            return
        key = f"{row['id']} (sequence {row['sequence']})"
        what = f"is {row['state']} with {row['remaining']}"
        if row["resolved_sequence"]:
            what += f" by sequence {row['resolved_sequence']}"
        resolver = f"sequence {row['resolver']}" if row["resolver"] else "nothing"
        self.report("hold", key, f"{what}, resolved by {resolver}, or not what its transfer says")

    async def _effective(self) -> None:
        account, sequence = 0, 0
        while True:
            rows = await self.reader.fetch(sql.SURPLUS_EFFECTIVE, account, sequence, ROWS)
            if not rows:
                break
            for row in rows:
                if row["account"] is not None:
                    name = self.replay.name(str(row["account"]).encode())
                    key = f"{name}, sequence {row['sequence']}"
                    self.report("effective_entry", key, "belongs to no transfer")
            account, sequence = rows[0]["last_account"], rows[0]["last_sequence"]


def _flags(row: Any) -> tuple[bool, bool]:
    return row["debits_must_not_exceed_credits"], row["credits_must_not_exceed_debits"]


def _balance_line(book: int, account: AuditedAccount) -> bytes:
    """Return the balance as COPY prints it, if the account has not moved on."""
    return (
        f"{book}\t{account.key}\t{account.asset}\t{account.debits_pending}"
        f"\t{account.debits_posted}\t{account.credits_pending}\t{account.credits_posted}"
        f"\t{account.version}\t{account.sequence}\t{_bool(account.frozen)}"
        f"\t{_bool(account.closed)}\t{_bool(account.debits_capped)}"
        f"\t{_bool(account.credits_capped)}\t{account.credit_limit}"
    ).encode()


def _bool(value: object) -> str:
    return "t" if value else "f"
