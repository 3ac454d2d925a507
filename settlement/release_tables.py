"""Tables of releases: what was chosen with what was held, and what is set aside for each payment.

Private to the package. Both only grow; of an earmark the row says once how it ended.
"""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, Units, metadata
from settlement.tables import SCHEMA

release_plan = Table(
    "release_plan",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", SmallInteger, nullable=False),
    Column("scope", Uuid, nullable=False),
    Column("number", Integer, nullable=False),
    Column("method", Text, nullable=False),
    Column("input_hash", Text, nullable=False),
    Column("inputs", JSONB, nullable=False),
    Column("chosen", JSONB, nullable=False),
    Column("value", Units, nullable=False),
    Column("bound", Units, nullable=False),
    Column("gap_ppm", Integer, nullable=False),
    Column("by", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    UniqueConstraint("scope", "number"),
    CheckConstraint("value >= 0 AND bound >= value", name="bound"),
    CheckConstraint("gap_ppm >= 0", name="gap"),
    schema=SCHEMA,
)

earmark = Table(
    "earmark",
    metadata,
    Column("instruction_id", Uuid, ForeignKey("settlement.instruction.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("book", SmallInteger, nullable=False),
    Column("plan_id", Uuid, ForeignKey("settlement.release_plan.id")),
    Column("location", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("amount", Units, nullable=False),
    Column("hold_id", Uuid, unique=True),
    Column("held_at", Timestamp, nullable=False),
    Column("cover", Text),
    Column("cover_detail", Text, nullable=False, server_default=""),
    Column("ended_by", Text),
    Column("ended_at", Timestamp),
    PrimaryKeyConstraint("instruction_id", "attempt"),
    CheckConstraint("amount > 0", name="positive"),
    CheckConstraint("cover IN ('nothing-owed', 'received', 'prefunded', 'limit')", name="cover"),
    CheckConstraint("(ended_at IS NULL) = (ended_by IS NULL)", name="ended"),
    CheckConstraint("cover IS NULL OR ended_at IS NOT NULL", name="covered_when_released"),
    schema=SCHEMA,
)
Index(
    "ix_earmark_open",
    earmark.c.book,
    earmark.c.location,
    earmark.c.asset,
    postgresql_where=earmark.c.ended_at.is_(None),
)
