"""Attempts of an intent, orders of every kind, what people decide of orders, account states."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029_pre_venue_orders"
down_revision: str | None = "0028_pre_reconciled_pages"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)
TABLE = "venue_order"
COLUMNS = (
    *("kind", "intent", "attempt", "cancel_requested_at", "revived_at"),
    *("refusal", "sought_since", "looked_at", "version"),
)
CHECKS = {
    "kind": "kind IN ('limit', 'market', 'post-only')",
    "price": "(kind = 'market') = (price IS NULL)",
    "attempt": "attempt BETWEEN 1 AND 5",
}
FUNCTION = """\
CREATE OR REPLACE FUNCTION venues.venue_order_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ({initial}) THEN
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

ADVANCE = """\
CREATE FUNCTION venues.advance_orders(steps json, events json, deliveries json)
RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
    ours uuid[] := '{}';
    moved uuid[];
    stage integer := 0;
BEGIN
    -- The answer may be lost with the server: the order is then found as it was sent, and its fate is
    -- found out again. Whatever is committed later and waits for the disk takes this along.
    PERFORM set_config('synchronous_commit', 'off', true);
    LOOP
        stage := stage + 1;
        -- Under the sender's claim only, and only if nothing was written about the order since.
        WITH stepped AS (
            UPDATE venues.venue_order AS o SET
                state = s.state,
                state_reason = s.state_reason,
                updated_at = s.updated_at,
                venue_order_id = coalesce(s.venue_order_id, o.venue_order_id),
                executed_units = greatest(o.executed_units, s.executed_units),
                refusal = s.refusal,
                version = s.version,
                lease_holder = NULL,
                lease_until = NULL
            FROM json_to_recordset(steps) AS s(
                id uuid, nth integer, fence integer, version integer, state text, state_reason text,
                updated_at timestamptz, venue_order_id text, executed_units numeric, refusal text)
            WHERE o.id = s.id AND s.nth = stage AND o.fence = s.fence AND o.version = s.version - 1
            RETURNING o.id
        )
        SELECT array_agg(id) INTO moved FROM stepped;
        EXIT WHEN moved IS NULL;
        IF stage = 1 THEN
            ours := moved;
        END IF;
    END LOOP;
    INSERT INTO kernel.history (entity_type, entity_id, version, name, from_state, to_state, actor,
            reason, at, payload)
        SELECT entity_type, entity_id, version, name, from_state, to_state, actor, reason, at, payload
        FROM json_populate_recordset(NULL::kernel.history, events) WHERE entity_id = ANY (ours);
    INSERT INTO kernel.outbox (id, aggregatetype, aggregateid, type, payload, recorded_at)
        SELECT id, aggregatetype, aggregateid, type, payload, recorded_at
        FROM json_populate_recordset(NULL::kernel.outbox, deliveries)
        WHERE aggregateid = ANY (ours::text[]);
    RETURN ours;
END
$$"""
SIGNATURE = "venues.advance_orders(json, json, json)"


def upgrade() -> None:
    for column in (
        sa.Column("kind", sa.Text, nullable=False, server_default="limit"),
        sa.Column("intent", sa.Text),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="1"),
        sa.Column("cancel_requested_at", TIMESTAMP),
        sa.Column("revived_at", TIMESTAMP),
        sa.Column("refusal", sa.Text),
        sa.Column("sought_since", TIMESTAMP),
        sa.Column("looked_at", TIMESTAMP),
        sa.Column("version", sa.Integer, nullable=False, server_default="0"),
    ):
        op.add_column(TABLE, column, schema="venues")
    # Each order of before was an intent of its own, known by its client order id.
    op.execute(
        "UPDATE venues.venue_order SET intent = client_order_id, version = (SELECT count(*) FROM "
        "kernel.history WHERE entity_type = 'venue-order' AND entity_id = venue_order.id)"
    )
    op.alter_column(TABLE, "version", server_default=None, schema="venues")
    op.alter_column(TABLE, "intent", nullable=False, schema="venues")
    op.alter_column(TABLE, "kind", server_default=None, schema="venues")
    op.alter_column(TABLE, "attempt", server_default=None, schema="venues")
    op.alter_column(TABLE, "price", nullable=True, schema="venues")
    for name, condition in CHECKS.items():
        op.create_check_constraint(
            op.f(f"ck_venue_order_{name}"), TABLE, condition, schema="venues"
        )
    op.create_unique_constraint(
        "uq_venue_order_attempt",
        TABLE,
        ["venue", "account", "intent", "attempt"],
        schema="venues",
    )
    op.create_index(
        "uq_venue_order_alive",
        TABLE,
        ["venue", "account", "intent"],
        unique=True,
        schema="venues",
        postgresql_where=sa.text("state NOT IN ('not_placed', 'refused')"),
    )
    # No query asks by reference, and every order would pay for it.
    op.drop_index("ix_venue_order_reference", TABLE, schema="venues")
    op.create_index(
        "ix_venue_order_revived",
        TABLE,
        ["venue", "account", "symbol"],
        schema="venues",
        postgresql_where=sa.text("revived_at IS NOT NULL"),
    )
    op.execute(FUNCTION.replace("{initial}", "'intent', 'submitting'"))
    op.execute(
        "GRANT UPDATE (cancel_requested_at, revived_at, refusal, sought_since, looked_at, version) "
        "ON venues.venue_order TO causeway_app"
    )
    op.execute(ADVANCE)
    op.execute(f"GRANT EXECUTE ON FUNCTION {SIGNATURE} TO causeway_app")
    _create_tables()


def _create_tables() -> None:
    op.create_table(
        "unread_fill",
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("trade_id", sa.Text, nullable=False),
        sa.Column("venue_order_id", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("raw", sa.Text, nullable=False),
        sa.Column("seen_at", TIMESTAMP, nullable=False),
        sa.Column("read_at", TIMESTAMP),
        sa.PrimaryKeyConstraint("venue", "account", "symbol", "trade_id", name="pk_unread_fill"),
        schema="venues",
    )
    op.create_table(
        "venue_account_state",
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", TIMESTAMP, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("venue", "account", name="pk_venue_account_state"),
        sa.CheckConstraint(
            "state IN ('active', 'halted', 'reducing')",
            name=op.f("ck_venue_account_state_state"),
        ),
        schema="venues",
    )
    op.create_table(
        "order_decision",
        sa.Column("order_id", sa.Uuid, nullable=False),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("venue_order_id", sa.Text),
        sa.Column("status", sa.Text),
        sa.Column("executed_units", UNITS),
        sa.Column("decided_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("order_id", "operator", name="pk_order_decision"),
        sa.ForeignKeyConstraint(
            ["order_id"],
            ["venues.venue_order.id"],
            name="fk_order_decision_order_id_venue_order",
        ),
        sa.CheckConstraint(
            "verdict IN ('not-placed', 'placed')", name=op.f("ck_order_decision_verdict")
        ),
        sa.CheckConstraint("evidence <> ''", name=op.f("ck_order_decision_evidence")),
        sa.CheckConstraint(
            "(verdict = 'placed') = (venue_order_id IS NOT NULL AND status IS NOT NULL"
            " AND executed_units IS NOT NULL)",
            name=op.f("ck_order_decision_report"),
        ),
        schema="venues",
    )
    op.execute("GRANT SELECT, INSERT ON venues.unread_fill, venues.order_decision TO causeway_app")
    op.execute("GRANT UPDATE (read_at) ON venues.unread_fill TO causeway_app")
    op.execute("GRANT SELECT, INSERT, UPDATE ON venues.venue_account_state TO causeway_app")


def downgrade() -> None:
    op.execute(f"DROP FUNCTION {SIGNATURE}")
    for table in ("order_decision", "venue_account_state", "unread_fill"):
        op.drop_table(table, schema="venues")
    op.execute(FUNCTION.replace("{initial}", "'intent'"))
    op.create_index("ix_venue_order_reference", TABLE, ["reference"], schema="venues")
    op.drop_index("ix_venue_order_revived", TABLE, schema="venues")
    op.drop_index("uq_venue_order_alive", TABLE, schema="venues")
    op.drop_constraint("uq_venue_order_attempt", TABLE, schema="venues")
    for name in CHECKS:
        op.drop_constraint(op.f(f"ck_venue_order_{name}"), TABLE, schema="venues")
    # A market order has no price to go back to.
    op.execute("UPDATE venues.venue_order SET price = '0' WHERE price IS NULL")
    op.alter_column(TABLE, "price", nullable=False, schema="venues")
    for name in COLUMNS:
        op.drop_column(TABLE, name, schema="venues")
