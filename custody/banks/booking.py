"""What each line of a bank's entry posts: the account book, section "Payout", bank part. Pure.

Payments of ours are booked by whoever made them (`custody.banks.statement_ports.Payments`); everything else is here.
Ids follow from the account, the entry's key and the line, so an entry that comes again is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from typing import Final
from uuid import UUID

from banks.statement_model import Entry, EntryKind
from custody.banks.entry_model import (
    BankReceipt,
    BankReceiptKind,
    BankReceiptState,
    BookedEntry,
)
from custody.model import bank_account_path
from kernel.ids import derive_id
from ledger.model import Transfer, transfer

SUSPENSE: Final = "suspense:bank"
CHARGE: Final = "expense:bank-charge"
INTEREST_PAID: Final = "expense:interest"
INTEREST_EARNED: Final = "income:interest"


def entry_id(account: str, entry: Entry) -> UUID:
    """Return the id of an entry, in the order of booking dates."""
    return derive_id(_moment(entry.booking_date), "bank-entry", account, entry.key)


def lines_of(entry: Entry, *, account: str, book: int) -> list[BookedEntry]:
    """Return the payments of an entry as they are offered to whoever made ours; none of 0."""
    key = entry_id(account, entry)
    return [
        BookedEntry(
            id=derive_id(_moment(entry.booking_date), "bank-line", key, number),
            entry_id=key,
            line=number,
            book=book,
            account=account,
            asset=entry.asset,
            amount=line.amount,
            end_to_end=line.end_to_end,
            bank_ref=entry.bank_ref,
            booking_date=entry.booking_date,
            value_date=entry.value_date,
            return_reason=line.return_reason,
            reversal=entry.reversal,
            charge=line.charge,
        )
        for number, line in enumerate(entry.lines)
        if line.amount
    ]


def takes_back(item: BookedEntry) -> bool:
    """Tell whether a debit takes back what came before: a reversal, or a return of theirs."""
    return item.amount < 0 and (item.reversal or bool(item.return_reason))


def receipt_of(
    item: BookedEntry, entry: Entry, kind: BankReceiptKind, *, now: datetime
) -> BankReceipt:
    """Return what waits in suspense because of a line."""
    line = entry.lines[item.line]
    return BankReceipt(
        id=item.id,
        book=item.book,
        account=item.account,
        asset=item.asset,
        value=abs(item.amount),
        kind=kind,
        entry_id=item.entry_id,
        line=item.line,
        end_to_end=line.end_to_end,
        name=line.name,
        iban=line.iban,
        remittance=line.remittance,
        return_reason=line.return_reason,
        booking_date=item.booking_date,
        value_date=item.value_date,
        state=BankReceiptState.UNMATCHED,
        first_seen_at=now,
    )


def taken_back(
    item: BookedEntry, entry: Entry, candidates: Sequence[BankReceipt]
) -> BankReceipt | None:
    """Return the one credit that a debit takes back; None where that is not certain.

    The reference that the payer wrote decides, then the payer's account, then the amount alone; in
    each case only if exactly one credit fits.
    """
    line = entry.lines[item.line]
    fitting = [
        receipt
        for receipt in candidates
        if receipt.account == item.account
        and receipt.asset == item.asset
        and receipt.value == -item.amount
        and receipt.booking_date <= item.booking_date
    ]
    by_reference = [r for r in fitting if line.end_to_end and r.end_to_end == line.end_to_end]
    by_payer = [r for r in fitting if line.iban and r.iban == line.iban]
    for found in (by_reference, by_payer, fitting):
        if found:
            return found[0] if len(found) == 1 else None
    return None


def posting_of(item: BookedEntry, kind: EntryKind) -> Transfer:
    """Return the one transfer of a line that is no payment of ours."""
    other, code = _counterpart(item, kind)
    account, units = bank_account_path(item.account), abs(item.amount)
    debit, credit = (account, other) if item.amount > 0 else (other, account)
    return transfer(
        derive_id(_moment(item.booking_date), "bank-line.booked", item.id),
        debit,
        credit,
        units,
        item.asset,
        code=code,
        correlation=item.id,
    )


def _counterpart(item: BookedEntry, kind: EntryKind) -> tuple[str, str]:
    """Return the other account of a line, and the posting's code."""
    if kind is EntryKind.CHARGE:
        return CHARGE, "bank.charge"
    if kind is EntryKind.INTEREST:
        # What is reversed was on the other side: interest that we had earned, or had paid.
        earned = (item.amount > 0) is not item.reversal
        return (INTEREST_EARNED if earned else INTEREST_PAID), "bank.interest"
    if item.amount > 0:
        return SUSPENSE, "bank.received"
    return SUSPENSE, "bank.taken-back" if takes_back(item) else "bank.debited"


def _moment(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)
