"""Statements to clients, valuations and month ends as they were issued."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0050_pre_reports"
down_revision: str | None = "0049_pre_releases"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)
SCHEMA = "reporting"
# What a client was sent never changes; its PDF is drawn later, once.
FIXED_FUNCTION = """\
CREATE FUNCTION reporting.client_statement_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.book, NEW.party, NEW.first, NEW.last, NEW.sequence, NEW.lines, NEW.csv,
        NEW.csv_sha256, NEW.issued_by, NEW.issued_at)
       IS DISTINCT FROM
       (OLD.id, OLD.book, OLD.party, OLD.first, OLD.last, OLD.sequence, OLD.lines, OLD.csv,
        OLD.csv_sha256, OLD.issued_by, OLD.issued_at)
       OR (OLD.pdf IS NOT NULL
           AND (NEW.pdf, NEW.pdf_sha256) IS DISTINCT FROM (OLD.pdf, OLD.pdf_sha256))
    THEN
        RAISE EXCEPTION 'what was stated to a client never changes'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'client_statement_fixed';
    END IF;
    RETURN NEW;
END
$$"""
FIXED_TRIGGER = (
    "CREATE TRIGGER client_statement_fixed BEFORE UPDATE ON reporting.client_statement "
    "FOR EACH ROW EXECUTE FUNCTION reporting.client_statement_fixed()"
)
GRANTS = (
    "GRANT SELECT, INSERT ON reporting.client_statement TO causeway_app",
    "GRANT UPDATE (pdf, pdf_sha256) ON reporting.client_statement TO causeway_app",
    "GRANT SELECT, INSERT ON reporting.valuation_run TO causeway_app",
    "GRANT SELECT, INSERT ON reporting.valuation_price TO causeway_app",
    "GRANT SELECT, INSERT ON reporting.valuation_line TO causeway_app",
    "GRANT SELECT, INSERT ON reporting.month_end TO causeway_app",
    "GRANT SELECT, INSERT ON reporting.month_end_waiver TO causeway_app",
)


def upgrade() -> None:
    """Make the tables."""
    _statements()
    _valuations()
    _month_ends()
    for statement in (FIXED_FUNCTION, FIXED_TRIGGER, *GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    for table in (
        *("month_end_waiver", "month_end", "valuation_line", "valuation_price", "valuation_run"),
        "client_statement",
    ):
        op.drop_table(table, schema=SCHEMA)
    op.execute("DROP FUNCTION reporting.client_statement_fixed()")


def _statements() -> None:
    op.create_table(
        "client_statement",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("first", sa.Date, nullable=False),
        sa.Column("last", sa.Date, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("lines", sa.Integer, nullable=False),
        sa.Column("csv", sa.LargeBinary, nullable=False),
        sa.Column("csv_sha256", sa.Text, nullable=False),
        sa.Column("pdf", sa.LargeBinary),
        sa.Column("pdf_sha256", sa.Text),
        sa.Column("issued_by", sa.Text, nullable=False),
        sa.Column("issued_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_client_statement"),
        sa.UniqueConstraint("book", "party", "first", "last", name="uq_client_statement_period"),
        sa.CheckConstraint("first <= last AND sequence >= 0 AND lines >= 0", name="period"),
        sa.CheckConstraint("csv_sha256 = encode(sha256(csv), 'hex')", name="csv_sha256"),
        sa.CheckConstraint("(pdf IS NULL) = (pdf_sha256 IS NULL)", name="pdf"),
        sa.CheckConstraint("pdf_sha256 = encode(sha256(pdf), 'hex')", name="pdf_sha256"),
        schema=SCHEMA,
    )


def _valuations() -> None:
    op.create_table(
        "valuation_run",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("currency_scale", sa.Integer, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("since", TIMESTAMP, nullable=False),
        sa.Column("until", TIMESTAMP, nullable=False),
        sa.Column("after", sa.BigInteger, nullable=False),
        sa.Column("through", sa.BigInteger, nullable=False),
        sa.Column("inputs_hash", sa.Text, nullable=False),
        sa.Column("lines_hash", sa.Text, nullable=False),
        sa.Column("realised", UNITS, nullable=False),
        sa.Column("unrealised", UNITS, nullable=False),
        sa.Column("net", UNITS, nullable=False),
        sa.Column("run_by", sa.Text, nullable=False),
        sa.Column("run_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_valuation_run"),
        sa.CheckConstraint("method IN ('average', 'fifo')", name="method"),
        sa.CheckConstraint("since < until AND after >= 0 AND through >= after", name="interval"),
        sa.CheckConstraint("length(inputs_hash) = 64 AND length(lines_hash) = 64", name="hashes"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_valuation_run_until", "valuation_run", ["book", "until", "run_at"], schema=SCHEMA
    )
    op.create_table(
        "valuation_price",
        sa.Column("run_id", sa.Uuid, nullable=False),
        sa.Column("use", sa.Text, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("price_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "use", "day", "asset", name="pk_valuation_price"),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["reporting.valuation_run.id"],
            name="fk_valuation_price_run_id_valuation_run",
        ),
        sa.ForeignKeyConstraint(
            ["price_id"], ["marketdata.price.id"], name="fk_valuation_price_price_id_price"
        ),
        sa.CheckConstraint("use IN ('day', 'start', 'end')", name="use"),
        schema=SCHEMA,
    )
    op.create_table(
        "valuation_line",
        sa.Column("run_id", sa.Uuid, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("units", UNITS, nullable=False),
        sa.Column("value", UNITS, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "number", name="pk_valuation_line"),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["reporting.valuation_run.id"],
            name="fk_valuation_line_run_id_valuation_run",
        ),
        sa.CheckConstraint("number > 0", name="number"),
        sa.CheckConstraint(
            "kind IN ('realised', 'unrealised', 'income', 'expense', 'capital')", name="kind"
        ),
        schema=SCHEMA,
    )


def _month_ends() -> None:
    op.create_table(
        "month_end",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("month", sa.Date, nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("manifest_sha256", sa.Text, nullable=False),
        sa.Column("built_by", sa.Text, nullable=False),
        sa.Column("built_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_month_end"),
        sa.UniqueConstraint("book", "month", "manifest_sha256", name="uq_month_end_manifest"),
        sa.CheckConstraint(
            "manifest_sha256 = encode(sha256(convert_to(manifest, 'UTF8')), 'hex')",
            name="manifest_sha256",
        ),
        schema=SCHEMA,
    )
    op.create_table(
        "month_end_waiver",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("month", sa.Date, nullable=False),
        sa.Column("obstacle", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("proposed_by", sa.Text, nullable=False),
        sa.Column("proposal", sa.LargeBinary, nullable=False),
        sa.Column("approved_by", sa.Text, nullable=False),
        sa.Column("approval", sa.LargeBinary, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_month_end_waiver"),
        sa.UniqueConstraint("book", "month", "obstacle", name="uq_month_end_waiver_obstacle"),
        sa.CheckConstraint("proposed_by <> approved_by", name="two_people"),
        sa.CheckConstraint("reason <> '' AND obstacle <> ''", name="said"),
        schema=SCHEMA,
    )
