"""What a batch does to a book while it is decided, and a log to take back what a chain did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from kernel.money import AMOUNT_MAX
from ledger.arrays import numbers
from ledger.model import HoldState, Kind, PostResult
from ledger.outcome import Outcome
from ledger.records import NULL, microseconds, pg_time
from ledger.state import (
    Decisions,
    EffectiveRow,
    HoldRow,
    Mark,
    RefusalRow,
    Request,
    Snapshot,
    Standing,
    TransferRow,
)

_CREATED: Final = Outcome.CREATED

HOLDING: Final = frozenset({Kind.PENDING, Kind.POST, Kind.VOID})
"""Kinds that make or resolve a hold."""

Key = TypeVar("Key")
Value = TypeVar("Value")


Made = tuple[Request, int, int, int, int, int | None, datetime | None]
"""A transfer that this batch has made: request, sequence, debit, credit, amount, the amount of the hold
that it resolves, effective time. The row of it is written out only when somebody asks for it."""


class Working:
    """A snapshot, the changes of one batch, and a log to undo them."""

    def __init__(self, snapshot: Snapshot, at: datetime, *, imports: bool) -> None:
        self.snapshot = snapshot
        self.by_key = snapshot.by_key
        self.accounts = snapshot.accounts
        self.book = snapshot.book
        self.at = at
        self.imports = imports
        self.known = {*snapshot.transfers, *snapshot.refusals}
        self.sequence = snapshot.sequence
        self.imported_through = snapshot.imported_through
        self.touched: dict[int, Standing] = {}
        self.made: dict[UUID, Made] = {}
        self.holds: dict[UUID, HoldRow] = {}
        self.refusals: dict[UUID, RefusalRow] = {}
        self.reversed_ids: dict[UUID, UUID] = {}
        self.lines: list[str] = []
        self.entries: list[str] = []
        self.metadata: list[tuple[int, str]] = []
        self.effective: list[EffectiveRow] = []
        self.undo: list[tuple[dict[Any, Any], Any, Any]] | None = None
        self.marks: list[tuple[Standing, Mark]] = []
        self.pends = False

    def is_recorded(self, transfer_id: UUID) -> bool:
        """Tell whether a transfer of that id has been made, by this batch or earlier."""
        return transfer_id in self.made or transfer_id in self.snapshot.transfers

    def transfer(self, transfer_id: UUID) -> TransferRow | None:
        """Return the recorded transfer of that id, of this batch or earlier."""
        made = self.made.get(transfer_id)
        if made is None:
            return self.snapshot.transfers.get(transfer_id)
        item, sequence, debit, credit, amount, held, effective_at = made
        asked = item.transfer
        return TransferRow(
            sequence,
            asked.id,
            asked.kind,
            item.flags,
            debit,
            credit,
            amount,
            asked.code,
            asked.pending_id,
            asked.reverses,
            asked.purpose,
            microseconds(asked.timeout),
            effective_at,
            asked.reference,
            asked.correlation,
            item.metadata_hash,
            self.at,
            held,
        )

    def refusal(self, transfer_id: UUID) -> RefusalRow | None:
        """Return the refusal that spent the id."""
        return self.refusals.get(transfer_id) or self.snapshot.refusals.get(transfer_id)

    def hold(self, hold_id: UUID) -> HoldRow | None:
        """Return a hold as it stands now."""
        return self.holds.get(hold_id) or self.snapshot.holds.get(hold_id)

    def is_reversed(self, transfer_id: UUID) -> bool:
        """Tell whether a transfer has been reversed."""
        return transfer_id in self.reversed_ids or transfer_id in self.snapshot.reversed_ids

    def put(self, table: dict[Key, Value], key: Key, value: Value) -> None:
        """Write through the undo log, where one is kept."""
        if self.undo is not None:
            self.undo.append((table, key, table.get(key)))
        table[key] = value

    def attempt(self, work: Callable[[], Outcome | None]) -> Outcome | None:
        """Run *work*; if it returns a refusal, leave everything as it was."""
        before = self.sequence, self.imported_through
        rows: tuple[list[Any], ...] = (self.lines, self.entries, self.metadata, self.effective)
        lengths = [len(table) for table in rows]
        self.undo, self.marks = [], []
        refusal = work()
        log, self.undo = self.undo, None
        if refusal is not None:
            for table, key, earlier in reversed(log):
                if earlier is None:
                    del table[key]
                else:
                    table[key] = earlier
            for account, mark in reversed(self.marks):
                account.restore(mark)
            self.sequence, self.imported_through = before
            for table, length in zip(rows, lengths, strict=True):
                del table[length:]
        return refusal

    def spend(self, transfer_id: UUID, outcome: Outcome) -> RefusalRow:
        """Record that *outcome* has spent the id."""
        self.sequence += 1
        row = RefusalRow(self.sequence, transfer_id, outcome, self.at)
        self.lines.append(f"refusal\t{self.book}\t{self.sequence}\t{transfer_id}\t{outcome}")
        self.refusals[transfer_id] = row
        return row

    def decisions(self, results: list[PostResult]) -> Decisions:
        """Return what the batch came to."""
        stored = self.snapshot.holds
        return Decisions(
            results=results,
            sequence=self.sequence,
            lines=self.lines,
            entries=self.entries,
            balances=self._balances(),
            new_holds=[hold for key, hold in self.holds.items() if key not in stored],
            resolved_holds=[hold for key, hold in self.holds.items() if key in stored],
            metadata=self.metadata,
            effective=self.effective,
            imported_through=self.imported_through,
        )

    def _balances(self) -> dict[str, Sequence[str]]:
        touched = self.touched.values()
        if not touched:
            return {}
        posted = (
            numbers(self.touched),
            numbers([account.sequence for account in touched]),
            numbers([account.version for account in touched]),
            numbers([account.debits_posted for account in touched]),
            numbers([account.credits_posted for account in touched]),
        )
        if not self.pends:
            return {"posted": posted}
        pending = (
            numbers([account.debits_pending for account in touched]),
            numbers([account.credits_pending for account in touched]),
            numbers([account.closed for account in touched]),
        )
        return {"standings": (*posted, *pending)}

    def accept(self, item: Request) -> PostResult | None:
        """Decide a simple transfer, if nothing at all is in its way; else None, and nothing is done.

        Half of all transfers are of this kind, and this is the same as `ledger.rules.decide_one` says
        about them, in one piece. What is refused is left to that.
        """
        asked = item.transfer
        amount, transfer_id = asked.amount, asked.id
        debit, credit = self.by_key.get(item.debit_key), self.by_key.get(item.credit_key)
        if (
            debit is None
            or credit is None
            or transfer_id in self.made
            or (self.known and transfer_id in self.known)
            or (self.refusals and transfer_id in self.refusals)
            or debit.closed
            or credit.closed
            or debit.frozen
            or credit.frozen
        ):
            return None
        debits = debit.debits_posted + amount
        credits_ = credit.credits_posted + amount
        reserved, incoming = debit.debits_pending + debits, credit.credits_pending + credits_
        if (
            reserved > AMOUNT_MAX
            or incoming > AMOUNT_MAX
            or (debit.debits_capped and reserved > debit.credits_posted + debit.credit_limit)
            or (credit.credits_capped and incoming > credit.debits_posted + credit.credit_limit)
        ):
            return None
        self.sequence = sequence = self.sequence + 1
        d, c = debit.number, credit.number
        debit.debits_posted, credit.credits_posted = debits, credits_
        debit.version = debit_version = debit.version + 1
        credit.version = credit_version = credit.version + 1
        debit.sequence = credit.sequence = sequence
        touched = self.touched
        touched[d], touched[c] = debit, credit
        self.made[transfer_id] = (item, sequence, d, c, amount, None, None)
        book = self.book
        self.lines.append(
            f"transfer\t{book}\t{sequence}\t{item.id_text}\t1\t0\t{d}\t{c}\t{amount}"
            f"\t{item.tail}\t\\N\t{item.user_data}"
        )
        self.entries += (
            (
                f"{book}\t{d}\t{sequence}\t{debit_version}\t{debit.debits_pending}\t{debits}"
                f"\t{debit.credits_pending}\t{debit.credits_posted}"
            ),
            (
                f"{book}\t{c}\t{sequence}\t{credit_version}\t{credit.debits_pending}"
                f"\t{credit.debits_posted}\t{credit.credits_pending}\t{credits_}"
            ),
        )
        if item.metadata:
            self.metadata.append((sequence, item.metadata))
        return PostResult(_CREATED, transfer_id, sequence, self.at, amount)

    def move(
        self,
        item: Request,
        debit: Standing,
        credit: Standing,
        *,
        amount: int,
        pending: int,
        posted: int,
        held: int | None = None,
        effective_at: datetime | None = None,
    ) -> int:
        """Lay a decided transfer over the book: record, entries, balances. Return its sequence.

        Args:
            item: the request.
            debit, credit: the accounts.
            amount: what the record says.
            pending: what it adds to the pending columns; negative where it releases.
            posted: what it adds to the posted columns.
            held: amount of the hold that it resolves.
            effective_at: when it counts for the accounts; None: now.
        """
        asked = item.transfer
        self.sequence += 1
        sequence = self.sequence
        if self.undo is not None:
            self.marks += ((debit, debit.mark()), (credit, credit.mark()))
            self.undo.append((self.made, asked.id, None))
            for account in (debit, credit):
                if account.number not in self.touched:
                    self.undo.append((self.touched, account.number, None))
        self.made[asked.id] = (
            item,
            sequence,
            debit.number,
            credit.number,
            amount,
            held,
            effective_at,
        )
        effective = NULL if effective_at is None else pg_time(effective_at)
        self.lines.append(
            f"transfer\t{self.book}\t{sequence}\t{item.id_text}\t{asked.kind.value}\t{item.flags}"
            f"\t{debit.number}\t{credit.number}\t{amount}\t{item.tail}\t{effective}\t{item.user_data}"
        )
        self._enter(debit, credit, pending, posted)
        # A hold of nothing changes no pending column, but it may close or reopen an account.
        self.pends = self.pends or asked.kind in HOLDING
        if item.metadata:
            self.metadata.append((sequence, item.metadata))
        if effective_at is not None and posted:
            self._date(debit.number, credit.number, effective_at, posted)
        return sequence

    def _enter(self, debit: Standing, credit: Standing, pending: int, posted: int) -> None:
        sequence = self.sequence
        debit.debits_pending += pending
        debit.debits_posted += posted
        credit.credits_pending += pending
        credit.credits_posted += posted
        for account in (debit, credit):
            account.version += 1
            account.sequence = sequence
            self.touched[account.number] = account
            self.entries.append(
                f"{self.book}\t{account.number}\t{sequence}\t{account.version}"
                f"\t{account.debits_pending}\t{account.debits_posted}"
                f"\t{account.credits_pending}\t{account.credits_posted}"
            )

    def _date(self, debit: int, credit: int, effective_at: datetime, posted: int) -> None:
        """Note a posted movement whose effective day is not the day on which it is recorded."""
        day = effective_day(effective_at)
        if day != effective_day(self.at):
            self.effective.append(EffectiveRow(debit, day, self.sequence, posted, 0))
            self.effective.append(EffectiveRow(credit, day, self.sequence, 0, posted))

    def expire(
        self, hold: HoldRow, transfer_id: UUID, tail: str, user_data: str
    ) -> tuple[Standing, Standing]:
        """Record the expiry of a hold; return its accounts."""
        debit, credit = self.accounts[hold.debit], self.accounts[hold.credit]
        self.sequence += 1
        self.lines.append(
            f"transfer\t{self.book}\t{self.sequence}\t{transfer_id}\t{Kind.EXPIRE.value}\t0"
            f"\t{debit.number}\t{credit.number}\t{hold.amount}\t{tail}\t{NULL}\t{user_data}"
        )
        self.pends = True
        self.close_hold(hold, HoldState.EXPIRED, self.sequence)
        self._enter(debit, credit, -hold.amount, 0)
        return debit, credit

    def close_hold(self, hold: HoldRow, state: HoldState, sequence: int) -> None:
        """Give a hold its final state."""
        self.put(self.holds, hold.id, hold._replace(state=state, resolved_sequence=sequence))


def effective_day(at: datetime) -> date:
    """Return the day on which a time falls for the accounts: that of UTC."""
    return at.astimezone(UTC).date()
