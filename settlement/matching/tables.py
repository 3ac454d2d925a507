"""Tables of matching; private to settlement."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, Units, metadata

SCHEMA = "settlement"

receipt_match = Table(
    "receipt_match",
    metadata,
    Column("receipt_id", Uuid, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("instruction_id", Uuid, ForeignKey("settlement.instruction.id"), nullable=False),
    Column("applied", Units, nullable=False),
    Column("excess", Units, nullable=False),
    Column("first_seen_at", Timestamp, nullable=False),
    Column("at", Timestamp, nullable=False),
    Column("undone_at", Timestamp),
    Column("id", Uuid, primary_key=True),
    Column("round", Integer, nullable=False),
    Column("rail", Text, nullable=False),
    Column("charge", Units, nullable=False),
    Column("rule", Text, nullable=False),
    Column("rules_version", Integer, nullable=False),
    Column("by", Text, nullable=False),
    Column("second", Text),
    Column("reason", Text, nullable=False),
    Column("undone_by", Text),
    Column("undone_second", Text),
    Column("undone_reason", Text),
    UniqueConstraint("receipt_id", "epoch", "round", "instruction_id"),
    CheckConstraint("applied > 0 AND excess >= 0 AND charge >= 0", name="amounts"),
    CheckConstraint("(rule = 'by_hand') = (second IS NOT NULL)", name="by_hand"),
    CheckConstraint("second <> by", name="two_people"),
    CheckConstraint("undone_second <> undone_by", name="undone_by_two"),
    CheckConstraint("(undone_at IS NULL) = (undone_by IS NULL)", name="undone"),
    schema=SCHEMA,
)
Index("ix_receipt_match_instruction_id", receipt_match.c.instruction_id)
Index(
    "uq_receipt_match_standing",
    receipt_match.c.receipt_id,
    receipt_match.c.instruction_id,
    unique=True,
    postgresql_where=receipt_match.c.undone_at.is_(None),
)

matching_rules = Table(
    "matching_rules",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("document", JSONB, nullable=False),
    Column("entered_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    CheckConstraint("entered_by <> approved_by", name="two_people"),
    CheckConstraint("version > 0", name="version"),
    schema=SCHEMA,
)
