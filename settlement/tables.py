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
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Time,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, Units, metadata

SCHEMA = "settlement"

window_policy = Table(
    "window_policy",
    metadata,
    Column("book", SmallInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("effective_from", Date, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("cut_off", Time, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("calendars", JSONB, nullable=False),
    Column("affirm_minutes", Integer, nullable=False),
    Column("top_up_minutes", Integer, nullable=False),
    Column("release_minutes", Integer, nullable=False),
    Column("reaffirm_minutes", Integer, nullable=False),
    Column("seals_by_clock", Boolean, nullable=False),
    Column("releases_by_clock", Boolean, nullable=False),
    Column("method", Text, nullable=False),
    Column("thresholds", JSONB, nullable=False),
    Column("entered_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("book", "name", "version"),
    CheckConstraint("version > 0", name="version"),
    CheckConstraint("entered_by <> approved_by", name="two_people"),
    CheckConstraint(
        "affirm_minutes >= 0 AND top_up_minutes >= 0 AND release_minutes >= 0"
        " AND reaffirm_minutes >= 0",
        name="minutes",
    ),
    CheckConstraint("method IN ('fifo', 'optimal', 'partial')", name="method"),
    schema=SCHEMA,
)

cycle = Table(
    "cycle",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", SmallInteger, nullable=False),
    Column("value_date", Date, nullable=False),
    Column("window", Text, nullable=False),
    Column("window_version", Integer, nullable=False),
    Column("cutoff_at", Timestamp, nullable=False),
    Column("affirm_until", Timestamp, nullable=False),
    Column("top_up_until", Timestamp, nullable=False),
    Column("release_at", Timestamp, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    UniqueConstraint("book", "value_date", "window"),
    CheckConstraint(
        "cutoff_at <= affirm_until AND affirm_until <= top_up_until AND top_up_until <= release_at",
        name="clocks",
    ),
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
    Column("party", Text, nullable=False, server_default=""),
    Column("netting_set", Text, nullable=False, server_default=""),
    Column("cycle_id", Uuid, ForeignKey("settlement.cycle.id")),
    Column("affirm_until", Timestamp),
    Column("top_up_until", Timestamp),
    Column("release_at", Timestamp),
    UniqueConstraint("book", "value_date", "window", "party", "netting_set"),
    CheckConstraint("(cycle_id IS NULL) = (affirm_until IS NULL)", name="clocks"),
    schema=SCHEMA,
)
Index("ix_run_cycle_id", run.c.cycle_id)
Index(
    "ix_run_live",
    run.c.book,
    run.c.state,
    postgresql_where=run.c.state.in_(["calculated", "affirmed", "sealed", "released"]),
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
    Column("trade_date", Date),
    Column("product", Text, nullable=False, server_default="spot"),
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
Index("ix_obligation_listed", obligation.c.book, obligation.c.value_date, obligation.c.id)

calculation = Table(
    "calculation",
    metadata,
    Column("run_id", Uuid, ForeignKey("settlement.run.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("method", Text, nullable=False),
    Column("input_hash", Text, nullable=False),
    Column("inputs", JSONB, nullable=False),
    Column("items", JSONB, nullable=False),
    Column("carried", JSONB, nullable=False, server_default="[]"),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("run_id", "version"),
    schema=SCHEMA,
)

statement = Table(
    "statement",
    metadata,
    Column("run_id", Uuid, ForeignKey("settlement.run.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("party", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("issued_by", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("run_id", "version", "party"),
    UniqueConstraint("sha256"),
    CheckConstraint("sha256 = encode(sha256(convert_to(content, 'UTF8')), 'hex')", name="sha256"),
    schema=SCHEMA,
)

affirmation = Table(
    "affirmation",
    metadata,
    Column("run_id", Uuid, ForeignKey("settlement.run.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("party", Text, nullable=False),
    Column("entered_by", Text, nullable=False),
    # None: the party itself signed, and nobody has to witness it.
    Column("witnessed_by", Text),
    Column("evidence_hash", Text, nullable=False),
    Column("key_version", Integer),
    Column("signature", LargeBinary),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("run_id", "version", "party"),
    CheckConstraint("entered_by <> witnessed_by", name="two_people"),
    CheckConstraint("(key_version IS NULL) = (signature IS NULL)", name="signed"),
    CheckConstraint("(witnessed_by IS NULL) <> (signature IS NULL)", name="proof"),
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
    CheckConstraint("rail IN ('evm', 'bitcoin', 'bank', 'book')", name="rail"),
    schema=SCHEMA,
)
Index("ix_instruction_run_id", instruction.c.run_id)
Index(
    "ix_instruction_released",
    instruction.c.book,
    postgresql_where=instruction.c.state == "released",
)
