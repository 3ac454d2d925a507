"""Quotes: what was asked, offered and taken, and every attempt to take."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0039_pre_quotes"
down_revision: str | None = "0038_pre_deals"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)
FUNCTION = """\
CREATE OR REPLACE FUNCTION trading.quote_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('requested') THEN
            RAISE EXCEPTION 'trading.quote cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'quote_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('accepted', 'booked'),
            ('accepted', 'declined'),
            ('quoted', 'accepted'),
            ('quoted', 'expired'),
            ('quoted', 'withdrawn'),
            ('requested', 'quoted'),
            ('requested', 'refused')
        ) THEN
            RAISE EXCEPTION 'trading.quote cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'quote_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
TRIGGER = (
    "CREATE OR REPLACE TRIGGER quote_state_edges BEFORE INSERT OR UPDATE ON trading.quote "
    "FOR EACH ROW EXECUTE FUNCTION trading.quote_state_edges()"
)
FIXED_FUNCTION = """\
CREATE FUNCTION trading.quote_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.book, NEW.client_ref, NEW.desk, NEW.party, NEW.base, NEW.base_scale, NEW.quote,
        NEW.quote_scale, NEW.units, NEW.sized_in, NEW.sides, NEW.requested_by, NEW.answer_until)
       IS DISTINCT FROM
       (OLD.id, OLD.book, OLD.client_ref, OLD.desk, OLD.party, OLD.base, OLD.base_scale, OLD.quote,
        OLD.quote_scale, OLD.units, OLD.sized_in, OLD.sides, OLD.requested_by, OLD.answer_until)
       OR (OLD.valid_until IS NOT NULL
           AND (NEW.made_at, NEW.valid_until, NEW.terms_version, NEW.mid_price_id, NEW.why,
                NEW.bid_numerator, NEW.bid_denominator, NEW.bid_base_units, NEW.bid_quote_units,
                NEW.bid_fee_units, NEW.ask_numerator, NEW.ask_denominator, NEW.ask_base_units,
                NEW.ask_quote_units, NEW.ask_fee_units, NEW.look_ms, NEW.tolerance_ppm)
               IS DISTINCT FROM
               (OLD.made_at, OLD.valid_until, OLD.terms_version, OLD.mid_price_id, OLD.why,
                OLD.bid_numerator, OLD.bid_denominator, OLD.bid_base_units, OLD.bid_quote_units,
                OLD.bid_fee_units, OLD.ask_numerator, OLD.ask_denominator, OLD.ask_base_units,
                OLD.ask_quote_units, OLD.ask_fee_units, OLD.look_ms, OLD.tolerance_ppm))
       OR (OLD.accept_ref IS NOT NULL
           AND (NEW.taken_side, NEW.accept_ref, NEW.taken_by, NEW.taken_at, NEW.look_until)
               IS DISTINCT FROM
               (OLD.taken_side, OLD.accept_ref, OLD.taken_by, OLD.taken_at, OLD.look_until))
    THEN
        RAISE EXCEPTION 'what was asked, offered or taken of a quote never changes'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'quote_fixed';
    END IF;
    RETURN NEW;
END
$$"""
FIXED_TRIGGER = (
    "CREATE TRIGGER quote_fixed BEFORE UPDATE ON trading.quote "
    "FOR EACH ROW EXECUTE FUNCTION trading.quote_fixed()"
)


def upgrade() -> None:
    """Make the tables."""
    _quotes()
    _acceptances()
    for statement in (
        *(FUNCTION, TRIGGER, FIXED_FUNCTION, FIXED_TRIGGER),
        "GRANT SELECT, INSERT, UPDATE ON trading.quote TO causeway_app",
        "GRANT SELECT, INSERT ON trading.quote_acceptance TO causeway_app",
    ):
        op.execute(statement)


def downgrade() -> None:
    """Take them away."""
    op.drop_table("quote_acceptance", schema="trading")
    op.drop_table("quote", schema="trading")
    for name in ("quote_state_edges", "quote_fixed"):
        op.execute(f"DROP FUNCTION trading.{name}()")


def _quotes() -> None:
    op.create_table(
        "quote",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("client_ref", sa.Text, nullable=False),
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("base_scale", sa.Integer, nullable=False),
        sa.Column("quote", sa.Text, nullable=False),
        sa.Column("quote_scale", sa.Integer, nullable=False),
        sa.Column("units", UNITS, nullable=False),
        sa.Column("sized_in", sa.Text, nullable=False),
        sa.Column("sides", sa.Text, nullable=False),
        sa.Column("requested_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("answer_until", TIMESTAMP, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("why_not", sa.Text),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("made_at", TIMESTAMP),
        sa.Column("valid_until", TIMESTAMP),
        sa.Column("terms_version", sa.Integer),
        sa.Column("mid_price_id", sa.Uuid),
        sa.Column("bid_numerator", UNITS),
        sa.Column("bid_denominator", UNITS),
        sa.Column("bid_base_units", UNITS),
        sa.Column("bid_quote_units", UNITS),
        sa.Column("bid_fee_units", UNITS),
        sa.Column("ask_numerator", UNITS),
        sa.Column("ask_denominator", UNITS),
        sa.Column("ask_base_units", UNITS),
        sa.Column("ask_quote_units", UNITS),
        sa.Column("ask_fee_units", UNITS),
        sa.Column("why", postgresql.JSONB),
        sa.Column("look_ms", sa.Integer),
        sa.Column("tolerance_ppm", sa.Integer),
        sa.Column("taken_side", sa.Text),
        sa.Column("accept_ref", sa.Text),
        sa.Column("taken_by", sa.Text),
        sa.Column("taken_at", TIMESTAMP),
        sa.Column("look_until", TIMESTAMP),
        sa.Column("look_price_id", sa.Uuid),
        sa.Column("moved_ppm", sa.Integer),
        sa.Column("deal_id", sa.Uuid),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.Column("updated_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_quote"),
        sa.UniqueConstraint("book", "client_ref", name="uq_quote_client_ref"),
        sa.ForeignKeyConstraint(
            ["mid_price_id"], ["marketdata.price.id"], name="fk_quote_mid_price_id_price"
        ),
        sa.ForeignKeyConstraint(
            ["look_price_id"], ["marketdata.price.id"], name="fk_quote_look_price_id_price"
        ),
        sa.ForeignKeyConstraint(["deal_id"], ["trading.deal.id"], name="fk_quote_deal_id_deal"),
        sa.CheckConstraint("units > 0", name=op.f("ck_quote_amount_positive")),
        sa.CheckConstraint("sized_in IN ('base', 'quote')", name=op.f("ck_quote_sized_in")),
        sa.CheckConstraint(
            "sides IN ('two_way', 'desk_buys', 'desk_sells')", name=op.f("ck_quote_sides")
        ),
        sa.CheckConstraint(
            "(state IN ('requested', 'refused')) = (valid_until IS NULL) "
            "AND (valid_until IS NULL) = (made_at IS NULL) "
            "AND (valid_until IS NULL) = (terms_version IS NULL) "
            "AND (valid_until IS NULL) = (mid_price_id IS NULL) "
            "AND (valid_until IS NULL) = (why IS NULL) "
            "AND (valid_until IS NULL) = (bid_numerator IS NULL AND ask_numerator IS NULL)",
            name=op.f("ck_quote_offer"),
        ),
        sa.CheckConstraint("valid_until > made_at", name=op.f("ck_quote_validity")),
        sa.CheckConstraint(
            "num_nulls(bid_numerator, bid_denominator, bid_base_units, bid_quote_units, bid_fee_units) "
            "IN (0, 5) AND bid_numerator > 0 AND bid_denominator > 0 AND bid_base_units > 0 "
            "AND bid_quote_units > 0 AND bid_fee_units >= 0",
            name=op.f("ck_quote_bid"),
        ),
        sa.CheckConstraint(
            "num_nulls(ask_numerator, ask_denominator, ask_base_units, ask_quote_units, ask_fee_units) "
            "IN (0, 5) AND ask_numerator > 0 AND ask_denominator > 0 AND ask_base_units > 0 "
            "AND ask_quote_units > 0 AND ask_fee_units >= 0",
            name=op.f("ck_quote_ask"),
        ),
        sa.CheckConstraint(
            "(look_ms IS NULL) = (tolerance_ppm IS NULL)", name=op.f("ck_quote_look")
        ),
        sa.CheckConstraint(
            "(state IN ('accepted', 'booked', 'declined')) = (accept_ref IS NOT NULL) "
            "AND num_nulls(taken_side, accept_ref, taken_by, taken_at) IN (0, 4)",
            name=op.f("ck_quote_taken"),
        ),
        sa.CheckConstraint("taken_at < valid_until", name=op.f("ck_quote_taken_in_time")),
        sa.CheckConstraint(
            "taken_side IS NULL OR (taken_side = 'desk_buys' AND bid_numerator IS NOT NULL) "
            "OR (taken_side = 'desk_sells' AND ask_numerator IS NOT NULL)",
            name=op.f("ck_quote_taken_side"),
        ),
        sa.CheckConstraint(
            "look_until IS NULL OR (look_ms IS NOT NULL AND taken_at IS NOT NULL)",
            name=op.f("ck_quote_look_until"),
        ),
        sa.CheckConstraint(
            "(look_price_id IS NULL) = (moved_ppm IS NULL)", name=op.f("ck_quote_looked_at")
        ),
        sa.CheckConstraint(
            "(state IN ('refused', 'declined')) = (why_not IS NOT NULL)",
            name=op.f("ck_quote_why_not"),
        ),
        sa.CheckConstraint(
            "(state = 'booked') = (deal_id IS NOT NULL)", name=op.f("ck_quote_deal")
        ),
        schema="trading",
    )
    op.create_index(
        "ix_quote_open",
        "quote",
        ["book", "party", "created_at"],
        schema="trading",
        postgresql_where=sa.text("state IN ('requested', 'quoted', 'accepted')"),
    )
    op.create_index("ix_quote_party", "quote", ["book", "party", "created_at"], schema="trading")
    op.create_index(
        "uq_quote_deal",
        "quote",
        ["deal_id"],
        schema="trading",
        unique=True,
        postgresql_where=sa.text("deal_id IS NOT NULL"),
    )


def _acceptances() -> None:
    op.create_table(
        "quote_acceptance",
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("accept_ref", sa.Text, nullable=False),
        sa.Column("quote_id", sa.Uuid, nullable=False),
        sa.Column("side", sa.Text, nullable=False),
        sa.Column("accepted_by", sa.Text, nullable=False),
        sa.Column("accepted_at", TIMESTAMP, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("book", "accept_ref", name="pk_quote_acceptance"),
        sa.ForeignKeyConstraint(
            ["quote_id"], ["trading.quote.id"], name="fk_quote_acceptance_quote_id_quote"
        ),
        sa.CheckConstraint(
            "side IN ('desk_buys', 'desk_sells')", name=op.f("ck_quote_acceptance_side")
        ),
        sa.CheckConstraint(
            "verdict IN ('won', 'taken', 'expired', 'withdrawn', 'refused')",
            name=op.f("ck_quote_acceptance_verdict"),
        ),
        schema="trading",
    )
    op.create_index("ix_quote_acceptance_quote", "quote_acceptance", ["quote_id"], schema="trading")
    op.create_index(
        "uq_quote_acceptance_won",
        "quote_acceptance",
        ["quote_id"],
        schema="trading",
        unique=True,
        postgresql_where=sa.text("verdict = 'won'"),
    )
