"""Tables of reconciliation: runs, what they found, open differences, stops, tokens as pinned."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
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
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, Units, metadata

SCHEMA = "custody"

reconciliation = Table(
    "reconciliation",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", Integer, nullable=False),
    Column("chain", Text, nullable=False),
    Column("height", BigInteger, nullable=False),
    Column("block_hash", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("addresses", Integer, nullable=False),
    Column("figures", JSONB, nullable=False),
    Column("at", Timestamp, nullable=False),
    CheckConstraint("result IN ('clean', 'different', 'unknown')", name="result"),
    schema=SCHEMA,
)
Index("ix_reconciliation_at", reconciliation.c.book, reconciliation.c.chain, reconciliation.c.at)

reconciliation_item = Table(
    "reconciliation_item",
    metadata,
    Column("run_id", Uuid, nullable=False),
    Column("number", Integer, nullable=False),
    Column("wallet", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("contract", Text),
    Column("address", Text, nullable=False),
    Column("books", Units, nullable=False),
    # None: the token does not tell.
    Column("chain_amount", Units),
    Column("explanations", JSONB, nullable=False),
    PrimaryKeyConstraint("run_id", "number"),
    ForeignKeyConstraint(["run_id"], ["custody.reconciliation.id"]),
    schema=SCHEMA,
)

difference = Table(
    "difference",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", Integer, nullable=False),
    Column("chain", Text, nullable=False),
    Column("wallet", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("amount", Units, nullable=False),
    Column("state", Text, nullable=False),
    Column("opened_at", Timestamp, nullable=False),
    Column("opened_height", BigInteger, nullable=False),
    Column("first_height", BigInteger, nullable=False),
    Column("first_block", Text, nullable=False),
    Column("last_height", BigInteger, nullable=False),
    Column("last_block", Text, nullable=False),
    Column("seen_at", Timestamp, nullable=False),
    Column("detail", Text, nullable=False),
    CheckConstraint("amount <> 0", name="amount"),
    CheckConstraint("first_height <= last_height", name="heights"),
    schema=SCHEMA,
)
Index(
    "uq_difference_open",
    difference.c.book,
    difference.c.chain,
    difference.c.wallet,
    difference.c.asset,
    difference.c.address,
    unique=True,
    postgresql_where=difference.c.state == "open",
)

signing_stop = Table(
    "signing_stop",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("wallet", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", Timestamp, nullable=False),
    Column("lifted_at", Timestamp),
    CheckConstraint("(state = 'open') = (lifted_at IS NULL)", name="lifted_at"),
    schema=SCHEMA,
)
Index(
    "uq_signing_stop_open",
    signing_stop.c.wallet,
    signing_stop.c.asset,
    unique=True,
    postgresql_where=signing_stop.c.state == "open",
)

token_pin = Table(
    "token_pin",
    metadata,
    Column("chain", Text, nullable=False),
    Column("contract", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("decimals", Integer, nullable=False),
    Column("code_hash", Text, nullable=False),
    Column("implementation", Text, nullable=False),
    Column("pinned_at", Timestamp, nullable=False),
    Column("read_at", Timestamp, nullable=False),
    Column("trouble", Text, nullable=False),
    PrimaryKeyConstraint("chain", "contract"),
    schema=SCHEMA,
)
