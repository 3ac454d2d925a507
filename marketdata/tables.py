"""Tables of market data: instruments by version. Rows are never changed."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
)

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
