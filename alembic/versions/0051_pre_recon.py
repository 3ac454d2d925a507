"""Reconciliation of all locations at one instant, and its breaks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0051_pre_recon"
down_revision: str | None = "0050_pre_reports"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)
SCHEMA = "reporting"
FUNCTION = """\
CREATE OR REPLACE FUNCTION reporting.recon_break_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('open') THEN
            RAISE EXCEPTION 'reporting.recon_break cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'recon_break_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('assigned', 'cleared'),
            ('assigned', 'resolved'),
            ('open', 'assigned'),
            ('open', 'cleared'),
            ('open', 'resolved'),
            ('resolved', 'cleared'),
            ('resolved', 'open')
        ) THEN
            RAISE EXCEPTION 'reporting.recon_break cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'recon_break_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
TRIGGER = (
    "CREATE OR REPLACE TRIGGER recon_break_state_edges BEFORE INSERT OR UPDATE ON "
    "reporting.recon_break FOR EACH ROW EXECUTE FUNCTION reporting.recon_break_state_edges()"
)
GRANTS = (
    "GRANT SELECT, INSERT ON reporting.recon_run TO causeway_app",
    "GRANT SELECT, INSERT ON reporting.recon_break TO causeway_app",
    (
        "GRANT UPDATE (amount, text, state, seen_at, assigned_to, resolution, resolved_by, "
        "resolved_second, resolved_amount, resolved_at, cleared_at) "
        "ON reporting.recon_break TO causeway_app"
    ),
)


def upgrade() -> None:
    """Make the tables."""
    _runs()
    _breaks()
    for statement in (FUNCTION, TRIGGER, *GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    for table in ("recon_break", "recon_run"):
        op.drop_table(table, schema=SCHEMA)
    op.execute("DROP FUNCTION reporting.recon_break_state_edges()")


def _runs() -> None:
    op.create_table(
        "recon_run",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.Column("slot", sa.Date),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("lines", JSONB, nullable=False),
        sa.Column("found", JSONB, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_recon_run"),
        sa.UniqueConstraint("book", "slot", name="uq_recon_run_slot"),
        schema=SCHEMA,
    )
    op.create_index("ix_recon_run_at", "recon_run", ["book", "at", "id"], schema=SCHEMA)


def _breaks() -> None:
    op.create_table(
        "recon_break",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("place_kind", sa.Text, nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("amount", UNITS),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("opened_at", TIMESTAMP, nullable=False),
        sa.Column("opened_run", sa.Uuid, nullable=False),
        sa.Column("seen_at", TIMESTAMP, nullable=False),
        sa.Column("assigned_to", sa.Text),
        sa.Column("resolution", sa.Text, nullable=False, server_default=""),
        sa.Column("resolved_by", sa.Text),
        sa.Column("resolved_second", sa.Text),
        sa.Column("resolved_amount", UNITS),
        sa.Column("resolved_at", TIMESTAMP),
        sa.Column("cleared_at", TIMESTAMP),
        sa.PrimaryKeyConstraint("id", name="pk_recon_break"),
        sa.ForeignKeyConstraint(
            ["opened_run"], ["reporting.recon_run.id"], name="fk_recon_break_opened_run_recon_run"
        ),
        sa.CheckConstraint("(state = 'cleared') = (cleared_at IS NOT NULL)", name="cleared"),
        sa.CheckConstraint("state <> 'assigned' OR assigned_to IS NOT NULL", name="assigned"),
        sa.CheckConstraint(
            "(resolved_by IS NULL) = (resolved_at IS NULL)"
            " AND (resolved_by IS NULL) = (resolved_second IS NULL)"
            " AND resolved_by IS DISTINCT FROM coalesce(resolved_second, '')"
            " AND (state <> 'resolved' OR (resolved_by IS NOT NULL AND resolution <> ''))",
            name="two_people",
        ),
        schema=SCHEMA,
    )
    op.create_index(
        "uq_recon_break_standing",
        "recon_break",
        ["book", "key"],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("state != 'cleared'"),
    )
