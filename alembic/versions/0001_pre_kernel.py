"""The runtime role; history, outbox, jobs and leases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001_pre_kernel"
down_revision: str | None = None
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)

CREATE_ROLE = """
DO $$
BEGIN
    -- Roles belong to the whole cluster: another database of it may have made this one already.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'causeway_app') THEN
        CREATE ROLE causeway_app NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$
"""

JOB_FUNCTION = """\
CREATE OR REPLACE FUNCTION kernel.job_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('ready') THEN
            RAISE EXCEPTION 'kernel.job cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'job_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('dead', 'ready'),
            ('ready', 'dead'),
            ('ready', 'done')
        ) THEN
            RAISE EXCEPTION 'kernel.job cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'job_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
JOB_TRIGGER = (
    "CREATE OR REPLACE TRIGGER job_state_edges BEFORE INSERT OR UPDATE ON kernel.job "
    "FOR EACH ROW EXECUTE FUNCTION kernel.job_state_edges()"
)


def lease_columns() -> list[sa.Column]:
    return [
        sa.Column("lease_holder", sa.Text),
        sa.Column("lease_until", TIMESTAMP),
        sa.Column("fence", sa.Integer, nullable=False, server_default="0"),
    ]


def upgrade() -> None:
    op.execute(CREATE_ROLE)
    # An owner that is no superuser must be a member to act as the runtime role.
    op.execute("GRANT causeway_app TO CURRENT_USER")
    op.execute("CREATE SCHEMA kernel")
    op.create_table(
        "history",
        sa.Column("entity_type", sa.Text, nullable=False),
        sa.Column("entity_id", sa.Uuid, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("from_state", sa.Text),
        sa.Column("to_state", sa.Text),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.Column("payload", postgresql.JSONB, nullable=False),
        sa.PrimaryKeyConstraint("entity_type", "entity_id", "version", name="pk_history"),
        schema="kernel",
    )
    op.create_table(
        "outbox",
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("aggregatetype", sa.Text, nullable=False),
        sa.Column("aggregateid", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("payload", postgresql.JSONB, nullable=False),
        sa.Column("recorded_at", TIMESTAMP, nullable=False),
        sa.Column("delivered_at", TIMESTAMP),
        sa.UniqueConstraint("id", name="uq_outbox_id"),
        schema="kernel",
    )
    op.create_index(
        "ix_outbox_undelivered",
        "outbox",
        ["position"],
        schema="kernel",
        postgresql_where=sa.text("delivered_at IS NULL"),
    )
    op.create_table(
        "job",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scheduled_for", TIMESTAMP, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("run_after", TIMESTAMP, nullable=False),
        sa.Column("payload", postgresql.JSONB, nullable=False),
        sa.Column("last_error", sa.Text),
        sa.Column("finished_at", TIMESTAMP),
        *lease_columns(),
        sa.UniqueConstraint("name", "scheduled_for", name="uq_job_name_scheduled_for"),
        schema="kernel",
    )
    op.create_index(
        "ix_job_open",
        "job",
        ["run_after"],
        schema="kernel",
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.Text, primary_key=True),
        *lease_columns(),
        schema="kernel",
    )
    op.execute(JOB_FUNCTION)
    op.execute(JOB_TRIGGER)
    op.execute("GRANT USAGE ON SCHEMA kernel TO causeway_app")
    op.execute("GRANT SELECT, INSERT ON kernel.history, kernel.outbox TO causeway_app")
    op.execute("GRANT UPDATE (delivered_at) ON kernel.outbox TO causeway_app")
    op.execute("GRANT SELECT, INSERT, UPDATE ON kernel.job, kernel.lease TO causeway_app")


def downgrade() -> None:
    # The role stays: other databases of the cluster may use it.
    op.execute("DROP SCHEMA kernel CASCADE")
