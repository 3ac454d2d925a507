"""Tables of profit and loss: runs, the marks that they valued with, the lines that came out.

Rows are only ever inserted: another result of the same day is another run.
"""

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
)

from kernel.db import Timestamp, Units, metadata

SCHEMA = "trading"

pnl_run = Table(
    "pnl_run",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", Integer, nullable=False),
    Column("desk", Text, nullable=False),
    Column("since", Timestamp, nullable=False),
    Column("until", Timestamp, nullable=False),
    # The last sequence number of the journal before the interval, and the last one in it.
    Column("after", BigInteger, nullable=False),
    Column("through", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("currency_scale", Integer, nullable=False),
    Column("inputs_hash", Text, nullable=False),
    Column("lines_hash", Text, nullable=False),
    # In smallest units of the currency.
    Column("trading", Units, nullable=False),
    Column("net", Units, nullable=False),
    Column("run_by", Text, nullable=False),
    Column("run_at", Timestamp, nullable=False),
    CheckConstraint("since < until", name="interval"),
    CheckConstraint("after >= 0 AND through >= after", name="sequences"),
    CheckConstraint("length(inputs_hash) = 64 AND length(lines_hash) = 64", name="hashes"),
    schema=SCHEMA,
)
Index("ix_pnl_run_desk", pnl_run.c.book, pnl_run.c.desk, pnl_run.c.until, pnl_run.c.run_at)

pnl_mark = Table(
    "pnl_mark",
    metadata,
    Column("run_id", Uuid, nullable=False),
    Column("at_end", Boolean, nullable=False),
    Column("asset", Text, nullable=False),
    Column("price_id", Uuid, nullable=False),
    PrimaryKeyConstraint("run_id", "at_end", "asset"),
    ForeignKeyConstraint(["run_id"], ["trading.pnl_run.id"]),
    ForeignKeyConstraint(["price_id"], ["marketdata.price.id"]),
    schema=SCHEMA,
)

pnl_line = Table(
    "pnl_line",
    metadata,
    Column("run_id", Uuid, nullable=False),
    Column("number", Integer, nullable=False),
    Column("component", Text, nullable=False),
    Column("deal_id", Uuid),
    # The fill or other deal that it met.
    Column("flow_id", Uuid),
    Column("base", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("units", Units, nullable=False),
    Column("at_end", Boolean, nullable=False),
    # In smallest units of the run's currency.
    Column("value", Units, nullable=False),
    PrimaryKeyConstraint("run_id", "number"),
    ForeignKeyConstraint(["run_id"], ["trading.pnl_run.id"]),
    CheckConstraint("number > 0 AND units <> 0", name="line"),
    CheckConstraint(
        "component IN ('client_spread', 'internalised', 'hedge_slippage', 'unwind', 'inventory', "
        "'revaluation', 'other', 'deal_fee', 'venue_fee')",
        name="component",
    ),
    schema=SCHEMA,
)
Index(
    "ix_pnl_line_deal",
    pnl_line.c.deal_id,
    postgresql_where=pnl_line.c.deal_id.is_not(None),
)
