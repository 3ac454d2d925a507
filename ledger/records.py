r"""Journal records as bytes: what the tree is built over and what an exported journal holds.

One record is one line of UTF-8: its type, then its fields, separated by tabs. Transfers, refusals and
period events are their rows as PostgreSQL's ``COPY … TO`` prints them in text format, the columns in
the order of their tables (PostgreSQL manual, COPY, "Text Format"): absent values are ``\N``, times
are in UTC. No field can hold a backslash, a tab or a line end, so nothing is ever escaped and no two
records have the same line. The leaf of a record is ``SHA-256(0x00 || line)`` (RFC 6962, section 2.1).

::

    account   book sequence number kind path asset side owner flags credit_limit purpose
              effective_at metadata_hash reason recorded_at
    transfer  book sequence id kind flags debit credit amount code pending_id reverses purpose
              timeout_us effective_at reference correlation metadata_hash recorded_at
    refusal   book sequence id outcome recorded_at
    period    book sequence kind through reason proposed_by approved_by recorded_at

``debit`` and ``credit`` are account numbers: the account's own record, earlier in the journal, says
which path they stand for. ``flags`` of an account: ``d`` debits must not exceed credits, ``c`` the
reverse. ``reason`` has its backslashes doubled, as COPY prints them.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

from ledger.model import AccountEventKind, AccountSpec, PeriodEventKind
from ledger.opaque import canonical_metadata, metadata_hash
from ledger.state import RefusalRow, TransferRow

MICROSECOND: Final = timedelta(microseconds=1)
NULL: Final = r"\N"


def microseconds(interval: timedelta | None) -> int | None:
    """Return an interval as the journal stores it."""
    return None if interval is None else interval // MICROSECOND


def pg_time(at: datetime) -> str:
    """Return a time as PostgreSQL prints it in UTC with DateStyle ISO."""
    utc = at.astimezone(UTC)
    # strftime leaves out the zeros of early years, and PostgreSQL would read another date.
    text = f"{utc.year:04}-{utc:%m-%d %H:%M:%S}"
    return f"{text}.{utc.microsecond:06}".rstrip("0") + "+00" if utc.microsecond else f"{text}+00"


def account_line(
    book: int,
    sequence: int,
    at: datetime,
    number: int,
    kind: AccountEventKind,
    spec: AccountSpec,
    reason: str,
) -> bytes:
    """Return the record of an account's opening, freezing or new limit (*spec* has the new one)."""
    flags = ("d" if spec.debits_must_not_exceed_credits else "") + (
        "c" if spec.credits_must_not_exceed_debits else ""
    )
    described = metadata_hash(canonical_metadata(spec.metadata))
    return (
        f"account\t{book}\t{sequence}\t{number}\t{kind.value}\t{spec.path}\t{spec.asset}"
        f"\t{spec.side}\t{spec.owner}\t{flags}\t{spec.credit_limit}\t{spec.purpose}"
        f"\t{_time(spec.effective_at)}\t{described}\t{_escaped(reason)}\t{pg_time(at)}"
    ).encode()


def period_line(
    book: int,
    sequence: int,
    at: datetime,
    kind: PeriodEventKind,
    through: date,
    reason: str,
    proposed_by: str,
    approved_by: str,
) -> bytes:
    """Return the record of a period that was closed or reopened."""
    return (
        f"period\t{book}\t{sequence}\t{kind.value}\t{through.isoformat()}\t{_escaped(reason)}"
        f"\t{_escaped(proposed_by)}\t{_escaped(approved_by)}\t{pg_time(at)}"
    ).encode()


def transfer_line(book: int, row: TransferRow) -> bytes:
    """Return the record of a transfer."""
    timeout = NULL if row.timeout_us is None else row.timeout_us
    return (
        f"transfer\t{book}\t{row.sequence}\t{row.id}\t{int(row.kind)}\t{row.flags}\t{row.debit}"
        f"\t{row.credit}\t{row.amount}\t{row.code}\t{_id(row.pending_id)}\t{_id(row.reverses)}"
        f"\t{row.purpose}\t{timeout}\t{_time(row.effective_at)}\t{row.reference}"
        f"\t{_id(row.correlation)}\t{row.metadata_hash}\t{pg_time(row.recorded_at)}"
    ).encode()


def refusal_line(book: int, row: RefusalRow) -> bytes:
    """Return the record of an id that a transient refusal has spent."""
    at = pg_time(row.recorded_at)
    return f"refusal\t{book}\t{row.sequence}\t{row.id}\t{row.outcome}\t{at}".encode()


def tail_of(
    code: str, pending_id: UUID | None, reverses: UUID | None, purpose: str, timeout_us: int | None
) -> str:
    """Return a transfer's fields from the code to the timeout, for a line made in pieces."""
    timeout = NULL if timeout_us is None else timeout_us
    return f"{code}\t{_id(pending_id)}\t{_id(reverses)}\t{purpose}\t{timeout}"


def user_data_of(reference: str, correlation: UUID | None, hashed: str) -> str:
    """Return a transfer's fields behind the effective time, for a line made in pieces."""
    return f"{reference}\t{_id(correlation)}\t{hashed}"


def uuid_text(value: UUID) -> str:
    """Return what ``str`` returns, in half the time: it is done for every transfer."""
    digits = value.int.to_bytes(16, "big").hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _id(value: UUID | None) -> str:
    return NULL if value is None else uuid_text(value)


def _time(value: datetime | None) -> str:
    return NULL if value is None else pg_time(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\")
