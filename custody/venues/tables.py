"""Tables of transfers to and from venues. Private."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
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
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, Units, lease_columns, metadata

SCHEMA = "custody"

venue_address = Table(
    "venue_address",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("network", Text, nullable=False),
    Column("chain", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("tag", Text, nullable=False),
    Column("destination_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("proposed_at", Timestamp, nullable=False),
    Column("proposal_signature", LargeBinary, nullable=False),
    Column("approved_by", Text),
    Column("approved_at", Timestamp),
    Column("signature", LargeBinary),
    Column("verified_at", Timestamp),
    Column("reason", Text, nullable=False, server_default=""),
    CheckConstraint("approved_by <> proposed_by", name="four_eyes"),
    CheckConstraint(
        "state IN ('proposed', 'rejected')"
        " OR (approved_by IS NOT NULL AND approved_at IS NOT NULL AND signature IS NOT NULL)",
        name="approved_by_somebody",
    ),
    schema=SCHEMA,
)
Index(
    "uq_venue_address_active",
    venue_address.c.venue,
    venue_address.c.account,
    venue_address.c.asset,
    venue_address.c.chain,
    unique=True,
    postgresql_where=venue_address.c.state == "active",
)
Index(
    "uq_venue_address_proposed",
    venue_address.c.venue,
    venue_address.c.account,
    venue_address.c.asset,
    venue_address.c.chain,
    unique=True,
    postgresql_where=venue_address.c.state == "proposed",
)

venue_deposit = Table(
    "venue_deposit",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", Integer, nullable=False),
    Column("payout_id", Uuid, nullable=False),
    Column("address_id", Uuid, ForeignKey("custody.venue_address.id"), nullable=False),
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("network", Text, nullable=False),
    Column("amount", Units, nullable=False),
    Column("state", Text, nullable=False),
    Column("venue_ref", Text),
    Column("credited", Units),
    Column("epoch", Integer, nullable=False),
    Column("waiting_for", Text, nullable=False),
    Column("late_since", Timestamp),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    UniqueConstraint("payout_id", name="uq_venue_deposit_payout"),
    # What the venue credited once is the credit of one transfer.
    UniqueConstraint("venue", "account", "venue_ref", name="uq_venue_deposit_venue_ref"),
    CheckConstraint("amount > 0", name="amount_positive"),
    CheckConstraint("(state = 'credited') = (venue_ref IS NOT NULL)", name="credited_by_venue"),
    CheckConstraint("(state = 'credited') = (credited IS NOT NULL)", name="credited_so_much"),
    CheckConstraint("credited BETWEEN 0 AND amount", name="credited_at_most"),
    schema=SCHEMA,
)
Index(
    "ix_venue_deposit_open",
    venue_deposit.c.venue,
    venue_deposit.c.account,
    postgresql_where=venue_deposit.c.state == "open",
)

venue_withdrawal = Table(
    "venue_withdrawal",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", Integer, nullable=False),
    Column("client_ref", Text, nullable=False),
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("network", Text, nullable=False),
    Column("chain", Text, nullable=False),
    Column("chain_id", BigInteger, nullable=False),
    Column("wallet", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("amount", Units, nullable=False),
    Column("text", Text, nullable=False),
    Column("fee_max", Units, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("policy_version", Integer, nullable=False),
    Column("rule", Integer, nullable=False),
    Column("required", JSONB, nullable=False),
    Column("withdrawal_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("signed_at", Timestamp),
    Column("window_ms", Integer, nullable=False),
    Column("venue_ref", Text),
    Column("sent", Units),
    Column("fee", Units),
    Column("tx_id", Text),
    Column("arrival_id", Uuid),
    Column("not_found", Integer, nullable=False, server_default="0"),
    Column("waiting_for", Text, nullable=False, server_default=""),
    Column("run_after", Timestamp, nullable=False),
    Column("requested_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
    Column("released_at", Timestamp),
    Column("late_since", Timestamp),
    *lease_columns(),
    UniqueConstraint("book", "venue", "account", "client_ref", name="uq_venue_withdrawal_ref"),
    UniqueConstraint("venue", "account", "withdrawal_id", name="uq_venue_withdrawal_ours"),
    UniqueConstraint("venue", "account", "venue_ref", name="uq_venue_withdrawal_theirs"),
    UniqueConstraint("arrival_id", name="uq_venue_withdrawal_arrival"),
    CheckConstraint("amount > 0 AND fee_max >= 0", name="amounts"),
    CheckConstraint("sent >= 0 AND fee >= 0", name="moved"),
    CheckConstraint("(sent IS NULL) = (fee IS NULL)", name="moved_as_a_whole"),
    CheckConstraint("(state = 'arrived') = (arrival_id IS NOT NULL)", name="arrived"),
    CheckConstraint(
        "signed_at IS NOT NULL OR state IN ('requested', 'pending_approval', 'approved',"
        " 'rejected', 'cancelled', 'expired')",
        name="signed",
    ),
    CheckConstraint(
        "state NOT IN ('debited', 'sent', 'arrived') OR (venue_ref IS NOT NULL AND sent IS NOT NULL)",
        name="debited_by_venue",
    ),
    CheckConstraint("state NOT IN ('sent', 'arrived') OR tx_id IS NOT NULL", name="sent_on_chain"),
    schema=SCHEMA,
)
Index(
    "ix_venue_withdrawal_open",
    venue_withdrawal.c.venue,
    venue_withdrawal.c.account,
    postgresql_where=venue_withdrawal.c.state.in_(
        [
            *("pending_approval", "approved", "submitting", "unknown", "escalated"),
            *("acked", "debited", "sent"),
        ]
    ),
)
Index(
    "ix_venue_withdrawal_tx",
    venue_withdrawal.c.chain,
    venue_withdrawal.c.tx_id,
    postgresql_where=venue_withdrawal.c.tx_id.is_not(None),
)

venue_withdrawal_approval = Table(
    "venue_withdrawal_approval",
    metadata,
    Column("withdrawal_id", Uuid, ForeignKey("custody.venue_withdrawal.id"), nullable=False),
    Column("operator", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("withdrawal_id", "operator"),
    schema=SCHEMA,
)
