"""Journal records as bytes: what the tree is built over and what an exported journal holds.

One record is one line of UTF-8: fields separated by tabs, the type first, an absent value empty.
Text fields hold no control characters, so no two records have the same line. Times are microseconds
since 1970. The leaf of a record is ``SHA-256(0x00 || line)`` (RFC 6962, section 2.1).

::

    account   book sequence time  number kind path asset side owner flags reason
    transfer  book sequence time  id kind flags debit credit amount code pending_id reverses
              purpose timeout_us effective_at reference correlation metadata_hash
    refusal   book sequence time  id outcome

``debit`` and ``credit`` are account numbers: the account's own record, earlier in the journal, says
which path they stand for. ``flags`` of an account: ``d`` debits must not exceed credits, ``c`` the
reverse.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from ledger.model import AccountEventKind, AccountSpec
from ledger.state import RefusalRow, TransferRow

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


def to_unix_us(at: datetime) -> int:
    """Return microseconds since 1970."""
    return (at - EPOCH) // MICROSECOND


def microseconds(interval: timedelta | None) -> int | None:
    """Return an interval as the journal stores it."""
    return None if interval is None else interval // MICROSECOND


def account_line(
    book: int,
    sequence: int,
    at: datetime,
    number: int,
    kind: AccountEventKind,
    spec: AccountSpec,
    reason: str,
) -> bytes:
    """Return the record of an account's opening or freezing."""
    flags = ("d" if spec.debits_must_not_exceed_credits else "") + (
        "c" if spec.credits_must_not_exceed_debits else ""
    )
    return (
        f"account\t{book}\t{sequence}\t{to_unix_us(at)}\t{number}\t{kind.value}\t{spec.path}"
        f"\t{spec.asset}\t{spec.side}\t{spec.owner}\t{flags}\t{reason}"
    ).encode()


def transfer_line(book: int, row: TransferRow, time_us: int) -> bytes:
    """Return the record of a transfer; *time_us* is its block's time in microseconds."""
    timeout = "" if row.timeout_us is None else row.timeout_us
    effective = "" if row.effective_at is None else to_unix_us(row.effective_at)
    return (
        f"transfer\t{book}\t{row.sequence}\t{time_us}\t{row.id}\t{int(row.kind)}\t{row.flags}"
        f"\t{row.debit}\t{row.credit}\t{row.amount}\t{row.code}\t{_id(row.pending_id)}"
        f"\t{_id(row.reverses)}\t{row.purpose}\t{timeout}\t{effective}\t{row.reference}"
        f"\t{_id(row.correlation)}\t{row.metadata_hash}"
    ).encode()


def refusal_line(book: int, row: RefusalRow) -> bytes:
    """Return the record of an id that a transient refusal has spent."""
    return (
        f"refusal\t{book}\t{row.sequence}\t{to_unix_us(row.recorded_at)}\t{row.id}\t{row.outcome}"
    ).encode()


def _id(value: UUID | None) -> str:
    return "" if value is None else str(value)
