"""Deals, hedge lines, which fills were posted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009_pre_trading"
down_revision: str | None = "0008_pre_payouts"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)

DEAL_FUNCTION = """\
CREATE OR REPLACE FUNCTION trading.deal_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('booked') THEN
            RAISE EXCEPTION 'trading.deal cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'deal_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('booked', 'amended'),
            ('booked', 'cancelled'),
            ('booked', 'settling'),
            ('settling', 'settled')
        ) THEN
            RAISE EXCEPTION 'trading.deal cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'deal_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
DEAL_TRIGGER = (
    "CREATE OR REPLACE TRIGGER deal_state_edges BEFORE INSERT OR UPDATE ON trading.deal "
    "FOR EACH ROW EXECUTE FUNCTION trading.deal_state_edges()"
)
HEDGE_FUNCTION = """\
CREATE OR REPLACE FUNCTION trading.hedge_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('active') THEN
            RAISE EXCEPTION 'trading.hedge cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'hedge_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('active', 'halted'),
            ('halted', 'active')
        ) THEN
            RAISE EXCEPTION 'trading.hedge cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'hedge_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
HEDGE_TRIGGER = (
    "CREATE OR REPLACE TRIGGER hedge_state_edges BEFORE INSERT OR UPDATE ON trading.hedge "
    "FOR EACH ROW EXECUTE FUNCTION trading.hedge_state_edges()"
)


def upgrade() -> None:
    op.execute("CREATE SCHEMA trading")
    op.create_table(
        "deal",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("client_ref", sa.Text, nullable=False),
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("side", sa.Text, nullable=False),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("base_scale", sa.Integer, nullable=False),
        sa.Column("quote", sa.Text, nullable=False),
        sa.Column("quote_scale", sa.Integer, nullable=False),
        sa.Column("base_units", UNITS, nullable=False),
        sa.Column("quote_units", UNITS, nullable=False),
        sa.Column("price_numerator", UNITS, nullable=False),
        sa.Column("price_denominator", UNITS, nullable=False),
        sa.Column("fee_units", UNITS, nullable=False),
        sa.Column("price_id", sa.Uuid),
        sa.Column("value_date", sa.Date, nullable=False),
        sa.Column("booked_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("pulled_at", TIMESTAMP),
        sa.Column("amends", sa.Uuid),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.Column("updated_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deal"),
        sa.UniqueConstraint("book", "client_ref", name="uq_deal_client_ref"),
        sa.CheckConstraint("side IN ('desk_sells', 'desk_buys')", name=op.f("ck_deal_side")),
        sa.CheckConstraint(
            "base_units > 0 AND quote_units > 0 AND fee_units >= 0", name=op.f("ck_deal_amounts")
        ),
        sa.CheckConstraint(
            "price_numerator > 0 AND price_denominator > 0", name=op.f("ck_deal_price")
        ),
        sa.CheckConstraint(
            "pulled_at IS NULL OR state IN ('booked', 'settling', 'settled')",
            name=op.f("ck_deal_pulled"),
        ),
        schema="trading",
    )
    op.create_index(
        "ix_deal_to_settle",
        "deal",
        ["book", "value_date"],
        schema="trading",
        postgresql_where=sa.text("state = 'booked' AND pulled_at IS NULL"),
    )
    op.create_table(
        "hedge",
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("target", UNITS, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.Column("updated_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("desk", "asset", name="pk_hedge"),
        sa.UniqueConstraint("id", name="uq_hedge_id"),
        sa.UniqueConstraint("venue", "account", "symbol", name="uq_hedge_instrument"),
        sa.CheckConstraint("sequence >= 0", name=op.f("ck_hedge_sequence")),
        schema="trading",
    )
    op.create_table(
        "fill_posting",
        sa.Column("fill_id", sa.Uuid, nullable=False),
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("trade_id", sa.Text, nullable=False),
        sa.Column("fee_value", UNITS),
        sa.Column("fee_price_id", sa.Uuid),
        sa.Column("posted_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("fill_id", name="pk_fill_posting"),
        sa.UniqueConstraint("venue", "account", "symbol", "trade_id", name="uq_fill_posting_trade"),
        schema="trading",
    )
    for statement in (DEAL_FUNCTION, DEAL_TRIGGER, HEDGE_FUNCTION, HEDGE_TRIGGER):
        op.execute(statement)
    op.execute("GRANT USAGE ON SCHEMA trading TO causeway_app")
    op.execute(
        "GRANT SELECT, INSERT ON trading.deal, trading.hedge, trading.fill_posting TO causeway_app"
    )
    # What was agreed, and which instrument a line hedges with, is never changed.
    op.execute("GRANT UPDATE (state, pulled_at, updated_at) ON trading.deal TO causeway_app")
    op.execute("GRANT UPDATE (state, sequence, updated_at) ON trading.hedge TO causeway_app")


def downgrade() -> None:
    op.execute("DROP SCHEMA trading CASCADE")
