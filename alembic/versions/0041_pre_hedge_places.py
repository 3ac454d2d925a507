"""Hedge lines with several places, what the last look at them saw, fills entered by hand."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0041_pre_hedge_places"
down_revision: str | None = "0040_pre_risk"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)
SCHEMA = "trading"
ONE_PLACE = ("venue", "account", "symbol")
ADDED = (
    ("quote", sa.Text()),
    ("pace_started_at", TIMESTAMP),
    ("pace_units", UNITS),
    ("pace_until", TIMESTAMP),
    ("looked_at", TIMESTAMP),
    ("look_verdict", sa.Text()),
    ("look_detail", sa.Text()),
    ("look_position", UNITS),
    ("look_low", UNITS),
    ("look_high", UNITS),
    ("look_need", UNITS),
    ("look_waiting", UNITS),
    ("look_residual", UNITS),
)
WHOLE = {
    "pace_whole": "num_nulls(pace_started_at, pace_units, pace_until) IN (0, 3)",
    "look_whole": (
        "num_nulls(looked_at, look_verdict, look_detail, look_position, look_low, look_high, "
        "look_need, look_waiting, look_residual) IN (0, 9)"
    ),
}
BACKFILL = """\
INSERT INTO trading.hedge_place
    (venue, account, symbol, desk, asset, is_open, created_at, updated_at)
SELECT venue, account, symbol, desk, asset, true, created_at, updated_at
FROM trading.hedge WHERE venue IS NOT NULL"""
BACKFILL_QUOTE = """\
UPDATE trading.hedge SET quote = (
    SELECT i.quote FROM marketdata.instrument i
    WHERE i.venue = hedge.venue AND i.symbol = hedge.symbol
    ORDER BY i.version DESC LIMIT 1
)"""
# A release that knows lines of one place only may still run: the place of its line is kept too.
PLACE_FUNCTION = """\
CREATE OR REPLACE FUNCTION trading.hedge_place_of_line() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO trading.hedge_place
        (venue, account, symbol, desk, asset, is_open, created_at, updated_at)
    VALUES (NEW.venue, NEW.account, NEW.symbol, NEW.desk, NEW.asset, true,
            NEW.created_at, NEW.updated_at);
    RETURN NULL;
END
$$"""
PLACE_TRIGGER = (
    "CREATE OR REPLACE TRIGGER hedge_place_of_line AFTER INSERT ON trading.hedge "
    "FOR EACH ROW WHEN (NEW.venue IS NOT NULL) EXECUTE FUNCTION trading.hedge_place_of_line()"
)
BACK_TO_ONE = """\
UPDATE trading.hedge h SET venue = p.venue, account = p.account, symbol = p.symbol
FROM (
    SELECT DISTINCT ON (desk, asset) desk, asset, venue, account, symbol
    FROM trading.hedge_place ORDER BY desk, asset, is_open DESC, venue, account, symbol
) p
WHERE h.venue IS NULL AND p.desk = h.desk AND p.asset = h.asset"""
FUNCTION = """\
CREATE OR REPLACE FUNCTION trading.hand_fill_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('proposed') THEN
            RAISE EXCEPTION 'trading.hand_fill cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'hand_fill_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('proposed', 'approved'),
            ('proposed', 'rejected')
        ) THEN
            RAISE EXCEPTION 'trading.hand_fill cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'hand_fill_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
TRIGGER = (
    "CREATE OR REPLACE TRIGGER hand_fill_state_edges BEFORE INSERT OR UPDATE ON trading.hand_fill "
    "FOR EACH ROW EXECUTE FUNCTION trading.hand_fill_state_edges()"
)


def upgrade() -> None:
    """Make the tables, and let a line have several places."""
    for name in ONE_PLACE:
        op.alter_column("hedge", name, nullable=True, schema=SCHEMA)
    for name, kind in ADDED:
        op.add_column("hedge", sa.Column(name, kind), schema=SCHEMA)
    for name, rule in WHOLE.items():
        op.create_check_constraint(name, "hedge", rule, schema=SCHEMA)
    _create_places()
    _create_hand_fills()
    columns = ", ".join(name for name, _ in ADDED)
    op.execute(f"GRANT UPDATE ({columns}) ON trading.hedge TO causeway_app")
    op.execute("GRANT SELECT, INSERT ON trading.hedge_place, trading.hand_fill TO causeway_app")
    op.execute("GRANT UPDATE (is_open, updated_at) ON trading.hedge_place TO causeway_app")
    op.execute(
        "GRANT UPDATE (state, decided_by, decided_at, signature, updated_at) ON trading.hand_fill "
        "TO causeway_app"
    )


def _create_places() -> None:
    op.create_table(
        "hedge_place",
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("is_open", sa.Boolean, nullable=False),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.Column("updated_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("venue", "account", "symbol", name="pk_hedge_place"),
        sa.ForeignKeyConstraint(
            ["desk", "asset"],
            ["trading.hedge.desk", "trading.hedge.asset"],
            name="fk_hedge_place_desk_asset_hedge",
        ),
        schema=SCHEMA,
    )
    op.create_index("ix_hedge_place_line", "hedge_place", ["desk", "asset"], schema=SCHEMA)
    op.execute(BACKFILL)
    op.execute(BACKFILL_QUOTE)
    op.execute(PLACE_FUNCTION)
    op.execute(PLACE_TRIGGER)


def _create_hand_fills() -> None:
    op.create_table(
        "hand_fill",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("trade_id", sa.Text, nullable=False),
        sa.Column("venue_order_id", sa.Text, nullable=False),
        sa.Column("side", sa.Text, nullable=False),
        sa.Column("price", sa.Text, nullable=False),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("base_units", UNITS, nullable=False),
        sa.Column("quote", sa.Text, nullable=False),
        sa.Column("quote_units", UNITS, nullable=False),
        sa.Column("fee_asset", sa.Text, nullable=False),
        sa.Column("fee_units", UNITS, nullable=False),
        sa.Column("executed_at", TIMESTAMP, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("proposed_by", sa.Text, nullable=False),
        sa.Column("decided_by", sa.Text),
        sa.Column("decided_at", TIMESTAMP),
        sa.Column("signature", sa.LargeBinary),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.Column("updated_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_hand_fill"),
        sa.UniqueConstraint("venue", "account", "symbol", "trade_id", name="uq_hand_fill_trade"),
        sa.ForeignKeyConstraint(
            ONE_PLACE,
            [f"trading.hedge_place.{name}" for name in ONE_PLACE],
            name="fk_hand_fill_place",
        ),
        sa.CheckConstraint("side IN ('buy', 'sell')", name="side"),
        sa.CheckConstraint("base_units > 0 AND quote_units >= 0", name="amounts"),
        sa.CheckConstraint(
            "num_nulls(decided_by, decided_at, signature) = "
            "CASE WHEN state = 'proposed' THEN 3 ELSE 0 END",
            name="decided",
        ),
        sa.CheckConstraint("decided_by <> proposed_by", name="two_people"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_hand_fill_waiting",
        "hand_fill",
        ["created_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("state = 'proposed'"),
    )
    op.execute(FUNCTION)
    op.execute(TRIGGER)


def downgrade() -> None:
    """Go back to one place for each line: the first of its open ones."""
    op.drop_table("hand_fill", schema=SCHEMA)
    op.execute("DROP FUNCTION trading.hand_fill_state_edges()")
    op.execute("DROP TRIGGER hedge_place_of_line ON trading.hedge")
    op.execute("DROP FUNCTION trading.hedge_place_of_line()")
    op.execute(BACK_TO_ONE)
    op.drop_table("hedge_place", schema=SCHEMA)
    for name in WHOLE:
        op.drop_constraint(op.f(f"ck_hedge_{name}"), "hedge", schema=SCHEMA)
    for name, _ in reversed(ADDED):
        op.drop_column("hedge", name, schema=SCHEMA)
    for name in ONE_PLACE:
        op.alter_column("hedge", name, nullable=False, schema=SCHEMA)
