"""From entries to the books: what is new is written, then posted in one go.

Order of locks: entries (unique), payments of ours, receipts, then the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from banks.entry_keys import has_reference
from banks.statement_model import Entry, EntryKind, Statement, StatementKind
from custody.banks import booking
from custody.banks import statement_store as store
from custody.banks.entry_model import (
    BankReceipt,
    BankReceiptKind,
    BankReceiptState,
    BookedEntry,
    KeptStatement,
)
from custody.banks.receipts import receipt_event
from custody.banks.statement_ports import Booked, Payments
from custody.books import apply_plan
from custody.model import bank_account_path
from custody.plan import Plan
from kernel.events import DomainEvent

IMPORTER: Final = "system:bank-statements"


async def write_entries(
    conn: AsyncConnection, kept: Sequence[tuple[KeptStatement, Statement]]
) -> list[tuple[KeptStatement, Entry]]:
    """Write the booked entries that are new; return them in their order."""
    wanted: dict[UUID, tuple[KeptStatement, Entry]] = {}
    for item, statement in kept:
        for entry in statement.booked:
            # Without the bank's own reference nobody could tell it from the statement's entry.
            if statement.kind is StatementKind.NOTICE and not has_reference(entry):
                continue
            if entry.amount:
                wanted.setdefault(booking.entry_id(item.account, entry), (item, entry))
    new = await _insert(conn, wanted)
    again = await _used_again(conn, {key: wanted[key] for key in sorted(wanted.keys() - new)})
    new |= await _insert(conn, again)
    wanted |= again
    return [wanted[key] for key in sorted(new)]


async def _insert(
    conn: AsyncConnection, wanted: Mapping[UUID, tuple[KeptStatement, Entry]]
) -> set[UUID]:
    rows = [_entry_row(key, item, entry) for key, (item, entry) in sorted(wanted.items())]
    return await store.insert_entries(conn, rows) if rows else set()


async def _used_again(
    conn: AsyncConnection, known: Mapping[UUID, tuple[KeptStatement, Entry]]
) -> dict[UUID, tuple[KeptStatement, Entry]]:
    """Return the entries that are known only because their bank uses a reference again.

    Statements of different days have no entry in common: each says what its own balances say.
    """
    stated = {
        (item.account, entry.key): item
        for item, entry in known.values()
        if item.kind == StatementKind.STATEMENT
    }
    others = await store.list_stated_elsewhere(conn, stated) if stated else set()
    renamed = [
        (item, replace(entry, key=f"{entry.key}@{entry.booking_date.isoformat()}"))
        for item, entry in known.values()
        if item.kind == StatementKind.STATEMENT and (item.account, entry.key) in others
    ]
    return {booking.entry_id(item.account, entry): (item, entry) for item, entry in renamed}


async def book_entries(
    conn: AsyncConnection,
    new: Sequence[tuple[KeptStatement, Entry]],
    owners: Mapping[str, str],
    payments: Payments,
    *,
    now: datetime,
) -> list[BankReceipt]:
    """Book every line of new entries of one book; return what waits in suspense.

    Args:
        owners: owner class by path of our bank accounts.
    """
    entries = {booking.entry_id(item.account, entry): entry for item, entry in new}
    lines = [
        line
        for item, entry in new
        for line in booking.lines_of(entry, account=item.account, book=item.book)
    ]
    if not lines:
        return []
    offered = [
        line
        for line in lines
        if line.end_to_end and entries[line.entry_id].kind is EntryKind.PAYMENT
    ]
    ours = await payments.record_booked(conn, offered, now=now) if offered else Booked()
    mine = [line for line in lines if line.id not in ours.taken]
    receipts, events = await _write_receipts(conn, mine, entries, now)
    plan = Plan()
    for line in lines:
        path = bank_account_path(line.account)
        plan.need(path, line.asset, owner=owners[path])
    for line in mine:
        plan.post(booking.posting_of(line, entries[line.entry_id].kind))
    plan.tell(*events)
    await apply_plan(conn, plan.merge([ours.plan]), book=lines[0].book, now=now)
    return receipts


async def _write_receipts(
    conn: AsyncConnection,
    lines: Iterable[BookedEntry],
    entries: Mapping[UUID, Entry],
    now: datetime,
) -> tuple[list[BankReceipt], list[DomainEvent]]:
    """Write what waits in suspense, and what the bank has taken back of it.

    A credit that nobody has matched ends; of one that is matched, a recall is made.
    """
    payments = [line for line in lines if entries[line.entry_id].kind is EntryKind.PAYMENT]
    new = [
        booking.receipt_of(line, entries[line.entry_id], _receipt_kind(line), now=now)
        for line in payments
        if not booking.takes_back(line)
    ]
    await store.insert_receipts(conn, new)
    events = [receipt_event(None, item, "BankReceiptBooked", by=IMPORTER, now=now) for item in new]
    back = [line for line in payments if booking.takes_back(line)]
    candidates = await _lock_candidates(conn, back)
    ended, recalls = [], []
    for line in back:
        found = booking.taken_back(line, entries[line.entry_id], candidates)
        if found is not None:
            candidates.remove(found)
        if found is not None and found.state is BankReceiptState.UNMATCHED:
            after = replace(found, state=BankReceiptState.RETURNED, version=found.version + 1)
            ended.append(after)
            why = f"taken back by the bank: entry {line.entry_id}"
            events.append(
                receipt_event(found, after, "BankReceiptReturned", by=IMPORTER, reason=why, now=now)
            )
        else:
            recall = _recall(line, entries[line.entry_id], found, now)
            recalls.append(recall)
            events.append(receipt_event(None, recall, "BankReceiptRecalled", by=IMPORTER, now=now))
    if ended:
        await store.update_receipts(conn, ended)
    await store.insert_receipts(conn, recalls)
    return new + recalls, events


def _receipt_kind(line: BookedEntry) -> BankReceiptKind:
    return BankReceiptKind.RECEIPT if line.amount > 0 else BankReceiptKind.DEBIT


async def _lock_candidates(conn: AsyncConnection, back: Sequence[BookedEntry]) -> list[BankReceipt]:
    """Lock every credit that one of these debits may take back; none where there are too many to tell."""
    values: dict[str, set[int]] = {}
    for line in back:
        values.setdefault(line.account, set()).add(-line.amount)
    candidates: list[BankReceipt] = []
    for account in sorted(values):
        found = await store.lock_candidates(conn, account, values[account])
        candidates += found if len(found) < store.CANDIDATES_MAX else []
    return candidates


def _recall(
    line: BookedEntry, entry: Entry, found: BankReceipt | None, now: datetime
) -> BankReceipt:
    return replace(
        booking.receipt_of(line, entry, BankReceiptKind.RECALL, now=now),
        recalls=None if found is None else found.id,
        party=None if found is None else found.party,
    )


def _entry_row(key: UUID, item: KeptStatement, entry: Entry) -> dict[str, Any]:
    first = entry.lines[0]
    return {
        "id": key,
        "statement_id": item.id,
        "book": item.book,
        "account": item.account,
        "key": entry.key,
        "amount": entry.amount,
        "asset": entry.asset,
        "booking_date": entry.booking_date,
        "value_date": entry.value_date,
        "kind": str(entry.kind),
        "reversal": entry.reversal,
        "bank_ref": entry.bank_ref,
        "end_to_end": first.end_to_end,
        "name": first.name,
        "iban": first.iban,
        "remittance": first.remittance,
        "lines": len(entry.lines),
    }
