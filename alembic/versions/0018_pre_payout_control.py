"""Control of payouts: freezes, decisions and their facts, signed statements, what is due."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018_pre_payout_control"
down_revision: str | None = "0017_pre_compliance"
branch_labels = None
depends_on = None

SCHEMA = "custody"
TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)

UPDATABLE = {
    "freeze": "state, opened_by, opened_reason, opened_at",
    "payout_decision": "",
    "approval_statement": "",
    "velocity_lane": "asset",
    "receivable_due": "",
}

FREEZE_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.freeze_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('closed') THEN
            RAISE EXCEPTION 'custody.freeze cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'freeze_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('closed', 'open')
        ) THEN
            RAISE EXCEPTION 'custody.freeze cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'freeze_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
FREEZE_TRIGGER = (
    "CREATE OR REPLACE TRIGGER freeze_state_edges BEFORE INSERT OR UPDATE ON custody.freeze "
    "FOR EACH ROW EXECUTE FUNCTION custody.freeze_state_edges()"
)

# Whoever asked never counts: not even if every line of Python above this were wrong.
OWN_APPROVAL = """\
CREATE FUNCTION custody.refuse_own_approval() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM custody.payout p
        WHERE p.id = NEW.payout_id AND p.requested_by = NEW.operator
    ) THEN
        RAISE EXCEPTION '% requested payout % and cannot approve it', NEW.operator, NEW.payout_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'payout_approval_four_eyes';
    END IF;
    RETURN NEW;
END
$$"""
OWN_APPROVAL_TRIGGER = (
    "CREATE TRIGGER payout_approval_four_eyes BEFORE INSERT OR UPDATE ON custody.payout_approval "
    "FOR EACH ROW EXECUTE FUNCTION custody.refuse_own_approval()"
)
KEPT = ("payout_decision", "approval_statement")


def create_control() -> None:
    op.create_table(
        "freeze",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("closed_by", sa.Text, nullable=False),
        sa.Column("closed_signature", sa.LargeBinary),
        sa.Column("closed_reason", sa.Text, nullable=False),
        sa.Column("closed_at", TIMESTAMP, nullable=False),
        sa.Column("opened_by", postgresql.JSONB),
        sa.Column("opened_reason", sa.Text),
        sa.Column("opened_at", TIMESTAMP),
        sa.CheckConstraint(
            "(kind = 'global') = (name = '')", name=op.f("ck_freeze_global_has_no_name")
        ),
        sa.CheckConstraint(
            "closed_signature IS NOT NULL OR closed_by LIKE 'system:%'",
            name=op.f("ck_freeze_closed_by_somebody"),
        ),
        sa.CheckConstraint(
            "(state = 'open') = (opened_at IS NOT NULL) AND (state = 'open') = (opened_by IS NOT NULL)"
            " AND (state = 'open') = (opened_reason IS NOT NULL)",
            name=op.f("ck_freeze_opened_as_a_whole"),
        ),
        sa.PrimaryKeyConstraint("id", name="pk_freeze"),
        schema=SCHEMA,
    )
    op.create_index(
        "uq_freeze_closed",
        "freeze",
        ["kind", "name"],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("state = 'closed'"),
    )
    op.create_table(
        "payout_decision",
        sa.Column("payout_id", sa.Uuid, nullable=False),
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("decided_at", TIMESTAMP, nullable=False),
        sa.Column("policy_version", sa.Integer, nullable=False),
        sa.Column("rule", sa.Integer, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("required", postgresql.JSONB, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("facts", postgresql.JSONB, nullable=False),
        sa.ForeignKeyConstraint(
            ["payout_id"], ["custody.payout.id"], name="fk_payout_decision_payout_id_payout"
        ),
        sa.PrimaryKeyConstraint("payout_id", name="pk_payout_decision"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_payout_decision_at",
        "payout_decision",
        ["book", "decided_at", "number"],
        schema=SCHEMA,
    )
    op.create_table(
        "approval_statement",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("lines", postgresql.JSONB, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_approval_statement"),
        schema=SCHEMA,
    )
    op.create_table(
        "velocity_lane",
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("book", "asset", name="pk_velocity_lane"),
        schema=SCHEMA,
    )
    op.create_table(
        "receivable_due",
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.Column("due_at", TIMESTAMP, nullable=False),
        sa.CheckConstraint("amount > 0", name=op.f("ck_receivable_due_amount_positive")),
        sa.PrimaryKeyConstraint("book", "reference", name="pk_receivable_due"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_receivable_due_party",
        "receivable_due",
        ["book", "party", "asset", "due_at"],
        schema=SCHEMA,
    )


def widen_payouts() -> None:
    for column in (
        sa.Column("rule", sa.Integer, server_default="0", nullable=False),
        sa.Column("required", postgresql.JSONB, server_default="[]", nullable=False),
        sa.Column("party", sa.Text),
        sa.Column("destination_id", sa.Uuid),
        sa.Column("requested_expiry", TIMESTAMP),
        sa.Column("released_at", TIMESTAMP),
    ):
        op.add_column("payout", column, schema=SCHEMA)
    op.create_foreign_key(
        "fk_payout_destination_id_allowed_destination",
        "payout",
        "allowed_destination",
        ["destination_id"],
        ["id"],
        source_schema=SCHEMA,
        referent_schema=SCHEMA,
    )
    op.create_check_constraint(
        op.f("ck_payout_released_at_a_time"),
        "payout",
        "state NOT IN ('rejected', 'cancelled', 'expired', 'failed_on_chain')"
        " OR released_at IS NOT NULL",
        schema=SCHEMA,
    )
    op.create_index(
        "uq_payout_party_ref",
        "payout",
        ["book", "party", "client_ref"],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("party IS NOT NULL"),
    )
    for name, columns in (
        ("ix_payout_velocity", ["book", "asset", "created_at"]),
        ("ix_payout_velocity_party", ["book", "party", "asset", "created_at"]),
    ):
        op.create_index(
            name,
            "payout",
            columns,
            schema=SCHEMA,
            postgresql_include=["amount", "claim", "released_at"],
        )
    op.create_index(
        "ix_payout_expiry",
        "payout",
        ["expires_at"],
        schema=SCHEMA,
        postgresql_where=sa.text(
            "state IN ('requested', 'reserved', 'pending_approval', 'approved')"
        ),
    )


def split_approvals() -> None:
    op.drop_column("payout_approval", "signature", schema=SCHEMA)
    op.drop_column("payout_approval", "lines", schema=SCHEMA)
    op.add_column(
        "payout_approval", sa.Column("statement_id", sa.Uuid, nullable=False), schema=SCHEMA
    )
    op.create_foreign_key(
        "fk_payout_approval_statement_id_approval_statement",
        "payout_approval",
        "approval_statement",
        ["statement_id"],
        ["id"],
        source_schema=SCHEMA,
        referent_schema=SCHEMA,
    )


def widen_rules() -> None:
    op.alter_column("payout_policy", "rules", new_column_name="document", schema=SCHEMA)
    op.add_column(
        "payout_policy",
        sa.Column("proposal_signature", sa.LargeBinary, nullable=False),
        schema=SCHEMA,
    )
    for column in (
        sa.Column("chain_id", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("look", sa.Text, nullable=False),
        sa.Column("acknowledged", postgresql.JSONB, nullable=False),
        sa.Column("proposal_signature", sa.LargeBinary, nullable=False),
        sa.Column("code_hash", sa.Text),
        sa.Column("code_checked_at", TIMESTAMP),
        sa.Column("return_tx", sa.Text),
        sa.Column("returned_at", TIMESTAMP),
        sa.Column("approved_at", TIMESTAMP),
        sa.Column("revoked_by", sa.Text),
        sa.Column("revoke_signature", sa.LargeBinary),
    ):
        op.add_column("allowed_destination", column, schema=SCHEMA)
    for name, condition in (
        ("kind", "kind IN ('eoa', 'contract')"),
        (
            "contract_proved",
            "state <> 'active' OR kind = 'eoa' OR (code_hash IS NOT NULL AND return_tx IS NOT NULL)",
        ),
        (
            "revoked_by_somebody",
            "state <> 'revoked' OR (revoked_by IS NOT NULL AND revoke_signature IS NOT NULL)",
        ),
    ):
        op.create_check_constraint(
            op.f(f"ck_allowed_destination_{name}"), "allowed_destination", condition, schema=SCHEMA
        )
    op.create_index("ix_allowed_destination_look", "allowed_destination", ["look"], schema=SCHEMA)


def grant() -> None:
    for table, columns in UPDATABLE.items():
        op.execute(f"GRANT SELECT, INSERT ON custody.{table} TO causeway_app")
        if columns:
            op.execute(f"GRANT UPDATE ({columns}) ON custody.{table} TO causeway_app")
    op.execute("GRANT UPDATE (released_at) ON custody.payout TO causeway_app")
    op.execute(
        "GRANT UPDATE (code_hash, code_checked_at, return_tx, returned_at, approved_at,"
        " revoked_by, revoke_signature) ON custody.allowed_destination TO causeway_app"
    )


def upgrade() -> None:
    create_control()
    widen_payouts()
    split_approvals()
    widen_rules()
    for statement in (FREEZE_FUNCTION, FREEZE_TRIGGER, OWN_APPROVAL, OWN_APPROVAL_TRIGGER):
        op.execute(statement)
    for table in KEPT:
        op.execute(
            f"CREATE TRIGGER {table}_kept BEFORE UPDATE OR DELETE OR TRUNCATE "
            f"ON custody.{table} FOR EACH STATEMENT EXECUTE FUNCTION custody.keep_rows()"
        )
    grant()


def downgrade() -> None:
    op.execute("DROP TRIGGER payout_approval_four_eyes ON custody.payout_approval")
    op.execute("DROP FUNCTION custody.refuse_own_approval()")
    op.drop_index("ix_allowed_destination_look", "allowed_destination", schema=SCHEMA)
    for name in ("kind", "contract_proved", "revoked_by_somebody"):
        op.drop_constraint(
            op.f(f"ck_allowed_destination_{name}"), "allowed_destination", schema=SCHEMA
        )
    for column in (
        *("chain_id", "kind", "look", "acknowledged", "proposal_signature", "code_hash"),
        *("code_checked_at", "return_tx", "returned_at", "approved_at"),
        *("revoked_by", "revoke_signature"),
    ):
        op.drop_column("allowed_destination", column, schema=SCHEMA)
    op.drop_column("payout_policy", "proposal_signature", schema=SCHEMA)
    op.alter_column("payout_policy", "document", new_column_name="rules", schema=SCHEMA)
    op.drop_column("payout_approval", "statement_id", schema=SCHEMA)
    op.add_column(
        "payout_approval", sa.Column("signature", sa.LargeBinary, nullable=False), schema=SCHEMA
    )
    op.add_column(
        "payout_approval", sa.Column("lines", postgresql.JSONB, nullable=False), schema=SCHEMA
    )
    op.drop_constraint(op.f("ck_payout_released_at_a_time"), "payout", schema=SCHEMA)
    for name in (
        *("uq_payout_party_ref", "ix_payout_velocity"),
        *("ix_payout_velocity_party", "ix_payout_expiry"),
    ):
        op.drop_index(name, "payout", schema=SCHEMA)
    for column in (
        *("rule", "required", "party", "destination_id", "requested_expiry", "released_at"),
    ):
        op.drop_column("payout", column, schema=SCHEMA)
    for table in ("receivable_due", "velocity_lane", "approval_statement", "payout_decision"):
        op.drop_table(table, schema=SCHEMA)
    op.drop_table("freeze", schema=SCHEMA)
    op.execute("DROP FUNCTION custody.freeze_state_edges()")
