"""Tables of the ledger.

Journal (only ever inserted into): account, account_event, period_event, transfer, transfer_metadata,
entry, effective_entry, refusal, block, tile.
State (one writer at a time, under the head's lock): head, balance, hold.

Keys begin with the book, but for the look-ups by id, path or reversed id of the posting path. Of a book that
is newer than the last ANALYZE the planner believes that it is empty: where several indexes begin with the
book, it may take any of them and walk through the book. There are no foreign keys and no row triggers here: on this path
they cost a third of the throughput, and `ledger.verification` proves what they would.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, Units, metadata

SCHEMA: Final = "ledger"

JOURNAL_TABLES: Final = frozenset(
    {
        "account",
        "account_event",
        "transfer",
        "transfer_metadata",
        "entry",
        "effective_entry",
        "period_event",
        "refusal",
        "block",
        "tile",
    }
)
"""Tables whose rows nobody changes: neither by right nor, by trigger, at all."""

head = Table(
    "head",
    metadata,
    Column("book", SmallInteger, primary_key=True, autoincrement=False),
    Column("entity", Text, nullable=False, unique=True),
    Column("opened_at", Timestamp, nullable=False),
    # Of the last journal record; also how many leaves the tree has.
    Column("sequence", BigInteger, nullable=False),
    Column("height", BigInteger, nullable=False),
    Column("block_time", Timestamp, nullable=False),
    Column("account_count", BigInteger, nullable=False),
    # The roots of the tree's complete subtrees, largest first, 32 bytes each.
    Column("frontier", LargeBinary, nullable=False),
    # The last effective day that is closed to postings.
    Column("closed_through", Date),
    # Effective time of the last imported transfer.
    Column("imported_through", Timestamp),
    CheckConstraint("book > 0", name="positive"),
    schema=SCHEMA,
)

account = Table(
    "account",
    metadata,
    Column("book", SmallInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
    # In the order of bytes, whatever the database's own is: so what begins alike is a range.
    Column("path", Text(collation="C"), nullable=False),
    Column("asset", Text(collation="C"), nullable=False),
    Column("side", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("debits_must_not_exceed_credits", Boolean, nullable=False),
    Column("credits_must_not_exceed_debits", Boolean, nullable=False),
    Column("purpose", Text, nullable=False, server_default=""),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    # When it was recorded; and since when it exists for the accounts, if that is earlier.
    Column("opened_at", Timestamp, nullable=False),
    Column("effective_at", Timestamp),
    PrimaryKeyConstraint("book", "number"),
    UniqueConstraint("book", "path", "asset"),
    CheckConstraint("side IN ('debit', 'credit')", name="side"),
    schema=SCHEMA,
)

Index("ix_account_path", account.c.path, account.c.asset, account.c.book)

account_event = Table(
    "account_event",
    metadata,
    Column("book", SmallInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("account", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    # The limit from now on: of an opening and of a new limit.
    Column("credit_limit", Units),
    PrimaryKeyConstraint("book", "sequence"),
    CheckConstraint("kind IN ('opened', 'frozen', 'unfrozen', 'limited')", name="kind"),
    CheckConstraint(
        "(credit_limit IS NOT NULL) = (kind IN ('opened', 'limited'))", name="credit_limit"
    ),
    schema=SCHEMA,
)
Index("ix_account_event_account", account_event.c.book, account_event.c.account)

balance = Table(
    "balance",
    metadata,
    Column("book", SmallInteger, nullable=False),
    Column("account", BigInteger, nullable=False),
    Column("asset", Text, nullable=False),
    Column("debits_pending", Units, nullable=False),
    Column("debits_posted", Units, nullable=False),
    Column("credits_pending", Units, nullable=False),
    Column("credits_posted", Units, nullable=False),
    # Counts the account's entries, and names the sequence number of the last one.
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("frozen", Boolean, nullable=False, server_default=false()),
    Column("closed", Boolean, nullable=False, server_default=false()),
    # Copied from the account, so that PostgreSQL itself refuses what the flags forbid.
    Column("debits_must_not_exceed_credits", Boolean, nullable=False),
    Column("credits_must_not_exceed_debits", Boolean, nullable=False),
    Column("credit_limit", Units, nullable=False, server_default="0"),
    PrimaryKeyConstraint("book", "account"),
    CheckConstraint("credit_limit >= 0", name="credit_limit"),
    CheckConstraint(
        "debits_pending >= 0 AND debits_posted >= 0 AND credits_pending >= 0 AND credits_posted >= 0",
        name="not_negative",
    ),
    CheckConstraint(
        "NOT debits_must_not_exceed_credits"
        " OR debits_pending + debits_posted <= credits_posted + credit_limit",
        name="debits_must_not_exceed_credits",
    ),
    CheckConstraint(
        "NOT credits_must_not_exceed_debits"
        " OR credits_pending + credits_posted <= debits_posted + credit_limit",
        name="credits_must_not_exceed_debits",
    ),
    schema=SCHEMA,
    postgresql_with={"fillfactor": "50"},
)

transfer = Table(
    "transfer",
    metadata,
    Column("book", SmallInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("flags", SmallInteger, nullable=False),
    Column("debit", BigInteger, nullable=False),
    Column("credit", BigInteger, nullable=False),
    Column("amount", Units, nullable=False),
    Column("code", Text, nullable=False),
    Column("pending_id", Uuid),
    Column("reverses", Uuid),
    Column("purpose", Text, nullable=False),
    Column("timeout_us", BigInteger),
    Column("effective_at", Timestamp),
    Column("reference", Text, nullable=False),
    Column("correlation", Uuid),
    # SHA-256 in hex of the canonical metadata, empty where there is none.
    Column("metadata_hash", Text, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("book", "sequence"),
    # The id first: see the docstring.
    UniqueConstraint("id", "book"),
    CheckConstraint("amount >= 0", name="amount"),
    CheckConstraint("debit <> credit", name="accounts_differ"),
    CheckConstraint("(pending_id IS NOT NULL) = (kind IN (3, 4, 5))", name="pending_id"),
    CheckConstraint("(reverses IS NOT NULL) = (kind = 6)", name="reverses"),
    schema=SCHEMA,
)
Index(
    "uq_transfer_reverses",
    transfer.c.reverses,
    transfer.c.book,
    unique=True,
    postgresql_where=transfer.c.reverses.is_not(None),
)
Index(
    "uq_transfer_pending_id",
    transfer.c.book,
    transfer.c.pending_id,
    unique=True,
    postgresql_where=transfer.c.pending_id.is_not(None),
)
Index(
    "ix_transfer_correlation",
    transfer.c.book,
    transfer.c.correlation,
    transfer.c.sequence,
    postgresql_where=transfer.c.correlation.is_not(None),
)
Index(
    "ix_transfer_reference",
    transfer.c.book,
    transfer.c.reference,
    transfer.c.sequence,
    postgresql_where=transfer.c.reference != "",
)
Index("ix_transfer_code", transfer.c.book, transfer.c.code, transfer.c.sequence)
Index(
    "ix_transfer_effective_at",
    transfer.c.book,
    transfer.c.effective_at,
    transfer.c.sequence,
    postgresql_where=transfer.c.effective_at.is_not(None),
)

transfer_metadata = Table(
    "transfer_metadata",
    metadata,
    Column("book", SmallInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("data", JSONB, nullable=False),
    PrimaryKeyConstraint("book", "sequence"),
    schema=SCHEMA,
)
Index(
    "ix_transfer_metadata_data",
    transfer_metadata.c.data,
    postgresql_using="gin",
    postgresql_ops={"data": "jsonb_path_ops"},
)

entry = Table(
    "entry",
    metadata,
    Column("book", SmallInteger, nullable=False),
    Column("account", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("debits_pending", Units, nullable=False),
    Column("debits_posted", Units, nullable=False),
    Column("credits_pending", Units, nullable=False),
    Column("credits_posted", Units, nullable=False),
    PrimaryKeyConstraint("book", "account", "sequence"),
    schema=SCHEMA,
)
# Rows lie in the order of their sequence numbers: a range of them is a range of pages.
Index(
    "ix_entry_sequence",
    entry.c.sequence,
    postgresql_using="brin",
    postgresql_with={"autosummarize": "on"},
)

# Only posted movements whose effective day is not the day on which they were recorded.
effective_entry = Table(
    "effective_entry",
    metadata,
    Column("book", SmallInteger, nullable=False),
    Column("account", BigInteger, nullable=False),
    Column("effective_on", Date, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("debits", Units, nullable=False),
    Column("credits", Units, nullable=False),
    PrimaryKeyConstraint("book", "account", "sequence"),
    schema=SCHEMA,
)
Index(
    "ix_effective_entry_day",
    effective_entry.c.book,
    effective_entry.c.account,
    effective_entry.c.effective_on,
)

period_event = Table(
    "period_event",
    metadata,
    Column("book", SmallInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    # The last effective day that is closed; of a reopening, the first that is open again less one.
    Column("through", Date, nullable=False),
    Column("reason", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("book", "sequence"),
    CheckConstraint("kind IN ('closed', 'reopened')", name="kind"),
    schema=SCHEMA,
)

hold = Table(
    "hold",
    metadata,
    Column("book", SmallInteger, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("debit", BigInteger, nullable=False),
    Column("credit", BigInteger, nullable=False),
    Column("amount", Units, nullable=False),
    Column("remaining", Units, nullable=False),
    Column("state", Text, nullable=False),
    Column("flags", SmallInteger, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("correlation", Uuid),
    Column("expires_at", Timestamp),
    Column("resolved_sequence", BigInteger),
    PrimaryKeyConstraint("book", "id"),
    CheckConstraint("state IN ('open', 'posted', 'voided', 'expired')", name="state"),
    CheckConstraint(
        "(state = 'open' AND remaining = amount AND resolved_sequence IS NULL)"
        " OR (state <> 'open' AND remaining = 0 AND resolved_sequence IS NOT NULL)",
        name="resolved",
    ),
    schema=SCHEMA,
)
_OPEN = hold.c.state == "open"
Index("ix_hold_open_debit", hold.c.book, hold.c.debit, postgresql_where=_OPEN)
Index("ix_hold_open_credit", hold.c.book, hold.c.credit, postgresql_where=_OPEN)
Index(
    "ix_hold_due",
    hold.c.book,
    hold.c.expires_at,
    hold.c.sequence,
    postgresql_where=_OPEN & hold.c.expires_at.is_not(None),
)

refusal = Table(
    "refusal",
    metadata,
    Column("book", SmallInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("book", "sequence"),
    # The id first: see the docstring.
    UniqueConstraint("id", "book"),
    schema=SCHEMA,
)

block = Table(
    "block",
    metadata,
    Column("book", SmallInteger, nullable=False),
    Column("height", BigInteger, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    Column("first_sequence", BigInteger, nullable=False),
    # Also the size of the tree whose root this is.
    Column("last_sequence", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    PrimaryKeyConstraint("book", "height"),
    UniqueConstraint("book", "last_sequence"),
    CheckConstraint("last_sequence >= first_sequence", name="not_empty"),
    CheckConstraint("octet_length(root) = 32", name="root"),
    schema=SCHEMA,
)
Index("ix_block_recorded_at", block.c.book, block.c.recorded_at, block.c.last_sequence)

tile = Table(
    "tile",
    metadata,
    Column("book", SmallInteger, nullable=False),
    # Level 0 holds the hashes of 256 records, level 1 the roots of 256 tiles of level 0, …
    Column("level", SmallInteger, nullable=False),
    Column("position", Integer, nullable=False),
    Column("hashes", LargeBinary, nullable=False),
    Column("root", LargeBinary, nullable=False),
    PrimaryKeyConstraint("book", "level", "position"),
    CheckConstraint("octet_length(hashes) = 8192 AND octet_length(root) = 32", name="complete"),
    schema=SCHEMA,
)
