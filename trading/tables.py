"""Tables of trading: deals, hedge lines, which fills were posted."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Date,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from kernel.db import Timestamp, Units, metadata

SCHEMA = "trading"

deal = Table(
    "deal",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", Integer, nullable=False),
    Column("client_ref", Text, nullable=False),
    Column("desk", Text, nullable=False),
    Column("party", Text, nullable=False),
    Column("side", Text, nullable=False),
    Column("base", Text, nullable=False),
    Column("base_scale", Integer, nullable=False),
    Column("quote", Text, nullable=False),
    Column("quote_scale", Integer, nullable=False),
    Column("base_units", Units, nullable=False),
    Column("quote_units", Units, nullable=False),
    Column("price_numerator", Units, nullable=False),
    Column("price_denominator", Units, nullable=False),
    Column("fee_units", Units, nullable=False),
    Column("price_id", Uuid),
    Column("value_date", Date, nullable=False),
    Column("booked_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("pulled_at", Timestamp),
    Column("amends", Uuid),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    UniqueConstraint("book", "client_ref", name="uq_deal_client_ref"),
    CheckConstraint("side IN ('desk_sells', 'desk_buys')", name="side"),
    CheckConstraint("base_units > 0 AND quote_units > 0 AND fee_units >= 0", name="amounts"),
    CheckConstraint("price_numerator > 0 AND price_denominator > 0", name="price"),
    CheckConstraint(
        "pulled_at IS NULL OR state IN ('booked', 'settling', 'settled')", name="pulled"
    ),
    schema=SCHEMA,
)
Index(
    "ix_deal_to_settle",
    deal.c.book,
    deal.c.value_date,
    postgresql_where=(deal.c.state == "booked") & deal.c.pulled_at.is_(None),
)

hedge = Table(
    "hedge",
    metadata,
    Column("desk", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("id", Uuid, nullable=False, unique=True),
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("target", Units, nullable=False),
    Column("state", Text, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("desk", "asset"),
    UniqueConstraint("venue", "account", "symbol", name="uq_hedge_instrument"),
    CheckConstraint("sequence >= 0", name="sequence"),
    schema=SCHEMA,
)

fill_posting = Table(
    "fill_posting",
    metadata,
    Column("fill_id", Uuid, primary_key=True),
    Column("book", Integer, nullable=False),
    Column("desk", Text, nullable=False),
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("trade_id", Text, nullable=False),
    Column("fee_value", Units),
    Column("fee_price_id", Uuid),
    Column("posted_at", Timestamp, nullable=False),
    UniqueConstraint("venue", "account", "symbol", "trade_id", name="uq_fill_posting_trade"),
    schema=SCHEMA,
)
