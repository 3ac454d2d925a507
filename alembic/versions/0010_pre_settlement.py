"""Obligations, netting agreements, runs with their calculations, instructions, matches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010_pre_settlement"
down_revision: str | None = "0009_pre_trading"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)

OBLIGATION_FUNCTION = """\
CREATE OR REPLACE FUNCTION settlement.obligation_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('open') THEN
            RAISE EXCEPTION 'settlement.obligation cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'obligation_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('affirmed', 'calculated'),
            ('affirmed', 'disputed'),
            ('affirmed', 'sealed'),
            ('calculated', 'affirmed'),
            ('calculated', 'disputed'),
            ('disputed', 'open'),
            ('disputed', 'withdrawn'),
            ('open', 'calculated'),
            ('open', 'withdrawn'),
            ('sealed', 'discharged'),
            ('withdrawn', 'open')
        ) THEN
            RAISE EXCEPTION 'settlement.obligation cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'obligation_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
OBLIGATION_TRIGGER = (
    "CREATE OR REPLACE TRIGGER obligation_state_edges BEFORE INSERT OR UPDATE ON settlement.obligation "
    "FOR EACH ROW EXECUTE FUNCTION settlement.obligation_state_edges()"
)
RUN_FUNCTION = """\
CREATE OR REPLACE FUNCTION settlement.run_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('calculated') THEN
            RAISE EXCEPTION 'settlement.run cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'run_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('affirmed', 'calculated'),
            ('affirmed', 'empty'),
            ('affirmed', 'sealed'),
            ('calculated', 'affirmed'),
            ('calculated', 'empty'),
            ('final', 'released'),
            ('released', 'final'),
            ('sealed', 'released')
        ) THEN
            RAISE EXCEPTION 'settlement.run cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'run_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
RUN_TRIGGER = (
    "CREATE OR REPLACE TRIGGER run_state_edges BEFORE INSERT OR UPDATE ON settlement.run "
    "FOR EACH ROW EXECUTE FUNCTION settlement.run_state_edges()"
)
INSTRUCTION_FUNCTION = """\
CREATE OR REPLACE FUNCTION settlement.instruction_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('planned') THEN
            RAISE EXCEPTION 'settlement.instruction cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'instruction_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('failed', 'rescheduled'),
            ('final', 'released'),
            ('funded', 'released'),
            ('planned', 'funded'),
            ('planned', 'released'),
            ('released', 'failed'),
            ('released', 'final'),
            ('rescheduled', 'funded'),
            ('rescheduled', 'released')
        ) THEN
            RAISE EXCEPTION 'settlement.instruction cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'instruction_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
INSTRUCTION_TRIGGER = (
    "CREATE OR REPLACE TRIGGER instruction_state_edges BEFORE INSERT OR UPDATE ON settlement.instruction "
    "FOR EACH ROW EXECUTE FUNCTION settlement.instruction_state_edges()"
)


def upgrade() -> None:
    op.execute("CREATE SCHEMA settlement")
    op.create_table(
        "agreement",
        sa.Column("party", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("effective_from", sa.Date(), nullable=False),
        sa.Column("prefunded", sa.Boolean(), nullable=False),
        sa.Column("agreed_by", sa.Text(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=False),
        sa.Column("document_hash", sa.Text(), nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.CheckConstraint("agreed_by <> approved_by", name=op.f("ck_agreement_two_people")),
        sa.PrimaryKeyConstraint("party", name=op.f("pk_agreement")),
        schema="settlement",
    )
    op.create_table(
        "run",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("book", sa.SmallInteger(), nullable=False),
        sa.Column("value_date", sa.Date(), nullable=False),
        sa.Column("window", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
        sa.UniqueConstraint(
            "book", "value_date", "window", name=op.f("uq_run_book_value_date_window")
        ),
        schema="settlement",
    )
    op.create_table(
        "standing_instruction",
        sa.Column("party", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("rail", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("proposed_by", sa.Text(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.CheckConstraint(
            "proposed_by <> approved_by", name=op.f("ck_standing_instruction_two_people")
        ),
        sa.PrimaryKeyConstraint(
            "party", "asset", "rail", "version", name=op.f("pk_standing_instruction")
        ),
        schema="settlement",
    )
    op.create_table(
        "affirmation",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("party", sa.Text(), nullable=False),
        sa.Column("entered_by", sa.Text(), nullable=False),
        sa.Column("witnessed_by", sa.Text(), nullable=False),
        sa.Column("evidence_hash", sa.Text(), nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.CheckConstraint("entered_by <> witnessed_by", name=op.f("ck_affirmation_two_people")),
        sa.ForeignKeyConstraint(
            ["run_id"], ["settlement.run.id"], name=op.f("fk_affirmation_run_id_run")
        ),
        sa.PrimaryKeyConstraint("run_id", "version", "party", name=op.f("pk_affirmation")),
        schema="settlement",
    )
    op.create_table(
        "calculation",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("input_hash", sa.Text(), nullable=False),
        sa.Column("inputs", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("items", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["settlement.run.id"], name=op.f("fk_calculation_run_id_run")
        ),
        sa.PrimaryKeyConstraint("run_id", "version", name=op.f("pk_calculation")),
        schema="settlement",
    )
    op.create_table(
        "instruction",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("book", sa.SmallInteger(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("party", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.Column("applied", UNITS, server_default="0", nullable=False),
        sa.Column("rail", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="1", nullable=False),
        sa.Column("payout_id", sa.Uuid(), nullable=True),
        sa.Column("standing_version", sa.Integer(), nullable=True),
        sa.Column("hold_id", sa.Uuid(), nullable=True),
        sa.Column("evidence", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.CheckConstraint("amount > 0", name=op.f("ck_instruction_positive")),
        sa.CheckConstraint(
            "applied >= 0 AND applied <= amount", name=op.f("ck_instruction_applied")
        ),
        sa.CheckConstraint(
            "state <> 'final' OR applied = amount", name=op.f("ck_instruction_final_in_full")
        ),
        sa.CheckConstraint(
            "direction IN ('pay', 'receive')", name=op.f("ck_instruction_direction")
        ),
        sa.CheckConstraint("rail IN ('evm', 'book')", name=op.f("ck_instruction_rail")),
        sa.ForeignKeyConstraint(
            ["run_id"], ["settlement.run.id"], name=op.f("fk_instruction_run_id_run")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instruction")),
        sa.UniqueConstraint("hold_id", name=op.f("uq_instruction_hold_id")),
        sa.UniqueConstraint("payout_id", name=op.f("uq_instruction_payout_id")),
        schema="settlement",
    )
    op.create_index(
        "ix_instruction_run_id", "instruction", ["run_id"], unique=False, schema="settlement"
    )
    op.create_index(
        "ix_instruction_released",
        "instruction",
        ["book"],
        unique=False,
        schema="settlement",
        postgresql_where=sa.text("state = 'released'"),
    )
    op.create_table(
        "obligation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("book", sa.SmallInteger(), nullable=False),
        sa.Column("deal_id", sa.Uuid(), nullable=False),
        sa.Column("leg", sa.Text(), nullable=False),
        sa.Column("party", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("value_date", sa.Date(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.CheckConstraint("direction IN ('pay', 'receive')", name=op.f("ck_obligation_direction")),
        sa.CheckConstraint("amount > 0", name=op.f("ck_obligation_positive")),
        sa.ForeignKeyConstraint(
            ["run_id"], ["settlement.run.id"], name=op.f("fk_obligation_run_id_run")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_obligation")),
        sa.UniqueConstraint("deal_id", "leg", name=op.f("uq_obligation_deal_id_leg")),
        schema="settlement",
    )
    op.create_index(
        "ix_obligation_open",
        "obligation",
        ["book", "value_date"],
        unique=False,
        schema="settlement",
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index(
        "ix_obligation_run_id", "obligation", ["run_id"], unique=False, schema="settlement"
    )
    op.create_table(
        "receipt_match",
        sa.Column("receipt_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("instruction_id", sa.Uuid(), nullable=False),
        sa.Column("applied", UNITS, nullable=False),
        sa.Column("excess", UNITS, nullable=False),
        sa.Column("first_seen_at", TIMESTAMP, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.Column("undone_at", TIMESTAMP, nullable=True),
        sa.CheckConstraint("applied > 0 AND excess >= 0", name=op.f("ck_receipt_match_amounts")),
        sa.ForeignKeyConstraint(
            ["instruction_id"],
            ["settlement.instruction.id"],
            name=op.f("fk_receipt_match_instruction_id_instruction"),
        ),
        sa.PrimaryKeyConstraint("receipt_id", "epoch", name=op.f("pk_receipt_match")),
        schema="settlement",
    )
    op.create_index(
        "ix_receipt_match_instruction_id",
        "receipt_match",
        ["instruction_id"],
        unique=False,
        schema="settlement",
    )

    for statement in (
        OBLIGATION_FUNCTION,
        OBLIGATION_TRIGGER,
        RUN_FUNCTION,
        RUN_TRIGGER,
        INSTRUCTION_FUNCTION,
        INSTRUCTION_TRIGGER,
        "GRANT USAGE ON SCHEMA settlement TO causeway_app",
        "GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA settlement TO causeway_app",
        (
            "GRANT UPDATE ON settlement.agreement, settlement.obligation, settlement.run, "
            "settlement.instruction TO causeway_app"
        ),
        "GRANT UPDATE (undone_at) ON settlement.receipt_match TO causeway_app",
    ):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP SCHEMA settlement CASCADE")
