"""Tables of the outputs that are ours, and of what is going to spend them. Private to this package."""

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

import custody.tables  # noqa: F401  a coin refers to our addresses
from kernel.db import Timestamp, Units, metadata

SCHEMA = "custody"

coin = Table(
    "coin",
    metadata,
    Column("chain", Text, nullable=False),
    Column("tx_id", Text, nullable=False),
    Column("index", Integer, nullable=False),
    Column("address", Text, nullable=False),
    Column("wallet", Text, nullable=False),
    Column("branch", Integer, nullable=False),
    Column("address_index", Integer, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("amount", Units, nullable=False),
    Column("coinbase", Boolean, nullable=False),
    Column("own", Boolean, nullable=False),
    Column("height", BigInteger),
    Column("block_hash", Text),
    Column("state", Text, nullable=False),
    Column("spent_by", Text),
    Column("spent_height", BigInteger),
    Column("spent_block", Text),
    PrimaryKeyConstraint("chain", "tx_id", "index"),
    ForeignKeyConstraint(
        ["chain", "address"], ["custody.address.chain", "custody.address.address"]
    ),
    CheckConstraint("amount > 0 AND index >= 0", name="amount"),
    CheckConstraint("(height IS NULL) = (block_hash IS NULL)", name="made"),
    CheckConstraint(
        "(spent_by IS NULL) = (spent_block IS NULL) AND (spent_by IS NULL) = (spent_height IS NULL)",
        name="spent",
    ),
    CheckConstraint("(state = 'spent') = (spent_block IS NOT NULL)", name="is_spent"),
    CheckConstraint("state <> 'unspent' OR block_hash IS NOT NULL", name="is_unspent"),
    CheckConstraint("state <> 'orphaned' OR block_hash IS NULL", name="is_orphaned"),
    schema=SCHEMA,
)
Index(
    "ix_coin_unspent",
    coin.c.chain,
    coin.c.wallet,
    coin.c.amount,
    postgresql_where=coin.c.state == "unspent",
)
Index("ix_coin_block", coin.c.block_hash)
Index("ix_coin_spent_block", coin.c.spent_block)

coin_lock = Table(
    "coin_lock",
    metadata,
    Column("chain", Text, nullable=False),
    Column("tx_id", Text, nullable=False),
    Column("index", Integer, nullable=False),
    Column("spend_id", Uuid, nullable=False),
    Column("locked_at", Timestamp, nullable=False),
    # One transaction of ours at a time may spend a coin.
    PrimaryKeyConstraint("chain", "tx_id", "index"),
    ForeignKeyConstraint(
        ["chain", "tx_id", "index"],
        ["custody.coin.chain", "custody.coin.tx_id", "custody.coin.index"],
    ),
    schema=SCHEMA,
)
Index("ix_coin_lock_spend", coin_lock.c.spend_id)
