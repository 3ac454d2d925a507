"""Tables of returns, fails and defaults; private to settlement."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, Units, metadata

SCHEMA = "settlement"

payment_return = Table(
    "payment_return",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", SmallInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("item_id", Uuid, nullable=False, unique=True),
    Column("instruction_id", Uuid, ForeignKey("settlement.instruction.id"), nullable=False),
    Column("obligation_id", Uuid, ForeignKey("settlement.obligation.id"), nullable=False),
    Column("party", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("amount", Units, nullable=False),
    Column("by", Text, nullable=False),
    Column("second", Text),
    Column("reason", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    CheckConstraint("amount > 0", name="positive"),
    CheckConstraint("kind IN ('returned', 'recalled')", name="kind"),
    CheckConstraint("second <> by", name="two_people"),
    schema=SCHEMA,
)
Index("ix_payment_return_instruction_id", payment_return.c.instruction_id)

fail = Table(
    "fail",
    metadata,
    Column("instruction_id", Uuid, ForeignKey("settlement.instruction.id"), primary_key=True),
    Column("book", SmallInteger, nullable=False),
    Column("due_on", Date, nullable=False),
    Column("value_date", Date, nullable=False),
    Column("calendars", Text, nullable=False),
    Column("calendars_version", Text, nullable=False),
    Column("rolls", Integer, nullable=False),
    Column("cause", Text, nullable=False),
    Column("noticed_at", Timestamp, nullable=False),
    Column("cured_at", Timestamp),
    CheckConstraint("value_date > due_on", name="rolled"),
    CheckConstraint("rolls >= 0", name="rolls"),
    schema=SCHEMA,
)
Index("ix_fail_open", fail.c.book, fail.c.due_on, postgresql_where=fail.c.cured_at.is_(None))

party_default = Table(
    "party_default",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", SmallInteger, nullable=False),
    Column("party", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("declared_by", Text, nullable=False),
    Column("second", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    Column("report", JSONB, nullable=False),
    Column("report_hash", Text, nullable=False),
    Column("declared_at", Timestamp, nullable=False),
    Column("lifted_by", Text),
    Column("lifted_second", Text),
    Column("lifted_signature", LargeBinary),
    Column("lifted_reason", Text),
    Column("lifted_at", Timestamp),
    CheckConstraint("second <> declared_by", name="two_people"),
    CheckConstraint("lifted_second <> lifted_by", name="lifted_by_two"),
    CheckConstraint(
        "(state = 'lifted') = (lifted_at IS NOT NULL) "
        "AND (lifted_at IS NULL) = (lifted_second IS NULL)",
        name="lifted",
    ),
    schema=SCHEMA,
)
Index(
    "uq_party_default_declared",
    party_default.c.book,
    party_default.c.party,
    unique=True,
    postgresql_where=party_default.c.state == "declared",
)
