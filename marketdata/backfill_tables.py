"""Tables of backfills: what was asked for by REST and how far that came, and what it brought."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)

from kernel.db import Timestamp, Units, metadata

SCHEMA = "marketdata"

backfill = Table(
    "backfill",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("venue", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("interval_s", Integer, nullable=False),
    Column("since", Timestamp, nullable=False),
    Column("until", Timestamp, nullable=False),
    Column("gap_id", Uuid),
    Column("cursor", Text, nullable=False),
    Column("reached", Timestamp, nullable=False),
    Column("pages", Integer, nullable=False),
    Column("seen", BigInteger, nullable=False),
    Column("new", BigInteger, nullable=False),
    Column("differing", BigInteger, nullable=False),
    Column("untold_until", Timestamp),
    Column("asked_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("done_at", Timestamp),
    CheckConstraint("channel IN ('candles', 'trades')", name="channel"),
    CheckConstraint("(channel = 'candles') = (interval_s > 0)", name="interval"),
    CheckConstraint("since < until", name="range"),
    CheckConstraint(
        "pages >= 0 AND new >= 0 AND differing >= 0 AND seen >= new + differing", name="counts"
    ),
    schema=SCHEMA,
)
Index(
    "ix_backfill_open",
    backfill.c.venue,
    backfill.c.asked_at,
    postgresql_where=text("done_at IS NULL"),
)

past_trade = Table(
    "past_trade",
    metadata,
    Column("venue", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("trade_id", Text, nullable=False),
    Column("instrument_version", Integer, nullable=False),
    Column("ticks", Units, nullable=False),
    Column("units", Units, nullable=False),
    Column("buyer_is_maker", Boolean, nullable=False),
    Column("exchange_ns", BigInteger, nullable=False),
    Column("received_ns", BigInteger, nullable=False),
    Column("backfill_id", Uuid, nullable=False),
    PrimaryKeyConstraint("venue", "symbol", "trade_id"),
    ForeignKeyConstraint(["backfill_id"], ["marketdata.backfill.id"]),
    CheckConstraint("ticks > 0 AND units > 0", name="positive"),
    schema=SCHEMA,
)
Index("ix_past_trade_time", past_trade.c.venue, past_trade.c.symbol, past_trade.c.exchange_ns)

past_candle = Table(
    "past_candle",
    metadata,
    Column("venue", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("interval_s", Integer, nullable=False),
    Column("open_ns", BigInteger, nullable=False),
    Column("instrument_version", Integer, nullable=False),
    Column("open_ticks", Units, nullable=False),
    Column("high_ticks", Units, nullable=False),
    Column("low_ticks", Units, nullable=False),
    Column("close_ticks", Units, nullable=False),
    Column("base_units", Units, nullable=False),
    Column("trades", BigInteger, nullable=False),
    Column("received_ns", BigInteger, nullable=False),
    Column("backfill_id", Uuid, nullable=False),
    PrimaryKeyConstraint("venue", "symbol", "interval_s", "open_ns"),
    ForeignKeyConstraint(["backfill_id"], ["marketdata.backfill.id"]),
    CheckConstraint(
        "low_ticks > 0 AND low_ticks <= open_ticks AND low_ticks <= close_ticks "
        "AND open_ticks <= high_ticks AND close_ticks <= high_ticks",
        name="prices",
    ),
    schema=SCHEMA,
)
