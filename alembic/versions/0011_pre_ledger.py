"""The ledger, complete: limits, purposes, effective days, periods, imports, and records as COPY prints them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011_pre_ledger"
down_revision: str | None = "0010_pre_settlement"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)

# The leaf of a record is made from another line now: roots and checkpoints of books that have
# records could never be made again.
REFUSE_OLD_RECORDS = """\
DO $$
BEGIN
    IF EXISTS (SELECT FROM ledger.head WHERE sequence > 0) THEN
        RAISE EXCEPTION 'this database holds journals of an older record format'
            USING HINT = 'Start a new database; journals from before the first release are not carried over';
    END IF;
END
$$"""

# Without a join: what the new rows sum to must be what the old ones did.
ZERO_SUM = """\
CREATE OR REPLACE FUNCTION ledger.refuse_imbalance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    unbalanced text;
BEGIN
    SELECT asset INTO unbalanced FROM (
        SELECT book, asset, debits_posted - credits_posted AS posted,
               debits_pending - credits_pending AS pending FROM after_rows
        UNION ALL
        SELECT book, asset, credits_posted - debits_posted,
               credits_pending - debits_pending FROM before_rows
    ) moved
     GROUP BY book, asset HAVING sum(posted) <> 0 OR sum(pending) <> 0
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the balances of % would no longer sum to zero', unbalanced
            USING ERRCODE = 'check_violation', CONSTRAINT = 'balance_zero_sum';
    END IF;
    RETURN NULL;
END
$$"""

# The first exchange of every posting. Each statement of a volatile function sees what is committed
# when it begins, so balances and the clock are read as they stand once the lock is held. Each look-up is one
# by key, whatever the planner believes about the tables: a plan that was cached while they were small would
# otherwise scan them when they are large. LATERAL … LIMIT 1 sees to that, with other scans switched off until
# the transaction ends; and `book + 0`, wherever another index begins with the book as well: of a book that is
# newer than the last ANALYZE the planner believes that it is empty, and would walk through all of it. Each key
# is looked up once, so remembering results (memoize) only costs time, here and when the block is written; and a
# plan that does not depend on the parameters is made once for a connection.
LOCK_AND_READ = """\
CREATE FUNCTION ledger.lock_and_read(
    wanted smallint, told timestamptz, due_max integer, ids text, paths text, assets text,
    OUT sequence bigint, OUT height bigint, OUT block_time timestamptz, OUT account_count bigint,
    OUT frontier bytea, OUT entity text, OUT closed_through date, OUT imported_through timestamptz,
    OUT isolation text, OUT clock timestamptz, OUT at timestamptz,
    OUT due uuid[], OUT spent uuid[], OUT accounts text[]
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    newest uuid;
    refused uuid;
BEGIN
    SELECT h.sequence, h.height, h.block_time, h.account_count, h.frontier, h.entity,
           h.closed_through, h.imported_through
      INTO lock_and_read.sequence, lock_and_read.height, lock_and_read.block_time,
           lock_and_read.account_count, lock_and_read.frontier, lock_and_read.entity,
           lock_and_read.closed_through, lock_and_read.imported_through
      FROM ledger.head h WHERE h.book = wanted FOR NO KEY UPDATE;
    lock_and_read.isolation := current_setting('transaction_isolation');
    PERFORM set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
            set_config('enable_memoize', 'off', true),
            set_config('plan_cache_mode', 'force_generic_plan', true);
    -- One clock for all processes, unless a test or a simulation brings its own.
    lock_and_read.clock := clock_timestamp();
    IF current_setting('causeway.injected_clock', true) = 'on' THEN
        lock_and_read.clock := coalesce(told, lock_and_read.clock);
    END IF;
    lock_and_read.at := greatest(lock_and_read.block_time, lock_and_read.clock);
    IF due_max > 0 THEN
        lock_and_read.due := ARRAY(
            SELECT h.id FROM ledger.hold h
             WHERE h.book = wanted AND h.state = 'open' AND h.expires_at IS NOT NULL
               AND h.expires_at <= lock_and_read.at
             ORDER BY h.expires_at, h.sequence LIMIT due_max
        );
    END IF;
    -- Ids are ordered by time: most are newer than any that is known in any book.
    IF ids <> '{}' THEN
        SELECT t.id INTO newest FROM ledger.transfer t ORDER BY t.id DESC LIMIT 1;
        SELECT r.id INTO refused FROM ledger.refusal r ORDER BY r.id DESC LIMIT 1;
        lock_and_read.spent := ARRAY(
            SELECT found.id FROM unnest(ids::uuid[]) AS asked (id) JOIN LATERAL (
                SELECT t.id FROM ledger.transfer t
                 WHERE t.id = asked.id AND t.book + 0 = wanted LIMIT 1
            ) found ON true WHERE asked.id <= newest
        ) || ARRAY(
            SELECT found.id FROM unnest(ids::uuid[]) AS asked (id) JOIN LATERAL (
                SELECT r.id FROM ledger.refusal r
                 WHERE r.id = asked.id AND r.book + 0 = wanted LIMIT 1
            ) found ON true WHERE asked.id <= refused
        );
    END IF;
    IF paths <> '{}' THEN
        lock_and_read.accounts := ARRAY(
            SELECT concat_ws(
                E'\\t', a.number, a.path, a.asset, coalesce(a.effective_at, a.opened_at),
                b.debits_must_not_exceed_credits, b.credits_must_not_exceed_debits, b.credit_limit,
                b.frozen, b.closed, b.version, b.sequence,
                b.debits_pending, b.debits_posted, b.credits_pending, b.credits_posted)
              FROM unnest(paths::text[], assets::text[]) AS asked (path, asset)
              JOIN LATERAL (
                  SELECT * FROM ledger.account k
                   WHERE k.path = asked.path AND k.asset = asked.asset AND k.book + 0 = wanted
                   LIMIT 1
              ) a ON true
              JOIN LATERAL (
                  SELECT * FROM ledger.balance k
                   WHERE k.book = wanted AND k.account = a.number LIMIT 1
              ) b ON true
        );
    END IF;
END
$$"""

ZERO_SUM_BEFORE = """\
CREATE OR REPLACE FUNCTION ledger.refuse_imbalance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    unbalanced text;
BEGIN
    SELECT n.asset INTO unbalanced
      FROM after_rows n JOIN before_rows o USING (book, account)
     GROUP BY n.book, n.asset
    HAVING sum(n.debits_posted - o.debits_posted) <> sum(n.credits_posted - o.credits_posted)
        OR sum(n.debits_pending - o.debits_pending) <> sum(n.credits_pending - o.credits_pending)
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the balances of % would no longer sum to zero', unbalanced
            USING ERRCODE = 'check_violation', CONSTRAINT = 'balance_zero_sum';
    END IF;
    RETURN NULL;
END
$$"""

LIMITED = (
    (
        "debits_must_not_exceed_credits",
        "NOT debits_must_not_exceed_credits OR debits_pending + debits_posted <= credits_posted",
    ),
    (
        "credits_must_not_exceed_debits",
        "NOT credits_must_not_exceed_debits OR credits_pending + credits_posted <= debits_posted",
    ),
)

EVENT_LIMIT = "(credit_limit IS NOT NULL) = (kind IN ('opened', 'limited'))"


def upgrade() -> None:
    op.execute(REFUSE_OLD_RECORDS)
    alter_state()
    alter_accounts()
    alter_keys()
    alter_transfers()
    create_effective()
    create_periods()
    op.execute(ZERO_SUM)
    op.execute(LOCK_AND_READ)
    guard_and_grant()


def alter_state() -> None:
    op.add_column("head", sa.Column("closed_through", sa.Date), schema="ledger")
    op.add_column("head", sa.Column("imported_through", TIMESTAMP), schema="ledger")
    op.add_column(
        "balance",
        sa.Column("credit_limit", UNITS, nullable=False, server_default="0"),
        schema="ledger",
    )
    op.create_check_constraint(
        op.f("ck_balance_credit_limit"), "balance", "credit_limit >= 0", schema="ledger"
    )
    for name, condition in LIMITED:
        op.drop_constraint(op.f(f"ck_balance_{name}"), "balance", schema="ledger")
        op.create_check_constraint(
            op.f(f"ck_balance_{name}"), "balance", f"{condition} + credit_limit", schema="ledger"
        )


def alter_accounts() -> None:
    for column in (
        sa.Column("purpose", sa.Text, nullable=False, server_default=""),
        sa.Column(
            "metadata", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")
        ),
        sa.Column("opened_at", TIMESTAMP, nullable=False),
        sa.Column("effective_at", TIMESTAMP),
    ):
        op.add_column("account", column, schema="ledger")
    op.add_column("account_event", sa.Column("credit_limit", UNITS), schema="ledger")
    op.drop_constraint(op.f("ck_account_event_kind"), "account_event", schema="ledger")
    op.create_check_constraint(
        op.f("ck_account_event_kind"),
        "account_event",
        "kind IN ('opened', 'frozen', 'unfrozen', 'limited')",
        schema="ledger",
    )
    op.create_check_constraint(
        op.f("ck_account_event_credit_limit"), "account_event", EVENT_LIMIT, schema="ledger"
    )


KEYS_BY_ID = (
    ("transfer", "uq_transfer_book_id", "uq_transfer_id_book"),
    ("refusal", "uq_refusal_book_id", "uq_refusal_id_book"),
)


def alter_keys() -> None:
    """Ids first, books second: an id is looked up without the planner's opinion of the book."""
    for table, before, after in KEYS_BY_ID:
        op.drop_constraint(before, table, schema="ledger")
        op.create_unique_constraint(after, table, ["id", "book"], schema="ledger")
    op.drop_index("uq_transfer_reverses", "transfer", schema="ledger")
    op.create_index(
        "uq_transfer_reverses",
        "transfer",
        ["reverses", "book"],
        schema="ledger",
        unique=True,
        postgresql_where=sa.text("reverses IS NOT NULL"),
    )
    op.create_index("ix_account_path", "account", ["path", "asset", "book"], schema="ledger")


def restore_keys() -> None:
    op.drop_index("ix_account_path", "account", schema="ledger")
    op.drop_index("uq_transfer_reverses", "transfer", schema="ledger")
    op.create_index(
        "uq_transfer_reverses",
        "transfer",
        ["book", "reverses"],
        schema="ledger",
        unique=True,
        postgresql_where=sa.text("reverses IS NOT NULL"),
    )
    for table, before, after in KEYS_BY_ID:
        op.drop_constraint(after, table, schema="ledger")
        op.create_unique_constraint(before, table, ["book", "id"], schema="ledger")


def alter_transfers() -> None:
    op.drop_index("ix_transfer_correlation", "transfer", schema="ledger")
    for name, columns, condition in (
        ("ix_transfer_correlation", ["book", "correlation", "sequence"], "correlation IS NOT NULL"),
        ("ix_transfer_reference", ["book", "reference", "sequence"], "reference <> ''"),
        ("ix_transfer_code", ["book", "code", "sequence"], None),
    ):
        where = None if condition is None else sa.text(condition)
        op.create_index(name, "transfer", columns, schema="ledger", postgresql_where=where)
    op.create_index(
        "ix_transfer_metadata_data",
        "transfer_metadata",
        ["data"],
        schema="ledger",
        postgresql_using="gin",
        postgresql_ops={"data": "jsonb_path_ops"},
    )
    op.create_index(
        "ix_entry_sequence", "entry", ["sequence"], schema="ledger", postgresql_using="brin"
    )


def create_effective() -> None:
    op.create_table(
        "effective_entry",
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("account", sa.BigInteger, nullable=False),
        sa.Column("effective_on", sa.Date, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("debits", UNITS, nullable=False),
        sa.Column("credits", UNITS, nullable=False),
        sa.PrimaryKeyConstraint("book", "account", "sequence", name="pk_effective_entry"),
        schema="ledger",
    )
    op.create_index(
        "ix_effective_entry_day",
        "effective_entry",
        ["book", "account", "effective_on"],
        schema="ledger",
    )


def create_periods() -> None:
    op.create_table(
        "period_event",
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("through", sa.Date, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("proposed_by", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text, nullable=False),
        sa.Column("recorded_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("book", "sequence", name="pk_period_event"),
        sa.CheckConstraint("kind IN ('closed', 'reopened')", name=op.f("ck_period_event_kind")),
        schema="ledger",
    )


def guard_and_grant() -> None:
    for table in ("effective_entry", "period_event"):
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
            f"ON ledger.{table} FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()"
        )
        op.execute(f"GRANT SELECT, INSERT ON ledger.{table} TO causeway_app")
    op.execute("GRANT UPDATE (closed_through, imported_through) ON ledger.head TO causeway_app")
    op.execute("GRANT UPDATE (credit_limit) ON ledger.balance TO causeway_app")


def downgrade() -> None:
    op.execute("DROP FUNCTION ledger.lock_and_read")
    op.execute(ZERO_SUM_BEFORE)
    op.drop_table("period_event", schema="ledger")
    op.drop_table("effective_entry", schema="ledger")
    op.drop_index("ix_entry_sequence", "entry", schema="ledger")
    op.drop_index("ix_transfer_metadata_data", "transfer_metadata", schema="ledger")
    for name in ("ix_transfer_code", "ix_transfer_reference", "ix_transfer_correlation"):
        op.drop_index(name, "transfer", schema="ledger")
    restore_keys()
    op.create_index(
        "ix_transfer_correlation",
        "transfer",
        ["book", "correlation"],
        schema="ledger",
        postgresql_where=sa.text("correlation IS NOT NULL"),
    )
    for name in ("ck_account_event_kind", "ck_account_event_credit_limit"):
        op.drop_constraint(op.f(name), "account_event", schema="ledger")
    op.drop_column("account_event", "credit_limit", schema="ledger")
    op.create_check_constraint(
        op.f("ck_account_event_kind"),
        "account_event",
        "kind IN ('opened', 'frozen', 'unfrozen')",
        schema="ledger",
    )
    for column in ("purpose", "metadata", "opened_at", "effective_at"):
        op.drop_column("account", column, schema="ledger")
    for name, _ in LIMITED:
        op.drop_constraint(op.f(f"ck_balance_{name}"), "balance", schema="ledger")
    op.drop_column("balance", "credit_limit", schema="ledger")
    for name, condition in LIMITED:
        op.create_check_constraint(
            op.f(f"ck_balance_{name}"), "balance", condition, schema="ledger"
        )
    for column in ("closed_through", "imported_through"):
        op.drop_column("head", column, schema="ledger")
