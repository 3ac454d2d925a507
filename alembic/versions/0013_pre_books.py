"""What is done to the books by hand: manual journals, closes of periods, moves between books, imports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013_pre_books"
down_revision: str | None = "0012_pre_ledger_reads"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)

JOURNAL_FUNCTION = """\
CREATE OR REPLACE FUNCTION books.manual_journal_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('proposed') THEN
            RAISE EXCEPTION 'books.manual_journal cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'manual_journal_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('proposed', 'posted'),
            ('proposed', 'refused'),
            ('proposed', 'rejected')
        ) THEN
            RAISE EXCEPTION 'books.manual_journal cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'manual_journal_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
JOURNAL_TRIGGER = (
    "CREATE OR REPLACE TRIGGER manual_journal_state_edges BEFORE INSERT OR UPDATE ON books.manual_journal "
    "FOR EACH ROW EXECUTE FUNCTION books.manual_journal_state_edges()"
)
PERIOD_FUNCTION = """\
CREATE OR REPLACE FUNCTION books.period_proposal_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('proposed') THEN
            RAISE EXCEPTION 'books.period_proposal cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'period_proposal_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('proposed', 'recorded'),
            ('proposed', 'rejected')
        ) THEN
            RAISE EXCEPTION 'books.period_proposal cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'period_proposal_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
PERIOD_TRIGGER = (
    "CREATE OR REPLACE TRIGGER period_proposal_state_edges BEFORE INSERT OR UPDATE ON books.period_proposal "
    "FOR EACH ROW EXECUTE FUNCTION books.period_proposal_state_edges()"
)
MOVE_FUNCTION = """\
CREATE OR REPLACE FUNCTION books.book_move_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('requested') THEN
            RAISE EXCEPTION 'books.book_move cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'book_move_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('arrived', 'settled'),
            ('bounced', 'returned'),
            ('held', 'arrived'),
            ('held', 'bounced'),
            ('requested', 'held'),
            ('requested', 'refused')
        ) THEN
            RAISE EXCEPTION 'books.book_move cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'book_move_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
MOVE_TRIGGER = (
    "CREATE OR REPLACE TRIGGER book_move_state_edges BEFORE INSERT OR UPDATE ON books.book_move "
    "FOR EACH ROW EXECUTE FUNCTION books.book_move_state_edges()"
)
IMPORT_FUNCTION = """\
CREATE OR REPLACE FUNCTION books.import_set_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('begun') THEN
            RAISE EXCEPTION 'books.import_set cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'import_set_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('begun', 'completed')
        ) THEN
            RAISE EXCEPTION 'books.import_set cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'import_set_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
IMPORT_TRIGGER = (
    "CREATE OR REPLACE TRIGGER import_set_state_edges BEFORE INSERT OR UPDATE ON books.import_set "
    "FOR EACH ROW EXECUTE FUNCTION books.import_set_state_edges()"
)


def upgrade() -> None:
    op.execute("CREATE SCHEMA books")
    op.create_table(
        "book_move",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("from_book", sa.SmallInteger(), nullable=False),
        sa.Column("to_book", sa.SmallInteger(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.Column("claim_from", sa.Text(), nullable=False),
        sa.Column("claim_to", sa.Text(), nullable=False),
        sa.Column("funds_from", sa.Text(), nullable=False),
        sa.Column("funds_to", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), server_default="", nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.CheckConstraint("(claim_from = '') = (claim_to = '')", name=op.f("ck_book_move_claim")),
        sa.CheckConstraint("(funds_from = '') = (funds_to = '')", name=op.f("ck_book_move_funds")),
        sa.CheckConstraint(
            "(state IN ('refused', 'bounced', 'returned')) = (outcome <> '')",
            name=op.f("ck_book_move_outcome"),
        ),
        sa.CheckConstraint(
            "claim_from <> '' OR funds_from <> ''", name=op.f("ck_book_move_something")
        ),
        sa.CheckConstraint("amount > 0", name=op.f("ck_book_move_positive")),
        sa.CheckConstraint("from_book <> to_book", name=op.f("ck_book_move_two_books")),
        sa.CheckConstraint("octet_length(signature) = 64", name=op.f("ck_book_move_signed")),
        sa.CheckConstraint("requested_by <> approved_by", name=op.f("ck_book_move_people")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_book_move")),
        sa.UniqueConstraint(
            "from_book", "reference", name=op.f("uq_book_move_from_book_reference")
        ),
        schema="books",
    )
    op.create_index(
        "ix_book_move_in_flight",
        "book_move",
        ["created_at", "id"],
        unique=False,
        schema="books",
        postgresql_where=sa.text("state IN ('requested', 'held', 'arrived', 'bounced')"),
    )
    op.create_table(
        "import_set",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("book", sa.SmallInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("files", postgresql.JSONB, nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("imported_by", sa.Text(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("begun_at", TIMESTAMP, nullable=False),
        sa.Column("completed_at", TIMESTAMP, nullable=True),
        sa.CheckConstraint(
            "(state = 'completed') = (completed_at IS NOT NULL)",
            name=op.f("ck_import_set_completed"),
        ),
        sa.CheckConstraint("imported_by <> approved_by", name=op.f("ck_import_set_people")),
        sa.CheckConstraint("octet_length(signature) = 64", name=op.f("ck_import_set_signed")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_import_set")),
        sa.UniqueConstraint("book", "digest", name=op.f("uq_import_set_book_digest")),
        sa.UniqueConstraint("book", "name", name=op.f("uq_import_set_book_name")),
        schema="books",
    )
    op.create_table(
        "manual_journal",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("book", sa.SmallInteger(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("content", postgresql.JSONB, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("attachment", sa.Text(), nullable=False),
        sa.Column("effective_on", sa.Date(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("proposed_by", sa.Text(), nullable=False),
        sa.Column("proposed_at", TIMESTAMP, nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decided_at", TIMESTAMP, nullable=True),
        sa.Column("decision_reason", sa.Text(), nullable=True),
        sa.Column("signature", sa.LargeBinary(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "(state = 'posted') = (sequence IS NOT NULL)", name=op.f("ck_manual_journal_posted")
        ),
        sa.CheckConstraint(
            "(state = 'proposed') = (decided_by IS NULL)", name=op.f("ck_manual_journal_decided")
        ),
        sa.CheckConstraint(
            "(state = 'refused') = (outcome IS NOT NULL)", name=op.f("ck_manual_journal_refused")
        ),
        sa.CheckConstraint(
            "attachment ~ '^[0-9a-f]{64}$'", name=op.f("ck_manual_journal_attachment")
        ),
        sa.CheckConstraint(
            "state IN ('proposed', 'rejected') OR decided_by <> proposed_by",
            name=op.f("ck_manual_journal_people"),
        ),
        sa.CheckConstraint(
            "state IN ('proposed', 'rejected') OR coalesce(octet_length(signature), 0) = 64",
            name=op.f("ck_manual_journal_signed"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_manual_journal")),
        sa.UniqueConstraint("book", "reference", name=op.f("uq_manual_journal_book_reference")),
        schema="books",
    )
    op.create_index(
        "ix_manual_journal_open",
        "manual_journal",
        ["book", "effective_on"],
        unique=False,
        schema="books",
        postgresql_where=sa.text("state = 'proposed'"),
    )
    op.create_table(
        "period_proposal",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("book", sa.SmallInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("through", sa.Date(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("proposed_by", sa.Text(), nullable=False),
        sa.Column("proposed_at", TIMESTAMP, nullable=False),
        sa.Column("decided_at", TIMESTAMP, nullable=True),
        sa.Column("rejected_by", sa.Text(), nullable=True),
        sa.Column("rejection_reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state = 'proposed') = (decided_at IS NULL)", name=op.f("ck_period_proposal_decided")
        ),
        sa.CheckConstraint(
            "(state = 'rejected') = (rejected_by IS NOT NULL)",
            name=op.f("ck_period_proposal_rejected"),
        ),
        sa.CheckConstraint("kind IN ('closed', 'reopened')", name=op.f("ck_period_proposal_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_period_proposal")),
        schema="books",
    )
    op.create_index(
        "uq_period_proposal_open",
        "period_proposal",
        ["book"],
        unique=True,
        schema="books",
        postgresql_where=sa.text("state = 'proposed'"),
    )
    op.create_table(
        "period_approval",
        sa.Column("proposal", sa.Uuid(), nullable=False),
        sa.Column("operator", sa.Text(), nullable=False),
        sa.Column("proposed_by", sa.Text(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.CheckConstraint("octet_length(signature) = 64", name=op.f("ck_period_approval_signed")),
        sa.CheckConstraint("operator <> proposed_by", name=op.f("ck_period_approval_people")),
        sa.ForeignKeyConstraint(
            ["proposal"],
            ["books.period_proposal.id"],
            name=op.f("fk_period_approval_proposal_period_proposal"),
        ),
        sa.PrimaryKeyConstraint("proposal", "operator", name=op.f("pk_period_approval")),
        schema="books",
    )
    for statement in (
        JOURNAL_FUNCTION,
        JOURNAL_TRIGGER,
        PERIOD_FUNCTION,
        PERIOD_TRIGGER,
        MOVE_FUNCTION,
        MOVE_TRIGGER,
        IMPORT_FUNCTION,
        IMPORT_TRIGGER,
        "GRANT USAGE ON SCHEMA books TO causeway_app",
        "GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA books TO causeway_app",
        # What was asked and signed never changes, only what became of it.
        (
            "GRANT UPDATE (state, decided_by, decided_at, decision_reason, signature, outcome,"
            " sequence) ON books.manual_journal TO causeway_app"
        ),
        (
            "GRANT UPDATE (state, decided_at, rejected_by, rejection_reason)"
            " ON books.period_proposal TO causeway_app"
        ),
        "GRANT UPDATE (state, outcome) ON books.book_move TO causeway_app",
        "GRANT UPDATE (state, completed_at) ON books.import_set TO causeway_app",
    ):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP SCHEMA books CASCADE")
