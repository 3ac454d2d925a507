"""Receipts against instructions: rules, rounds, returns, fails, defaults."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0048_pre_matching"
down_revision: str | None = "0047_pre_statements"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)
SCHEMA = "settlement"


def receipt_edges(unmatched: str) -> str:
    """Return the function that keeps a receipt's machine; *unmatched*: the edge back, or nothing."""
    return f"""\
CREATE OR REPLACE FUNCTION custody.receipt_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('included') THEN
            RAISE EXCEPTION 'custody.receipt cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'receipt_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('final', 'matched'),
            ('final', 'reversed'),
            ('included', 'final'),
            ('included', 'not_received'),
            ('included', 'orphaned'),
            {unmatched}('matched', 'reversed'),
            ('not_received', 'orphaned'),
            ('orphaned', 'included'),
            ('reversed', 'included')
        ) THEN
            RAISE EXCEPTION 'custody.receipt cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'receipt_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""


UNMATCHED = "('matched', 'final'),\n            "
DEFAULT_FUNCTION = """\
CREATE OR REPLACE FUNCTION settlement.party_default_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('declared') THEN
            RAISE EXCEPTION 'settlement.party_default cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'party_default_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('declared', 'lifted')
        ) THEN
            RAISE EXCEPTION 'settlement.party_default cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'party_default_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
DEFAULT_TRIGGER = (
    "CREATE OR REPLACE TRIGGER party_default_state_edges BEFORE INSERT OR UPDATE ON "
    "settlement.party_default FOR EACH ROW EXECUTE FUNCTION "
    "settlement.party_default_state_edges()"
)
GRANTS = (
    (
        "GRANT UPDATE (undone_by, undone_second, undone_reason) ON settlement.receipt_match "
        "TO causeway_app"
    ),
    "GRANT SELECT, INSERT ON settlement.matching_rules TO causeway_app",
    "GRANT SELECT, INSERT ON settlement.payment_return TO causeway_app",
    "GRANT SELECT, INSERT ON settlement.fail TO causeway_app",
    "GRANT UPDATE (value_date, rolls, cause, cured_at) ON settlement.fail TO causeway_app",
    "GRANT SELECT, INSERT ON settlement.party_default TO causeway_app",
    (
        "GRANT UPDATE (state, lifted_by, lifted_second, lifted_signature, lifted_reason, lifted_at) "
        "ON settlement.party_default TO causeway_app"
    ),
)
BEFORE = "before rounds"
"""Matches of before were made one for each receipt and epoch; nobody noted by which rule."""


def upgrade() -> None:
    _widen_matches()
    _rules()
    _returns()
    _fails()
    _defaults()
    for statement in (receipt_edges(UNMATCHED), DEFAULT_FUNCTION, DEFAULT_TRIGGER, *GRANTS):
        op.execute(statement)


def downgrade() -> None:
    for table in ("party_default", "fail", "payment_return", "matching_rules"):
        op.drop_table(table, schema=SCHEMA)
    op.execute("DROP FUNCTION settlement.party_default_state_edges()")
    op.execute(receipt_edges(""))
    _narrow_matches()


def _widen_matches() -> None:
    table = "receipt_match"
    op.drop_constraint("pk_receipt_match", table, schema=SCHEMA)
    op.drop_constraint("ck_receipt_match_amounts", table, schema=SCHEMA)
    filled = (
        ("id", sa.Uuid(), "gen_random_uuid()"),
        ("round", sa.Integer(), "0"),
        ("rail", sa.Text(), "'evm'"),
        ("charge", UNITS, "0"),
        ("rule", sa.Text(), "'sole'"),
        ("rules_version", sa.Integer(), "0"),
        ("by", sa.Text(), "'system:settlement'"),
        ("reason", sa.Text(), f"'{BEFORE}'"),
    )
    for name, kind, default in filled:
        column = sa.Column(name, kind, nullable=False, server_default=sa.text(default))
        op.add_column(table, column, schema=SCHEMA)
        op.alter_column(table, name, server_default=None, schema=SCHEMA)
    for name in ("second", "undone_by", "undone_second", "undone_reason"):
        op.add_column(table, sa.Column(name, sa.Text()), schema=SCHEMA)
    op.execute(
        "UPDATE settlement.receipt_match SET undone_by = 'system:settlement', "
        f"undone_reason = '{BEFORE}' WHERE undone_at IS NOT NULL"
    )
    op.create_primary_key("pk_receipt_match", table, ["id"], schema=SCHEMA)
    op.create_unique_constraint(
        "uq_receipt_match_receipt_id_epoch_round_instruction_id",
        table,
        ["receipt_id", "epoch", "round", "instruction_id"],
        schema=SCHEMA,
    )
    op.create_index(
        "uq_receipt_match_standing",
        table,
        ["receipt_id", "instruction_id"],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("undone_at IS NULL"),
    )
    for name, rule in (
        ("amounts", "applied > 0 AND excess >= 0 AND charge >= 0"),
        ("by_hand", "(rule = 'by_hand') = (second IS NOT NULL)"),
        ("two_people", "second <> by"),
        ("undone_by_two", "undone_second <> undone_by"),
        ("undone", "(undone_at IS NULL) = (undone_by IS NULL)"),
    ):
        op.create_check_constraint(op.f(f"ck_receipt_match_{name}"), table, rule, schema=SCHEMA)


def _narrow_matches() -> None:
    table = "receipt_match"
    # One row for each receipt and epoch is all that there was room for.
    op.execute(
        "DELETE FROM settlement.receipt_match AS m USING settlement.receipt_match AS n WHERE "
        "m.receipt_id = n.receipt_id AND m.epoch = n.epoch AND "
        "(m.round, m.id) < (n.round, n.id)"
    )
    for name in ("undone", "undone_by_two", "two_people", "by_hand", "amounts"):
        op.drop_constraint(f"ck_receipt_match_{name}", table, schema=SCHEMA)
    op.drop_index("uq_receipt_match_standing", table, schema=SCHEMA)
    op.drop_constraint(
        "uq_receipt_match_receipt_id_epoch_round_instruction_id", table, schema=SCHEMA
    )
    op.drop_constraint("pk_receipt_match", table, schema=SCHEMA)
    columns = ("undone_reason", "undone_second", "undone_by", "second", "reason", "by")
    for name in (*columns, "rules_version", "rule", "charge", "rail", "round", "id"):
        op.drop_column(table, name, schema=SCHEMA)
    op.create_primary_key("pk_receipt_match", table, ["receipt_id", "epoch"], schema=SCHEMA)
    op.create_check_constraint(
        op.f("ck_receipt_match_amounts"), table, "applied > 0 AND excess >= 0", schema=SCHEMA
    )


def _rules() -> None:
    op.create_table(
        "matching_rules",
        sa.Column("version", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("document", postgresql.JSONB, nullable=False),
        sa.Column("entered_by", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_matching_rules"),
        sa.CheckConstraint("entered_by <> approved_by", name="two_people"),
        sa.CheckConstraint("version > 0", name="version"),
        schema=SCHEMA,
    )


def _returns() -> None:
    op.create_table(
        "payment_return",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("item_id", sa.Uuid, nullable=False),
        sa.Column("instruction_id", sa.Uuid, nullable=False),
        sa.Column("obligation_id", sa.Uuid, nullable=False),
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("second", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_payment_return"),
        sa.UniqueConstraint("item_id", name="uq_payment_return_item_id"),
        sa.ForeignKeyConstraint(
            ["instruction_id"],
            ["settlement.instruction.id"],
            name="fk_payment_return_instruction_id_instruction",
        ),
        sa.ForeignKeyConstraint(
            ["obligation_id"],
            ["settlement.obligation.id"],
            name="fk_payment_return_obligation_id_obligation",
        ),
        sa.CheckConstraint("amount > 0", name="positive"),
        sa.CheckConstraint("kind IN ('returned', 'recalled')", name="kind"),
        sa.CheckConstraint("second <> by", name="two_people"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_payment_return_instruction_id", "payment_return", ["instruction_id"], schema=SCHEMA
    )


def _fails() -> None:
    op.create_table(
        "fail",
        sa.Column("instruction_id", sa.Uuid, nullable=False),
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("due_on", sa.Date, nullable=False),
        sa.Column("value_date", sa.Date, nullable=False),
        sa.Column("calendars", sa.Text, nullable=False),
        sa.Column("calendars_version", sa.Text, nullable=False),
        sa.Column("rolls", sa.Integer, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("noticed_at", TIMESTAMP, nullable=False),
        sa.Column("cured_at", TIMESTAMP),
        sa.PrimaryKeyConstraint("instruction_id", name="pk_fail"),
        sa.ForeignKeyConstraint(
            ["instruction_id"],
            ["settlement.instruction.id"],
            name="fk_fail_instruction_id_instruction",
        ),
        sa.CheckConstraint("value_date > due_on", name="rolled"),
        sa.CheckConstraint("rolls >= 0", name="rolls"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_fail_open",
        "fail",
        ["book", "due_on"],
        schema=SCHEMA,
        postgresql_where=sa.text("cured_at IS NULL"),
    )


def _defaults() -> None:
    op.create_table(
        "party_default",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("declared_by", sa.Text, nullable=False),
        sa.Column("second", sa.Text, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("report", postgresql.JSONB, nullable=False),
        sa.Column("report_hash", sa.Text, nullable=False),
        sa.Column("declared_at", TIMESTAMP, nullable=False),
        sa.Column("lifted_by", sa.Text),
        sa.Column("lifted_second", sa.Text),
        sa.Column("lifted_signature", sa.LargeBinary),
        sa.Column("lifted_reason", sa.Text),
        sa.Column("lifted_at", TIMESTAMP),
        sa.PrimaryKeyConstraint("id", name="pk_party_default"),
        sa.CheckConstraint("second <> declared_by", name="two_people"),
        sa.CheckConstraint("lifted_second <> lifted_by", name="lifted_by_two"),
        sa.CheckConstraint(
            "(state = 'lifted') = (lifted_at IS NOT NULL) "
            "AND (lifted_at IS NULL) = (lifted_second IS NULL)",
            name="lifted",
        ),
        schema=SCHEMA,
    )
    op.create_index(
        "uq_party_default_declared",
        "party_default",
        ["book", "party"],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("state = 'declared'"),
    )
