"""The ledger: journal tables that only grow, and the state kept beside them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003_pre_ledger"
down_revision: str | None = "0002_pre_registry"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)

JOURNAL = (
    "account",
    "account_event",
    "transfer",
    "transfer_metadata",
    "entry",
    "refusal",
    "block",
    "tile",
)

REFUSE_CHANGE = """\
CREATE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ledger.% only grows: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$"""

# Both columns of a pair move by the same sum in every statement, for each asset: whatever a
# program computes, PostgreSQL refuses balances that create or destroy money.
ZERO_SUM = """\
CREATE FUNCTION ledger.refuse_imbalance() RETURNS trigger LANGUAGE plpgsql AS $$
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

ZERO_SUM_TRIGGER = (
    "CREATE TRIGGER balance_zero_sum AFTER UPDATE ON ledger.balance "
    "REFERENCING OLD TABLE AS before_rows NEW TABLE AS after_rows "
    "FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_imbalance()"
)

# An account begins at zero; only updates move money, and those are watched.
BALANCE_BEGINS_AT_ZERO = """\
CREATE FUNCTION ledger.refuse_initial_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM after_rows
         WHERE debits_pending <> 0 OR debits_posted <> 0
            OR credits_pending <> 0 OR credits_posted <> 0 OR version <> 0
    ) THEN
        RAISE EXCEPTION 'an account begins at zero'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'balance_begins_at_zero';
    END IF;
    RETURN NULL;
END
$$"""

BALANCE_BEGINS_AT_ZERO_TRIGGER = (
    "CREATE TRIGGER balance_begins_at_zero AFTER INSERT ON ledger.balance "
    "REFERENCING NEW TABLE AS after_rows "
    "FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_initial_balance()"
)

# A hold is resolved once, and never comes back.
HOLD_RESOLVED_ONCE = """\
CREATE FUNCTION ledger.refuse_second_resolution() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM before_rows WHERE state <> 'open') THEN
        RAISE EXCEPTION 'a resolved hold never changes'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'hold_resolved_once';
    END IF;
    RETURN NULL;
END
$$"""

HOLD_RESOLVED_ONCE_TRIGGER = (
    "CREATE TRIGGER hold_resolved_once AFTER UPDATE ON ledger.hold "
    "REFERENCING OLD TABLE AS before_rows "
    "FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_second_resolution()"
)

# One row, one block: here a row trigger costs nothing that matters.
HEAD_MOVES_ON = """\
CREATE FUNCTION ledger.refuse_way_back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.sequence <= OLD.sequence OR NEW.height <> OLD.height + 1
        OR NEW.block_time < OLD.block_time OR NEW.account_count < OLD.account_count
    THEN
        RAISE EXCEPTION 'the head of book % only moves on', OLD.book
            USING ERRCODE = 'check_violation', CONSTRAINT = 'head_moves_on';
    END IF;
    RETURN NEW;
END
$$"""

HEAD_MOVES_ON_TRIGGER = (
    "CREATE TRIGGER head_moves_on BEFORE UPDATE ON ledger.head "
    "FOR EACH ROW EXECUTE FUNCTION ledger.refuse_way_back()"
)


def upgrade() -> None:
    op.execute("CREATE SCHEMA ledger")
    create_state()
    create_accounts()
    create_journal()
    create_proofs()
    create_guards()
    grant()


def create_state() -> None:
    op.create_table(
        "head",
        sa.Column("book", sa.SmallInteger, autoincrement=False, nullable=False),
        sa.Column("entity", sa.Text, nullable=False),
        sa.Column("opened_at", TIMESTAMP, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("height", sa.BigInteger, nullable=False),
        sa.Column("block_time", TIMESTAMP, nullable=False),
        sa.Column("account_count", sa.BigInteger, nullable=False),
        sa.Column("frontier", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("book", name="pk_head"),
        sa.UniqueConstraint("entity", name="uq_head_entity"),
        sa.CheckConstraint("book > 0", name="positive"),
        schema="ledger",
    )
    op.create_table(
        "balance",
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("account", sa.BigInteger, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("debits_pending", UNITS, nullable=False),
        sa.Column("debits_posted", UNITS, nullable=False),
        sa.Column("credits_pending", UNITS, nullable=False),
        sa.Column("credits_posted", UNITS, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("frozen", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("closed", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("debits_must_not_exceed_credits", sa.Boolean, nullable=False),
        sa.Column("credits_must_not_exceed_debits", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("book", "account", name="pk_balance"),
        sa.CheckConstraint(
            "debits_pending >= 0 AND debits_posted >= 0"
            " AND credits_pending >= 0 AND credits_posted >= 0",
            name="not_negative",
        ),
        sa.CheckConstraint(
            "NOT debits_must_not_exceed_credits OR debits_pending + debits_posted <= credits_posted",
            name="debits_must_not_exceed_credits",
        ),
        sa.CheckConstraint(
            "NOT credits_must_not_exceed_debits OR credits_pending + credits_posted <= debits_posted",
            name="credits_must_not_exceed_debits",
        ),
        schema="ledger",
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "hold",
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("debit", sa.BigInteger, nullable=False),
        sa.Column("credit", sa.BigInteger, nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.Column("remaining", UNITS, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("flags", sa.SmallInteger, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("correlation", sa.Uuid),
        sa.Column("expires_at", TIMESTAMP),
        sa.Column("resolved_sequence", sa.BigInteger),
        sa.PrimaryKeyConstraint("book", "id", name="pk_hold"),
        sa.CheckConstraint("state IN ('open', 'posted', 'voided', 'expired')", name="state"),
        sa.CheckConstraint(
            "(state = 'open' AND remaining = amount AND resolved_sequence IS NULL)"
            " OR (state <> 'open' AND remaining = 0 AND resolved_sequence IS NOT NULL)",
            name="resolved",
        ),
        schema="ledger",
    )
    is_open = sa.text("state = 'open'")
    op.create_index(
        "ix_hold_open_debit", "hold", ["book", "debit"], schema="ledger", postgresql_where=is_open
    )
    op.create_index(
        "ix_hold_open_credit", "hold", ["book", "credit"], schema="ledger", postgresql_where=is_open
    )
    op.create_index(
        "ix_hold_due",
        "hold",
        ["book", "expires_at", "sequence"],
        schema="ledger",
        postgresql_where=sa.text("state = 'open' AND expires_at IS NOT NULL"),
    )


def create_accounts() -> None:
    op.create_table(
        "account",
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("side", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("debits_must_not_exceed_credits", sa.Boolean, nullable=False),
        sa.Column("credits_must_not_exceed_debits", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("book", "number", name="pk_account"),
        sa.UniqueConstraint("book", "path", "asset", name="uq_account_book_path_asset"),
        sa.CheckConstraint("side IN ('debit', 'credit')", name="side"),
        schema="ledger",
    )
    op.create_table(
        "account_event",
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("account", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("recorded_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("book", "sequence", name="pk_account_event"),
        sa.CheckConstraint("kind IN ('opened', 'frozen', 'unfrozen')", name="kind"),
        schema="ledger",
    )
    op.create_index(
        "ix_account_event_account", "account_event", ["book", "account"], schema="ledger"
    )


def create_journal() -> None:
    op.create_table(
        "transfer",
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("flags", sa.SmallInteger, nullable=False),
        sa.Column("debit", sa.BigInteger, nullable=False),
        sa.Column("credit", sa.BigInteger, nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("pending_id", sa.Uuid),
        sa.Column("reverses", sa.Uuid),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("timeout_us", sa.BigInteger),
        sa.Column("effective_at", TIMESTAMP),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("correlation", sa.Uuid),
        sa.Column("metadata_hash", sa.Text, nullable=False),
        sa.Column("recorded_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("book", "sequence", name="pk_transfer"),
        sa.UniqueConstraint("book", "id", name="uq_transfer_book_id"),
        sa.CheckConstraint("amount >= 0", name="amount"),
        sa.CheckConstraint("debit <> credit", name="accounts_differ"),
        sa.CheckConstraint("(pending_id IS NOT NULL) = (kind IN (3, 4, 5))", name="pending_id"),
        sa.CheckConstraint("(reverses IS NOT NULL) = (kind = 6)", name="reverses"),
        schema="ledger",
    )
    for column, name, unique in (
        ("reverses", "uq_transfer_reverses", True),
        ("pending_id", "uq_transfer_pending_id", True),
        ("correlation", "ix_transfer_correlation", False),
    ):
        op.create_index(
            name,
            "transfer",
            ["book", column],
            schema="ledger",
            unique=unique,
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )
    op.create_table(
        "transfer_metadata",
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("data", postgresql.JSONB, nullable=False),
        sa.PrimaryKeyConstraint("book", "sequence", name="pk_transfer_metadata"),
        schema="ledger",
    )
    op.create_table(
        "entry",
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("account", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("debits_pending", UNITS, nullable=False),
        sa.Column("debits_posted", UNITS, nullable=False),
        sa.Column("credits_pending", UNITS, nullable=False),
        sa.Column("credits_posted", UNITS, nullable=False),
        sa.PrimaryKeyConstraint("book", "account", "sequence", name="pk_entry"),
        schema="ledger",
    )
    op.create_table(
        "refusal",
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("recorded_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("book", "sequence", name="pk_refusal"),
        sa.UniqueConstraint("book", "id", name="uq_refusal_book_id"),
        schema="ledger",
    )


def create_proofs() -> None:
    op.create_table(
        "block",
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("height", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", TIMESTAMP, nullable=False),
        sa.Column("first_sequence", sa.BigInteger, nullable=False),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("book", "height", name="pk_block"),
        sa.UniqueConstraint("book", "last_sequence", name="uq_block_book_last_sequence"),
        sa.CheckConstraint("last_sequence >= first_sequence", name="not_empty"),
        sa.CheckConstraint("octet_length(root) = 32", name="root"),
        schema="ledger",
    )
    op.create_index(
        "ix_block_recorded_at", "block", ["book", "recorded_at", "last_sequence"], schema="ledger"
    )
    op.create_table(
        "tile",
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("level", sa.SmallInteger, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("hashes", sa.LargeBinary, nullable=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("book", "level", "position", name="pk_tile"),
        sa.CheckConstraint(
            "octet_length(hashes) = 8192 AND octet_length(root) = 32", name="complete"
        ),
        schema="ledger",
    )
    # Hashes do not compress; trying to would only cost time.
    op.execute("ALTER TABLE ledger.tile ALTER COLUMN hashes SET STORAGE EXTERNAL")


def create_guards() -> None:
    op.execute(REFUSE_CHANGE)
    for table in JOURNAL:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
            f"ON ledger.{table} FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()"
        )
    op.execute(ZERO_SUM)
    op.execute(ZERO_SUM_TRIGGER)
    op.execute(BALANCE_BEGINS_AT_ZERO)
    op.execute(BALANCE_BEGINS_AT_ZERO_TRIGGER)
    op.execute(HOLD_RESOLVED_ONCE)
    op.execute(HOLD_RESOLVED_ONCE_TRIGGER)
    op.execute(HEAD_MOVES_ON)
    op.execute(HEAD_MOVES_ON_TRIGGER)


def grant() -> None:
    op.execute("GRANT USAGE ON SCHEMA ledger TO causeway_app")
    op.execute("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA ledger TO causeway_app")
    # A resolved hold and an account's flags are written with the balances; what they are is not.
    op.execute(
        "GRANT UPDATE (sequence, height, block_time, account_count, frontier)"
        " ON ledger.head TO causeway_app"
    )
    op.execute(
        "GRANT UPDATE (debits_pending, debits_posted, credits_pending, credits_posted,"
        " version, sequence, frozen, closed) ON ledger.balance TO causeway_app"
    )
    op.execute("GRANT UPDATE (state, remaining, resolved_sequence) ON ledger.hold TO causeway_app")


def downgrade() -> None:
    op.execute("DROP SCHEMA ledger CASCADE")
