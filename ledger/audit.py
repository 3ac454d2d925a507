"""The pure half of verification: replay the journal's lines and derive everything that follows.

A journal line (`ledger.records`) is split and never made into objects: one line is one transfer of
money, and there may be a hundred thousand in a second. What is derived are the entries and effective
entries that must stand beside the transfers, the accounts as they stand, and the periods; whoever
replays compares these with what is stored. Memory grows with the number of accounts, not of
transfers.

What a transfer may do is checked again here by rules of this module's own, not by `ledger.decide`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ledger.audit_rows import (
    DATE_LENGTH,
    EXPIRE,
    MOVES,
    NULL,
    PENDING,
    POST,
    RESOLVED_AS,
    REVERSAL,
    SINGLE,
    VOID,
    AuditedAccount,
    Links,
    Row,
    deadline,
)
from ledger.model import AT_ORIGINAL, BALANCING, CLOSING, CLOSING_CREDIT, CLOSING_DEBIT, IMPORTED
from ledger.outcome import TRANSIENT

PLAIN: Final = b"\\N\t\\N\t\t\\N\t\\N\t"
"""What follows the code of a plain transfer: no hold, reversal, purpose, timeout, effective time."""
NUMBER_LENGTH: Final = 20
TRANSIENT_NAMES: Final = frozenset(str(outcome) for outcome in TRANSIENT)
FAULTS_MAX: Final = 1_000
"""Faults reported, at most: a journal with more has one cause, not a thousand."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong: the table, the row in words (account, transfer, sequence), and why."""

    table: str
    key: str
    what: str

    def __str__(self) -> str:
        return f"{self.table} {self.key}: {self.what}"


@dataclass(slots=True)
class Faults:
    """The faults found so far, each once, up to the limit."""

    found: dict[Fault, None] = field(default_factory=dict)

    def report(self, table: str, key: object, what: str) -> None:
        """Add a fault."""
        if len(self.found) < FAULTS_MAX:
            self.found[Fault(table, str(key), what)] = None

    def take(self, faults: Faults) -> None:
        """Add the faults of *faults*."""
        for fault in faults.found:
            self.report(fault.table, fault.key, fault.what)


class Replay:
    """What the lines come to, up to the last one.

    Attributes:
        entries: lines of the entries that the transfers since the last `take` make.
        effective: the same of effective entries, without the book.
        described: metadata hashes by sequence, since the last `take`.
        times: (sequence, recorded time) wherever the time changes.
    """

    def __init__(self, faults: Faults, book: int, links: Links) -> None:
        self.faults = faults
        self.report = faults.report
        self.book = str(book).encode()
        self.links = links
        self.accounts: dict[bytes, AuditedAccount] = {}
        self.names: set[tuple[str, str]] = set()
        self.expected = 1
        self.now = b""
        self.ending = b"\t\t"
        self.closed_through = b""
        self.imported_through = b""
        self.pending = 0
        self.times: list[tuple[int, bytes]] = []
        self.others: dict[int, bytes] = {}
        self.entries: list[str] = []
        self.effective: list[str] = []
        self.described: dict[int, bytes] = {}
        self.overdrawn: list[tuple[str, str]] = []

    def name(self, key: bytes) -> str:
        """Return the path and asset of an account."""
        account = self.accounts.get(key)
        return account.name if account else f"account {key.decode(errors='replace')}"

    def transfers(self, lines: Iterable[bytes]) -> None:
        """Replay transfers' lines without their type; `others` are replayed where they belong.

        The plain ones are replayed here: kind SINGLE without flags, effective time and metadata,
        between two accounts that are neither frozen nor closed. What makes a line plain is read
        from its two ends, so that it is split no further than its amount.
        """
        get, watched, book_text = self.accounts.get, self.links.watched, self.book
        append, expected, ending = self.entries.append, self.expected, self.ending
        for line in lines:
            if line.endswith(ending):
                try:
                    book, number, name, kind, flags, debit_key, credit_key, amount, _, rest = (
                        line.split(b"\t", 9)
                    )
                    sequence, units = int(number), int(amount)
                except ValueError:
                    self._unreadable(line)
                    continue
                debit, credit = get(debit_key), get(credit_key)
                if (
                    kind == SINGLE
                    and flags == b"0"
                    and rest.startswith(PLAIN)
                    and sequence == expected
                    and debit is not None
                    and credit is not None
                    and debit is not credit
                    and not debit.refuses
                    and not credit.refuses
                    and debit.asset == credit.asset
                    and units >= 0
                    and book == book_text
                    and name not in watched
                ):
                    expected = sequence + 1
                    debit.debits_posted = debits = debit.debits_posted + units
                    debit.version = version = debit.version + 1
                    debit.sequence = sequence
                    append(
                        f"{debit.prefix}{sequence}\t{version}\t{debit.debits_pending}\t{debits}"
                        f"\t{debit.credits_pending}\t{debit.credits_posted}\n"
                    )
                    credit.credits_posted = credits_ = credit.credits_posted + units
                    credit.version = version = credit.version + 1
                    credit.sequence = sequence
                    append(
                        f"{credit.prefix}{sequence}\t{version}\t{credit.debits_pending}"
                        f"\t{credit.debits_posted}\t{credit.credits_pending}\t{credits_}\n"
                    )
                    if (
                        debit.debits_capped
                        and debit.debits_pending + debits
                        > debit.credits_posted + debit.credit_limit
                    ) or (credit.credits_capped and credit.overdrawn):
                        self._note_overdrawn(debit, credit, Row(*line.split(b"\t")))
                    continue
            self.expected = expected
            self._any(line)
            expected, ending = self.expected, self.ending
        self.expected = expected

    def _any(self, line: bytes) -> None:
        """Replay a transfer of any kind."""
        try:
            row = Row._make(line.split(b"\t"))
            sequence, units = int(row.sequence), int(row.amount)
            if sequence < self.expected:
                self.report("transfer", row.key, "has a sequence number that was given before")
            self.seek(sequence)
            self.expected = sequence + 1
            if row.recorded_at != self.now:
                self.advance(sequence, row.recorded_at)
            if row.metadata_hash:
                self.described[sequence] = row.metadata_hash
            self._unusual(row, sequence, units)
        except (ValueError, TypeError):
            # A number that is none, or too few fields or too many.
            self._unreadable(line)

    def _unreadable(self, line: bytes) -> None:
        sequence = line.split(b"\t", 2)[1:2] or [b"?"]
        key = f"sequence {sequence[0][:NUMBER_LENGTH].decode(errors='replace')}"
        self.report("transfer", key, "cannot be read")

    def seek(self, sequence: int) -> None:
        """Replay the other records before *sequence*, and report what is missing there."""
        while self.expected < sequence:
            other = self.others.pop(self.expected, None)
            if other is None:
                self.report("transfer", f"sequence {self.expected}", "is missing from the journal")
            else:
                self.other(self.expected, other)
            self.expected += 1

    def advance(self, sequence: int, recorded_at: bytes) -> None:
        """The recorded time changes."""
        if recorded_at < self.now:
            self.report("journal", f"sequence {sequence}", "is earlier than the record before it")
        self.now = recorded_at
        self.ending = b"\t\t" + recorded_at
        self.times.append((sequence, recorded_at))

    def take(self) -> tuple[list[str], list[str], dict[int, bytes]]:
        """Return entries, effective entries and metadata hashes since the last call."""
        taken = self.entries, self.effective, self.described
        self.entries, self.effective, self.described = [], [], {}
        return taken

    def other(self, sequence: int, line: bytes) -> None:
        """Replay a record that is not a transfer."""
        kind, *fields = line.split(b"\t")
        if fields[-1] != self.now:
            self.advance(sequence, fields[-1])
        if not fields or fields[0] != self.book:
            self.report("journal", f"sequence {sequence}", "is of another book")
        try:
            match kind:
                case b"account":
                    self._account(sequence, fields)
                case b"refusal":
                    self._refusal(sequence, fields)
                case b"period":
                    self._period(sequence, fields)
                case _:
                    self.report("journal", f"sequence {sequence}", "is of no known type")
        except ValueError:
            self.report("journal", f"sequence {sequence}", "cannot be read")

    def _account(self, sequence: int, fields: Sequence[bytes]) -> None:
        _, _, number, kind, path, asset, _, _, flags, limit, _, effective_at, _, _, at = fields
        account = self.accounts.get(number)
        key = f"{path.decode()} {asset.decode()} (sequence {sequence})"
        if kind == b"opened":
            if account is not None or int(number) != len(self.accounts) + 1:
                self.report("account_event", key, f"opens account {int(number)} out of turn")
            since = at if effective_at == NULL else effective_at
            account = AuditedAccount(
                self.book.decode(),
                number.decode(),
                path.decode(),
                asset.decode(),
                flags.decode(),
                since,
            )
            if (account.path, account.asset) in self.names:
                self.report("account_event", key, "was opened before")
            self.names.add((account.path, account.asset))
            account.credit_limit, account.sequence = int(limit), sequence
            self.accounts[number] = account
        elif account is None:
            self.report("account_event", key, f"there is no account {number.decode()}")
        elif (account.path, account.asset) != (path.decode(), asset.decode()):
            self.report("account_event", key, f"account {account.key} is {account.name}")
        elif kind == b"limited":
            account.credit_limit = int(limit)
            if account.overdrawn:
                self.report("account_event", key, "sets a limit below what is used")
        else:
            account.stand(frozen=kind == b"frozen")

    def _refusal(self, sequence: int, fields: Sequence[bytes]) -> None:
        _, _, transfer_id, outcome, _ = fields
        if outcome.decode() not in TRANSIENT_NAMES:
            key = f"{transfer_id.decode()} (sequence {sequence})"
            self.report("refusal", key, f"{outcome.decode()} does not spend an id")

    def _period(self, sequence: int, fields: Sequence[bytes]) -> None:
        _, _, kind, through, _, _, _, _ = fields
        closes = kind == b"closed"
        if closes is not (through > self.closed_through):
            self.report(
                "period_event",
                f"sequence {sequence}",
                f"is {kind.decode()} through {through.decode()}, closed was"
                f" {self.closed_through.decode() or 'nothing'}",
            )
        self.closed_through = through

    def _unusual(self, row: Row, sequence: int, units: int) -> None:
        """Replay a transfer that is more than a plain move, or is wrong."""
        debit, credit = self.accounts.get(row.debit), self.accounts.get(row.credit)
        self._check_form(row, units, debit, credit)
        if row.effective_at != NULL:
            self._check_effective(row, debit, credit)
        held = 0
        if row.kind in RESOLVED_AS:
            hold = self.links.hold(row)
            held = self._check_hold(row, units, hold)
            self._reopen(row, hold)
        elif row.kind == REVERSAL:
            self._check_original(row, self.links.original(row))
        pending = units if row.kind == PENDING else -held
        posted = units if row.kind in {SINGLE, POST, REVERSAL} else 0
        self._enter(debit, credit, row, sequence, pending, posted)
        if row.kind == PENDING:
            self.pending += 1
            self._close(row.bits, debit, credit)
        self.links.made(row)

    def _enter(
        self,
        debit: AuditedAccount | None,
        credit: AuditedAccount | None,
        row: Row,
        sequence: int,
        pending: int,
        posted: int,
    ) -> None:
        if debit is not None:
            debit.debits_pending += pending
            debit.debits_posted += posted
            self._entry(debit, sequence)
        if credit is not None:
            credit.credits_pending += pending
            credit.credits_posted += posted
            self._entry(credit, sequence)
        if pending < 0:
            self._check_pending(row, debit, credit)
        if posted and row.effective_at != NULL:
            self._date(row, sequence, posted)
        if debit is not None and credit is not None and row.kind not in {VOID, EXPIRE}:
            self._note_overdrawn(debit, credit, row)

    def _entry(self, account: AuditedAccount, sequence: int) -> None:
        account.version += 1
        account.sequence = sequence
        self.entries.append(
            f"{account.prefix}{sequence}\t{account.version}\t{account.debits_pending}"
            f"\t{account.debits_posted}\t{account.credits_pending}\t{account.credits_posted}\n"
        )

    def _check_pending(
        self, row: Row, debit: AuditedAccount | None, credit: AuditedAccount | None
    ) -> None:
        for account in (debit, credit):
            if account and (account.debits_pending < 0 or account.credits_pending < 0):
                self.report("transfer", row.key, f"makes {account.name} negative")

    def _date(self, row: Row, sequence: int, posted: int) -> None:
        """Expect effective entries where the effective day is not the recorded one."""
        day = row.effective_at[:DATE_LENGTH]
        if day != row.recorded_at[:DATE_LENGTH]:
            said = f"\t{day.decode()}\t{sequence}\t"
            self.effective.append(f"{row.debit.decode()}{said}{posted}\t0\n")
            self.effective.append(f"{row.credit.decode()}{said}0\t{posted}\n")

    def _note_overdrawn(self, debit: AuditedAccount, credit: AuditedAccount, row: Row) -> None:
        for account in (debit, credit):
            if account.overdrawn:
                self.overdrawn.append((account.name, row.key))

    def _check_form(
        self,
        row: Row,
        units: int,
        debit: AuditedAccount | None,
        credit: AuditedAccount | None,
    ) -> None:
        report, key = self.report, row.key
        if row.book != self.book:
            report("transfer", key, "is of another book")
        if units < 0:
            report("transfer", key, "has a negative amount")
        for number, account in ((row.debit, debit), (row.credit, credit)):
            if account is None:
                report("transfer", key, f"there is no account {number.decode()}")
            elif row.kind in MOVES and account.refuses:
                report("transfer", key, f"moves on {account.name}, frozen or closed")
            elif row.kind == POST and account.closed:
                report("transfer", key, f"posts on {account.name}, which is closed")
        if debit is not None and debit is credit:
            report("transfer", key, "has one account on both sides")
        elif debit is not None and credit is not None and debit.asset != credit.asset:
            report("transfer", key, f"moves {debit.asset} on one side, {credit.asset} on the other")
        if not self._well_formed(row):
            report("transfer", key, "has a kind that its other fields contradict")

    @staticmethod
    def _well_formed(row: Row) -> bool:
        kind, bits = row.kind, row.bits
        if kind not in RESOLVED_AS and kind not in MOVES:
            return False
        moves = kind in {SINGLE, PENDING}
        return (
            (kind in RESOLVED_AS) is (row.pending_id != NULL)
            and (kind == REVERSAL) is (row.reverses != NULL)
            and (kind == PENDING or row.timeout_us == NULL)
            and (moves or not bits & BALANCING)
            and (kind == PENDING or not bits & CLOSING)
            and (kind == REVERSAL or not bits & AT_ORIGINAL)
        )

    def _check_effective(
        self, row: Row, debit: AuditedAccount | None, credit: AuditedAccount | None
    ) -> None:
        if row.effective_at[:DATE_LENGTH] <= self.closed_through:
            closed = self.closed_through.decode()
            self.report("transfer", row.key, f"is effective in a period closed through {closed}")
        if not row.bits & IMPORTED:
            return
        if row.effective_at < self.imported_through or row.effective_at > row.recorded_at:
            self.report("transfer", row.key, "is imported out of the order of effective times")
        self.imported_through = row.effective_at
        for account in (debit, credit):
            if account is not None and row.effective_at < account.effective_at:
                self.report("transfer", row.key, f"is imported from before {account.name} existed")

    def _check_hold(self, row: Row, units: int, hold: Row | None) -> int:
        """Check a resolution against its hold; return what was held."""
        if hold is None:
            what = f"resolves {row.pending_id.decode()}, which is no open hold"
            self.report("transfer", row.key, what)
            return units
        held = int(hold.amount)
        if hold.kind != PENDING or (hold.debit, hold.credit) != (row.debit, row.credit):
            self.report("transfer", row.key, f"does not resolve {hold.key} on its accounts")
        if units > held or (row.kind != POST and units != held):
            self.report("transfer", row.key, f"resolves {units} of {held} held by {hold.key}")
        due = deadline(hold)
        is_due = bool(due) and row.recorded_at >= due
        if is_due is not (row.kind == EXPIRE):
            what = f"resolves {hold.key} on the wrong side of its deadline"
            self.report("transfer", row.key, what)
        return held

    def _check_original(self, row: Row, original: Row | None) -> None:
        if original is None:
            what = f"reverses {row.reverses.decode()}, which is not there or reversed already"
            self.report("transfer", row.key, what)
            return
        reverse = (row.credit, row.debit, row.amount)
        if (
            original.kind not in {SINGLE, POST}
            or (original.debit, original.credit, original.amount) != reverse
        ):
            self.report("transfer", row.key, f"is not the reverse of {original.key}")
        if row.bits & AT_ORIGINAL:
            since = original.recorded_at if original.effective_at == NULL else original.effective_at
            if row.effective_at != since:
                self.report("transfer", row.key, f"is not effective when {original.key} was")

    @staticmethod
    def _close(bits: int, debit: AuditedAccount | None, credit: AuditedAccount | None) -> None:
        for account, bit in ((debit, CLOSING_DEBIT), (credit, CLOSING_CREDIT)):
            if account is not None and bits & bit:
                account.stand(closed=True)

    def _reopen(self, row: Row, hold: Row | None) -> None:
        if hold is None or row.kind == POST or not hold.bits & CLOSING:
            return
        for key, bit in ((hold.debit, CLOSING_DEBIT), (hold.credit, CLOSING_CREDIT)):
            account = self.accounts.get(key)
            if account is not None and hold.bits & bit:
                account.stand(closed=False)

    def report_overdrawn(self) -> None:
        """Report the accounts that were overdrawn since the last call."""
        for account, transfer in self.overdrawn:
            self.report("entry", f"{account}, transfer {transfer}", "is overdrawn")
        self.overdrawn = []

    def check_sums(self) -> None:
        """Debits equal credits, posted and pending, for each asset."""
        for asset, (posted, pending) in sorted(self.sums().items()):
            if posted or pending:
                what = f"sums to {posted} posted and {pending} pending, not 0"
                self.report("balance", asset, what)

    def sums(self) -> dict[str, tuple[int, int]]:
        """Return debits less credits of each asset, posted and pending."""
        sums: dict[str, list[int]] = {}
        for account in self.accounts.values():
            total = sums.setdefault(account.asset, [0, 0])
            total[0] += account.debits_posted - account.credits_posted
            total[1] += account.debits_pending - account.credits_pending
        return {asset: (posted, pending) for asset, (posted, pending) in sums.items()}
