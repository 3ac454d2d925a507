"""Tables of market data: instruments by version, recorded prices. Rows are never changed."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, Units, metadata

SCHEMA = "marketdata"

instrument = Table(
    "instrument",
    metadata,
    Column("venue", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("base", Text, nullable=False),
    Column("base_scale", Integer, nullable=False),
    Column("quote", Text, nullable=False),
    Column("quote_scale", Integer, nullable=False),
    Column("price_scale", Integer, nullable=False),
    Column("tick", Units, nullable=False),
    Column("lot", Units, nullable=False),
    Column("lots_min", Units, nullable=False),
    Column("lots_max", Units, nullable=False),
    Column("min_notional", Units, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("venue", "symbol", "version"),
    CheckConstraint("version > 0", name="version"),
    CheckConstraint("tick > 0 AND lot > 0 AND lots_min > 0 AND lots_max >= lots_min", name="grid"),
    schema=SCHEMA,
)

price = Table(
    "price",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("base", Text, nullable=False),
    Column("base_scale", Integer, nullable=False),
    Column("quote", Text, nullable=False),
    Column("quote_scale", Integer, nullable=False),
    Column("numerator", Units, nullable=False),
    Column("denominator", Units, nullable=False),
    Column("kind", Text, nullable=False),
    Column("quality", Text, nullable=False),
    Column("constituents", JSONB, nullable=False),
    Column("observed_at", Timestamp, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    CheckConstraint("numerator > 0 AND denominator > 0", name="positive"),
    CheckConstraint("quality IN ('good', 'degraded', 'manual')", name="quality"),
    schema=SCHEMA,
)
Index("ix_price_pair", price.c.base, price.c.quote, price.c.observed_at)
