"""Tables of settlement; private to the package."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Date,
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

SCHEMA = "settlement"

agreement = Table(
    "agreement",
    metadata,
    Column("party", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("effective_from", Date, nullable=False),
    Column("prefunded", Boolean, nullable=False),
    Column("agreed_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("document_hash", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    CheckConstraint("agreed_by <> approved_by", name="two_people"),
    schema=SCHEMA,
)

standing_instruction = Table(
    "standing_instruction",
    metadata,
    Column("party", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("rail", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("destination", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("party", "asset", "rail", "version"),
    CheckConstraint("proposed_by <> approved_by", name="two_people"),
    schema=SCHEMA,
)

run = Table(
    "run",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", SmallInteger, nullable=False),
    Column("value_date", Date, nullable=False),
    Column("window", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    UniqueConstraint("book", "value_date", "window"),
    schema=SCHEMA,
)

obligation = Table(
    "obligation",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", SmallInteger, nullable=False),
    Column("deal_id", Uuid, nullable=False),
    Column("leg", Text, nullable=False),
    Column("party", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("amount", Units, nullable=False),
    Column("direction", Text, nullable=False),
    Column("value_date", Date, nullable=False),
    Column("state", Text, nullable=False),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("run_id", Uuid, ForeignKey("settlement.run.id")),
    Column("created_at", Timestamp, nullable=False),
    UniqueConstraint("deal_id", "leg"),
    CheckConstraint("amount > 0", name="positive"),
    CheckConstraint("direction IN ('pay', 'receive')", name="direction"),
    schema=SCHEMA,
)
Index(
    "ix_obligation_open",
    obligation.c.book,
    obligation.c.value_date,
    postgresql_where=obligation.c.state == "open",
)
Index("ix_obligation_run_id", obligation.c.run_id)

calculation = Table(
    "calculation",
    metadata,
    Column("run_id", Uuid, ForeignKey("settlement.run.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("method", Text, nullable=False),
    Column("input_hash", Text, nullable=False),
    Column("inputs", JSONB, nullable=False),
    Column("items", JSONB, nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("run_id", "version"),
    schema=SCHEMA,
)

affirmation = Table(
    "affirmation",
    metadata,
    Column("run_id", Uuid, ForeignKey("settlement.run.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("party", Text, nullable=False),
    Column("entered_by", Text, nullable=False),
    Column("witnessed_by", Text, nullable=False),
    Column("evidence_hash", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("run_id", "version", "party"),
    CheckConstraint("entered_by <> witnessed_by", name="two_people"),
    schema=SCHEMA,
)

instruction = Table(
    "instruction",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", SmallInteger, nullable=False),
    Column("run_id", Uuid, ForeignKey("settlement.run.id"), nullable=False),
    Column("party", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("direction", Text, nullable=False),
    Column("amount", Units, nullable=False),
    Column("applied", Units, nullable=False, server_default="0"),
    Column("rail", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="1"),
    Column("payout_id", Uuid, unique=True),
    Column("standing_version", Integer),
    Column("hold_id", Uuid, unique=True),
    Column("evidence", Text, nullable=False, server_default=""),
    Column("created_at", Timestamp, nullable=False),
    CheckConstraint("amount > 0", name="positive"),
    CheckConstraint("applied >= 0 AND applied <= amount", name="applied"),
    CheckConstraint("state <> 'final' OR applied = amount", name="final_in_full"),
    CheckConstraint("direction IN ('pay', 'receive')", name="direction"),
    CheckConstraint("rail IN ('evm', 'book')", name="rail"),
    schema=SCHEMA,
)
Index("ix_instruction_run_id", instruction.c.run_id)
Index(
    "ix_instruction_released",
    instruction.c.book,
    postgresql_where=instruction.c.state == "released",
)

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
    PrimaryKeyConstraint("receipt_id", "epoch"),
    CheckConstraint("applied > 0 AND excess >= 0", name="amounts"),
    schema=SCHEMA,
)
Index("ix_receipt_match_instruction_id", receipt_match.c.instruction_id)
