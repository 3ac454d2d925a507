"""Tables of market streams: their gaps, and how each is doing."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)

from kernel.db import Timestamp, metadata

SCHEMA = "marketdata"
CHANNELS = "channel IN ('best', 'book', 'candles', 'ticker', 'trades')"

gap = Table(
    "gap",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("venue", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", Timestamp, nullable=False),
    Column("until", Timestamp),
    Column("detail", Text, nullable=False),
    Column("filled_at", Timestamp),
    Column("filled_by", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("missing", Text, nullable=False),
    CheckConstraint(CHANNELS, name="channel"),
    CheckConstraint("until >= since", name="range"),
    CheckConstraint("(filled_at IS NULL AND missing = '') OR until IS NOT NULL", name="filled"),
    CheckConstraint("filled_at IS NULL OR missing = ''", name="missing"),
    schema=SCHEMA,
)
Index("ix_gap_time", gap.c.venue, gap.c.symbol, gap.c.channel, gap.c.since)
Index("ix_gap_open", gap.c.venue, postgresql_where=text("until IS NULL"))

stream_status = Table(
    "stream_status",
    metadata,
    Column("venue", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("since", Timestamp, nullable=False),
    Column("last_event_at", Timestamp),
    Column("sequence", Text, nullable=False),
    Column("gaps", BigInteger, nullable=False),
    Column("reconnects", BigInteger, nullable=False),
    Column("messages", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
    Column("told_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("venue", "symbol", "channel"),
    CheckConstraint(CHANNELS, name="channel"),
    CheckConstraint("state IN ('connecting', 'down', 'live', 'stale', 'syncing')", name="state"),
    schema=SCHEMA,
)
