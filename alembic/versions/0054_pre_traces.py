"""Trace ids in rows, so that work is one trace across jobs and restarts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0054_pre_traces"
down_revision: str | None = "0053_pre_restore"
branch_labels = None
depends_on = None

TABLES = ("history", "outbox", "job")

HISTORY = "entity_type, entity_id, version, name, from_state, to_state, actor, reason, at, payload"
OUTBOX = "id, aggregatetype, aggregateid, type, payload, recorded_at"


def advance(history: str, outbox: str) -> str:
    """Return the function that advances orders, writing these columns of the events' tables."""
    return f"""\
CREATE OR REPLACE FUNCTION venues.advance_orders(steps json, events json, deliveries json)
RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
    ours uuid[] := '{{}}';
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
    INSERT INTO kernel.history ({history})
        SELECT {history}
        FROM json_populate_recordset(NULL::kernel.history, events) WHERE entity_id = ANY (ours);
    INSERT INTO kernel.outbox ({outbox})
        SELECT {outbox}
        FROM json_populate_recordset(NULL::kernel.outbox, deliveries)
        WHERE aggregateid = ANY (ours::text[]);
    RETURN ours;
END
$$"""


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("traceparent", sa.Text), schema="kernel")
    op.execute(advance(f"{HISTORY}, traceparent", f"{OUTBOX}, traceparent"))


def downgrade() -> None:
    op.execute(advance(HISTORY, OUTBOX))
    for table in reversed(TABLES):
        op.drop_column(table, "traceparent", schema="kernel")
