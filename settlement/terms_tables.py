"""Tables of collateral, and of where a payment goes all the same; private to the package."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from kernel.db import Timestamp, Units, metadata

SCHEMA = "settlement"

standing_choice = Table(
    "standing_choice",
    metadata,
    Column("instruction_id", Uuid, ForeignKey("settlement.instruction.id"), nullable=False),
    Column("standing_version", Integer, nullable=False),
    Column("chosen_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("instruction_id", "standing_version"),
    CheckConstraint("chosen_by <> approved_by", name="two_people"),
    CheckConstraint("reason <> ''", name="reason"),
    schema=SCHEMA,
)

collateral = Table(
    "collateral",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", SmallInteger, nullable=False),
    Column("reference", Text, nullable=False),
    Column("move", Text, nullable=False),
    Column("way", Text, nullable=False),
    Column("party", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("amount", Units, nullable=False),
    Column("value_date", Date, nullable=False),
    Column("obligation_id", Uuid, ForeignKey("settlement.obligation.id")),
    Column("entered_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    UniqueConstraint("book", "reference"),
    CheckConstraint("amount > 0", name="amount"),
    CheckConstraint("move IN ('give', 'give-back', 'take', 'take-back')", name="move"),
    CheckConstraint("way IN ('account', 'settlement')", name="way"),
    CheckConstraint("(way = 'settlement') = (obligation_id IS NOT NULL)", name="obligation"),
    CheckConstraint("entered_by <> approved_by", name="two_people"),
    CheckConstraint("reason <> ''", name="reason"),
    schema=SCHEMA,
)
