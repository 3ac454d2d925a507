"""Tables of payments through banks: files, their lines, approvals, and what banks said. Private."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

import custody.payout_tables  # noqa: F401  a line refers to its payout
from custody.banks.payment_model import APPROVALS_MIN, CONTENT_BYTES_MAX, LINES_MAX
from kernel.db import Timestamp, Units, lease_columns, metadata

SCHEMA = "custody"

payment_file = Table(
    "payment_file",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", Integer, nullable=False),
    Column("account", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("execution_date", Date, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("line_count", Integer, nullable=False),
    Column("total", Units, nullable=False),
    Column("state", Text, nullable=False),
    Column("drafted_by", Text, nullable=False),
    Column("drafted_at", Timestamp, nullable=False),
    Column("submissions", Integer, nullable=False),
    Column("waiting_for", Text, nullable=False),
    Column("bank_status", Text, nullable=False),
    Column("run_after", Timestamp, nullable=False),
    Column("released_at", Timestamp),
    *lease_columns(),
    UniqueConstraint("message_id"),
    UniqueConstraint("sha256"),
    CheckConstraint("sha256 = encode(sha256(content), 'hex')", name="sha256"),
    CheckConstraint(f"octet_length(content) <= {CONTENT_BYTES_MAX}", name="content"),
    CheckConstraint(f"line_count BETWEEN 1 AND {LINES_MAX}", name="line_count"),
    CheckConstraint("total > 0", name="total"),
    CheckConstraint(
        "(released_at IS NULL) = (state IN ('drafted', 'approved', 'discarded'))",
        name="released_at",
    ),
    schema=SCHEMA,
)
Index(
    "ix_payment_file_account",
    payment_file.c.account,
    payment_file.c.drafted_at,
    payment_file.c.id,
)
Index(
    "ix_payment_file_due",
    payment_file.c.book,
    payment_file.c.run_after,
    postgresql_where=payment_file.c.state.in_(["approved", "released", "unknown"]),
)

payment_line = Table(
    "payment_line",
    metadata,
    Column("file_id", Uuid, ForeignKey("custody.payment_file.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("payout_id", Uuid, ForeignKey("custody.payout.id"), nullable=False),
    Column("end_to_end", Text, nullable=False),
    Column("amount", Units, nullable=False),
    Column("destination", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("bank_status", Text, nullable=False),
    Column("bank_reason", Text, nullable=False),
    Column("booked_entry", Uuid),
    Column("returned_entry", Uuid),
    PrimaryKeyConstraint("file_id", "number"),
    UniqueConstraint("booked_entry"),
    UniqueConstraint("returned_entry"),
    CheckConstraint("amount > 0", name="amount"),
    CheckConstraint(
        "(booked_entry IS NULL) = (state NOT IN ('booked', 'returned'))", name="booked"
    ),
    CheckConstraint("(returned_entry IS NULL) = (state <> 'returned')", name="returned"),
    schema=SCHEMA,
)
# A payout is in one file at most, for ever, unless that file was never released.
Index(
    "uq_payment_line_payout",
    payment_line.c.payout_id,
    unique=True,
    postgresql_where=payment_line.c.state != "discarded",
)
Index(
    "uq_payment_line_end_to_end",
    payment_line.c.end_to_end,
    unique=True,
    postgresql_where=payment_line.c.state != "discarded",
)

payment_approval = Table(
    "payment_approval",
    metadata,
    Column("file_id", Uuid, ForeignKey("custody.payment_file.id"), nullable=False),
    Column("operator", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("file_id", "operator"),
    CheckConstraint("octet_length(signature) = 64", name="signature"),
    schema=SCHEMA,
)

payment_report = Table(
    "payment_report",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("file_id", Uuid, ForeignKey("custody.payment_file.id")),
    Column("state", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("received_by", Text, nullable=False),
    Column("received_at", Timestamp, nullable=False),
    UniqueConstraint("sha256"),
    CheckConstraint("sha256 = encode(sha256(content), 'hex')", name="sha256"),
    CheckConstraint("state IN ('applied', 'quarantined')", name="state"),
    CheckConstraint("state <> 'applied' OR file_id IS NOT NULL", name="applied"),
    schema=SCHEMA,
)
Index("ix_payment_report_file", payment_report.c.file_id, payment_report.c.received_at)

assert APPROVALS_MIN == 2, "the trigger of the migration counts to two"
