"""Tables of rebalancing: its rules, the windows that were planned, what they proposed."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, Units, metadata

SCHEMA = "custody"

rebalance_rules = Table(
    "rebalance_rules",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("rules", JSONB, nullable=False),
    Column("state", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("proposed_at", Timestamp, nullable=False),
    Column("approved_by", Text),
    Column("signature", LargeBinary),
    CheckConstraint("approved_by <> proposed_by", name="four_eyes"),
    CheckConstraint(
        "state IN ('proposed', 'rejected') OR (approved_by IS NOT NULL AND signature IS NOT NULL)",
        name="approved_by_somebody",
    ),
    schema=SCHEMA,
)
Index(
    "uq_rebalance_rules_active",
    rebalance_rules.c.state,
    unique=True,
    postgresql_where=rebalance_rules.c.state == "active",
)

rebalance_window = Table(
    "rebalance_window",
    metadata,
    Column("book", Integer, nullable=False),
    Column("chain", Text, nullable=False),
    Column("rules_version", Integer, nullable=False),
    Column("window", Timestamp, nullable=False),
    Column("height", BigInteger, nullable=False),
    Column("block_hash", Text, nullable=False),
    Column("planned_at", Timestamp, nullable=False),
    Column("left_over", Integer, nullable=False),
    PrimaryKeyConstraint("book", "chain", "rules_version", "window"),
    schema=SCHEMA,
)

rebalance_proposal = Table(
    "rebalance_proposal",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", Integer, nullable=False),
    Column("chain", Text, nullable=False),
    Column("rules_version", Integer, nullable=False),
    Column("window", Timestamp, nullable=False),
    Column("kind", Text, nullable=False),
    Column("wallet", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("to_wallet", Text, nullable=False),
    Column("to_address", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("amount", Units, nullable=False),
    Column("reason", Text, nullable=False),
    Column("by_hand", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
    Column("payout_id", Uuid),
    Column("detail", Text, nullable=False),
    UniqueConstraint(
        "book", "chain", "rules_version", "window", "kind", "asset", "address", "to_address"
    ),
    CheckConstraint("amount > 0", name="amount_positive"),
    CheckConstraint("(state = 'requested') = (payout_id IS NOT NULL)", name="requested"),
    CheckConstraint("NOT (by_hand AND state = 'requested')", name="by_hand"),
    schema=SCHEMA,
)
Index(
    "ix_rebalance_proposal_open",
    rebalance_proposal.c.book,
    rebalance_proposal.c.chain,
    rebalance_proposal.c.window,
    postgresql_where=rebalance_proposal.c.state == "proposed",
)
