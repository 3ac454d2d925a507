"""Alerts: raised, delivered, acknowledged, escalated."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0052_pre_alerts"
down_revision: str | None = "0051_pre_recon"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
SCHEMA = "reporting"
ALERT_FUNCTION = """\
CREATE OR REPLACE FUNCTION reporting.alert_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('raised') THEN
            RAISE EXCEPTION 'reporting.alert cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'alert_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('acknowledged', 'cleared'),
            ('raised', 'acknowledged'),
            ('raised', 'cleared')
        ) THEN
            RAISE EXCEPTION 'reporting.alert cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'alert_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
ALERT_TRIGGER = (
    "CREATE OR REPLACE TRIGGER alert_state_edges BEFORE INSERT OR UPDATE ON "
    "reporting.alert FOR EACH ROW EXECUTE FUNCTION reporting.alert_state_edges()"
)
DELIVERY_FUNCTION = """\
CREATE OR REPLACE FUNCTION reporting.alert_delivery_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('pending') THEN
            RAISE EXCEPTION 'reporting.alert_delivery cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'alert_delivery_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('pending', 'dead'),
            ('pending', 'delivered')
        ) THEN
            RAISE EXCEPTION 'reporting.alert_delivery cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'alert_delivery_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
DELIVERY_TRIGGER = (
    "CREATE OR REPLACE TRIGGER alert_delivery_state_edges BEFORE INSERT OR UPDATE ON "
    "reporting.alert_delivery FOR EACH ROW EXECUTE FUNCTION reporting.alert_delivery_state_edges()"
)
GRANTS = (
    "GRANT SELECT, INSERT ON reporting.alert TO causeway_app",
    (
        "GRANT UPDATE (text, state, level, level_since, last_seen_at, acknowledged_by, "
        "acknowledged_at, cleared_at, planned_level, planned_policy, is_clear_planned) "
        "ON reporting.alert TO causeway_app"
    ),
    "GRANT SELECT, INSERT ON reporting.alert_policy TO causeway_app",
    "GRANT SELECT, INSERT ON reporting.alert_delivery TO causeway_app",
    (
        "GRANT UPDATE (state, attempts, run_after, detail, ended_at, lease_holder, lease_until, "
        "fence) ON reporting.alert_delivery TO causeway_app"
    ),
)


def upgrade() -> None:
    """Make the tables."""
    _alerts()
    _policies()
    _deliveries()
    for statement in (ALERT_FUNCTION, ALERT_TRIGGER, DELIVERY_FUNCTION, DELIVERY_TRIGGER, *GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    for table in ("alert_delivery", "alert_policy", "alert"):
        op.drop_table(table, schema=SCHEMA)
    for name in ("alert", "alert_delivery"):
        op.execute(f"DROP FUNCTION reporting.{name}_state_edges()")


def _alerts() -> None:
    op.create_table(
        "alert",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("level", sa.SmallInteger, nullable=False),
        sa.Column("level_since", TIMESTAMP, nullable=False),
        sa.Column("raised_at", TIMESTAMP, nullable=False),
        sa.Column("last_seen_at", TIMESTAMP, nullable=False),
        sa.Column("acknowledged_by", sa.Text),
        sa.Column("acknowledged_at", TIMESTAMP),
        sa.Column("cleared_at", TIMESTAMP),
        sa.Column("planned_level", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("planned_policy", sa.Integer, nullable=False, server_default="0"),
        sa.Column("is_clear_planned", sa.Boolean, nullable=False, server_default="false"),
        sa.PrimaryKeyConstraint("id", name="pk_alert"),
        sa.CheckConstraint("level > 0", name="level"),
        sa.CheckConstraint("(state = 'cleared') = (cleared_at IS NOT NULL)", name="cleared"),
        sa.CheckConstraint(
            "(acknowledged_by IS NULL) = (acknowledged_at IS NULL)"
            " AND (state <> 'acknowledged' OR acknowledged_by IS NOT NULL)",
            name="acknowledged",
        ),
        schema=SCHEMA,
    )
    op.create_index(
        "uq_alert_open",
        "alert",
        ["book", "kind", "key"],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("state != 'cleared'"),
    )
    op.create_index("ix_alert_raised_at", "alert", ["book", "raised_at", "id"], schema=SCHEMA)
    op.create_index(
        "ix_alert_clear_unplanned",
        "alert",
        ["cleared_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("state = 'cleared' AND NOT is_clear_planned"),
    )


def _policies() -> None:
    op.create_table(
        "alert_policy",
        sa.Column("version", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("document", JSONB, nullable=False),
        sa.Column("entered_by", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_alert_policy"),
        sa.CheckConstraint("version > 0", name="version"),
        sa.CheckConstraint("entered_by <> approved_by", name="two_people"),
        schema=SCHEMA,
    )


def _deliveries() -> None:
    op.create_table(
        "alert_delivery",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("alert_id", sa.Uuid, nullable=False),
        sa.Column("level", sa.SmallInteger, nullable=False),
        sa.Column("is_clear", sa.Boolean, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("channel_kind", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("run_after", TIMESTAMP, nullable=False),
        sa.Column("detail", sa.Text, nullable=False, server_default=""),
        sa.Column("ended_at", TIMESTAMP),
        sa.Column("lease_holder", sa.Text),
        sa.Column("lease_until", TIMESTAMP),
        sa.Column("fence", sa.Integer, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("id", name="pk_alert_delivery"),
        sa.ForeignKeyConstraint(
            ["alert_id"], ["reporting.alert.id"], name="fk_alert_delivery_alert_id_alert"
        ),
        sa.UniqueConstraint(
            "alert_id",
            "level",
            "is_clear",
            "channel",
            name="uq_alert_delivery_alert_id_level_is_clear_channel",
        ),
        sa.CheckConstraint("(state = 'pending') = (ended_at IS NULL)", name="ended"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_alert_delivery_due",
        "alert_delivery",
        ["run_after"],
        schema=SCHEMA,
        postgresql_where=sa.text("state = 'pending'"),
    )
