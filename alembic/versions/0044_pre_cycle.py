"""The settlement cycle: its clocks, statements and affirmations by file."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0044_pre_cycle"
down_revision: str | None = "0043_pre_confirmations"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
SCHEMA = "settlement"
UNIQUE_RUN = "uq_run_book_value_date_window_party_netting_set"
COLUMNS_OF_RUN = (
    *("release_at", "top_up_until", "affirm_until", "cycle_id", "netting_set", "party"),
)

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
            ('calculated', 'open'),
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
            ('calculated', 'lapsed'),
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
OBLIGATION_FUNCTION_BEFORE = """\
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
RUN_FUNCTION_BEFORE = """\
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
# A row can be locked only by whom it may be changed; that it never is, the trigger says.
FIXED_FUNCTION = """\
CREATE FUNCTION settlement.cycle_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the clocks of a cycle never change'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'cycle_fixed';
END
$$"""
FIXED_TRIGGER = (
    "CREATE TRIGGER cycle_fixed BEFORE UPDATE ON settlement.cycle "
    "FOR EACH ROW EXECUTE FUNCTION settlement.cycle_fixed()"
)
GRANTS = (
    "GRANT SELECT, INSERT ON settlement.window_policy TO causeway_app",
    "GRANT SELECT, INSERT ON settlement.cycle TO causeway_app",
    "GRANT UPDATE (window_version) ON settlement.cycle TO causeway_app",
    "GRANT SELECT, INSERT ON settlement.statement TO causeway_app",
)


def upgrade() -> None:
    """Make the tables; what was a run of all parties stays one."""
    _windows()
    _cycles()
    _statements()
    _runs()
    _affirmations()
    op.add_column(
        "calculation",
        sa.Column("carried", postgresql.JSONB, nullable=False, server_default="[]"),
        schema=SCHEMA,
    )
    op.add_column("obligation", sa.Column("trade_date", sa.Date), schema=SCHEMA)
    op.add_column(
        "obligation",
        sa.Column("product", sa.Text, nullable=False, server_default="spot"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_obligation_listed", "obligation", ["book", "value_date", "id"], schema=SCHEMA
    )
    _rails("evm", "bitcoin", "bank", "book")
    for statement in (OBLIGATION_FUNCTION, RUN_FUNCTION, FIXED_FUNCTION, FIXED_TRIGGER, *GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Take them back; a run of one party only cannot be told then, and stops this."""
    for statement in (OBLIGATION_FUNCTION_BEFORE, RUN_FUNCTION_BEFORE):
        op.execute(statement)
    _rails("evm", "book")
    op.drop_index("ix_obligation_listed", "obligation", schema=SCHEMA)
    for table, name in (
        ("obligation", "product"),
        ("obligation", "trade_date"),
        ("calculation", "carried"),
    ):
        op.drop_column(table, name, schema=SCHEMA)
    for name in ("proof", "signed"):
        op.drop_constraint(
            op.f(f"ck_affirmation_{name}"), "affirmation", schema=SCHEMA, type_="check"
        )
    for name in ("signature", "key_version"):
        op.drop_column("affirmation", name, schema=SCHEMA)
    op.alter_column("affirmation", "witnessed_by", nullable=False, schema=SCHEMA)
    for index in ("ix_run_live", "ix_run_cycle_id"):
        op.drop_index(index, "run", schema=SCHEMA)
    op.drop_constraint(op.f("ck_run_clocks"), "run", schema=SCHEMA, type_="check")
    op.drop_constraint(op.f(UNIQUE_RUN), "run", schema=SCHEMA, type_="unique")
    for name in COLUMNS_OF_RUN:
        op.drop_column("run", name, schema=SCHEMA)
    op.create_unique_constraint(
        "uq_run_book_value_date_window", "run", ["book", "value_date", "window"], schema=SCHEMA
    )
    for table in ("statement", "cycle", "window_policy"):
        op.drop_table(table, schema=SCHEMA)
    op.execute("DROP FUNCTION settlement.cycle_fixed()")


def _windows() -> None:
    op.create_table(
        "window_policy",
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("effective_from", sa.Date, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("cut_off", sa.Time, nullable=False),
        sa.Column("timezone", sa.Text, nullable=False),
        sa.Column("calendars", postgresql.JSONB, nullable=False),
        sa.Column("affirm_minutes", sa.Integer, nullable=False),
        sa.Column("top_up_minutes", sa.Integer, nullable=False),
        sa.Column("release_minutes", sa.Integer, nullable=False),
        sa.Column("reaffirm_minutes", sa.Integer, nullable=False),
        sa.Column("seals_by_clock", sa.Boolean, nullable=False),
        sa.Column("releases_by_clock", sa.Boolean, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("thresholds", postgresql.JSONB, nullable=False),
        sa.Column("entered_by", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("book", "name", "version", name="pk_window_policy"),
        sa.CheckConstraint("version > 0", name="version"),
        sa.CheckConstraint("entered_by <> approved_by", name="two_people"),
        sa.CheckConstraint(
            "affirm_minutes >= 0 AND top_up_minutes >= 0 AND release_minutes >= 0"
            " AND reaffirm_minutes >= 0",
            name="minutes",
        ),
        sa.CheckConstraint("method IN ('fifo', 'optimal', 'partial')", name="method"),
        schema=SCHEMA,
    )


def _cycles() -> None:
    op.create_table(
        "cycle",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("value_date", sa.Date, nullable=False),
        sa.Column("window", sa.Text, nullable=False),
        sa.Column("window_version", sa.Integer, nullable=False),
        sa.Column("cutoff_at", TIMESTAMP, nullable=False),
        sa.Column("affirm_until", TIMESTAMP, nullable=False),
        sa.Column("top_up_until", TIMESTAMP, nullable=False),
        sa.Column("release_at", TIMESTAMP, nullable=False),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cycle"),
        sa.UniqueConstraint("book", "value_date", "window", name="uq_cycle_book_value_date_window"),
        sa.CheckConstraint(
            "cutoff_at <= affirm_until AND affirm_until <= top_up_until"
            " AND top_up_until <= release_at",
            name="clocks",
        ),
        schema=SCHEMA,
    )


def _statements() -> None:
    op.create_table(
        "statement",
        sa.Column("run_id", sa.Uuid, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("issued_by", sa.Text, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "version", "party", name="pk_statement"),
        sa.UniqueConstraint("sha256", name="uq_statement_sha256"),
        sa.ForeignKeyConstraint(["run_id"], ["settlement.run.id"], name="fk_statement_run_id_run"),
        sa.CheckConstraint(
            "sha256 = encode(sha256(convert_to(content, 'UTF8')), 'hex')", name="sha256"
        ),
        schema=SCHEMA,
    )


def _runs() -> None:
    for column in (
        sa.Column("party", sa.Text, nullable=False, server_default=""),
        sa.Column("netting_set", sa.Text, nullable=False, server_default=""),
        sa.Column("cycle_id", sa.Uuid),
        sa.Column("affirm_until", TIMESTAMP),
        sa.Column("top_up_until", TIMESTAMP),
        sa.Column("release_at", TIMESTAMP),
    ):
        op.add_column("run", column, schema=SCHEMA)
    op.create_foreign_key(
        "fk_run_cycle_id_cycle",
        *("run", "cycle", ["cycle_id"], ["id"]),
        source_schema=SCHEMA,
        referent_schema=SCHEMA,
    )
    op.drop_constraint(op.f("uq_run_book_value_date_window"), "run", schema=SCHEMA, type_="unique")
    op.create_unique_constraint(
        UNIQUE_RUN,
        "run",
        ["book", "value_date", "window", "party", "netting_set"],
        schema=SCHEMA,
    )
    op.create_check_constraint(
        "clocks", "run", "(cycle_id IS NULL) = (affirm_until IS NULL)", schema=SCHEMA
    )
    op.create_index("ix_run_cycle_id", "run", ["cycle_id"], schema=SCHEMA)
    op.create_index(
        "ix_run_live",
        "run",
        ["book", "state"],
        schema=SCHEMA,
        postgresql_where=sa.text("state IN ('calculated', 'affirmed', 'sealed', 'released')"),
    )


def _affirmations() -> None:
    op.alter_column("affirmation", "witnessed_by", nullable=True, schema=SCHEMA)
    op.add_column("affirmation", sa.Column("key_version", sa.Integer), schema=SCHEMA)
    op.add_column("affirmation", sa.Column("signature", sa.LargeBinary), schema=SCHEMA)
    op.create_check_constraint(
        "signed", "affirmation", "(key_version IS NULL) = (signature IS NULL)", schema=SCHEMA
    )
    op.create_check_constraint(
        "proof", "affirmation", "(witnessed_by IS NULL) <> (signature IS NULL)", schema=SCHEMA
    )


def _rails(*rails: str) -> None:
    op.drop_constraint(op.f("ck_instruction_rail"), "instruction", schema=SCHEMA, type_="check")
    allowed = ", ".join(f"'{rail}'" for rail in rails)
    op.create_check_constraint("rail", "instruction", f"rail IN ({allowed})", schema=SCHEMA)
