"""Tables of reconciling venue accounts: runs, breaks, how far trades were compared."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, metadata

SCHEMA = "trading"

venue_reconciliation = Table(
    "venue_reconciliation",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", Integer, nullable=False),
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("started_at", Timestamp, nullable=False),
    Column("finished_at", Timestamp, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("inputs_hash", Text, nullable=False),
    Column("counts", JSONB, nullable=False),
    Column("balances", JSONB, nullable=False),
    Column("breaks", JSONB, nullable=False),
    CheckConstraint("outcome IN ('clean', 'broken', 'incomplete')", name="outcome"),
    CheckConstraint("finished_at >= started_at", name="finished_at"),
    schema=SCHEMA,
)
Index(
    "ix_venue_reconciliation_started_at",
    venue_reconciliation.c.venue,
    venue_reconciliation.c.account,
    venue_reconciliation.c.started_at,
)

venue_break = Table(
    "venue_break",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", Integer, nullable=False),
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("kind", Text, nullable=False),
    # What it is about: an asset, an order, a trade.
    Column("subject", Text, nullable=False),
    Column("ours", Text, nullable=False),
    Column("theirs", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("opened_at", Timestamp, nullable=False),
    Column("opened_run", Uuid, nullable=False),
    Column("seen_at", Timestamp, nullable=False),
    Column("seen_run", Uuid, nullable=False),
    Column("closed_at", Timestamp),
    Column("closed_run", Uuid),
    Column("explanation", Text, nullable=False),
    Column("explained_by", Text),
    Column("proposed_by", Text),
    Column("dismissed_by", Text),
    ForeignKeyConstraint(["opened_run"], ["trading.venue_reconciliation.id"]),
    CheckConstraint("(state = 'closed') = (closed_at IS NOT NULL)", name="closed_at"),
    CheckConstraint(
        "state <> 'explained' OR (explained_by IS NOT NULL AND explanation <> '')",
        name="explained",
    ),
    CheckConstraint(
        "state <> 'dismissed' OR (proposed_by IS NOT NULL AND dismissed_by IS NOT NULL"
        " AND proposed_by <> dismissed_by AND explanation <> '')",
        name="dismissed",
    ),
    schema=SCHEMA,
)
Index(
    "uq_venue_break_standing",
    venue_break.c.book,
    venue_break.c.venue,
    venue_break.c.account,
    venue_break.c.kind,
    venue_break.c.subject,
    unique=True,
    postgresql_where=venue_break.c.state != "closed",
)

venue_window = Table(
    "venue_window",
    metadata,
    Column("book", Integer, nullable=False),
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    # From here on the next run compares trades; `at` is when the last of those before it traded.
    Column("cursor", Text, nullable=False),
    Column("at", Timestamp),
    # Where the run before began: each trade is compared in two runs.
    Column("earlier_cursor", Text, nullable=False),
    Column("earlier_at", Timestamp),
    Column("updated_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("book", "venue", "account", "symbol"),
    schema=SCHEMA,
)
