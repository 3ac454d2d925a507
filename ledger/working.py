"""A snapshot with the changes of one batch laid over it, and a log to undo a chain's.

The snapshot is never changed: what a batch does is kept beside it until it is written.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from ledger.model import HoldState, PostResult
from ledger.outcome import Outcome
from ledger.state import (
    Columns,
    Decisions,
    EntryRow,
    HoldRow,
    RefusalRow,
    Snapshot,
    TransferRow,
)

Key = TypeVar("Key")
Value = TypeVar("Value")


class Working:
    """A snapshot with the changes of this batch laid over it, and a log to undo them."""

    def __init__(self, snapshot: Snapshot, at: datetime) -> None:
        self.snapshot = snapshot
        self.at = at
        self.sequence = snapshot.sequence
        self.numbers = {(a.path, a.asset): a.number for a in snapshot.accounts.values()}
        self.columns: dict[int, Columns] = {}
        self.holds: dict[UUID, HoldRow] = {}
        self.transfers: dict[UUID, TransferRow] = {}
        self.refusals: dict[UUID, RefusalRow] = {}
        self.reversed_ids: dict[UUID, UUID] = {}
        self.records: list[TransferRow | RefusalRow] = []
        self.entries: list[EntryRow] = []
        self.metadata: list[tuple[int, str]] = []
        self.undo: list[tuple[dict[Any, Any], Any, Any]] | None = None

    def transfer(self, transfer_id: UUID) -> TransferRow | None:
        """Return the recorded transfer of that id, of this batch or earlier."""
        return self.transfers.get(transfer_id) or self.snapshot.transfers.get(transfer_id)

    def refusal(self, transfer_id: UUID) -> RefusalRow | None:
        """Return the refusal that spent the id."""
        return self.refusals.get(transfer_id) or self.snapshot.refusals.get(transfer_id)

    def hold(self, hold_id: UUID) -> HoldRow | None:
        """Return a hold as it stands now."""
        return self.holds.get(hold_id) or self.snapshot.holds.get(hold_id)

    def is_reversed(self, transfer_id: UUID) -> bool:
        """Tell whether a transfer has been reversed."""
        return transfer_id in self.reversed_ids or transfer_id in self.snapshot.reversed_ids

    def columns_of(self, number: int) -> Columns:
        """Return an account's columns as they stand now."""
        found = self.columns.get(number)
        return self.snapshot.accounts[number].columns if found is None else found

    def put(self, table: dict[Key, Value], key: Key, value: Value) -> None:
        """Write through the undo log, where one is kept."""
        if self.undo is not None:
            self.undo.append((table, key, table.get(key)))
        table[key] = value

    def attempt(self, work: Callable[[], Outcome | None]) -> Outcome | None:
        """Run *work*; if it returns a refusal, leave everything as it was."""
        marks = (self.sequence, len(self.records), len(self.entries), len(self.metadata))
        self.undo = []
        refusal = work()
        log, self.undo = self.undo, None
        if refusal is not None:
            for table, key, before in reversed(log):
                if before is None:
                    del table[key]
                else:
                    table[key] = before
            self.sequence = marks[0]
            del self.records[marks[1] :]
            del self.entries[marks[2] :]
            del self.metadata[marks[3] :]
        return refusal

    def spend(self, transfer_id: UUID, outcome: Outcome) -> RefusalRow:
        """Record that *outcome* has spent the id."""
        self.sequence += 1
        row = RefusalRow(self.sequence, transfer_id, outcome, self.at)
        self.records.append(row)
        self.put(self.refusals, transfer_id, row)
        return row

    def decisions(self, results: list[PostResult]) -> Decisions:
        """Return what the batch came to."""
        stored = self.snapshot.holds
        return Decisions(
            results=results,
            sequence=self.sequence,
            records=self.records,
            entries=self.entries,
            balances=self.columns,
            new_holds=[hold for key, hold in self.holds.items() if key not in stored],
            resolved_holds=[hold for key, hold in self.holds.items() if key in stored],
            metadata=self.metadata,
        )

    def apply(self, row: TransferRow, metadata: str, debit: Columns, credit: Columns) -> None:
        """Lay a decided transfer over the book: its record, two entries, two balances."""
        self.records.append(row)
        self.put(self.transfers, row.id, row)
        self.put(self.columns, row.debit, debit)
        self.put(self.columns, row.credit, credit)
        self.entries.append(EntryRow(row.debit, row.sequence, debit.version, *debit[:4]))
        self.entries.append(EntryRow(row.credit, row.sequence, credit.version, *credit[:4]))
        if metadata:
            self.metadata.append((row.sequence, metadata))

    def close_hold(self, hold: HoldRow, state: HoldState, sequence: int) -> None:
        """Give a hold its final state."""
        self.put(self.holds, hold.id, hold._replace(state=state, resolved_sequence=sequence))
