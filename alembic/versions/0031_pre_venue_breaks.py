"""Gaps of private streams; reconciliations of venue accounts, and the breaks that they found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0031_pre_venue_breaks"
down_revision: str | None = "0030_pre_venue_transfers"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
FUNCTION = """\
CREATE OR REPLACE FUNCTION trading.venue_break_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('open') THEN
            RAISE EXCEPTION 'trading.venue_break cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'venue_break_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('dismissed', 'closed'),
            ('dismissed', 'open'),
            ('explained', 'closed'),
            ('explained', 'dismissed'),
            ('explained', 'open'),
            ('open', 'closed'),
            ('open', 'dismissed'),
            ('open', 'explained')
        ) THEN
            RAISE EXCEPTION 'trading.venue_break cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'venue_break_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
TRIGGER = (
    "CREATE OR REPLACE TRIGGER venue_break_state_edges BEFORE INSERT OR UPDATE ON "
    "trading.venue_break FOR EACH ROW EXECUTE FUNCTION trading.venue_break_state_edges()"
)


def upgrade() -> None:
    """Make the tables."""
    _gaps()
    _runs()
    _breaks()
    op.execute(FUNCTION)
    op.execute(TRIGGER)
    op.execute("GRANT SELECT, INSERT, UPDATE ON venues.stream_gap TO causeway_app")
    op.execute("GRANT SELECT, INSERT ON trading.venue_reconciliation TO causeway_app")
    op.execute(
        "GRANT SELECT, INSERT, UPDATE ON trading.venue_break, trading.venue_window TO causeway_app"
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("venue_window", schema="trading")
    op.drop_table("venue_break", schema="trading")
    op.execute("DROP FUNCTION trading.venue_break_state_edges()")
    op.drop_table("venue_reconciliation", schema="trading")
    op.drop_table("stream_gap", schema="venues")


def _gaps() -> None:
    op.create_table(
        "stream_gap",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("since", TIMESTAMP, nullable=False),
        sa.Column("until", TIMESTAMP),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("filled_at", TIMESTAMP),
        sa.Column("fills_found", sa.Integer, nullable=False),
        sa.Column("orders_left", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_stream_gap"),
        sa.CheckConstraint("until >= since", name=op.f("ck_stream_gap_until")),
        sa.CheckConstraint(
            "filled_at IS NULL OR until IS NOT NULL", name=op.f("ck_stream_gap_filled_at")
        ),
        sa.CheckConstraint(
            "attempts >= 0 AND fills_found >= 0 AND orders_left >= 0",
            name=op.f("ck_stream_gap_counts"),
        ),
        schema="venues",
    )
    op.create_index(
        "ix_stream_gap_since", "stream_gap", ["venue", "account", "since"], schema="venues"
    )
    op.create_index(
        "ix_stream_gap_unfilled",
        "stream_gap",
        ["venue", "account"],
        schema="venues",
        postgresql_where=sa.text("filled_at IS NULL"),
    )


def _runs() -> None:
    op.create_table(
        "venue_reconciliation",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("started_at", TIMESTAMP, nullable=False),
        sa.Column("finished_at", TIMESTAMP, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("inputs_hash", sa.Text, nullable=False),
        sa.Column("counts", postgresql.JSONB, nullable=False),
        sa.Column("balances", postgresql.JSONB, nullable=False),
        sa.Column("breaks", postgresql.JSONB, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_venue_reconciliation"),
        sa.CheckConstraint(
            "outcome IN ('clean', 'broken', 'incomplete')",
            name=op.f("ck_venue_reconciliation_outcome"),
        ),
        sa.CheckConstraint(
            "finished_at >= started_at", name=op.f("ck_venue_reconciliation_finished_at")
        ),
        schema="trading",
    )
    op.create_index(
        "ix_venue_reconciliation_started_at",
        "venue_reconciliation",
        ["venue", "account", "started_at"],
        schema="trading",
    )


def _breaks() -> None:
    op.create_table(
        "venue_break",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("ours", sa.Text, nullable=False),
        sa.Column("theirs", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("opened_at", TIMESTAMP, nullable=False),
        sa.Column("opened_run", sa.Uuid, nullable=False),
        sa.Column("seen_at", TIMESTAMP, nullable=False),
        sa.Column("seen_run", sa.Uuid, nullable=False),
        sa.Column("closed_at", TIMESTAMP),
        sa.Column("closed_run", sa.Uuid),
        sa.Column("explanation", sa.Text, nullable=False),
        sa.Column("explained_by", sa.Text),
        sa.Column("proposed_by", sa.Text),
        sa.Column("dismissed_by", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_venue_break"),
        sa.ForeignKeyConstraint(
            ["opened_run"],
            ["trading.venue_reconciliation.id"],
            name="fk_venue_break_opened_run_venue_reconciliation",
        ),
        sa.CheckConstraint(
            "(state = 'closed') = (closed_at IS NOT NULL)", name=op.f("ck_venue_break_closed_at")
        ),
        sa.CheckConstraint(
            "state <> 'explained' OR (explained_by IS NOT NULL AND explanation <> '')",
            name=op.f("ck_venue_break_explained"),
        ),
        sa.CheckConstraint(
            "state <> 'dismissed' OR (proposed_by IS NOT NULL AND dismissed_by IS NOT NULL"
            " AND proposed_by <> dismissed_by AND explanation <> '')",
            name=op.f("ck_venue_break_dismissed"),
        ),
        schema="trading",
    )
    op.create_index(
        "uq_venue_break_standing",
        "venue_break",
        ["book", "venue", "account", "kind", "subject"],
        unique=True,
        schema="trading",
        postgresql_where=sa.text("state <> 'closed'"),
    )
    op.create_table(
        "venue_window",
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("cursor", sa.Text, nullable=False),
        sa.Column("at", TIMESTAMP),
        sa.Column("earlier_cursor", sa.Text, nullable=False),
        sa.Column("earlier_at", TIMESTAMP),
        sa.Column("updated_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("book", "venue", "account", "symbol", name="pk_venue_window"),
        schema="trading",
    )
