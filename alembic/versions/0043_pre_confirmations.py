"""Confirmations of deals: what is due, what was issued, what was said to it, and the keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0043_pre_confirmations"
down_revision: str | None = "0042_pre_pnl"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
SCHEMA = "trading"
FUNCTION = """\
CREATE OR REPLACE FUNCTION trading.confirmation_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('issued') THEN
            RAISE EXCEPTION 'trading.confirmation cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'confirmation_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('affirmed', 'superseded'),
            ('disputed', 'affirmed'),
            ('disputed', 'superseded'),
            ('issued', 'affirmed'),
            ('issued', 'disputed'),
            ('issued', 'superseded')
        ) THEN
            RAISE EXCEPTION 'trading.confirmation cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'confirmation_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
TRIGGER = (
    "CREATE OR REPLACE TRIGGER confirmation_state_edges BEFORE INSERT OR UPDATE ON "
    "trading.confirmation FOR EACH ROW EXECUTE FUNCTION trading.confirmation_state_edges()"
)
FIXED_FUNCTION = """\
CREATE FUNCTION trading.confirmation_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.book, NEW.deal_id, NEW.trade_id, NEW.version, NEW.kind, NEW.party,
        NEW.supersedes, NEW.text, NEW.text_sha256, NEW.value_date, NEW.issued_by, NEW.issued_at)
       IS DISTINCT FROM
       (OLD.id, OLD.book, OLD.deal_id, OLD.trade_id, OLD.version, OLD.kind, OLD.party,
        OLD.supersedes, OLD.text, OLD.text_sha256, OLD.value_date, OLD.issued_by, OLD.issued_at)
       OR (OLD.pdf IS NOT NULL
           AND (NEW.pdf, NEW.pdf_sha256) IS DISTINCT FROM (OLD.pdf, OLD.pdf_sha256))
    THEN
        RAISE EXCEPTION 'what was confirmed to a party never changes'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'confirmation_fixed';
    END IF;
    RETURN NEW;
END
$$"""
FIXED_TRIGGER = (
    "CREATE TRIGGER confirmation_fixed BEFORE UPDATE ON trading.confirmation "
    "FOR EACH ROW EXECUTE FUNCTION trading.confirmation_fixed()"
)
# Whoever writes deals need not think of their confirmations, and nobody searches all deals for
# those that have none: what is due is written down in the same statement, once for all its rows.
DUE_FUNCTION = """\
CREATE FUNCTION trading.deal_confirmation_due() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO trading.confirmation_due (deal_id, is_cancellation, since)
        SELECT id, false, created_at FROM new_deals;
    ELSE
        INSERT INTO trading.confirmation_due (deal_id, is_cancellation, since)
        SELECT n.id, true, n.updated_at FROM new_deals n JOIN old_deals o USING (id)
         WHERE n.state = 'cancelled' AND o.state <> 'cancelled';
    END IF;
    RETURN NULL;
END
$$"""
BOOKED_TRIGGER = (
    "CREATE TRIGGER deal_confirmation_due_booked AFTER INSERT ON trading.deal "
    "REFERENCING NEW TABLE AS new_deals "
    "FOR EACH STATEMENT EXECUTE FUNCTION trading.deal_confirmation_due()"
)
CANCELLED_TRIGGER = (
    "CREATE TRIGGER deal_confirmation_due_cancelled AFTER UPDATE ON trading.deal "
    "REFERENCING OLD TABLE AS old_deals NEW TABLE AS new_deals "
    "FOR EACH STATEMENT EXECUTE FUNCTION trading.deal_confirmation_due()"
)
# A trade that has still to settle is confirmed now, with the deals that were replaced on the way.
BACKFILL = """\
WITH RECURSIVE line AS (
    SELECT id, amends, created_at FROM trading.deal WHERE state IN ('booked', 'settling')
    UNION
    SELECT d.id, d.amends, d.created_at FROM trading.deal d JOIN line ON d.id = line.amends
)
INSERT INTO trading.confirmation_due (deal_id, is_cancellation, since)
SELECT id, false, created_at FROM line"""
GRANTS = (
    "GRANT SELECT, INSERT, DELETE ON trading.confirmation_due TO causeway_app",
    "GRANT SELECT, INSERT ON trading.confirmation TO causeway_app",
    "GRANT UPDATE (state, pdf, pdf_sha256, updated_at) ON trading.confirmation TO causeway_app",
    "GRANT SELECT, INSERT ON trading.affirmation TO causeway_app",
    "GRANT SELECT, INSERT ON trading.confirmation_key TO causeway_app",
    "GRANT UPDATE (revoked_at, revoked_by) ON trading.confirmation_key TO causeway_app",
)


def upgrade() -> None:
    """Make the tables."""
    _due()
    _confirmations()
    _keys()
    _affirmations()
    for statement in (
        *(FUNCTION, TRIGGER, FIXED_FUNCTION, FIXED_TRIGGER),
        *(DUE_FUNCTION, BOOKED_TRIGGER, CANCELLED_TRIGGER, BACKFILL, *GRANTS),
    ):
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP TRIGGER deal_confirmation_due_cancelled ON trading.deal")
    op.execute("DROP TRIGGER deal_confirmation_due_booked ON trading.deal")
    for table in ("affirmation", "confirmation_key", "confirmation", "confirmation_due"):
        op.drop_table(table, schema=SCHEMA)
    for name in ("deal_confirmation_due", "confirmation_fixed", "confirmation_state_edges"):
        op.execute(f"DROP FUNCTION trading.{name}()")


def _due() -> None:
    op.create_table(
        "confirmation_due",
        sa.Column("deal_id", sa.Uuid, nullable=False),
        sa.Column("is_cancellation", sa.Boolean, nullable=False),
        sa.Column("since", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("deal_id", "is_cancellation", name="pk_confirmation_due"),
        sa.ForeignKeyConstraint(
            ["deal_id"], ["trading.deal.id"], name="fk_confirmation_due_deal_id_deal"
        ),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_confirmation_due_since", "confirmation_due", ["since", "deal_id"], schema=SCHEMA
    )


def _confirmations() -> None:
    op.create_table(
        "confirmation",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("deal_id", sa.Uuid, nullable=False),
        sa.Column("trade_id", sa.Uuid, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("supersedes", sa.Uuid),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("text_sha256", sa.Text, nullable=False),
        sa.Column("pdf", sa.LargeBinary),
        sa.Column("pdf_sha256", sa.Text),
        sa.Column("value_date", sa.Date, nullable=False),
        sa.Column("issued_by", sa.Text, nullable=False),
        sa.Column("issued_at", TIMESTAMP, nullable=False),
        sa.Column("updated_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_confirmation"),
        sa.UniqueConstraint("trade_id", "version", name="uq_confirmation_version"),
        sa.UniqueConstraint("text_sha256", name="uq_confirmation_text"),
        sa.ForeignKeyConstraint(
            ["deal_id"], ["trading.deal.id"], name="fk_confirmation_deal_id_deal"
        ),
        sa.ForeignKeyConstraint(
            ["trade_id"], ["trading.deal.id"], name="fk_confirmation_trade_id_deal"
        ),
        sa.ForeignKeyConstraint(
            ["supersedes"],
            ["trading.confirmation.id"],
            name="fk_confirmation_supersedes_confirmation",
        ),
        sa.CheckConstraint("kind IN ('new', 'amendment', 'cancellation')", name="kind"),
        sa.CheckConstraint("(version = 1) = (kind = 'new')", name="version"),
        sa.CheckConstraint(
            "version > 0 AND (version = 1) = (supersedes IS NULL)", name="supersedes"
        ),
        sa.CheckConstraint(
            "text_sha256 = encode(sha256(convert_to(text, 'UTF8')), 'hex')", name="text_sha256"
        ),
        sa.CheckConstraint("(pdf IS NULL) = (pdf_sha256 IS NULL)", name="pdf"),
        sa.CheckConstraint("pdf_sha256 = encode(sha256(pdf), 'hex')", name="pdf_sha256"),
        schema=SCHEMA,
    )
    op.create_index("ix_confirmation_deal", "confirmation", ["deal_id"], schema=SCHEMA)
    op.create_index(
        "ix_confirmation_undrawn",
        "confirmation",
        ["issued_at", "id"],
        schema=SCHEMA,
        postgresql_where=sa.text("pdf_sha256 IS NULL"),
    )
    op.create_index(
        "ix_confirmation_open",
        "confirmation",
        ["book", "value_date"],
        schema=SCHEMA,
        postgresql_where=sa.text("state IN ('issued', 'disputed')"),
    )


def _keys() -> None:
    op.create_table(
        "confirmation_key",
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("enrolled_by", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text, nullable=False),
        sa.Column("approval", sa.LargeBinary, nullable=False),
        sa.Column("enrolled_at", TIMESTAMP, nullable=False),
        sa.Column("revoked_at", TIMESTAMP),
        sa.Column("revoked_by", sa.Text),
        sa.PrimaryKeyConstraint("party", "version", name="pk_confirmation_key"),
        sa.CheckConstraint("octet_length(public_key) = 32", name="public_key"),
        sa.CheckConstraint("approved_by <> enrolled_by", name="two_people"),
        sa.CheckConstraint("(revoked_at IS NULL) = (revoked_by IS NULL)", name="revoked"),
        schema=SCHEMA,
    )
    op.create_index(
        "uq_confirmation_key_public_key",
        "confirmation_key",
        ["public_key"],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("revoked_at IS NULL"),
    )


def _affirmations() -> None:
    op.create_table(
        "affirmation",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("confirmation_id", sa.Uuid, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("key_party", sa.Text),
        sa.Column("key_version", sa.Integer),
        sa.Column("signature", sa.LargeBinary),
        sa.Column("evidence", sa.Text),
        sa.Column("entered_by", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text),
        sa.Column("approval", sa.LargeBinary),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_affirmation"),
        sa.ForeignKeyConstraint(
            ["confirmation_id"],
            ["trading.confirmation.id"],
            name="fk_affirmation_confirmation_id_confirmation",
        ),
        sa.ForeignKeyConstraint(
            ["key_party", "key_version"],
            ["trading.confirmation_key.party", "trading.confirmation_key.version"],
            name="fk_affirmation_key_party_key_version_confirmation_key",
        ),
        sa.CheckConstraint("verdict IN ('affirmed', 'disputed')", name="verdict"),
        sa.CheckConstraint(
            "(signature IS NULL) = (key_version IS NULL) "
            "AND (key_party IS NULL) = (key_version IS NULL)",
            name="signed",
        ),
        sa.CheckConstraint("(approval IS NULL) = (approved_by IS NULL)", name="approved"),
        sa.CheckConstraint(
            "verdict = 'disputed' OR signature IS NOT NULL "
            "OR (evidence IS NOT NULL AND approved_by IS NOT NULL AND approved_by <> entered_by)",
            name="proof",
        ),
        sa.CheckConstraint("verdict = 'affirmed' OR reason <> ''", name="reason"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_affirmation_confirmation", "affirmation", ["confirmation_id"], schema=SCHEMA
    )
    op.create_index(
        "uq_affirmation_affirmed",
        "affirmation",
        ["confirmation_id"],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("verdict = 'affirmed'"),
    )
