"""The table of sealed API keys."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Integer, LargeBinary, Table, Text, Uuid

from kernel.db import Timestamp, metadata

venue_key = Table(
    "venue_key",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("kek_id", Text, nullable=False),
    Column("wrap_nonce", LargeBinary, nullable=False),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("nonce", LargeBinary, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("enrolled_by", Text, nullable=False),
    Column("enrolled_at", Timestamp, nullable=False),
    Column("reason", Text, nullable=False),
    Column("retired_at", Timestamp),
    Column("retired_by", Text, nullable=False, server_default=""),
    CheckConstraint("purpose IN ('trading', 'withdrawal')", name="purpose"),
    CheckConstraint("version > 0 AND generation > 0", name="numbers"),
    schema="venues",
)
Index(
    "uq_venue_key_version",
    venue_key.c.venue,
    venue_key.c.account,
    venue_key.c.purpose,
    venue_key.c.version,
    unique=True,
)
Index(
    "uq_venue_key_in_force",
    venue_key.c.venue,
    venue_key.c.account,
    venue_key.c.purpose,
    unique=True,
    postgresql_where=venue_key.c.retired_at.is_(None),
)
