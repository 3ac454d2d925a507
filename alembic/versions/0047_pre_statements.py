"""Bank statements as they came, and what they say."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0047_pre_statements"
down_revision: str | None = "0046_pre_bank_payouts"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)
SCHEMA = "custody"
FILE_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.bank_file_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('imported', 'quarantined') THEN
            RAISE EXCEPTION 'custody.bank_file cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'bank_file_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('quarantined', 'dismissed'),
            ('quarantined', 'imported')
        ) THEN
            RAISE EXCEPTION 'custody.bank_file cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'bank_file_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
FILE_TRIGGER = (
    "CREATE OR REPLACE TRIGGER bank_file_state_edges BEFORE INSERT OR UPDATE ON custody.bank_file "
    "FOR EACH ROW EXECUTE FUNCTION custody.bank_file_state_edges()"
)
RECEIPT_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.bank_receipt_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('unmatched') THEN
            RAISE EXCEPTION 'custody.bank_receipt cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'bank_receipt_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('matched', 'unmatched'),
            ('unmatched', 'matched'),
            ('unmatched', 'returned')
        ) THEN
            RAISE EXCEPTION 'custody.bank_receipt cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'bank_receipt_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
RECEIPT_TRIGGER = (
    "CREATE OR REPLACE TRIGGER bank_receipt_state_edges BEFORE INSERT OR UPDATE ON custody.bank_receipt "
    "FOR EACH ROW EXECUTE FUNCTION custody.bank_receipt_state_edges()"
)
FIXED_FUNCTION = """\
CREATE FUNCTION custody.bank_file_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.sha256, NEW.raw, NEW.received_by, NEW.received_at)
       IS DISTINCT FROM (OLD.id, OLD.sha256, OLD.raw, OLD.received_by, OLD.received_at) THEN
        RAISE EXCEPTION 'what a bank sent never changes'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'bank_file_fixed';
    END IF;
    RETURN NEW;
END
$$"""
FIXED_TRIGGER = (
    "CREATE TRIGGER bank_file_fixed BEFORE UPDATE ON custody.bank_file "
    "FOR EACH ROW EXECUTE FUNCTION custody.bank_file_fixed()"
)
GRANTS = (
    "GRANT SELECT, INSERT ON custody.bank_file, custody.bank_statement TO causeway_app",
    "GRANT SELECT, INSERT ON custody.bank_entry, custody.bank_receipt TO causeway_app",
    "GRANT UPDATE (state, reason, format, version) ON custody.bank_file TO causeway_app",
    "GRANT UPDATE (state, party, matched_to, version) ON custody.bank_receipt TO causeway_app",
)


def upgrade() -> None:
    """Make the tables."""
    _files()
    _statements()
    _entries()
    _receipts()
    for statement in (
        *(FILE_FUNCTION, FILE_TRIGGER, RECEIPT_FUNCTION, RECEIPT_TRIGGER),
        *(FIXED_FUNCTION, FIXED_TRIGGER, *GRANTS),
    ):
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    for table in ("bank_receipt", "bank_entry", "bank_statement", "bank_file"):
        op.drop_table(table, schema=SCHEMA)
    for name in ("bank_file_fixed", "bank_receipt_state_edges", "bank_file_state_edges"):
        op.execute(f"DROP FUNCTION custody.{name}()")


def _files() -> None:
    op.create_table(
        "bank_file",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("raw", sa.LargeBinary, nullable=False),
        sa.Column("format", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("received_by", sa.Text, nullable=False),
        sa.Column("received_at", TIMESTAMP, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.UniqueConstraint("sha256", name="uq_bank_file_sha256"),
        sa.CheckConstraint("sha256 = encode(sha256(raw), 'hex')", name="sha256"),
        sa.CheckConstraint("state = 'imported' OR reason <> ''", name="reason"),
        sa.PrimaryKeyConstraint("id", name="pk_bank_file"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_bank_file_state", "bank_file", ["state", "received_at", "id"], schema=SCHEMA
    )


def _statements() -> None:
    op.create_table(
        "bank_statement",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("file_id", sa.Uuid, nullable=False),
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("sequence", sa.Integer),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("opening", UNITS),
        sa.Column("closing", UNITS),
        sa.Column("from_date", sa.Date, nullable=False),
        sa.Column("to_date", sa.Date, nullable=False),
        sa.Column("entries", sa.Integer, nullable=False),
        sa.Column("imported_at", TIMESTAMP, nullable=False),
        sa.UniqueConstraint("account", "kind", "name", name="uq_bank_statement_name"),
        sa.CheckConstraint("kind IN ('statement', 'notice')", name="kind"),
        sa.CheckConstraint(
            "(kind = 'statement') = (opening IS NOT NULL AND closing IS NOT NULL)", name="balances"
        ),
        sa.CheckConstraint("from_date <= to_date", name="dates"),
        sa.PrimaryKeyConstraint("id", name="pk_bank_statement"),
        sa.ForeignKeyConstraint(
            ["file_id"], ["custody.bank_file.id"], name="fk_bank_statement_file_id_bank_file"
        ),
        schema=SCHEMA,
    )
    op.create_index(
        "uq_bank_statement_sequence",
        "bank_statement",
        ["account", "to_date", "sequence"],
        schema=SCHEMA,
        unique=True,
        postgresql_where=sa.text("kind = 'statement'"),
        postgresql_nulls_not_distinct=True,
    )


def _entries() -> None:
    op.create_table(
        "bank_entry",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("statement_id", sa.Uuid, nullable=False),
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("booking_date", sa.Date, nullable=False),
        sa.Column("value_date", sa.Date, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("reversal", sa.Boolean, nullable=False),
        sa.Column("bank_ref", sa.Text, nullable=False),
        sa.Column("end_to_end", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("iban", sa.Text, nullable=False),
        sa.Column("remittance", sa.Text, nullable=False),
        sa.Column("lines", sa.Integer, nullable=False),
        sa.UniqueConstraint("account", "key", name="uq_bank_entry_key"),
        sa.CheckConstraint("amount <> 0 AND lines > 0", name="amount"),
        sa.PrimaryKeyConstraint("id", name="pk_bank_entry"),
        sa.ForeignKeyConstraint(
            ["statement_id"],
            ["custody.bank_statement.id"],
            name="fk_bank_entry_statement_id_bank_statement",
        ),
        schema=SCHEMA,
    )
    op.create_index("ix_bank_entry_day", "bank_entry", ["account", "booking_date"], schema=SCHEMA)
    op.create_index("ix_bank_entry_statement", "bank_entry", ["statement_id", "id"], schema=SCHEMA)


def _receipts() -> None:
    op.create_table(
        "bank_receipt",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("value", UNITS, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("entry_id", sa.Uuid, nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
        sa.Column("end_to_end", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("iban", sa.Text, nullable=False),
        sa.Column("remittance", sa.Text, nullable=False),
        sa.Column("return_reason", sa.Text, nullable=False),
        sa.Column("booking_date", sa.Date, nullable=False),
        sa.Column("value_date", sa.Date, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("first_seen_at", TIMESTAMP, nullable=False),
        sa.Column("party", sa.Text),
        sa.Column("matched_to", sa.Text, nullable=False),
        sa.Column("recalls", sa.Uuid),
        sa.Column("version", sa.Integer, nullable=False),
        sa.UniqueConstraint("entry_id", "line", name="uq_bank_receipt_line"),
        sa.CheckConstraint("value > 0 AND line >= 0", name="value"),
        sa.CheckConstraint("kind IN ('receipt', 'recall', 'debit')", name="kind"),
        sa.CheckConstraint("(state = 'matched') = (matched_to <> '')", name="matched"),
        sa.CheckConstraint("recalls IS NULL OR kind = 'recall'", name="recalls"),
        sa.PrimaryKeyConstraint("id", name="pk_bank_receipt"),
        sa.ForeignKeyConstraint(
            ["entry_id"], ["custody.bank_entry.id"], name="fk_bank_receipt_entry_id_bank_entry"
        ),
        sa.ForeignKeyConstraint(
            ["recalls"], ["custody.bank_receipt.id"], name="fk_bank_receipt_recalls_bank_receipt"
        ),
        schema=SCHEMA,
    )
    op.create_index("ix_bank_receipt_state", "bank_receipt", ["book", "state", "id"], schema=SCHEMA)
    op.create_index("ix_bank_receipt_value", "bank_receipt", ["account", "value"], schema=SCHEMA)
    op.create_index(
        "uq_bank_receipt_recalls",
        "bank_receipt",
        ["recalls"],
        schema=SCHEMA,
        unique=True,
        postgresql_where=sa.text("recalls IS NOT NULL"),
    )
