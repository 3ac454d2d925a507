"""Venue orders with their state machine, fills, fill cursors, balance snapshots."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006_pre_venues"
down_revision: str | None = "0005_pre_marketdata"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)

ORDER_FUNCTION = """\
CREATE OR REPLACE FUNCTION venues.venue_order_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('intent') THEN
            RAISE EXCEPTION 'venues.venue_order cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'venue_order_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('acked', 'cancelled'),
            ('acked', 'expired'),
            ('acked', 'filled'),
            ('acked', 'partially_filled'),
            ('escalated', 'acked'),
            ('escalated', 'not_placed'),
            ('intent', 'not_placed'),
            ('intent', 'submitting'),
            ('partially_filled', 'cancelled'),
            ('partially_filled', 'expired'),
            ('partially_filled', 'filled'),
            ('submitting', 'acked'),
            ('submitting', 'refused'),
            ('submitting', 'unknown'),
            ('unknown', 'acked'),
            ('unknown', 'escalated'),
            ('unknown', 'not_placed')
        ) THEN
            RAISE EXCEPTION 'venues.venue_order cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'venue_order_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
ORDER_TRIGGER = (
    "CREATE OR REPLACE TRIGGER venue_order_state_edges BEFORE INSERT OR UPDATE "
    "ON venues.venue_order FOR EACH ROW EXECUTE FUNCTION venues.venue_order_state_edges()"
)


def lease_columns() -> list[sa.Column]:
    return [
        sa.Column("lease_holder", sa.Text),
        sa.Column("lease_until", TIMESTAMP),
        sa.Column("fence", sa.Integer, nullable=False, server_default="0"),
    ]


def upgrade() -> None:
    op.execute("CREATE SCHEMA venues")
    op.create_table(
        "venue_order",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("instrument_version", sa.Integer, nullable=False),
        sa.Column("side", sa.Text, nullable=False),
        sa.Column("base_units", UNITS, nullable=False),
        sa.Column("quantity", sa.Text, nullable=False),
        sa.Column("price", sa.Text, nullable=False),
        sa.Column("time_in_force", sa.Text, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("client_order_id", sa.Text, nullable=False),
        sa.Column("venue_order_id", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("state_reason", sa.Text, nullable=False),
        sa.Column("signed_at", TIMESTAMP),
        sa.Column("recv_window_ms", sa.Integer, nullable=False),
        sa.Column("executed_units", UNITS, nullable=False, server_default="0"),
        sa.Column("is_complete", sa.Boolean, nullable=False, server_default="false"),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.Column("updated_at", TIMESTAMP, nullable=False),
        *lease_columns(),
        sa.PrimaryKeyConstraint("id", name="pk_venue_order"),
        sa.UniqueConstraint(
            "venue", "account", "client_order_id", name="uq_venue_order_client_order_id"
        ),
        sa.UniqueConstraint(
            "venue", "account", "symbol", "venue_order_id", name="uq_venue_order_venue_order_id"
        ),
        sa.CheckConstraint("side IN ('buy', 'sell')", name=op.f("ck_venue_order_side")),
        sa.CheckConstraint("base_units > 0", name=op.f("ck_venue_order_base_units")),
        sa.CheckConstraint("executed_units >= 0", name=op.f("ck_venue_order_executed_units")),
        sa.CheckConstraint(
            "signed_at IS NOT NULL OR state IN ('intent', 'not_placed')",
            name=op.f("ck_venue_order_signed"),
        ),
        schema="venues",
    )
    op.create_index(
        "ix_venue_order_open",
        "venue_order",
        ["venue", "account", "symbol"],
        schema="venues",
        postgresql_where=sa.text(
            "state IN ('acked', 'escalated', 'intent', 'partially_filled', 'submitting', 'unknown')"
        ),
    )
    op.create_index(
        "ix_venue_order_incomplete",
        "venue_order",
        ["venue", "account", "symbol"],
        schema="venues",
        postgresql_where=sa.text("NOT is_complete"),
    )
    op.create_index("ix_venue_order_reference", "venue_order", ["reference"], schema="venues")
    op.create_table(
        "fill",
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("trade_id", sa.Text, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("venue_order_id", sa.Text, nullable=False),
        sa.Column("side", sa.Text, nullable=False),
        sa.Column("price", sa.Text, nullable=False),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("base_units", UNITS, nullable=False),
        sa.Column("quote", sa.Text, nullable=False),
        sa.Column("quote_units", UNITS, nullable=False),
        sa.Column("quote_dust", UNITS, nullable=False),
        sa.Column("fee_asset", sa.Text, nullable=False),
        sa.Column("fee_units", UNITS, nullable=False),
        sa.Column("fee_dust", UNITS, nullable=False),
        sa.Column("is_maker", sa.Boolean, nullable=False),
        sa.Column("executed_at", TIMESTAMP, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("recorded_at", TIMESTAMP, nullable=False),
        sa.Column("booked_at", TIMESTAMP),
        sa.PrimaryKeyConstraint("venue", "account", "symbol", "trade_id", name="pk_fill"),
        sa.UniqueConstraint("id", name="uq_fill_id"),
        sa.CheckConstraint("side IN ('buy', 'sell')", name=op.f("ck_fill_side")),
        sa.CheckConstraint(
            "base_units > 0 AND quote_units >= 0 AND quote_dust >= 0 AND fee_dust >= 0",
            name=op.f("ck_fill_amounts"),
        ),
        schema="venues",
    )
    op.create_index(
        "ix_fill_order", "fill", ["venue", "account", "symbol", "venue_order_id"], schema="venues"
    )
    op.create_index(
        "ix_fill_unbooked",
        "fill",
        ["venue", "account", "symbol"],
        schema="venues",
        postgresql_where=sa.text("booked_at IS NULL"),
    )
    op.create_table(
        "fill_cursor",
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("trade_id", sa.Text, nullable=False),
        sa.Column("updated_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("venue", "account", "symbol", name="pk_fill_cursor"),
        schema="venues",
    )
    op.create_table(
        "balance_snapshot",
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("taken_at", TIMESTAMP, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("free", UNITS, nullable=False),
        sa.Column("locked", UNITS, nullable=False),
        sa.Column("dust", UNITS, nullable=False),
        sa.Column("is_opening", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint(
            "venue", "account", "taken_at", "asset", name="pk_balance_snapshot"
        ),
        schema="venues",
    )
    op.execute(ORDER_FUNCTION)
    op.execute(ORDER_TRIGGER)
    op.execute("GRANT USAGE ON SCHEMA venues TO causeway_app")
    op.execute("GRANT SELECT, INSERT ON venues.venue_order TO causeway_app")
    # What was ordered is never changed; only what became of it.
    op.execute(
        "GRANT UPDATE (venue_order_id, state, state_reason, signed_at, executed_units, is_complete, "
        "updated_at, lease_holder, lease_until, fence) ON venues.venue_order TO causeway_app"
    )
    op.execute("GRANT SELECT, INSERT, UPDATE ON venues.fill_cursor TO causeway_app")
    op.execute("GRANT SELECT, INSERT ON venues.fill, venues.balance_snapshot TO causeway_app")
    # What a venue reported is never changed; only that it has been booked is added.
    op.execute("GRANT UPDATE (booked_at) ON venues.fill TO causeway_app")


def downgrade() -> None:
    op.execute("DROP SCHEMA venues CASCADE")
