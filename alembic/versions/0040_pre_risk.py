"""Limits and controls of risk: switches, limits and their versions, health of venues."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0040_pre_risk"
down_revision: str | None = "0039_pre_quotes"
branch_labels = None
depends_on = None

SCHEMA = "risk"
TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)

CONTROL_FUNCTION = """\
CREATE OR REPLACE FUNCTION risk.desk_control_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('active') THEN
            RAISE EXCEPTION 'risk.desk_control cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'desk_control_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('active', 'halted'),
            ('active', 'reducing'),
            ('halted', 'active'),
            ('halted', 'reducing'),
            ('reducing', 'active'),
            ('reducing', 'halted')
        ) THEN
            RAISE EXCEPTION 'risk.desk_control cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'desk_control_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
CONTROL_TRIGGER = (
    "CREATE OR REPLACE TRIGGER desk_control_state_edges BEFORE INSERT OR UPDATE ON "
    "risk.desk_control FOR EACH ROW EXECUTE FUNCTION risk.desk_control_state_edges()"
)
HEALTH_FUNCTION = """\
CREATE OR REPLACE FUNCTION risk.venue_health_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('closed') THEN
            RAISE EXCEPTION 'risk.venue_health cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'venue_health_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('closed', 'open'),
            ('half-open', 'closed'),
            ('half-open', 'open'),
            ('open', 'half-open')
        ) THEN
            RAISE EXCEPTION 'risk.venue_health cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'venue_health_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
HEALTH_TRIGGER = (
    "CREATE OR REPLACE TRIGGER venue_health_state_edges BEFORE INSERT OR UPDATE ON "
    "risk.venue_health FOR EACH ROW EXECUTE FUNCTION risk.venue_health_state_edges()"
)
GRANTS = (
    "GRANT USAGE ON SCHEMA risk TO causeway_app",
    "GRANT SELECT, INSERT ON risk.desk_control TO causeway_app",
    "GRANT UPDATE (state, reason, changed_by, since, version) ON risk.desk_control TO causeway_app",
    # A version of limits that was in force never changes.
    "GRANT SELECT, INSERT ON risk.desk_limits, risk.party_limits TO causeway_app",
    "GRANT SELECT, INSERT ON risk.party_limit TO causeway_app",
    "GRANT UPDATE (version) ON risk.party_limit TO causeway_app",
    "GRANT SELECT, INSERT, DELETE ON risk.order_passed TO causeway_app",
    "GRANT SELECT, INSERT, UPDATE ON risk.venue_health TO causeway_app",
)


def upgrade() -> None:
    """Make the tables."""
    op.execute("CREATE SCHEMA risk")
    _desks()
    _parties()
    _venues()
    for statement in (
        *(CONTROL_FUNCTION, CONTROL_TRIGGER, HEALTH_FUNCTION, HEALTH_TRIGGER),
        *GRANTS,
    ):
        op.execute(statement)


def _desks() -> None:
    op.create_table(
        "desk_control",
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("changed_by", sa.Text, nullable=False),
        sa.Column("since", TIMESTAMP),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("desk", name="pk_desk_control"),
        sa.CheckConstraint("state IN ('active', 'halted', 'reducing')", name="state"),
        sa.CheckConstraint("version >= 0", name="version"),
        sa.CheckConstraint("(since IS NULL) = (version = 0)", name="since"),
        schema=SCHEMA,
    )
    op.create_table(
        "desk_limits",
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("asset_units", postgresql.JSONB, nullable=False),
        sa.Column("venue_units", postgresql.JSONB, nullable=False),
        sa.Column("notional_units", UNITS),
        sa.Column("order_notional_units", UNITS),
        sa.Column("orders_per_minute", sa.Integer),
        sa.Column("unknown_orders_max", sa.Integer),
        sa.Column("loss_units", UNITS),
        sa.Column("book_age_max_ms", sa.BigInteger),
        *_approved(),
        sa.PrimaryKeyConstraint("desk", "version", name="pk_desk_limits"),
        sa.CheckConstraint("version > 0", name="version"),
        sa.CheckConstraint("set_by <> approved_by", name="two_people"),
        sa.CheckConstraint("notional_units >= 0 AND order_notional_units >= 0", name="notional"),
        sa.CheckConstraint("orders_per_minute >= 0 AND unknown_orders_max >= 0", name="counts"),
        sa.CheckConstraint("loss_units > 0 AND book_age_max_ms >= 0", name="loss_and_age"),
        schema=SCHEMA,
    )
    op.create_table(
        "order_passed",
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("passed_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("desk", "number", name="pk_order_passed"),
        schema=SCHEMA,
    )


def _parties() -> None:
    op.create_table(
        "party_limit",
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("party", name="pk_party_limit"),
        sa.CheckConstraint("version >= 0", name="version"),
        schema=SCHEMA,
    )
    op.create_table(
        "party_limits",
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("exposure_units", UNITS),
        sa.Column("settlement_units", UNITS),
        *_approved(),
        sa.PrimaryKeyConstraint("party", "version", name="pk_party_limits"),
        sa.CheckConstraint("version > 0", name="version"),
        sa.CheckConstraint("set_by <> approved_by", name="two_people"),
        sa.CheckConstraint("exposure_units >= 0 AND settlement_units >= 0", name="amounts"),
        schema=SCHEMA,
    )


def _venues() -> None:
    op.create_table(
        "venue_health",
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("since", TIMESTAMP, nullable=False),
        sa.Column("trips", sa.Integer, nullable=False),
        sa.Column("trial_at", TIMESTAMP),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("samples", postgresql.JSONB, nullable=False),
        sa.PrimaryKeyConstraint("venue", "account", name="pk_venue_health"),
        sa.CheckConstraint("state IN ('closed', 'half-open', 'open')", name="state"),
        sa.CheckConstraint("trips >= 0", name="trips"),
        sa.CheckConstraint("trial_at IS NULL OR state = 'half-open'", name="trial"),
        schema=SCHEMA,
    )


def _approved() -> list[sa.Column[object]]:
    return [
        sa.Column("set_by", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("set_at", TIMESTAMP, nullable=False),
    ]


def downgrade() -> None:
    """Take them away."""
    for table in (
        *("desk_control", "desk_limits", "order_passed"),
        *("party_limit", "party_limits", "venue_health"),
    ):
        op.drop_table(table, schema=SCHEMA)
    op.execute("DROP FUNCTION risk.desk_control_state_edges()")
    op.execute("DROP FUNCTION risk.venue_health_state_edges()")
    op.execute("DROP SCHEMA risk")
