"""Tables of payments out: payouts, attempts, nonces, approvals, and what two people allow."""

from __future__ import annotations

from typing import Final

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
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

import custody.control_tables  # noqa: F401  an approval refers to the statement that was signed
from kernel.db import Timestamp, Units, lease_columns, metadata

SCHEMA = "custody"

payout = Table(
    "payout",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", Integer, nullable=False),
    Column("client_ref", Text, nullable=False),
    Column("claim", Text, nullable=False),
    Column("rail", Text, nullable=False),
    Column("chain", Text, nullable=False),
    Column("chain_id", BigInteger, nullable=False),
    Column("source_wallet", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("sender_path", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("amount", Units, nullable=False),
    Column("contract", Text),
    Column("chain_amount", Units, nullable=False),
    Column("native_asset", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("policy_version", Integer, nullable=False),
    Column("approvals_required", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("hold_epoch", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("nonce", BigInteger),
    Column("fee_cap", Units, nullable=False),
    Column("fee_paid", Units),
    Column("succeeded", Boolean),
    Column("tx_hash", Text),
    Column("mined_height", BigInteger),
    Column("mined_block", Text),
    Column("claim_returned", Boolean, nullable=False, server_default=false()),
    Column("waiting_for", Text, nullable=False),
    Column("run_after", Timestamp, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp),
    # Who may pay: what the policy said, and until when the payout counts as reserved.
    Column("rule", Integer, nullable=False, server_default="0"),
    Column("required", JSONB, nullable=False, server_default="[]"),
    Column("party", Text),
    Column("destination_id", Uuid, ForeignKey("custody.allowed_destination.id")),
    Column("requested_expiry", Timestamp),
    Column("released_at", Timestamp),
    *lease_columns(),
    UniqueConstraint("book", "claim", "client_ref"),
    # Only what fills a gap between nonces pays nothing.
    CheckConstraint(
        "(amount > 0 AND chain_amount > 0)"
        " OR (amount = 0 AND chain_amount = 0 AND claim LIKE 'own:%')",
        name="amounts_positive",
    ),
    CheckConstraint("approvals_required > 0", name="approved_by_somebody"),
    CheckConstraint(
        "(tx_hash IS NULL) = (mined_block IS NULL)"
        " AND (tx_hash IS NULL) = (mined_height IS NULL)"
        " AND (tx_hash IS NULL) = (fee_paid IS NULL)"
        " AND (tx_hash IS NULL) = (succeeded IS NULL)",
        name="mined_as_a_whole",
    ),
    # What will not be paid stops counting as reserved, at a known time.
    CheckConstraint(
        "state NOT IN ('rejected', 'cancelled', 'expired', 'failed_on_chain', 'refused')"
        " OR released_at IS NOT NULL",
        name="released_at_a_time",
    ),
    # What a bank says ends only what a bank pays; on chains a block does.
    CheckConstraint(
        "rail = 'bank' OR (state <> 'refused' AND (state <> 'confirmed' OR tx_hash IS NOT NULL))",
        name="ended_by_its_rail",
    ),
    CheckConstraint("(rail = 'bank') = (chain = 'bank')", name="banks_have_no_chain"),
    schema=SCHEMA,
)
# A client's reference is of one payout, whatever the claim.
Index(
    "uq_payout_party_ref",
    payout.c.book,
    payout.c.party,
    payout.c.client_ref,
    unique=True,
    postgresql_where=payout.c.party.is_not(None),
)
Index(
    "ix_payout_velocity",
    payout.c.book,
    payout.c.asset,
    payout.c.created_at,
    postgresql_include=["amount", "claim", "released_at"],
)
Index(
    "ix_payout_velocity_party",
    payout.c.book,
    payout.c.party,
    payout.c.asset,
    payout.c.created_at,
    postgresql_include=["amount", "claim", "released_at"],
)
Index(
    "ix_payout_expiry",
    payout.c.expires_at,
    postgresql_where=payout.c.state.in_(["requested", "reserved", "pending_approval", "approved"]),
)
Index("ix_payout_state", payout.c.chain, payout.c.state, payout.c.created_at)
LIVE: Final = (
    "state NOT IN ('confirmed', 'failed_on_chain', 'refused', 'rejected', 'cancelled', 'expired')"
)
"""Of a payout that has not ended."""
Index("ix_payout_live", payout.c.book, postgresql_where=text(LIVE))
Index("ix_payout_sender", payout.c.chain, payout.c.sender, payout.c.state)

payout_attempt = Table(
    "payout_attempt",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("payout_id", Uuid, ForeignKey("custody.payout.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("chain", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("nonce", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("unsigned", LargeBinary, nullable=False),
    Column("gas_limit", BigInteger, nullable=False),
    Column("max_fee_per_gas", Units, nullable=False),
    Column("max_priority_fee_per_gas", Units, nullable=False),
    Column("tx_hash", Text),
    Column("raw", LargeBinary),
    Column("broadcasts", Integer, nullable=False),
    Column("last_broadcast_at", Timestamp),
    Column("detail", Text, nullable=False),
    Column("built_at", Timestamp, nullable=False),
    Column("signed_at", Timestamp),
    Column("kind", Text, nullable=False, server_default="pay"),
    UniqueConstraint("payout_id", "number"),
    CheckConstraint("kind IN ('pay', 'cancel')", name="kind"),
    UniqueConstraint("chain", "tx_hash"),
    # No bytes, no broadcast: what may be sent is stored first.
    CheckConstraint(
        "state IN ('built', 'superseded')"
        " OR (raw IS NOT NULL AND tx_hash IS NOT NULL AND signed_at IS NOT NULL)",
        name="signed_bytes_stored",
    ),
    schema=SCHEMA,
)
Index(
    "ix_payout_attempt_nonce",
    payout_attempt.c.chain,
    payout_attempt.c.sender,
    payout_attempt.c.nonce,
)

payout_sender = Table(
    "payout_sender",
    metadata,
    Column("chain", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("wallet", Text, nullable=False),
    Column("frozen_reason", Text),
    PrimaryKeyConstraint("chain", "address"),
    schema=SCHEMA,
)

payout_nonce = Table(
    "payout_nonce",
    metadata,
    Column("chain", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("nonce", BigInteger, nullable=False),
    Column("payout_id", Uuid, ForeignKey("custody.payout.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("since", Timestamp, nullable=False),
    PrimaryKeyConstraint("chain", "sender", "nonce"),
    CheckConstraint("nonce >= 0", name="nonce_not_negative"),
    schema=SCHEMA,
)
Index(
    "uq_payout_nonce_payout_id_kept",
    payout_nonce.c.payout_id,
    unique=True,
    postgresql_where=payout_nonce.c.state != "released",
)
Index(
    "ix_payout_nonce_open",
    payout_nonce.c.chain,
    payout_nonce.c.sender,
    payout_nonce.c.nonce,
    postgresql_where=payout_nonce.c.state != "spent",
)

payout_approval = Table(
    "payout_approval",
    metadata,
    Column("payout_id", Uuid, ForeignKey("custody.payout.id"), nullable=False),
    Column("operator", Text, nullable=False),
    Column("statement_id", Uuid, ForeignKey("custody.approval_statement.id"), nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("payout_id", "operator"),
    schema=SCHEMA,
)

payout_policy = Table(
    "payout_policy",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("document", JSONB, nullable=False),
    Column("state", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("proposed_at", Timestamp, nullable=False),
    Column("proposal_signature", LargeBinary, nullable=False),
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
    "uq_payout_policy_active",
    payout_policy.c.state,
    unique=True,
    postgresql_where=payout_policy.c.state == "active",
)

allowed_destination = Table(
    "allowed_destination",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("party", Text, nullable=False),
    Column("chain", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("proposed_at", Timestamp, nullable=False),
    Column("cooling_off_s", Integer, nullable=False),
    Column("chain_id", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("look", Text, nullable=False),
    Column("acknowledged", JSONB, nullable=False),
    Column("proposal_signature", LargeBinary, nullable=False),
    Column("code_hash", Text),
    Column("code_checked_at", Timestamp),
    Column("return_tx", Text),
    Column("returned_at", Timestamp),
    Column("approved_by", Text),
    Column("approved_at", Timestamp),
    Column("signature", LargeBinary),
    Column("usable_from", Timestamp),
    Column("revoked_by", Text),
    Column("revoke_signature", LargeBinary),
    CheckConstraint("kind IN ('eoa', 'contract', 'bank')", name="kind"),
    CheckConstraint("(kind = 'bank') = (chain = 'bank')", name="bank"),
    CheckConstraint(
        "state <> 'active' OR kind <> 'contract' OR (code_hash IS NOT NULL AND return_tx IS NOT NULL)",
        name="contract_proved",
    ),
    CheckConstraint(
        "state <> 'revoked' OR (revoked_by IS NOT NULL AND revoke_signature IS NOT NULL)",
        name="revoked_by_somebody",
    ),
    CheckConstraint("approved_by <> proposed_by", name="four_eyes"),
    CheckConstraint(
        "state IN ('proposed', 'rejected') OR (approved_by IS NOT NULL"
        " AND signature IS NOT NULL AND usable_from IS NOT NULL)",
        name="approved_by_somebody",
    ),
    schema=SCHEMA,
)
Index(
    "uq_allowed_destination_open",
    allowed_destination.c.party,
    allowed_destination.c.chain,
    allowed_destination.c.address,
    unique=True,
    postgresql_where=allowed_destination.c.state.in_(["proposed", "active"]),
)

Index("ix_allowed_destination_look", allowed_destination.c.look)

foreign_spend = Table(
    "foreign_spend",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("chain", Text, nullable=False),
    Column("tx_hash", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("nonce", BigInteger),
    Column("state", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("block_hash", Text, nullable=False),
    Column("height", BigInteger, nullable=False),
    Column("legs", JSONB, nullable=False),
    Column("seen_at", Timestamp, nullable=False),
    UniqueConstraint("chain", "tx_hash"),
    schema=SCHEMA,
)
