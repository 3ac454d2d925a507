"""Backfills: how far each has come, and the trades and candles that they brought."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0036_pre_backfills"
down_revision: str | None = "0035_pre_prices"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)
SCHEMA = "marketdata"
PRICES = (
    "low_ticks > 0 AND low_ticks <= open_ticks AND low_ticks <= close_ticks "
    "AND open_ticks <= high_ticks AND close_ticks <= high_ticks"
)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "backfill",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("interval_s", sa.Integer, nullable=False),
        sa.Column("since", TIMESTAMP, nullable=False),
        sa.Column("until", TIMESTAMP, nullable=False),
        sa.Column("gap_id", sa.Uuid),
        sa.Column("cursor", sa.Text, nullable=False),
        sa.Column("reached", TIMESTAMP, nullable=False),
        sa.Column("pages", sa.Integer, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("new", sa.BigInteger, nullable=False),
        sa.Column("differing", sa.BigInteger, nullable=False),
        sa.Column("untold_until", TIMESTAMP),
        sa.Column("asked_at", TIMESTAMP, nullable=False),
        sa.Column("updated_at", TIMESTAMP, nullable=False),
        sa.Column("done_at", TIMESTAMP),
        sa.PrimaryKeyConstraint("id", name="pk_backfill"),
        sa.CheckConstraint("channel IN ('candles', 'trades')", name="channel"),
        sa.CheckConstraint("(channel = 'candles') = (interval_s > 0)", name="interval"),
        sa.CheckConstraint("since < until", name="range"),
        sa.CheckConstraint(
            "pages >= 0 AND new >= 0 AND differing >= 0 AND seen >= new + differing", name="counts"
        ),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_backfill_open",
        "backfill",
        ["venue", "asked_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("done_at IS NULL"),
    )
    _create_rows()
    op.execute("GRANT SELECT, INSERT ON marketdata.backfill TO causeway_app")
    op.execute(
        "GRANT UPDATE (cursor, reached, pages, seen, new, differing, untold_until, updated_at, done_at) "
        "ON marketdata.backfill TO causeway_app"
    )
    op.execute("GRANT SELECT, INSERT ON marketdata.past_trade TO causeway_app")
    op.execute("GRANT SELECT, INSERT ON marketdata.past_candle TO causeway_app")


def _create_rows() -> None:
    op.create_table(
        "past_trade",
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("trade_id", sa.Text, nullable=False),
        sa.Column("instrument_version", sa.Integer, nullable=False),
        sa.Column("ticks", UNITS, nullable=False),
        sa.Column("units", UNITS, nullable=False),
        sa.Column("buyer_is_maker", sa.Boolean, nullable=False),
        sa.Column("exchange_ns", sa.BigInteger, nullable=False),
        sa.Column("received_ns", sa.BigInteger, nullable=False),
        sa.Column("backfill_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("venue", "symbol", "trade_id", name="pk_past_trade"),
        sa.ForeignKeyConstraint(
            ["backfill_id"], ["marketdata.backfill.id"], name="fk_past_trade_backfill_id_backfill"
        ),
        sa.CheckConstraint("ticks > 0 AND units > 0", name="positive"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_past_trade_time", "past_trade", ["venue", "symbol", "exchange_ns"], schema=SCHEMA
    )
    op.create_table(
        "past_candle",
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("interval_s", sa.Integer, nullable=False),
        sa.Column("open_ns", sa.BigInteger, nullable=False),
        sa.Column("instrument_version", sa.Integer, nullable=False),
        sa.Column("open_ticks", UNITS, nullable=False),
        sa.Column("high_ticks", UNITS, nullable=False),
        sa.Column("low_ticks", UNITS, nullable=False),
        sa.Column("close_ticks", UNITS, nullable=False),
        sa.Column("base_units", UNITS, nullable=False),
        sa.Column("trades", sa.BigInteger, nullable=False),
        sa.Column("received_ns", sa.BigInteger, nullable=False),
        sa.Column("backfill_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("venue", "symbol", "interval_s", "open_ns", name="pk_past_candle"),
        sa.ForeignKeyConstraint(
            ["backfill_id"], ["marketdata.backfill.id"], name="fk_past_candle_backfill_id_backfill"
        ),
        sa.CheckConstraint(PRICES, name="prices"),
        schema=SCHEMA,
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("past_candle", schema=SCHEMA)
    op.drop_table("past_trade", schema=SCHEMA)
    op.drop_table("backfill", schema=SCHEMA)
