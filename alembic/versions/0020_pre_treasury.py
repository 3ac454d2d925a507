"""Treasury: bands, sweeps and differences."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020_pre_treasury"
down_revision: str | None = "0019_pre_payout_execution"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)

UPDATABLE = {
    "rebalance_rules": "state, approved_by, signature",
    "rebalance_window": "",
    "rebalance_proposal": "state, payout_id, detail",
    "reconciliation": "",
    "reconciliation_item": "",
    "difference": "amount, state, first_height, first_block, last_height, last_block, seen_at, detail",
    "signing_stop": "state, lifted_at",
    "token_pin": "read_at, trouble",
}

REBALANCE_RULES_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.rebalance_rules_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('proposed') THEN
            RAISE EXCEPTION 'custody.rebalance_rules cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'rebalance_rules_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('active', 'revoked'),
            ('proposed', 'active'),
            ('proposed', 'rejected')
        ) THEN
            RAISE EXCEPTION 'custody.rebalance_rules cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'rebalance_rules_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
REBALANCE_RULES_TRIGGER = (
    "CREATE OR REPLACE TRIGGER rebalance_rules_state_edges BEFORE INSERT OR UPDATE ON custody.rebalance_rules "
    "FOR EACH ROW EXECUTE FUNCTION custody.rebalance_rules_state_edges()"
)
REBALANCE_PROPOSAL_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.rebalance_proposal_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('proposed') THEN
            RAISE EXCEPTION 'custody.rebalance_proposal cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'rebalance_proposal_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('proposed', 'carried_out'),
            ('proposed', 'dismissed'),
            ('proposed', 'lapsed'),
            ('proposed', 'refused'),
            ('proposed', 'requested')
        ) THEN
            RAISE EXCEPTION 'custody.rebalance_proposal cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'rebalance_proposal_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
REBALANCE_PROPOSAL_TRIGGER = (
    "CREATE OR REPLACE TRIGGER rebalance_proposal_state_edges BEFORE INSERT OR UPDATE ON custody.rebalance_proposal "
    "FOR EACH ROW EXECUTE FUNCTION custody.rebalance_proposal_state_edges()"
)
DIFFERENCE_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.difference_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('open') THEN
            RAISE EXCEPTION 'custody.difference cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'difference_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('open', 'closed')
        ) THEN
            RAISE EXCEPTION 'custody.difference cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'difference_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
DIFFERENCE_TRIGGER = (
    "CREATE OR REPLACE TRIGGER difference_state_edges BEFORE INSERT OR UPDATE ON custody.difference "
    "FOR EACH ROW EXECUTE FUNCTION custody.difference_state_edges()"
)
SIGNING_STOP_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.signing_stop_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('open') THEN
            RAISE EXCEPTION 'custody.signing_stop cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'signing_stop_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('open', 'lifted')
        ) THEN
            RAISE EXCEPTION 'custody.signing_stop cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'signing_stop_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
SIGNING_STOP_TRIGGER = (
    "CREATE OR REPLACE TRIGGER signing_stop_state_edges BEFORE INSERT OR UPDATE ON custody.signing_stop "
    "FOR EACH ROW EXECUTE FUNCTION custody.signing_stop_state_edges()"
)


def upgrade() -> None:
    op.create_table(
        "rebalance_rules",
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rules", postgresql.JSONB, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("proposed_by", sa.Text(), nullable=False),
        sa.Column("proposed_at", TIMESTAMP, nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column("signature", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint(
            "state IN ('proposed', 'rejected') OR (approved_by IS NOT NULL AND signature IS NOT NULL)",
            name=op.f("ck_rebalance_rules_approved_by_somebody"),
        ),
        sa.CheckConstraint("approved_by <> proposed_by", name=op.f("ck_rebalance_rules_four_eyes")),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_rebalance_rules")),
        schema="custody",
    )
    op.create_index(
        "uq_rebalance_rules_active",
        "rebalance_rules",
        ["state"],
        unique=True,
        schema="custody",
        postgresql_where=sa.text("state = 'active'"),
    )
    op.create_table(
        "rebalance_window",
        sa.Column("book", sa.Integer(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("rules_version", sa.Integer(), nullable=False),
        sa.Column("window", TIMESTAMP, nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("block_hash", sa.Text(), nullable=False),
        sa.Column("planned_at", TIMESTAMP, nullable=False),
        sa.Column("left_over", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(
            "book", "chain", "rules_version", "window", name=op.f("pk_rebalance_window")
        ),
        schema="custody",
    )
    op.create_table(
        "rebalance_proposal",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("book", sa.Integer(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("rules_version", sa.Integer(), nullable=False),
        sa.Column("window", TIMESTAMP, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("wallet", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("to_wallet", sa.Text(), nullable=False),
        sa.Column("to_address", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("by_hand", sa.Boolean(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("expires_at", TIMESTAMP, nullable=False),
        sa.Column("payout_id", sa.Uuid(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "(state = 'requested') = (payout_id IS NOT NULL)",
            name=op.f("ck_rebalance_proposal_requested"),
        ),
        sa.CheckConstraint(
            "NOT (by_hand AND state = 'requested')", name=op.f("ck_rebalance_proposal_by_hand")
        ),
        sa.CheckConstraint("amount > 0", name=op.f("ck_rebalance_proposal_amount_positive")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rebalance_proposal")),
        sa.UniqueConstraint(
            "book",
            "chain",
            "rules_version",
            "window",
            "kind",
            "asset",
            "address",
            "to_address",
            name=op.f(
                "uq_rebalance_proposal_book_chain_rules_version_window_kind_asset_address_to_address"
            ),
        ),
        schema="custody",
    )
    op.create_index(
        "ix_rebalance_proposal_open",
        "rebalance_proposal",
        ["book", "chain", "window"],
        unique=False,
        schema="custody",
        postgresql_where=sa.text("state = 'proposed'"),
    )
    op.create_table(
        "reconciliation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("book", sa.Integer(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("block_hash", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("addresses", sa.Integer(), nullable=False),
        sa.Column("figures", postgresql.JSONB, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.CheckConstraint(
            "result IN ('clean', 'different')", name=op.f("ck_reconciliation_result")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconciliation")),
        schema="custody",
    )
    op.create_index(
        "ix_reconciliation_at",
        "reconciliation",
        ["book", "chain", "at"],
        unique=False,
        schema="custody",
    )
    op.create_table(
        "reconciliation_item",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("wallet", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("contract", sa.Text(), nullable=True),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("books", UNITS, nullable=False),
        sa.Column("chain_amount", UNITS, nullable=False),
        sa.Column("explanations", postgresql.JSONB, nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["custody.reconciliation.id"],
            name=op.f("fk_reconciliation_item_run_id_reconciliation"),
        ),
        sa.PrimaryKeyConstraint("run_id", "number", name=op.f("pk_reconciliation_item")),
        schema="custody",
    )
    op.create_table(
        "difference",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("book", sa.Integer(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("wallet", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("opened_at", TIMESTAMP, nullable=False),
        sa.Column("opened_height", sa.BigInteger(), nullable=False),
        sa.Column("first_height", sa.BigInteger(), nullable=False),
        sa.Column("first_block", sa.Text(), nullable=False),
        sa.Column("last_height", sa.BigInteger(), nullable=False),
        sa.Column("last_block", sa.Text(), nullable=False),
        sa.Column("seen_at", TIMESTAMP, nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.CheckConstraint("amount <> 0", name=op.f("ck_difference_amount")),
        sa.CheckConstraint("first_height <= last_height", name=op.f("ck_difference_heights")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_difference")),
        schema="custody",
    )
    op.create_index(
        "uq_difference_open",
        "difference",
        ["book", "chain", "wallet", "asset", "address"],
        unique=True,
        schema="custody",
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_table(
        "signing_stop",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("wallet", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", TIMESTAMP, nullable=False),
        sa.Column("lifted_at", TIMESTAMP, nullable=True),
        sa.CheckConstraint(
            "(state = 'open') = (lifted_at IS NULL)", name=op.f("ck_signing_stop_lifted_at")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signing_stop")),
        schema="custody",
    )
    op.create_index(
        "uq_signing_stop_open",
        "signing_stop",
        ["wallet", "asset"],
        unique=True,
        schema="custody",
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_table(
        "token_pin",
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("decimals", sa.Integer(), nullable=False),
        sa.Column("code_hash", sa.Text(), nullable=False),
        sa.Column("implementation", sa.Text(), nullable=False),
        sa.Column("pinned_at", TIMESTAMP, nullable=False),
        sa.Column("read_at", TIMESTAMP, nullable=False),
        sa.Column("trouble", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("chain", "contract", name=op.f("pk_token_pin")),
        schema="custody",
    )
    for statement in (
        REBALANCE_RULES_FUNCTION,
        REBALANCE_RULES_TRIGGER,
        REBALANCE_PROPOSAL_FUNCTION,
        REBALANCE_PROPOSAL_TRIGGER,
        DIFFERENCE_FUNCTION,
        DIFFERENCE_TRIGGER,
        SIGNING_STOP_FUNCTION,
        SIGNING_STOP_TRIGGER,
    ):
        op.execute(statement)
    # What was proposed, found or pinned is never written again: only how far it got.
    for table, columns in UPDATABLE.items():
        op.execute(f"GRANT SELECT, INSERT ON custody.{table} TO causeway_app")
        if columns:
            op.execute(f"GRANT UPDATE ({columns}) ON custody.{table} TO causeway_app")


def downgrade() -> None:
    op.drop_table("token_pin", schema="custody")
    op.drop_table("signing_stop", schema="custody")
    op.drop_table("difference", schema="custody")
    op.drop_table("reconciliation_item", schema="custody")
    op.drop_table("reconciliation", schema="custody")
    op.drop_table("rebalance_proposal", schema="custody")
    op.drop_table("rebalance_window", schema="custody")
    op.drop_table("rebalance_rules", schema="custody")
    op.execute("DROP FUNCTION custody.rebalance_rules_state_edges()")
    op.execute("DROP FUNCTION custody.rebalance_proposal_state_edges()")
    op.execute("DROP FUNCTION custody.difference_state_edges()")
    op.execute("DROP FUNCTION custody.signing_stop_state_edges()")
