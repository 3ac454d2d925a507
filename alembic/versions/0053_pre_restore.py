"""A restore: what the database says of it, and which doors it keeps shut."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0053_pre_restore"
down_revision: str | None = "0052_pre_alerts"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
SCHEMA = "custody"
RESTORE_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.restore_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('frozen') THEN
            RAISE EXCEPTION 'custody.restore cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'restore_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('frozen', 'open')
        ) THEN
            RAISE EXCEPTION 'custody.restore cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'restore_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
SOURCE_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.restore_source_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('waiting') THEN
            RAISE EXCEPTION 'custody.restore_source cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'restore_source_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('done', 'waiting'),
            ('waiting', 'done'),
            ('waiting', 'vouched')
        ) THEN
            RAISE EXCEPTION 'custody.restore_source cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'restore_source_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
ITEM_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.restore_item_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('noted', 'restored', 'unresolved') THEN
            RAISE EXCEPTION 'custody.restore_item cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'restore_item_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('unresolved', 'restored'),
            ('unresolved', 'settled')
        ) THEN
            RAISE EXCEPTION 'custody.restore_item cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'restore_item_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
TRIGGERS = tuple(
    f"CREATE OR REPLACE TRIGGER {table}_state_edges BEFORE INSERT OR UPDATE ON custody.{table} "
    f"FOR EACH ROW EXECUTE FUNCTION custody.{table}_state_edges()"
    for table in ("restore", "restore_source", "restore_item")
)
# As text: two starts within the same microsecond there are not.
SERVER_START = """\
CREATE FUNCTION custody.server_start() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT extract(epoch FROM pg_postmaster_start_time())::text
$$"""
GRANTS = (
    "GRANT SELECT, INSERT ON custody.restore_mark TO causeway_app",
    "GRANT SELECT, INSERT ON custody.restore_watch TO causeway_app",
    "GRANT UPDATE (started, system, timeline, at) ON custody.restore_watch TO causeway_app",
    "GRANT SELECT, INSERT ON custody.restore_witness TO causeway_app",
    "GRANT UPDATE (number, at) ON custody.restore_witness TO causeway_app",
    "GRANT SELECT, INSERT ON custody.restore TO causeway_app",
    (
        "GRANT UPDATE (state, evidence, since, signer, signer_mark, signer_token, mark, token, "
        "records, sent_known_at, opened_by, opened_reason, opened_at) "
        "ON custody.restore TO causeway_app"
    ),
    "GRANT SELECT, INSERT ON custody.restore_source TO causeway_app",
    (
        "GRANT UPDATE (state, detail, done_by, signature, done_at) "
        "ON custody.restore_source TO causeway_app"
    ),
    "GRANT SELECT, INSERT ON custody.restore_item TO causeway_app",
    (
        "GRANT UPDATE (state, payout_id, what, settled_by, reason, settled_at) "
        "ON custody.restore_item TO causeway_app"
    ),
)


def upgrade() -> None:
    """Make the tables."""
    _marks()
    _restores()
    _sources()
    functions = (RESTORE_FUNCTION, SOURCE_FUNCTION, ITEM_FUNCTION, SERVER_START)
    for statement in (*functions, *TRIGGERS, *GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    for table in (
        *("restore_item", "restore_source", "restore"),
        *("restore_witness", "restore_watch", "restore_mark"),
    ):
        op.drop_table(table, schema=SCHEMA)
    for name in ("restore", "restore_source", "restore_item"):
        op.execute(f"DROP FUNCTION custody.{name}_state_edges()")
    op.execute("DROP FUNCTION custody.server_start()")


def _marks() -> None:
    op.create_table(
        "restore_mark",
        sa.Column("number", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("previous", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("made_at", TIMESTAMP, nullable=False),
        sa.Column("about", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_restore_mark"),
        sa.CheckConstraint("number > 0", name="number_positive"),
        sa.CheckConstraint("(number = 1) = (previous = '')", name="first_has_none_before"),
        schema=SCHEMA,
    )
    op.create_table(
        "restore_watch",
        sa.Column("one", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("started", sa.Text, nullable=False),
        sa.Column("system", sa.Text, nullable=False),
        sa.Column("timeline", sa.BigInteger, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("one", name="pk_restore_watch"),
        sa.CheckConstraint("one = 1", name="one_row"),
        schema=SCHEMA,
    )
    op.create_table(
        "restore_witness",
        sa.Column("witness", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("witness", name="pk_restore_witness"),
        sa.CheckConstraint("number >= 0", name="number_not_negative"),
        schema=SCHEMA,
    )


def _restores() -> None:
    op.create_table(
        "restore",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("found_by", sa.Text, nullable=False),
        sa.Column("found_at", TIMESTAMP, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("since", TIMESTAMP, nullable=False),
        sa.Column("signer", sa.Text, nullable=False),
        sa.Column("signer_mark", sa.BigInteger, nullable=False),
        sa.Column("signer_token", sa.Text, nullable=False),
        sa.Column("mark", sa.BigInteger, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("sent_known_at", TIMESTAMP),
        sa.Column("opened_by", JSONB),
        sa.Column("opened_reason", sa.Text),
        sa.Column("opened_at", TIMESTAMP),
        sa.PrimaryKeyConstraint("id", name="pk_restore"),
        sa.CheckConstraint(
            "(state = 'open') = (opened_at IS NOT NULL)"
            " AND (state = 'open') = (opened_by IS NOT NULL)"
            " AND (state = 'open') = (opened_reason IS NOT NULL)",
            name="opened_as_a_whole",
        ),
        sa.CheckConstraint(
            "state <> 'open' OR sent_known_at IS NOT NULL", name="opened_when_known"
        ),
        schema=SCHEMA,
    )
    op.create_index(
        "uq_restore_frozen",
        "restore",
        ["state"],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("state = 'frozen'"),
    )


def _sources() -> None:
    op.create_table(
        "restore_source",
        sa.Column("restore_id", sa.Uuid, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("done_by", sa.Text),
        sa.Column("signature", sa.LargeBinary),
        sa.Column("done_at", TIMESTAMP),
        sa.PrimaryKeyConstraint("restore_id", "source", name="pk_restore_source"),
        sa.ForeignKeyConstraint(
            ["restore_id"], ["custody.restore.id"], name="fk_restore_source_restore_id_restore"
        ),
        sa.CheckConstraint("stage IN ('sent', 'facts')", name="stage"),
        sa.CheckConstraint(
            "(state = 'waiting') = (done_at IS NULL) AND (state = 'waiting') = (done_by IS NULL)",
            name="done_as_a_whole",
        ),
        sa.CheckConstraint(
            "(state = 'vouched') = (signature IS NOT NULL)", name="vouched_under_a_key"
        ),
        schema=SCHEMA,
    )
    op.create_table(
        "restore_item",
        sa.Column("restore_id", sa.Uuid, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("payout_id", sa.Uuid),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("found_at", TIMESTAMP, nullable=False),
        sa.Column("settled_by", JSONB),
        sa.Column("reason", sa.Text),
        sa.Column("settled_at", TIMESTAMP),
        sa.PrimaryKeyConstraint("restore_id", "source", "key", name="pk_restore_item"),
        sa.ForeignKeyConstraint(
            ["restore_id"], ["custody.restore.id"], name="fk_restore_item_restore_id_restore"
        ),
        sa.CheckConstraint(
            "(state = 'settled') = (settled_by IS NOT NULL)"
            " AND (state = 'settled') = (settled_at IS NOT NULL)",
            name="settled_by_people",
        ),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_restore_item_payout",
        "restore_item",
        ["payout_id"],
        schema=SCHEMA,
        postgresql_where=sa.text("payout_id IS NOT NULL"),
    )
