"""Tables of trading: deals."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Date,
    ForeignKeyConstraint,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB

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
    Column("price_id", Uuid, nullable=False),
    Column("value_date", Date, nullable=False),
    Column("booked_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("pulled_at", Timestamp),
    Column("amends", Uuid),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("quote_id", Uuid),
    Column("mid_price_id", Uuid),
    Column("off_market_ppm", Units),
    Column("origin", Text, nullable=False, server_default="voice"),
    Column("purpose", Text, nullable=False, server_default="client"),
    Column("agreed_at", Timestamp, nullable=False, server_default=func.now()),
    Column("terms_version", Integer, nullable=False, server_default="0"),
    Column("calendars", Text, nullable=False, server_default=""),
    Column("instructions", JSONB, nullable=False, server_default="[]"),
    Column("off_market_reason", Text, nullable=False, server_default=""),
    UniqueConstraint("book", "client_ref", name="uq_deal_client_ref"),
    ForeignKeyConstraint(["price_id"], ["marketdata.price.id"]),
    ForeignKeyConstraint(["mid_price_id"], ["marketdata.price.id"]),
    CheckConstraint("side IN ('desk_sells', 'desk_buys')", name="side"),
    CheckConstraint("base_units > 0 AND quote_units > 0 AND fee_units >= 0", name="amounts"),
    CheckConstraint("price_numerator > 0 AND price_denominator > 0", name="price"),
    CheckConstraint(
        "pulled_at IS NULL OR state IN ('booked', 'settling', 'settled')", name="pulled"
    ),
    CheckConstraint(
        "origin IN ('quote', 'voice', 'file') AND (origin = 'quote') = (quote_id IS NOT NULL)",
        name="origin",
    ),
    CheckConstraint("purpose IN ('client', 'hedge', 'transfer')", name="purpose"),
    CheckConstraint(
        "purpose <> 'transfer' OR (party = 'treasury' AND fee_units = 0 AND pulled_at IS NULL)",
        name="transfer",
    ),
    CheckConstraint("off_market_ppm IS NULL OR off_market_reason <> ''", name="off_market"),
    schema=SCHEMA,
)
Index(
    "ix_deal_to_settle",
    deal.c.book,
    deal.c.value_date,
    postgresql_where=(
        (deal.c.state == "booked") & deal.c.pulled_at.is_(None) & (deal.c.purpose != "transfer")
    ),
)
Index("ix_deal_blotter", deal.c.book, deal.c.created_at, deal.c.id)
Index("ix_deal_party", deal.c.party, deal.c.created_at)
Index(
    "uq_deal_quote",
    deal.c.quote_id,
    unique=True,
    postgresql_where=deal.c.quote_id.is_not(None),
)
