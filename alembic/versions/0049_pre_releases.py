"""What settles with what is held, and what is released against what."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0049_pre_releases"
down_revision: str | None = "0048_pre_matching"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)
SCHEMA = "settlement"
LIVE = (
    "state NOT IN ('confirmed', 'failed_on_chain', 'refused', 'rejected', 'cancelled', 'expired')"
)
EDGES = """\
CREATE OR REPLACE FUNCTION settlement.instruction_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('planned') THEN
            RAISE EXCEPTION 'settlement.instruction cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'instruction_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('failed', 'rescheduled'),
            ('final', 'released'),
            ('funded', 'released'),
            ('funded', 'rescheduled'),
            ('planned', 'funded'),
            ('planned', 'released'),
            ('released', 'failed'),
            ('released', 'final'),
            ('released', 'rescheduled'),
            ('rescheduled', 'funded'),
            ('rescheduled', 'released')
        ) THEN
            RAISE EXCEPTION 'settlement.instruction cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'instruction_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
FIXED_FUNCTION = """\
CREATE FUNCTION settlement.earmark_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.ended_at IS NOT NULL
       OR (NEW.instruction_id, NEW.attempt, NEW.book, NEW.location, NEW.asset, NEW.amount,
           NEW.hold_id, NEW.plan_id, NEW.held_at)
       IS DISTINCT FROM
          (OLD.instruction_id, OLD.attempt, OLD.book, OLD.location, OLD.asset, OLD.amount,
           OLD.hold_id, OLD.plan_id, OLD.held_at)
    THEN
        RAISE EXCEPTION 'why a payment was released is said once'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'earmark_fixed';
    END IF;
    RETURN NEW;
END
$$"""
FIXED_TRIGGER = (
    "CREATE TRIGGER earmark_fixed BEFORE UPDATE ON settlement.earmark "
    "FOR EACH ROW EXECUTE FUNCTION settlement.earmark_fixed()"
)
EDGES_BEFORE = EDGES.replace("            ('funded', 'rescheduled'),\n", "").replace(
    "            ('released', 'rescheduled'),\n", ""
)
GRANTS = (
    "GRANT SELECT, INSERT ON settlement.release_plan TO causeway_app",
    "GRANT SELECT, INSERT ON settlement.earmark TO causeway_app",
    "GRANT UPDATE (cover, cover_detail, ended_by, ended_at) ON settlement.earmark TO causeway_app",
)


def upgrade() -> None:
    """Make the tables."""
    _plans()
    _earmarks()
    for statement in (EDGES, FIXED_FUNCTION, FIXED_TRIGGER, *GRANTS):
        op.execute(statement)
    op.create_index(
        "ix_payout_live", "payout", ["book"], schema="custody", postgresql_where=sa.text(LIVE)
    )


def downgrade() -> None:
    """Drop them."""
    op.execute(EDGES_BEFORE)
    op.drop_index("ix_payout_live", "payout", schema="custody")
    op.drop_table("earmark", schema=SCHEMA)
    op.drop_table("release_plan", schema=SCHEMA)
    op.execute("DROP FUNCTION settlement.earmark_fixed()")


def _plans() -> None:
    op.create_table(
        "release_plan",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("scope", sa.Uuid, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("input_hash", sa.Text, nullable=False),
        sa.Column("inputs", JSONB, nullable=False),
        sa.Column("chosen", JSONB, nullable=False),
        sa.Column("value", UNITS, nullable=False),
        sa.Column("bound", UNITS, nullable=False),
        sa.Column("gap_ppm", sa.Integer, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_release_plan"),
        sa.UniqueConstraint("scope", "number", name="uq_release_plan_scope_number"),
        sa.CheckConstraint("value >= 0 AND bound >= value", name="bound"),
        sa.CheckConstraint("gap_ppm >= 0", name="gap"),
        schema=SCHEMA,
    )


def _earmarks() -> None:
    op.create_table(
        "earmark",
        sa.Column("instruction_id", sa.Uuid, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("plan_id", sa.Uuid),
        sa.Column("location", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.Column("hold_id", sa.Uuid),
        sa.Column("held_at", TIMESTAMP, nullable=False),
        sa.Column("cover", sa.Text),
        sa.Column("cover_detail", sa.Text, nullable=False, server_default=""),
        sa.Column("ended_by", sa.Text),
        sa.Column("ended_at", TIMESTAMP),
        sa.PrimaryKeyConstraint("instruction_id", "attempt", name="pk_earmark"),
        sa.UniqueConstraint("hold_id", name="uq_earmark_hold_id"),
        sa.ForeignKeyConstraint(
            ["instruction_id"],
            ["settlement.instruction.id"],
            name="fk_earmark_instruction_id_instruction",
        ),
        sa.ForeignKeyConstraint(
            ["plan_id"], ["settlement.release_plan.id"], name="fk_earmark_plan_id_release_plan"
        ),
        sa.CheckConstraint("amount > 0", name="positive"),
        sa.CheckConstraint(
            "cover IN ('nothing-owed', 'received', 'prefunded', 'limit')", name="cover"
        ),
        sa.CheckConstraint("(ended_at IS NULL) = (ended_by IS NULL)", name="ended"),
        sa.CheckConstraint("cover IS NULL OR ended_at IS NOT NULL", name="covered_when_released"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_earmark_open",
        "earmark",
        ["book", "location", "asset"],
        schema=SCHEMA,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
