"""Tables of prices, and no deal or valued fee without the id of its price."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0035_pre_prices"
down_revision: str | None = "0034_pre_recordings"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)
FUNCTION = """\
CREATE OR REPLACE FUNCTION marketdata.price_override_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('proposed') THEN
            RAISE EXCEPTION 'marketdata.price_override cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'price_override_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('approved', 'revoked'),
            ('proposed', 'approved'),
            ('proposed', 'rejected')
        ) THEN
            RAISE EXCEPTION 'marketdata.price_override cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'price_override_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
TRIGGER = (
    "CREATE OR REPLACE TRIGGER price_override_state_edges BEFORE INSERT OR UPDATE ON "
    "marketdata.price_override FOR EACH ROW EXECUTE FUNCTION "
    "marketdata.price_override_state_edges()"
)
FIXED_FUNCTION = """\
CREATE FUNCTION marketdata.price_override_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.base, NEW.base_scale, NEW.quote, NEW.quote_scale, NEW.numerator, NEW.denominator,
        NEW.use, NEW.reason, NEW.evidence, NEW.valid_from, NEW.expires_at, NEW.proposed_by,
        NEW.proposed_at)
       IS DISTINCT FROM
       (OLD.id, OLD.base, OLD.base_scale, OLD.quote, OLD.quote_scale, OLD.numerator, OLD.denominator,
        OLD.use, OLD.reason, OLD.evidence, OLD.valid_from, OLD.expires_at, OLD.proposed_by,
        OLD.proposed_at)
       OR (OLD.price_id IS NOT NULL
           AND (NEW.price_id, NEW.decided_by, NEW.decided_at, NEW.signature)
               IS DISTINCT FROM (OLD.price_id, OLD.decided_by, OLD.decided_at, OLD.signature))
    THEN
        RAISE EXCEPTION 'what was proposed or approved of a manual price never changes'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'price_override_fixed';
    END IF;
    RETURN NEW;
END
$$"""
FIXED_TRIGGER = (
    "CREATE TRIGGER price_override_fixed BEFORE UPDATE ON marketdata.price_override "
    "FOR EACH ROW EXECUTE FUNCTION marketdata.price_override_fixed()"
)
LOCKED_FUNCTION = """\
CREATE FUNCTION marketdata.price_snapshot_locked() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Whoever writes lines waits for whoever is locking: what is not committed cannot be seen.
    PERFORM pg_advisory_xact_lock(hashtextextended('price-snapshot:' || NEW.snapshot_id, 0));
    IF EXISTS (SELECT FROM marketdata.price_snapshot WHERE id = NEW.snapshot_id) THEN
        RAISE EXCEPTION 'price snapshot % is locked', NEW.snapshot_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'price_snapshot_locked';
    END IF;
    RETURN NEW;
END
$$"""
LOCKED_TRIGGER = (
    "CREATE TRIGGER price_snapshot_locked BEFORE INSERT ON marketdata.price_snapshot_line "
    "FOR EACH ROW EXECUTE FUNCTION marketdata.price_snapshot_locked()"
)


def upgrade() -> None:
    """Make the tables."""
    op.add_column(
        "price",
        sa.Column("method", postgresql.JSONB, nullable=False, server_default="{}"),
        schema="marketdata",
    )
    op.create_index(
        "ix_price_kind", "price", ["base", "quote", "kind", "observed_at"], schema="marketdata"
    )
    op.create_index("ix_price_observed_at", "price", ["observed_at"], schema="marketdata")
    _overrides()
    _rates()
    _snapshots()
    for statement in (
        *(FUNCTION, TRIGGER, FIXED_FUNCTION, FIXED_TRIGGER, LOCKED_FUNCTION, LOCKED_TRIGGER),
        "GRANT SELECT, INSERT, UPDATE ON marketdata.price_override TO causeway_app",
    ):
        op.execute(statement)
    for table in ("fiat_import", "fiat_rate", "price_snapshot", "price_snapshot_line"):
        op.execute(f"GRANT SELECT, INSERT ON marketdata.{table} TO causeway_app")
    _ids_everywhere()


def downgrade() -> None:
    """Drop them."""
    op.drop_constraint(op.f("ck_fill_posting_fee_price"), "fill_posting", schema="trading")
    op.drop_constraint("fk_fill_posting_fee_price_id_price", "fill_posting", schema="trading")
    op.drop_constraint("fk_deal_price_id_price", "deal", schema="trading")
    op.alter_column("deal", "price_id", nullable=True, schema="trading")
    op.drop_table("price_snapshot_line", schema="marketdata")
    op.drop_table("price_snapshot", schema="marketdata")
    op.drop_table("fiat_rate", schema="marketdata")
    op.drop_table("fiat_import", schema="marketdata")
    op.drop_table("price_override", schema="marketdata")
    for name in ("price_override_state_edges", "price_override_fixed", "price_snapshot_locked"):
        op.execute(f"DROP FUNCTION marketdata.{name}()")
    op.drop_index("ix_price_observed_at", "price", schema="marketdata")
    op.drop_index("ix_price_kind", "price", schema="marketdata")
    op.drop_column("price", "method", schema="marketdata")


def _overrides() -> None:
    op.create_table(
        "price_override",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("base_scale", sa.Integer, nullable=False),
        sa.Column("quote", sa.Text, nullable=False),
        sa.Column("quote_scale", sa.Integer, nullable=False),
        sa.Column("numerator", UNITS, nullable=False),
        sa.Column("denominator", UNITS, nullable=False),
        sa.Column("use", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("valid_from", TIMESTAMP, nullable=False),
        sa.Column("expires_at", TIMESTAMP, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("proposed_by", sa.Text, nullable=False),
        sa.Column("proposed_at", TIMESTAMP, nullable=False),
        sa.Column("decided_by", sa.Text),
        sa.Column("decided_at", TIMESTAMP),
        sa.Column("signature", sa.LargeBinary),
        sa.Column("price_id", sa.Uuid),
        sa.Column("ended_by", sa.Text),
        sa.Column("ended_at", TIMESTAMP),
        sa.PrimaryKeyConstraint("id", name="pk_price_override"),
        sa.ForeignKeyConstraint(
            ["price_id"], ["marketdata.price.id"], name="fk_price_override_price_id_price"
        ),
        sa.CheckConstraint(
            "numerator > 0 AND denominator > 0", name=op.f("ck_price_override_positive")
        ),
        sa.CheckConstraint("use IN ('instead', 'last')", name=op.f("ck_price_override_use")),
        sa.CheckConstraint("reason <> ''", name=op.f("ck_price_override_reason")),
        sa.CheckConstraint("expires_at > valid_from", name=op.f("ck_price_override_expires_at")),
        sa.CheckConstraint("decided_by <> proposed_by", name=op.f("ck_price_override_four_eyes")),
        sa.CheckConstraint(
            "state NOT IN ('approved', 'revoked') OR (decided_by IS NOT NULL AND decided_at IS NOT"
            " NULL AND signature IS NOT NULL AND price_id IS NOT NULL)",
            name=op.f("ck_price_override_approved"),
        ),
        sa.CheckConstraint(
            "(state = 'revoked') = (ended_at IS NOT NULL)", name=op.f("ck_price_override_ended_at")
        ),
        schema="marketdata",
    )
    op.create_index(
        "ix_price_override_pair",
        "price_override",
        ["base", "quote", "expires_at"],
        schema="marketdata",
    )


def _rates() -> None:
    op.create_table(
        "fiat_import",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("format", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("first_day", sa.Date, nullable=False),
        sa.Column("last_day", sa.Date, nullable=False),
        sa.Column("days", sa.Integer, nullable=False),
        sa.Column("rates", sa.Integer, nullable=False),
        sa.Column("imported_by", sa.Text, nullable=False),
        sa.Column("imported_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_fiat_import"),
        sa.UniqueConstraint("source", "sha256", name="uq_fiat_import_sha256"),
        sa.CheckConstraint(
            "last_day >= first_day AND days > 0 AND rates > 0", name=op.f("ck_fiat_import_days")
        ),
        schema="marketdata",
    )
    op.create_table(
        "fiat_rate",
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("mantissa", UNITS, nullable=False),
        sa.Column("scale", sa.Integer, nullable=False),
        sa.Column("import_id", sa.Uuid, nullable=False),
        sa.Column("recorded_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("source", "currency", "day", "version", name="pk_fiat_rate"),
        sa.ForeignKeyConstraint(
            ["import_id"], ["marketdata.fiat_import.id"], name="fk_fiat_rate_import_id_fiat_import"
        ),
        sa.CheckConstraint("mantissa > 0 AND scale >= 0", name=op.f("ck_fiat_rate_positive")),
        sa.CheckConstraint("version > 0", name=op.f("ck_fiat_rate_version")),
        schema="marketdata",
    )


def _snapshots() -> None:
    op.create_table(
        "price_snapshot",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("month", sa.Date, nullable=False),
        sa.Column("as_of", TIMESTAMP, nullable=False),
        sa.Column("content_hash", sa.Text, nullable=False),
        sa.Column("locked_by", sa.Text, nullable=False),
        sa.Column("locked_at", TIMESTAMP, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_price_snapshot"),
        sa.UniqueConstraint("month", name="uq_price_snapshot_month"),
        sa.CheckConstraint("extract(day FROM month) = 1", name=op.f("ck_price_snapshot_month")),
        sa.CheckConstraint("locked_at >= as_of", name=op.f("ck_price_snapshot_locked_at")),
        schema="marketdata",
    )
    op.create_table(
        "price_snapshot_line",
        sa.Column("snapshot_id", sa.Uuid, nullable=False),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("quote", sa.Text, nullable=False),
        sa.Column("price_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("snapshot_id", "base", "quote", name="pk_price_snapshot_line"),
        sa.ForeignKeyConstraint(
            ["snapshot_id"],
            ["marketdata.price_snapshot.id"],
            name="fk_price_snapshot_line_snapshot_id_price_snapshot",
            deferrable=True,
            initially="DEFERRED",
        ),
        sa.ForeignKeyConstraint(
            ["price_id"], ["marketdata.price.id"], name="fk_price_snapshot_line_price_id_price"
        ),
        schema="marketdata",
    )


def _ids_everywhere() -> None:
    op.alter_column("deal", "price_id", nullable=False, schema="trading")
    op.create_foreign_key(
        "fk_deal_price_id_price",
        "deal",
        "price",
        ["price_id"],
        ["id"],
        source_schema="trading",
        referent_schema="marketdata",
    )
    op.create_foreign_key(
        "fk_fill_posting_fee_price_id_price",
        "fill_posting",
        "price",
        ["fee_price_id"],
        ["id"],
        source_schema="trading",
        referent_schema="marketdata",
    )
    op.create_check_constraint(
        op.f("ck_fill_posting_fee_price"),
        "fill_posting",
        "(fee_value IS NULL) = (fee_price_id IS NULL)",
        schema="trading",
    )
