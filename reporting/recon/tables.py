"""Tables of reconciliation; private to the package."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, Units, metadata

SCHEMA = "reporting"

recon_run = Table(
    "recon_run",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", SmallInteger, nullable=False),
    Column("at", Timestamp, nullable=False),
    Column("slot", Date),
    Column("sequence", BigInteger, nullable=False),
    Column("result", Text, nullable=False),
    Column("lines", JSONB, nullable=False),
    Column("found", JSONB, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("by", Text, nullable=False),
    UniqueConstraint("book", "slot", name="uq_recon_run_slot"),
    schema=SCHEMA,
)
Index("ix_recon_run_at", recon_run.c.book, recon_run.c.at, recon_run.c.id)

recon_break = Table(
    "recon_break",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", SmallInteger, nullable=False),
    Column("key", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("place_kind", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("asset", Text, nullable=False),
    # What the outside has more: below zero where it has less.
    Column("amount", Units),
    Column("text", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("opened_at", Timestamp, nullable=False),
    Column("opened_run", Uuid, ForeignKey("reporting.recon_run.id"), nullable=False),
    Column("seen_at", Timestamp, nullable=False),
    Column("assigned_to", Text),
    Column("resolution", Text, nullable=False, server_default=""),
    Column("resolved_by", Text),
    Column("resolved_second", Text),
    Column("resolved_amount", Units),
    Column("resolved_at", Timestamp),
    Column("cleared_at", Timestamp),
    CheckConstraint("(state = 'cleared') = (cleared_at IS NOT NULL)", name="cleared"),
    CheckConstraint("state <> 'assigned' OR assigned_to IS NOT NULL", name="assigned"),
    CheckConstraint(
        "(resolved_by IS NULL) = (resolved_at IS NULL)"
        " AND (resolved_by IS NULL) = (resolved_second IS NULL)"
        " AND resolved_by IS DISTINCT FROM coalesce(resolved_second, '')"
        " AND (state <> 'resolved' OR (resolved_by IS NOT NULL AND resolution <> ''))",
        name="two_people",
    ),
    schema=SCHEMA,
)
Index(
    "uq_recon_break_standing",
    recon_break.c.book,
    recon_break.c.key,
    unique=True,
    postgresql_where=recon_break.c.state != "cleared",
)
