"""Tables of alerts; private to the package."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, lease_columns, metadata

SCHEMA = "reporting"

alert = Table(
    "alert",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", SmallInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("level", SmallInteger, nullable=False),
    Column("level_since", Timestamp, nullable=False),
    Column("raised_at", Timestamp, nullable=False),
    Column("last_seen_at", Timestamp, nullable=False),
    Column("acknowledged_by", Text),
    Column("acknowledged_at", Timestamp),
    Column("cleared_at", Timestamp),
    # Up to which level, and by which policy, it is written down who is told.
    Column("planned_level", SmallInteger, nullable=False, server_default="0"),
    Column("planned_policy", Integer, nullable=False, server_default="0"),
    Column("is_clear_planned", Boolean, nullable=False, server_default="false"),
    CheckConstraint("level > 0", name="level"),
    CheckConstraint("(state = 'cleared') = (cleared_at IS NOT NULL)", name="cleared"),
    CheckConstraint(
        "(acknowledged_by IS NULL) = (acknowledged_at IS NULL)"
        " AND (state <> 'acknowledged' OR acknowledged_by IS NOT NULL)",
        name="acknowledged",
    ),
    schema=SCHEMA,
)
Index(
    "uq_alert_open",
    alert.c.book,
    alert.c.kind,
    alert.c.key,
    unique=True,
    postgresql_where=alert.c.state != "cleared",
)
Index("ix_alert_raised_at", alert.c.book, alert.c.raised_at, alert.c.id)
Index(
    "ix_alert_clear_unplanned",
    alert.c.cleared_at,
    postgresql_where=(alert.c.state == "cleared") & ~alert.c.is_clear_planned,
)

alert_policy = Table(
    "alert_policy",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("document", JSONB, nullable=False),
    Column("entered_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    CheckConstraint("version > 0", name="version"),
    CheckConstraint("entered_by <> approved_by", name="two_people"),
    schema=SCHEMA,
)

alert_delivery = Table(
    "alert_delivery",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("alert_id", Uuid, ForeignKey("reporting.alert.id"), nullable=False),
    Column("level", SmallInteger, nullable=False),
    Column("is_clear", Boolean, nullable=False),
    Column("channel", Text, nullable=False),
    Column("channel_kind", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("run_after", Timestamp, nullable=False),
    Column("detail", Text, nullable=False, server_default=""),
    Column("ended_at", Timestamp),
    *lease_columns(),
    UniqueConstraint("alert_id", "level", "is_clear", "channel"),
    CheckConstraint("(state = 'pending') = (ended_at IS NULL)", name="ended"),
    schema=SCHEMA,
)
Index(
    "ix_alert_delivery_due",
    alert_delivery.c.run_after,
    postgresql_where=alert_delivery.c.state == "pending",
)
