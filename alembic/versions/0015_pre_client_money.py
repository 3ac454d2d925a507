"""The watch over client money: how far each book has been watched, and how each asset stands."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015_pre_client_money"
down_revision: str | None = "0014_pre_ledger_ranges"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)

MONEY_FUNCTION = """\
CREATE OR REPLACE FUNCTION reporting.client_money_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('covered') THEN
            RAISE EXCEPTION 'reporting.client_money cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'client_money_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('covered', 'short'),
            ('short', 'covered')
        ) THEN
            RAISE EXCEPTION 'reporting.client_money cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'client_money_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
MONEY_TRIGGER = (
    "CREATE OR REPLACE TRIGGER client_money_state_edges BEFORE INSERT OR UPDATE ON reporting.client_money "
    "FOR EACH ROW EXECUTE FUNCTION reporting.client_money_state_edges()"
)


def upgrade() -> None:
    op.execute("CREATE SCHEMA reporting")
    op.create_table(
        "client_money_watch",
        sa.Column("book", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("height >= 0", name=op.f("ck_client_money_watch_height")),
        sa.PrimaryKeyConstraint("book", name=op.f("pk_client_money_watch")),
        schema="reporting",
    )
    op.create_table(
        "client_money",
        sa.Column("book", sa.SmallInteger(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("holdings", UNITS, nullable=False),
        sa.Column("liabilities", UNITS, nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", TIMESTAMP, nullable=False),
        sa.CheckConstraint(
            "(state = 'short') = (liabilities > holdings)", name=op.f("ck_client_money_state")
        ),
        sa.ForeignKeyConstraint(
            ["book"],
            ["reporting.client_money_watch.book"],
            name=op.f("fk_client_money_book_client_money_watch"),
        ),
        sa.PrimaryKeyConstraint("book", "asset", name=op.f("pk_client_money")),
        schema="reporting",
    )
    for statement in (
        MONEY_FUNCTION,
        MONEY_TRIGGER,
        "GRANT USAGE ON SCHEMA reporting TO causeway_app",
        "GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA reporting TO causeway_app",
        "GRANT UPDATE (height) ON reporting.client_money_watch TO causeway_app",
        (
            "GRANT UPDATE (state, holdings, liabilities, height, sequence, recorded_at)"
            " ON reporting.client_money TO causeway_app"
        ),
    ):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP SCHEMA reporting CASCADE")
