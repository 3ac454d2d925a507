"""Payments out: payouts, attempts, nonces, approvals, and what two people allow."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008_pre_payouts"
down_revision: str | None = "0007_pre_custody"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)

UPDATABLE = {
    "payout": "state, hold_epoch, attempt, nonce, fee_cap, fee_paid, succeeded, tx_hash,"
    " mined_height, mined_block, claim_returned, waiting_for, run_after, lease_holder, lease_until, fence",
    "payout_attempt": "state, tx_hash, raw, broadcasts, last_broadcast_at, detail, signed_at",
    "payout_sender": "frozen_reason",
    "payout_nonce": "payout_id, state",
    "payout_approval": "",
    "payout_policy": "state, approved_by, signature",
    "allowed_destination": "state, approved_by, signature, usable_from",
    "foreign_spend": "state, epoch, block_hash, height, legs",
}

PAYOUT_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.payout_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('requested') THEN
            RAISE EXCEPTION 'custody.payout cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'payout_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('allocated', 'rejected'),
            ('allocated', 'security_hold'),
            ('allocated', 'signed'),
            ('approved', 'allocated'),
            ('approved', 'cancelled'),
            ('approved', 'expired'),
            ('approved', 'rejected'),
            ('confirmed', 'signed'),
            ('failed_on_chain', 'security_hold'),
            ('mined', 'confirmed'),
            ('mined', 'failed_on_chain'),
            ('mined', 'signed'),
            ('pending_approval', 'approved'),
            ('pending_approval', 'cancelled'),
            ('pending_approval', 'expired'),
            ('pending_approval', 'rejected'),
            ('requested', 'cancelled'),
            ('requested', 'expired'),
            ('requested', 'rejected'),
            ('requested', 'reserved'),
            ('reserved', 'cancelled'),
            ('reserved', 'expired'),
            ('reserved', 'pending_approval'),
            ('reserved', 'rejected'),
            ('security_hold', 'allocated'),
            ('security_hold', 'failed_on_chain'),
            ('security_hold', 'mined'),
            ('security_hold', 'signed'),
            ('signed', 'mined'),
            ('signed', 'security_hold')
        ) THEN
            RAISE EXCEPTION 'custody.payout cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'payout_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
PAYOUT_TRIGGER = (
    "CREATE OR REPLACE TRIGGER payout_state_edges BEFORE INSERT OR UPDATE ON custody.payout "
    "FOR EACH ROW EXECUTE FUNCTION custody.payout_state_edges()"
)
PAYOUT_ATTEMPT_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.payout_attempt_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('built') THEN
            RAISE EXCEPTION 'custody.payout_attempt cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'payout_attempt_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('ambiguous', 'broadcast'),
            ('ambiguous', 'mined'),
            ('ambiguous', 'superseded'),
            ('broadcast', 'ambiguous'),
            ('broadcast', 'mined'),
            ('broadcast', 'superseded'),
            ('built', 'signed'),
            ('built', 'superseded'),
            ('final', 'ambiguous'),
            ('mined', 'ambiguous'),
            ('mined', 'final'),
            ('signed', 'ambiguous'),
            ('signed', 'broadcast'),
            ('signed', 'mined'),
            ('signed', 'superseded'),
            ('superseded', 'mined')
        ) THEN
            RAISE EXCEPTION 'custody.payout_attempt cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'payout_attempt_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
PAYOUT_ATTEMPT_TRIGGER = (
    "CREATE OR REPLACE TRIGGER payout_attempt_state_edges BEFORE INSERT OR UPDATE ON custody.payout_attempt "
    "FOR EACH ROW EXECUTE FUNCTION custody.payout_attempt_state_edges()"
)
PAYOUT_NONCE_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.payout_nonce_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('live') THEN
            RAISE EXCEPTION 'custody.payout_nonce cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'payout_nonce_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('live', 'released'),
            ('live', 'spent'),
            ('released', 'live'),
            ('spent', 'live')
        ) THEN
            RAISE EXCEPTION 'custody.payout_nonce cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'payout_nonce_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
PAYOUT_NONCE_TRIGGER = (
    "CREATE OR REPLACE TRIGGER payout_nonce_state_edges BEFORE INSERT OR UPDATE ON custody.payout_nonce "
    "FOR EACH ROW EXECUTE FUNCTION custody.payout_nonce_state_edges()"
)
ALLOWED_DESTINATION_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.allowed_destination_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('proposed') THEN
            RAISE EXCEPTION 'custody.allowed_destination cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'allowed_destination_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('active', 'revoked'),
            ('proposed', 'active'),
            ('proposed', 'rejected')
        ) THEN
            RAISE EXCEPTION 'custody.allowed_destination cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'allowed_destination_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
ALLOWED_DESTINATION_TRIGGER = (
    "CREATE OR REPLACE TRIGGER allowed_destination_state_edges BEFORE INSERT OR UPDATE ON custody.allowed_destination "
    "FOR EACH ROW EXECUTE FUNCTION custody.allowed_destination_state_edges()"
)
PAYOUT_POLICY_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.payout_policy_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('proposed') THEN
            RAISE EXCEPTION 'custody.payout_policy cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'payout_policy_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('active', 'revoked'),
            ('proposed', 'active'),
            ('proposed', 'rejected')
        ) THEN
            RAISE EXCEPTION 'custody.payout_policy cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'payout_policy_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
PAYOUT_POLICY_TRIGGER = (
    "CREATE OR REPLACE TRIGGER payout_policy_state_edges BEFORE INSERT OR UPDATE ON custody.payout_policy "
    "FOR EACH ROW EXECUTE FUNCTION custody.payout_policy_state_edges()"
)
FOREIGN_SPEND_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.foreign_spend_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('included') THEN
            RAISE EXCEPTION 'custody.foreign_spend cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'foreign_spend_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('included', 'orphaned'),
            ('orphaned', 'included')
        ) THEN
            RAISE EXCEPTION 'custody.foreign_spend cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'foreign_spend_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
FOREIGN_SPEND_TRIGGER = (
    "CREATE OR REPLACE TRIGGER foreign_spend_state_edges BEFORE INSERT OR UPDATE ON custody.foreign_spend "
    "FOR EACH ROW EXECUTE FUNCTION custody.foreign_spend_state_edges()"
)

# Whatever was signed may be out: the bytes that are sent again are for ever the same.
SIGNED_BYTES_STAY = """\
CREATE FUNCTION custody.refuse_other_bytes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.raw IS NOT NULL
        AND (NEW.raw IS DISTINCT FROM OLD.raw OR NEW.tx_hash IS DISTINCT FROM OLD.tx_hash)
    THEN
        RAISE EXCEPTION 'the signed bytes of attempt % never change', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'signed_bytes_stay';
    END IF;
    RETURN NEW;
END
$$"""
SIGNED_BYTES_STAY_TRIGGER = (
    "CREATE TRIGGER signed_bytes_stay BEFORE UPDATE ON custody.payout_attempt "
    "FOR EACH ROW EXECUTE FUNCTION custody.refuse_other_bytes()"
)


def upgrade() -> None:
    op.create_table(
        "payout",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("client_ref", sa.Text, nullable=False),
        sa.Column("claim", sa.Text, nullable=False),
        sa.Column("rail", sa.Text, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("chain_id", sa.BigInteger, nullable=False),
        sa.Column("source_wallet", sa.Text, nullable=False),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("sender_path", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.Column("contract", sa.Text),
        sa.Column("chain_amount", UNITS, nullable=False),
        sa.Column("native_asset", sa.Text, nullable=False),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("requested_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("policy_version", sa.Integer, nullable=False),
        sa.Column("approvals_required", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("hold_epoch", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("nonce", sa.BigInteger),
        sa.Column("fee_cap", UNITS, nullable=False),
        sa.Column("fee_paid", UNITS),
        sa.Column("succeeded", sa.Boolean),
        sa.Column("tx_hash", sa.Text),
        sa.Column("mined_height", sa.BigInteger),
        sa.Column("mined_block", sa.Text),
        sa.Column("claim_returned", sa.Boolean, server_default=sa.false(), nullable=False),
        sa.Column("waiting_for", sa.Text, nullable=False),
        sa.Column("run_after", TIMESTAMP, nullable=False),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.Column("expires_at", TIMESTAMP),
        sa.Column("lease_holder", sa.Text),
        sa.Column("lease_until", TIMESTAMP),
        sa.Column("fence", sa.Integer, server_default="0", nullable=False),
        sa.CheckConstraint(
            "(tx_hash IS NULL) = (mined_block IS NULL) AND (tx_hash IS NULL) = (mined_height IS NULL) AND (tx_hash IS NULL) = (fee_paid IS NULL) AND (tx_hash IS NULL) = (succeeded IS NULL)",
            name=op.f("ck_payout_mined_as_a_whole"),
        ),
        sa.CheckConstraint(
            "amount > 0 AND chain_amount > 0", name=op.f("ck_payout_amounts_positive")
        ),
        sa.CheckConstraint("approvals_required > 0", name=op.f("ck_payout_approved_by_somebody")),
        sa.PrimaryKeyConstraint("id", name="pk_payout"),
        sa.UniqueConstraint("book", "claim", "client_ref", name="uq_payout_book_claim_client_ref"),
        schema="custody",
    )
    op.create_index(
        "ix_payout_sender", "payout", ["chain", "sender", "state"], unique=False, schema="custody"
    )
    op.create_index(
        "ix_payout_state",
        "payout",
        ["chain", "state", "created_at"],
        unique=False,
        schema="custody",
    )
    op.create_table(
        "payout_attempt",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("payout_id", sa.Uuid, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("nonce", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("unsigned", sa.LargeBinary, nullable=False),
        sa.Column("gas_limit", sa.BigInteger, nullable=False),
        sa.Column("max_fee_per_gas", UNITS, nullable=False),
        sa.Column("max_priority_fee_per_gas", UNITS, nullable=False),
        sa.Column("tx_hash", sa.Text),
        sa.Column("raw", sa.LargeBinary),
        sa.Column("broadcasts", sa.Integer, nullable=False),
        sa.Column("last_broadcast_at", TIMESTAMP),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("built_at", TIMESTAMP, nullable=False),
        sa.Column("signed_at", TIMESTAMP),
        sa.CheckConstraint(
            "state IN ('built', 'superseded') OR (raw IS NOT NULL AND tx_hash IS NOT NULL AND signed_at IS NOT NULL)",
            name=op.f("ck_payout_attempt_signed_bytes_stored"),
        ),
        sa.ForeignKeyConstraint(
            ["payout_id"], ["custody.payout.id"], name="fk_payout_attempt_payout_id_payout"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_payout_attempt"),
        sa.UniqueConstraint("chain", "tx_hash", name="uq_payout_attempt_chain_tx_hash"),
        sa.UniqueConstraint("payout_id", "number", name="uq_payout_attempt_payout_id_number"),
        schema="custody",
    )
    op.create_index(
        "ix_payout_attempt_nonce",
        "payout_attempt",
        ["chain", "sender", "nonce"],
        unique=False,
        schema="custody",
    )
    op.create_table(
        "payout_sender",
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("wallet", sa.Text, nullable=False),
        sa.Column("frozen_reason", sa.Text),
        sa.PrimaryKeyConstraint("chain", "address", name="pk_payout_sender"),
        schema="custody",
    )
    op.create_table(
        "payout_nonce",
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("nonce", sa.BigInteger, nullable=False),
        sa.Column("payout_id", sa.Uuid, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.CheckConstraint("nonce >= 0", name=op.f("ck_payout_nonce_nonce_not_negative")),
        sa.ForeignKeyConstraint(
            ["payout_id"], ["custody.payout.id"], name="fk_payout_nonce_payout_id_payout"
        ),
        sa.PrimaryKeyConstraint("chain", "sender", "nonce", name="pk_payout_nonce"),
        schema="custody",
    )
    op.create_index(
        "uq_payout_nonce_payout_id_kept",
        "payout_nonce",
        ["payout_id"],
        unique=True,
        schema="custody",
        postgresql_where=sa.text("state != 'released'"),
    )
    op.create_table(
        "payout_approval",
        sa.Column("payout_id", sa.Uuid, nullable=False),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("lines", postgresql.JSONB, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.ForeignKeyConstraint(
            ["payout_id"], ["custody.payout.id"], name="fk_payout_approval_payout_id_payout"
        ),
        sa.PrimaryKeyConstraint("payout_id", "operator", name="pk_payout_approval"),
        schema="custody",
    )
    op.create_table(
        "payout_policy",
        sa.Column("version", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("rules", postgresql.JSONB, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("proposed_by", sa.Text, nullable=False),
        sa.Column("proposed_at", TIMESTAMP, nullable=False),
        sa.Column("approved_by", sa.Text),
        sa.Column("signature", sa.LargeBinary),
        sa.CheckConstraint("approved_by <> proposed_by", name=op.f("ck_payout_policy_four_eyes")),
        sa.CheckConstraint(
            "state IN ('proposed', 'rejected') OR (approved_by IS NOT NULL AND signature IS NOT NULL)",
            name=op.f("ck_payout_policy_approved_by_somebody"),
        ),
        sa.PrimaryKeyConstraint("version", name="pk_payout_policy"),
        schema="custody",
    )
    op.create_index(
        "uq_payout_policy_active",
        "payout_policy",
        ["state"],
        unique=True,
        schema="custody",
        postgresql_where=sa.text("state = 'active'"),
    )
    op.create_table(
        "allowed_destination",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("proposed_by", sa.Text, nullable=False),
        sa.Column("proposed_at", TIMESTAMP, nullable=False),
        sa.Column("cooling_off_s", sa.Integer, nullable=False),
        sa.Column("approved_by", sa.Text),
        sa.Column("signature", sa.LargeBinary),
        sa.Column("usable_from", TIMESTAMP),
        sa.CheckConstraint(
            "approved_by <> proposed_by", name=op.f("ck_allowed_destination_four_eyes")
        ),
        sa.CheckConstraint(
            "state IN ('proposed', 'rejected') OR (approved_by IS NOT NULL"
            " AND signature IS NOT NULL AND usable_from IS NOT NULL)",
            name=op.f("ck_allowed_destination_approved_by_somebody"),
        ),
        sa.PrimaryKeyConstraint("id", name="pk_allowed_destination"),
        schema="custody",
    )
    op.create_index(
        "uq_allowed_destination_open",
        "allowed_destination",
        ["party", "chain", "address"],
        unique=True,
        schema="custody",
        postgresql_where=sa.text("state IN ('proposed', 'active')"),
    )
    op.create_table(
        "foreign_spend",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("tx_hash", sa.Text, nullable=False),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("nonce", sa.BigInteger),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("block_hash", sa.Text, nullable=False),
        sa.Column("height", sa.BigInteger, nullable=False),
        sa.Column("legs", postgresql.JSONB, nullable=False),
        sa.Column("seen_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_foreign_spend"),
        sa.UniqueConstraint("chain", "tx_hash", name="uq_foreign_spend_chain_tx_hash"),
        schema="custody",
    )

    for statement in (
        PAYOUT_FUNCTION,
        PAYOUT_TRIGGER,
        PAYOUT_ATTEMPT_FUNCTION,
        PAYOUT_ATTEMPT_TRIGGER,
        PAYOUT_NONCE_FUNCTION,
        PAYOUT_NONCE_TRIGGER,
        ALLOWED_DESTINATION_FUNCTION,
        ALLOWED_DESTINATION_TRIGGER,
        PAYOUT_POLICY_FUNCTION,
        PAYOUT_POLICY_TRIGGER,
        FOREIGN_SPEND_FUNCTION,
        FOREIGN_SPEND_TRIGGER,
        SIGNED_BYTES_STAY,
        SIGNED_BYTES_STAY_TRIGGER,
    ):
        op.execute(statement)
    # What was asked for, approved or signed is never written again: only how far it got.
    for table, columns in UPDATABLE.items():
        op.execute(f"GRANT SELECT, INSERT ON custody.{table} TO causeway_app")
        if columns:
            op.execute(f"GRANT UPDATE ({columns}) ON custody.{table} TO causeway_app")


def downgrade() -> None:
    op.drop_table("foreign_spend", schema="custody")
    op.drop_table("allowed_destination", schema="custody")
    op.drop_table("payout_policy", schema="custody")
    op.drop_table("payout_approval", schema="custody")
    op.drop_table("payout_nonce", schema="custody")
    op.drop_table("payout_sender", schema="custody")
    op.drop_table("payout_attempt", schema="custody")
    op.drop_table("payout", schema="custody")
    op.execute("DROP FUNCTION custody.refuse_other_bytes()")
    op.execute("DROP FUNCTION custody.payout_state_edges()")
    op.execute("DROP FUNCTION custody.payout_attempt_state_edges()")
    op.execute("DROP FUNCTION custody.payout_nonce_state_edges()")
    op.execute("DROP FUNCTION custody.allowed_destination_state_edges()")
    op.execute("DROP FUNCTION custody.payout_policy_state_edges()")
    op.execute("DROP FUNCTION custody.foreign_spend_state_edges()")
