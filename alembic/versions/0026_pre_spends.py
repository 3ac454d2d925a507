"""Transactions of Bitcoin that carry payouts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0026_pre_spends"
down_revision: str | None = "0025_pre_coins"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)

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
            ('allocated', 'approved'),
            ('allocated', 'rejected'),
            ('allocated', 'security_hold'),
            ('allocated', 'signed'),
            ('approved', 'allocated'),
            ('approved', 'cancelled'),
            ('approved', 'expired'),
            ('approved', 'rejected'),
            ('cancelled', 'security_hold'),
            ('cancelling', 'mined'),
            ('cancelling', 'security_hold'),
            ('cancelling', 'signed'),
            ('confirmed', 'cancelling'),
            ('confirmed', 'signed'),
            ('failed_on_chain', 'security_hold'),
            ('mined', 'cancelled'),
            ('mined', 'cancelling'),
            ('mined', 'confirmed'),
            ('mined', 'failed_on_chain'),
            ('mined', 'signed'),
            ('pending_approval', 'approved'),
            ('pending_approval', 'cancelled'),
            ('pending_approval', 'expired'),
            ('pending_approval', 'rejected'),
            ('requested', 'allocated'),
            ('requested', 'cancelled'),
            ('requested', 'expired'),
            ('requested', 'rejected'),
            ('requested', 'reserved'),
            ('reserved', 'cancelled'),
            ('reserved', 'expired'),
            ('reserved', 'pending_approval'),
            ('reserved', 'rejected'),
            ('security_hold', 'allocated'),
            ('security_hold', 'cancelling'),
            ('security_hold', 'failed_on_chain'),
            ('security_hold', 'mined'),
            ('security_hold', 'signed'),
            ('signed', 'cancelling'),
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
SPEND_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.spend_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('allocated') THEN
            RAISE EXCEPTION 'custody.spend cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'spend_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('allocated', 'dropped'),
            ('allocated', 'security_hold'),
            ('allocated', 'signed'),
            ('cancelling', 'mined'),
            ('cancelling', 'security_hold'),
            ('cancelling', 'signed'),
            ('final', 'cancelling'),
            ('final', 'security_hold'),
            ('final', 'signed'),
            ('mined', 'cancelling'),
            ('mined', 'final'),
            ('mined', 'signed'),
            ('security_hold', 'allocated'),
            ('security_hold', 'cancelling'),
            ('security_hold', 'dropped'),
            ('security_hold', 'mined'),
            ('security_hold', 'signed'),
            ('signed', 'cancelling'),
            ('signed', 'mined'),
            ('signed', 'security_hold')
        ) THEN
            RAISE EXCEPTION 'custody.spend cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'spend_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
SPEND_TRIGGER = (
    "CREATE OR REPLACE TRIGGER spend_state_edges BEFORE INSERT OR UPDATE ON custody.spend "
    "FOR EACH ROW EXECUTE FUNCTION custody.spend_state_edges()"
)
SPEND_ATTEMPT_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.spend_attempt_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('built') THEN
            RAISE EXCEPTION 'custody.spend_attempt cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'spend_attempt_state_edges';
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
            RAISE EXCEPTION 'custody.spend_attempt cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'spend_attempt_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
SPEND_ATTEMPT_TRIGGER = (
    "CREATE OR REPLACE TRIGGER spend_attempt_state_edges BEFORE INSERT OR UPDATE ON custody.spend_attempt "
    "FOR EACH ROW EXECUTE FUNCTION custody.spend_attempt_state_edges()"
)

GRANTS = (
    (
        "GRANT SELECT, INSERT ON custody.spend, custody.spend_attempt, custody.spend_payout"
        " TO causeway_app"
    ),
    (
        "GRANT UPDATE (state, attempt, fee_cap, change_address, change_path, run_after, tx_id,"
        " mined_height, mined_block, fee_paid, succeeded, claims_returned, waiting_for,"
        " lease_holder, lease_until, fence) ON custody.spend TO causeway_app"
    ),
    # Bytes are written once, by whoever had them signed; nobody deletes an attempt.
    (
        "GRANT UPDATE (state, raw, broadcasts, last_broadcast_at, detail, asked_at, signed_at)"
        " ON custody.spend_attempt TO causeway_app"
    ),
    "GRANT UPDATE (output, live) ON custody.spend_payout TO causeway_app",
)


def upgrade() -> None:
    """Make the tables of spends, of their attempts and of what they carry."""
    create_spend()
    create_spend_attempt()
    create_spend_payout()
    for statement in (
        PAYOUT_FUNCTION,
        PAYOUT_TRIGGER,
        SPEND_FUNCTION,
        SPEND_TRIGGER,
        SPEND_ATTEMPT_FUNCTION,
        SPEND_ATTEMPT_TRIGGER,
        *GRANTS,
    ):
        op.execute(statement)


def create_spend() -> None:
    """Make the table of spends."""
    op.create_table(
        "spend",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("chain_id", sa.BigInteger, nullable=False),
        sa.Column("wallet", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("anchor_tx", sa.Text, nullable=False),
        sa.Column("anchor_index", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("fee_cap", UNITS, nullable=False),
        sa.Column("change_address", sa.Text),
        sa.Column("change_path", sa.Text),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.Column("run_after", TIMESTAMP, nullable=False),
        sa.Column("tx_id", sa.Text),
        sa.Column("mined_height", sa.BigInteger),
        sa.Column("mined_block", sa.Text),
        sa.Column("fee_paid", UNITS),
        sa.Column("succeeded", sa.Boolean),
        sa.Column("claims_returned", sa.Boolean, nullable=False),
        sa.Column("waiting_for", sa.Text, nullable=False),
        sa.Column("lease_holder", sa.Text),
        sa.Column("lease_until", TIMESTAMP),
        sa.Column("fence", sa.Integer, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_spend")),
        sa.CheckConstraint("fee_cap > 0 AND attempt > 0", name=op.f("ck_spend_amounts")),
        sa.CheckConstraint(
            "(change_address IS NULL) = (change_path IS NULL)",
            name=op.f("ck_spend_change_as_a_whole"),
        ),
        sa.CheckConstraint(
            "(tx_id IS NULL) = (mined_block IS NULL)"
            " AND (tx_id IS NULL) = (mined_height IS NULL)"
            " AND (tx_id IS NULL) = (fee_paid IS NULL)"
            " AND (tx_id IS NULL) = (succeeded IS NULL)",
            name=op.f("ck_spend_mined_as_a_whole"),
        ),
        sa.CheckConstraint(
            "(tx_id IS NOT NULL) = (state IN ('mined', 'final'))",
            name=op.f("ck_spend_mined_in_a_block"),
        ),
        schema="custody",
    )
    op.create_index("ix_spend_state", "spend", ["chain", "state", "run_after"], schema="custody")
    op.create_index("ix_spend_block", "spend", ["mined_block"], schema="custody")


def create_spend_attempt() -> None:
    """Make the table of transactions."""
    op.create_table(
        "spend_attempt",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("spend_id", sa.Uuid, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("tx_id", sa.Text, nullable=False),
        sa.Column("unsigned", sa.LargeBinary, nullable=False),
        sa.Column("coins", postgresql.JSONB, nullable=False),
        sa.Column("change", UNITS, nullable=False),
        sa.Column("fee", UNITS, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("raw", sa.LargeBinary),
        sa.Column("broadcasts", sa.Integer, nullable=False),
        sa.Column("last_broadcast_at", TIMESTAMP),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("built_at", TIMESTAMP, nullable=False),
        sa.Column("asked_at", TIMESTAMP),
        sa.Column("signed_at", TIMESTAMP),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_spend_attempt")),
        sa.ForeignKeyConstraint(
            ["spend_id"], ["custody.spend.id"], name=op.f("fk_spend_attempt_spend_id_spend")
        ),
        sa.UniqueConstraint("spend_id", "number", name=op.f("uq_spend_attempt_spend_id_number")),
        sa.CheckConstraint("kind IN ('pay', 'cancel')", name=op.f("ck_spend_attempt_kind")),
        sa.CheckConstraint("fee > 0 AND weight > 0", name=op.f("ck_spend_attempt_amounts")),
        sa.CheckConstraint(
            "state IN ('built', 'superseded') OR (raw IS NOT NULL AND signed_at IS NOT NULL)",
            name=op.f("ck_spend_attempt_signed_bytes_stored"),
        ),
        schema="custody",
    )
    op.create_index(
        "uq_spend_attempt_signed",
        "spend_attempt",
        ["chain", "tx_id"],
        unique=True,
        schema="custody",
        postgresql_where=sa.text("raw IS NOT NULL"),
    )
    op.create_index("ix_spend_attempt_tx", "spend_attempt", ["chain", "tx_id"], schema="custody")


def create_spend_payout() -> None:
    """Make the table of what spends carry."""
    op.create_table(
        "spend_payout",
        sa.Column("spend_id", sa.Uuid, nullable=False),
        sa.Column("payout_id", sa.Uuid, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("output", sa.Integer),
        sa.Column("live", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.PrimaryKeyConstraint("spend_id", "payout_id", name=op.f("pk_spend_payout")),
        sa.ForeignKeyConstraint(
            ["spend_id"], ["custody.spend.id"], name=op.f("fk_spend_payout_spend_id_spend")
        ),
        sa.ForeignKeyConstraint(
            ["payout_id"], ["custody.payout.id"], name=op.f("fk_spend_payout_payout_id_payout")
        ),
        sa.CheckConstraint("weight > 0", name=op.f("ck_spend_payout_weight")),
        schema="custody",
    )
    op.create_index(
        "uq_spend_payout_live",
        "spend_payout",
        ["payout_id"],
        unique=True,
        schema="custody",
        postgresql_where=sa.text("live"),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("spend_payout", schema="custody")
    op.drop_table("spend_attempt", schema="custody")
    op.drop_table("spend", schema="custody")
    op.execute("DROP FUNCTION custody.spend_state_edges()")
    op.execute("DROP FUNCTION custody.spend_attempt_state_edges()")
