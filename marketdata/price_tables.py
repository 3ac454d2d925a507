"""Tables of prices. Recorded prices, rates and snapshots are never changed."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Date,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, Units, metadata

SCHEMA = "marketdata"

price = Table(
    "price",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("base", Text, nullable=False),
    Column("base_scale", Integer, nullable=False),
    Column("quote", Text, nullable=False),
    Column("quote_scale", Integer, nullable=False),
    Column("numerator", Units, nullable=False),
    Column("denominator", Units, nullable=False),
    Column("kind", Text, nullable=False),
    Column("quality", Text, nullable=False),
    Column("constituents", JSONB, nullable=False),
    Column("method", JSONB, nullable=False, server_default="{}"),
    Column("observed_at", Timestamp, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    CheckConstraint("numerator > 0 AND denominator > 0", name="positive"),
    CheckConstraint("quality IN ('good', 'degraded', 'manual')", name="quality"),
    schema=SCHEMA,
)
Index("ix_price_pair", price.c.base, price.c.quote, price.c.observed_at)
Index("ix_price_observed_at", price.c.observed_at)
Index("ix_price_kind", price.c.base, price.c.quote, price.c.kind, price.c.observed_at)

price_override = Table(
    "price_override",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("base", Text, nullable=False),
    Column("base_scale", Integer, nullable=False),
    Column("quote", Text, nullable=False),
    Column("quote_scale", Integer, nullable=False),
    Column("numerator", Units, nullable=False),
    Column("denominator", Units, nullable=False),
    Column("use", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("valid_from", Timestamp, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
    Column("state", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("proposed_at", Timestamp, nullable=False),
    Column("decided_by", Text),
    Column("decided_at", Timestamp),
    Column("signature", LargeBinary),
    Column("price_id", Uuid),
    Column("ended_by", Text),
    Column("ended_at", Timestamp),
    ForeignKeyConstraint(["price_id"], [price.c.id]),
    CheckConstraint("numerator > 0 AND denominator > 0", name="positive"),
    CheckConstraint("use IN ('instead', 'last')", name="use"),
    CheckConstraint("reason <> ''", name="reason"),
    CheckConstraint("expires_at > valid_from", name="expires_at"),
    CheckConstraint("decided_by <> proposed_by", name="four_eyes"),
    CheckConstraint(
        "state NOT IN ('approved', 'revoked') OR (decided_by IS NOT NULL AND decided_at IS NOT NULL"
        " AND signature IS NOT NULL AND price_id IS NOT NULL)",
        name="approved",
    ),
    CheckConstraint("(state = 'revoked') = (ended_at IS NOT NULL)", name="ended_at"),
    schema=SCHEMA,
)
Index(
    "ix_price_override_pair",
    price_override.c.base,
    price_override.c.quote,
    price_override.c.expires_at,
)

fiat_import = Table(
    "fiat_import",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("source", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("first_day", Date, nullable=False),
    Column("last_day", Date, nullable=False),
    Column("days", Integer, nullable=False),
    Column("rates", Integer, nullable=False),
    Column("imported_by", Text, nullable=False),
    Column("imported_at", Timestamp, nullable=False),
    UniqueConstraint("source", "sha256", name="uq_fiat_import_sha256"),
    CheckConstraint("last_day >= first_day AND days > 0 AND rates > 0", name="days"),
    schema=SCHEMA,
)

fiat_rate = Table(
    "fiat_rate",
    metadata,
    Column("source", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("day", Date, nullable=False),
    Column("version", Integer, nullable=False),
    Column("mantissa", Units, nullable=False),
    Column("scale", Integer, nullable=False),
    Column("import_id", Uuid, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("source", "currency", "day", "version"),
    ForeignKeyConstraint(["import_id"], [fiat_import.c.id]),
    CheckConstraint("mantissa > 0 AND scale >= 0", name="positive"),
    CheckConstraint("version > 0", name="version"),
    schema=SCHEMA,
)

price_snapshot = Table(
    "price_snapshot",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("month", Date, nullable=False, unique=True),
    Column("as_of", Timestamp, nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("locked_by", Text, nullable=False),
    Column("locked_at", Timestamp, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    CheckConstraint("extract(day FROM month) = 1", name="month"),
    CheckConstraint("locked_at >= as_of", name="locked_at"),
    schema=SCHEMA,
)

price_snapshot_line = Table(
    "price_snapshot_line",
    metadata,
    Column("snapshot_id", Uuid, nullable=False),
    Column("base", Text, nullable=False),
    Column("quote", Text, nullable=False),
    Column("price_id", Uuid, nullable=False),
    PrimaryKeyConstraint("snapshot_id", "base", "quote"),
    # Lines are written first: once the snapshot itself is there, a trigger takes no more of them.
    ForeignKeyConstraint(
        ["snapshot_id"], [price_snapshot.c.id], deferrable=True, initially="DEFERRED"
    ),
    ForeignKeyConstraint(["price_id"], [price.c.id]),
    schema=SCHEMA,
)
