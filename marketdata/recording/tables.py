"""Tables of recordings: what files there are, and what is missing from them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from kernel.db import Timestamp, metadata

SCHEMA: Final = "marketdata"

recording_file = Table(
    "recording_file",
    metadata,
    Column("id", Uuid, primary_key=True),
    # Which directory of recordings: machines may have one each.
    Column("store", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("venue", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("session", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("first_ns", BigInteger, nullable=False),
    Column("last_ns", BigInteger, nullable=False),
    Column("first_sequence", Text, nullable=False),
    Column("last_sequence", Text, nullable=False),
    Column("gaps", Integer, nullable=False),
    Column("instrument_version", Integer, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    # Why it is kept whatever its age: a price rests on it. Empty: it is not.
    Column("held_for", Text, nullable=False, server_default=""),
    # The row outlives the file: what was there, and its hash.
    Column("removed_at", Timestamp),
    UniqueConstraint("store", "path"),
    CheckConstraint("kind IN ('raw', 'parquet')", name="kind"),
    CheckConstraint("size >= 0 AND rows >= 0 AND gaps >= 0", name="counts"),
    CheckConstraint("last_ns >= first_ns", name="span"),
    CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
    CheckConstraint("removed_at IS NULL OR held_for = ''", name="held"),
    schema=SCHEMA,
)
Index(
    "ix_recording_file_span",
    recording_file.c.venue,
    recording_file.c.kind,
    recording_file.c.first_ns,
)

recording_loss = Table(
    "recording_loss",
    metadata,
    Column("file_id", Uuid, ForeignKey(recording_file.c.id), nullable=False),
    Column("number", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since_ns", BigInteger, nullable=False),
    Column("until_ns", BigInteger, nullable=False),
    # None: nobody knows how many.
    Column("items", BigInteger),
    Column("size", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
    PrimaryKeyConstraint("file_id", "number"),
    CheckConstraint("until_ns >= since_ns", name="span"),
    CheckConstraint("items >= 0 AND size >= 0", name="counts"),
    schema=SCHEMA,
)
