"""Tables of valuations: runs, the prices that they used, the lines that came out.

Rows are only ever inserted: another result of the same interval is another run.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
)

from kernel.db import Timestamp, Units, metadata

SCHEMA = "reporting"

valuation_run = Table(
    "valuation_run",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", SmallInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("currency_scale", Integer, nullable=False),
    Column("method", Text, nullable=False),
    Column("since", Timestamp, nullable=False),
    Column("until", Timestamp, nullable=False),
    # The last record of the journal before the interval, and the last one in it.
    Column("after", BigInteger, nullable=False),
    Column("through", BigInteger, nullable=False),
    Column("inputs_hash", Text, nullable=False),
    Column("lines_hash", Text, nullable=False),
    # In smallest units of the currency.
    Column("realised", Units, nullable=False),
    Column("unrealised", Units, nullable=False),
    Column("net", Units, nullable=False),
    Column("run_by", Text, nullable=False),
    Column("run_at", Timestamp, nullable=False),
    CheckConstraint("method IN ('average', 'fifo')", name="method"),
    CheckConstraint("since < until AND after >= 0 AND through >= after", name="interval"),
    CheckConstraint("length(inputs_hash) = 64 AND length(lines_hash) = 64", name="hashes"),
    schema=SCHEMA,
)
Index(
    "ix_valuation_run_until",
    valuation_run.c.book,
    valuation_run.c.until,
    valuation_run.c.run_at,
)

valuation_price = Table(
    "valuation_price",
    metadata,
    Column("run_id", Uuid, nullable=False),
    Column("use", Text, nullable=False),
    Column("day", Date, nullable=False),
    Column("asset", Text, nullable=False),
    Column("price_id", Uuid, nullable=False),
    PrimaryKeyConstraint("run_id", "use", "day", "asset"),
    ForeignKeyConstraint(["run_id"], ["reporting.valuation_run.id"]),
    ForeignKeyConstraint(["price_id"], ["marketdata.price.id"]),
    CheckConstraint("use IN ('day', 'start', 'end')", name="use"),
    schema=SCHEMA,
)

valuation_line = Table(
    "valuation_line",
    metadata,
    Column("run_id", Uuid, nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    # Of income, expense and capital: the ledger's path; of gains: none.
    Column("account", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("units", Units, nullable=False),
    Column("value", Units, nullable=False),
    PrimaryKeyConstraint("run_id", "number"),
    ForeignKeyConstraint(["run_id"], ["reporting.valuation_run.id"]),
    CheckConstraint("number > 0", name="number"),
    CheckConstraint(
        "kind IN ('realised', 'unrealised', 'income', 'expense', 'capital')", name="kind"
    ),
    schema=SCHEMA,
)
