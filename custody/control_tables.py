"""Tables of who may pay what: freezes, decisions, signed statements, what is due. Private."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, Units, metadata

SCHEMA = "custody"

freeze = Table(
    "freeze",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("closed_by", Text, nullable=False),
    Column("closed_signature", LargeBinary),
    Column("closed_reason", Text, nullable=False),
    Column("closed_at", Timestamp, nullable=False),
    Column("opened_by", JSONB),
    Column("opened_reason", Text),
    Column("opened_at", Timestamp),
    # What a process of ours closed may be signed later, by the house's service.
    Column("service_signature", LargeBinary),
    # Whose key the signature is of.
    Column("signed_by", Text),
    CheckConstraint(
        "(signed_by IS NULL) = (closed_signature IS NULL AND service_signature IS NULL)",
        name="signed_as_a_whole",
    ),
    CheckConstraint("closed_signature IS NULL OR service_signature IS NULL", name="signed_by_one"),
    CheckConstraint("(kind = 'global') = (name = '')", name="global_has_no_name"),
    # Only a process closes without a signature; nobody opens without two.
    CheckConstraint(
        "closed_signature IS NOT NULL OR closed_by LIKE 'system:%'", name="closed_by_somebody"
    ),
    CheckConstraint(
        "(state = 'open') = (opened_at IS NOT NULL) AND (state = 'open') = (opened_by IS NOT NULL)"
        " AND (state = 'open') = (opened_reason IS NOT NULL)",
        name="opened_as_a_whole",
    ),
    schema=SCHEMA,
)
Index(
    "uq_freeze_closed",
    freeze.c.kind,
    freeze.c.name,
    unique=True,
    postgresql_where=freeze.c.state == "closed",
)

payout_decision = Table(
    "payout_decision",
    metadata,
    Column("payout_id", Uuid, ForeignKey("custody.payout.id"), primary_key=True),
    Column("number", BigInteger, Identity(always=True), nullable=False),
    Column("book", Integer, nullable=False),
    Column("decided_at", Timestamp, nullable=False),
    Column("policy_version", Integer, nullable=False),
    Column("rule", Integer, nullable=False),
    Column("action", Text, nullable=False),
    Column("required", JSONB, nullable=False),
    Column("reason", Text, nullable=False),
    Column("facts", JSONB, nullable=False),
    schema=SCHEMA,
)
Index(
    "ix_payout_decision_at",
    payout_decision.c.book,
    payout_decision.c.decided_at,
    payout_decision.c.number,
)

approval_statement = Table(
    "approval_statement",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("operator", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("lines", JSONB, nullable=False),
    Column("at", Timestamp, nullable=False),
    schema=SCHEMA,
)

velocity_lane = Table(
    "velocity_lane",
    metadata,
    Column("book", Integer, nullable=False),
    Column("asset", Text, nullable=False),
    PrimaryKeyConstraint("book", "asset"),
    schema=SCHEMA,
)

receivable_due = Table(
    "receivable_due",
    metadata,
    Column("book", Integer, nullable=False),
    Column("reference", Text, nullable=False),
    Column("party", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("amount", Units, nullable=False),
    Column("due_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("book", "reference"),
    CheckConstraint("amount > 0", name="amount_positive"),
    schema=SCHEMA,
)
Index(
    "ix_receivable_due_party",
    receivable_due.c.book,
    receivable_due.c.party,
    receivable_due.c.asset,
    receivable_due.c.due_at,
)
