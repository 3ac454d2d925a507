"""Tables of the watch over client money; private to reporting."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
)

from kernel.db import Timestamp, Units, metadata

SCHEMA = "reporting"

client_money_watch = Table(
    "client_money_watch",
    metadata,
    Column("book", SmallInteger, primary_key=True, autoincrement=False),
    Column("height", BigInteger, nullable=False),
    CheckConstraint("height >= 0", name="height"),
    schema=SCHEMA,
)

client_money = Table(
    "client_money",
    metadata,
    Column("book", SmallInteger, ForeignKey(client_money_watch.c.book), nullable=False),
    Column("asset", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("holdings", Units, nullable=False),
    Column("liabilities", Units, nullable=False),
    # The block that moved it last.
    Column("height", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("book", "asset"),
    CheckConstraint("(state = 'short') = (liabilities > holdings)", name="state"),
    schema=SCHEMA,
)
