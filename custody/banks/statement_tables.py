"""Tables of what banks send: files, statements, entries, and what waits in suspense. Private."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from custody.banks.entry_model import SCHEMA
from kernel.db import Timestamp, Units, metadata

bank_file = Table(
    "bank_file",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("format", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("received_by", Text, nullable=False),
    Column("received_at", Timestamp, nullable=False),
    Column("version", Integer, nullable=False),
    # The same bytes are the same file, however it is called.
    UniqueConstraint("sha256", name="uq_bank_file_sha256"),
    CheckConstraint("sha256 = encode(sha256(raw), 'hex')", name="sha256"),
    CheckConstraint("state = 'imported' OR reason <> ''", name="reason"),
    schema=SCHEMA,
)
Index("ix_bank_file_state", bank_file.c.state, bank_file.c.received_at, bank_file.c.id)

bank_statement = Table(
    "bank_statement",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("file_id", Uuid, ForeignKey("custody.bank_file.id"), nullable=False),
    Column("book", Integer, nullable=False),
    Column("account", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("sequence", Integer),
    Column("asset", Text, nullable=False),
    Column("opening", Units),
    Column("closing", Units),
    Column("from_date", Date, nullable=False),
    Column("to_date", Date, nullable=False),
    Column("entries", Integer, nullable=False),
    Column("imported_at", Timestamp, nullable=False),
    UniqueConstraint("account", "kind", "name", name="uq_bank_statement_name"),
    CheckConstraint("kind IN ('statement', 'notice')", name="kind"),
    CheckConstraint(
        "(kind = 'statement') = (opening IS NOT NULL AND closing IS NOT NULL)", name="balances"
    ),
    CheckConstraint("from_date <= to_date", name="dates"),
    schema=SCHEMA,
)
# A day's statement comes once, whatever the bank calls it and in whatever format.
Index(
    "uq_bank_statement_sequence",
    bank_statement.c.account,
    bank_statement.c.to_date,
    bank_statement.c.sequence,
    unique=True,
    postgresql_where=bank_statement.c.kind == "statement",
    postgresql_nulls_not_distinct=True,
)

bank_entry = Table(
    "bank_entry",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("statement_id", Uuid, ForeignKey("custody.bank_statement.id"), nullable=False),
    Column("book", Integer, nullable=False),
    Column("account", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("amount", Units, nullable=False),
    Column("asset", Text, nullable=False),
    Column("booking_date", Date, nullable=False),
    Column("value_date", Date, nullable=False),
    Column("kind", Text, nullable=False),
    Column("reversal", Boolean, nullable=False),
    Column("bank_ref", Text, nullable=False),
    Column("end_to_end", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("iban", Text, nullable=False),
    Column("remittance", Text, nullable=False),
    Column("lines", Integer, nullable=False),
    # A notice may bring an entry before the statement of its day does.
    UniqueConstraint("account", "key", name="uq_bank_entry_key"),
    CheckConstraint("amount <> 0 AND lines > 0", name="amount"),
    schema=SCHEMA,
)
Index("ix_bank_entry_statement", bank_entry.c.statement_id, bank_entry.c.id)
Index("ix_bank_entry_day", bank_entry.c.account, bank_entry.c.booking_date)

bank_receipt = Table(
    "bank_receipt",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", Integer, nullable=False),
    Column("account", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("value", Units, nullable=False),
    Column("kind", Text, nullable=False),
    Column("entry_id", Uuid, ForeignKey("custody.bank_entry.id"), nullable=False),
    Column("line", Integer, nullable=False),
    Column("end_to_end", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("iban", Text, nullable=False),
    Column("remittance", Text, nullable=False),
    Column("return_reason", Text, nullable=False),
    Column("booking_date", Date, nullable=False),
    Column("value_date", Date, nullable=False),
    Column("state", Text, nullable=False),
    Column("first_seen_at", Timestamp, nullable=False),
    Column("party", Text),
    Column("matched_to", Text, nullable=False),
    Column("recalls", Uuid, ForeignKey("custody.bank_receipt.id")),
    Column("version", Integer, nullable=False),
    UniqueConstraint("entry_id", "line", name="uq_bank_receipt_line"),
    CheckConstraint("value > 0 AND line >= 0", name="value"),
    CheckConstraint("kind IN ('receipt', 'recall', 'debit')", name="kind"),
    CheckConstraint("(state = 'matched') = (matched_to <> '')", name="matched"),
    CheckConstraint("recalls IS NULL OR kind = 'recall'", name="recalls"),
    schema=SCHEMA,
)
Index("ix_bank_receipt_state", bank_receipt.c.book, bank_receipt.c.state, bank_receipt.c.id)
Index("ix_bank_receipt_value", bank_receipt.c.account, bank_receipt.c.value)
# A receipt is taken back once.
Index(
    "uq_bank_receipt_recalls",
    bank_receipt.c.recalls,
    unique=True,
    postgresql_where=bank_receipt.c.recalls.is_not(None),
)
