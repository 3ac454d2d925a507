"""Tables of the chain schema: blocks and their contents, the cursor, and whether a chain is followed.

A block that was orphaned and comes back is included once more: its contents are read again (the
watch list may have grown) and stored under the next ``inclusion``. What a second reading of a
canonical block finds beyond the first is appended to its present inclusion. Nothing is ever deleted.
"""

from __future__ import annotations

from typing import Any, Final

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
    UniqueConstraint,
    Uuid,
)

from kernel.db import Timestamp, Units, metadata

SCHEMA: Final = "chain"

block = Table(
    "block",
    metadata,
    Column("chain", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("height", BigInteger, nullable=False),
    Column("parent", Text, nullable=False),
    Column("time", Timestamp, nullable=False),
    Column("state", Text, nullable=False),
    Column("inclusion", Integer, nullable=False),
    # Whether value that contracts pass on is among the movements: else only balances show it.
    Column("traced", Boolean, nullable=False),
    PrimaryKeyConstraint("chain", "hash"),
    CheckConstraint("height >= 0", name="height"),
    CheckConstraint("hash <> parent", name="parent"),
    schema=SCHEMA,
)
Index(
    "uq_block_canonical_height",
    block.c.chain,
    block.c.height,
    unique=True,
    postgresql_where=block.c.state == "canonical",
)


def _content_columns() -> list[Column[Any]]:
    return [
        Column("chain", Text, nullable=False),
        Column("block_hash", Text, nullable=False),
        Column("inclusion", Integer, nullable=False),
        Column("ordinal", Integer, nullable=False),
        Column("tx_hash", Text, nullable=False),
    ]


movement = Table(
    "movement",
    metadata,
    *_content_columns(),
    Column("position", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("contract", Text),
    Column("amount", Units, nullable=False),
    PrimaryKeyConstraint("chain", "block_hash", "inclusion", "ordinal"),
    UniqueConstraint("chain", "block_hash", "inclusion", "tx_hash", "position"),
    ForeignKeyConstraint(["chain", "block_hash"], [block.c.chain, block.c.hash]),
    CheckConstraint("amount > 0", name="amount"),
    schema=SCHEMA,
)

outcome = Table(
    "outcome",
    metadata,
    *_content_columns(),
    Column("sender", Text, nullable=False),
    Column("nonce", BigInteger, nullable=False),
    Column("succeeded", Boolean, nullable=False),
    Column("fee", Units, nullable=False),
    Column("recipient", Text),
    PrimaryKeyConstraint("chain", "block_hash", "inclusion", "ordinal"),
    UniqueConstraint("chain", "block_hash", "inclusion", "tx_hash"),
    ForeignKeyConstraint(["chain", "block_hash"], [block.c.chain, block.c.hash]),
    CheckConstraint("fee >= 0", name="fee"),
    CheckConstraint("nonce >= 0", name="nonce"),
    schema=SCHEMA,
)

# An output that had paid a watched address, and the transaction of the block that spends it.
spend = Table(
    "spend",
    metadata,
    *_content_columns(),
    Column("index", BigInteger, nullable=False),
    Column("spent_tx", Text, nullable=False),
    Column("spent_index", BigInteger, nullable=False),
    Column("address", Text, nullable=False),
    Column("amount", Units, nullable=False),
    PrimaryKeyConstraint("chain", "block_hash", "inclusion", "ordinal"),
    UniqueConstraint("chain", "block_hash", "inclusion", "spent_tx", "spent_index"),
    ForeignKeyConstraint(["chain", "block_hash"], [block.c.chain, block.c.hash]),
    CheckConstraint("amount >= 0", name="amount"),
    CheckConstraint("index >= 0", name="index"),
    CheckConstraint("spent_index >= 0", name="spent_index"),
    schema=SCHEMA,
)

following = Table(
    "following",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("id", Uuid, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    # How deep the next walk-back may go, granted by the two people who resumed the chain.
    Column("depth_granted", Integer),
    # Canonical blocks up to this height need no second reading; none: nothing was read again yet.
    Column("reread", BigInteger),
    # How many turns in a row the second reading got no further, and why.
    Column("reread_failures", Integer, nullable=False, server_default="0"),
    Column("reread_trouble", Text, nullable=False, server_default=""),
    CheckConstraint("reread_failures >= 0", name="reread_failures"),
    schema=SCHEMA,
)

cursor = Table(
    "cursor",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("height", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    ForeignKeyConstraint(["chain", "hash"], [block.c.chain, block.c.hash]),
    schema=SCHEMA,
)

agreement = Table(
    "agreement",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("id", Uuid, nullable=False, unique=True),
    Column("tip_height", BigInteger),
    Column("disputed_since", Timestamp),
    Column("alarmed", Boolean, nullable=False),
    Column("detail", Text, nullable=False),
    CheckConstraint("NOT alarmed OR disputed_since IS NOT NULL", name="alarmed_about_something"),
    schema=SCHEMA,
)
