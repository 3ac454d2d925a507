"""Carrying payouts out: what a transaction is for, since when a nonce is as it is, cancellation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019_pre_payout_execution"
down_revision: str | None = "0018_pre_payout_control"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)

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


def upgrade() -> None:
    op.drop_constraint(op.f("ck_payout_amounts_positive"), "payout", schema="custody")
    op.create_check_constraint(
        op.f("ck_payout_amounts_positive"),
        "payout",
        "(amount > 0 AND chain_amount > 0)"
        " OR (amount = 0 AND chain_amount = 0 AND claim LIKE 'own:%')",
        schema="custody",
    )
    op.add_column(
        "payout_attempt",
        sa.Column("kind", sa.Text, server_default="pay", nullable=False),
        schema="custody",
    )
    op.create_check_constraint(
        op.f("ck_payout_attempt_kind"),
        "payout_attempt",
        "kind IN ('pay', 'cancel')",
        schema="custody",
    )
    op.add_column("payout_nonce", sa.Column("since", TIMESTAMP, nullable=False), schema="custody")
    op.create_index(
        "ix_payout_nonce_open",
        "payout_nonce",
        ["chain", "sender", "nonce"],
        unique=False,
        schema="custody",
        postgresql_where=sa.text("state != 'spent'"),
    )
    for statement in (
        PAYOUT_FUNCTION,
        PAYOUT_TRIGGER,
        "GRANT UPDATE (since) ON custody.payout_nonce TO causeway_app",
    ):
        op.execute(statement)


def downgrade() -> None:
    op.drop_index("ix_payout_nonce_open", "payout_nonce", schema="custody")
    op.drop_column("payout_nonce", "since", schema="custody")
    op.drop_constraint(op.f("ck_payout_attempt_kind"), "payout_attempt", schema="custody")
    op.drop_column("payout_attempt", "kind", schema="custody")
    op.drop_constraint(op.f("ck_payout_amounts_positive"), "payout", schema="custody")
    op.create_check_constraint(
        op.f("ck_payout_amounts_positive"),
        "payout",
        "amount > 0 AND chain_amount > 0",
        schema="custody",
    )
