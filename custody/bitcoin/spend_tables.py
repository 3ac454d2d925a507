"""Tables of payouts on Bitcoin: spends, their attempts, and which payouts they carry."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB

import custody.payout_tables  # noqa: F401  a spend carries payouts
from kernel.db import Timestamp, Units, lease_columns, metadata

SCHEMA = "custody"

spend = Table(
    "spend",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", Integer, nullable=False),
    Column("chain", Text, nullable=False),
    Column("chain_id", BigInteger, nullable=False),
    Column("wallet", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("anchor_tx", Text, nullable=False),
    Column("anchor_index", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("fee_cap", Units, nullable=False),
    Column("change_address", Text),
    Column("change_path", Text),
    Column("created_at", Timestamp, nullable=False),
    Column("run_after", Timestamp, nullable=False),
    Column("tx_id", Text),
    Column("mined_height", BigInteger),
    Column("mined_block", Text),
    Column("fee_paid", Units),
    Column("succeeded", Boolean),
    Column("claims_returned", Boolean, nullable=False),
    Column("waiting_for", Text, nullable=False),
    *lease_columns(),
    CheckConstraint("fee_cap > 0 AND attempt > 0", name="amounts"),
    CheckConstraint("(change_address IS NULL) = (change_path IS NULL)", name="change_as_a_whole"),
    CheckConstraint(
        "(tx_id IS NULL) = (mined_block IS NULL)"
        " AND (tx_id IS NULL) = (mined_height IS NULL)"
        " AND (tx_id IS NULL) = (fee_paid IS NULL)"
        " AND (tx_id IS NULL) = (succeeded IS NULL)",
        name="mined_as_a_whole",
    ),
    CheckConstraint(
        "(tx_id IS NOT NULL) = (state IN ('mined', 'final'))",
        name="mined_in_a_block",
    ),
    schema=SCHEMA,
)
Index("ix_spend_state", spend.c.chain, spend.c.state, spend.c.run_after)
Index("ix_spend_block", spend.c.mined_block)

spend_attempt = Table(
    "spend_attempt",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("spend_id", Uuid, ForeignKey("custody.spend.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("chain", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("tx_id", Text, nullable=False),
    Column("unsigned", LargeBinary, nullable=False),
    Column("coins", JSONB, nullable=False),
    Column("change", Units, nullable=False),
    Column("fee", Units, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("raw", LargeBinary),
    Column("broadcasts", Integer, nullable=False),
    Column("last_broadcast_at", Timestamp),
    Column("detail", Text, nullable=False),
    Column("built_at", Timestamp, nullable=False),
    Column("asked_at", Timestamp),
    Column("signed_at", Timestamp),
    UniqueConstraint("spend_id", "number"),
    CheckConstraint("kind IN ('pay', 'cancel')", name="kind"),
    CheckConstraint("fee > 0 AND weight > 0", name="amounts"),
    # No bytes, no broadcast: what may be sent is stored first.
    CheckConstraint(
        "state IN ('built', 'superseded') OR (raw IS NOT NULL AND signed_at IS NOT NULL)",
        name="signed_bytes_stored",
    ),
    schema=SCHEMA,
)

# Two spends never have bytes of one transaction: their coins are locked. One that was dropped unsigned
# may be built again.
Index(
    "uq_spend_attempt_signed",
    spend_attempt.c.chain,
    spend_attempt.c.tx_id,
    unique=True,
    postgresql_where=spend_attempt.c.raw.is_not(None),
)
Index("ix_spend_attempt_tx", spend_attempt.c.chain, spend_attempt.c.tx_id)

spend_payout = Table(
    "spend_payout",
    metadata,
    Column("spend_id", Uuid, ForeignKey("custody.spend.id"), nullable=False),
    Column("payout_id", Uuid, ForeignKey("custody.payout.id"), nullable=False),
    Column("weight", Integer, nullable=False),
    Column("output", Integer),
    Column("live", Boolean, nullable=False, server_default=true()),
    PrimaryKeyConstraint("spend_id", "payout_id"),
    CheckConstraint("weight > 0", name="weight"),
    schema=SCHEMA,
)
# A payout is carried by one transaction and its replacements, and by no other beside them.
Index(
    "uq_spend_payout_live",
    spend_payout.c.payout_id,
    unique=True,
    postgresql_where=spend_payout.c.live,
)
