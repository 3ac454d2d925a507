"""Tables of what arrives: addresses, deposits, receipts, their inclusions, attributions.

Private to this package; the tables of payouts are in `custody.payout_tables`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

import custody.payout_tables  # noqa: F401  whoever loads this schema's tables needs those as well
from kernel.db import Timestamp, Units, metadata

SCHEMA = "custody"

address = Table(
    "address",
    metadata,
    Column("chain", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("wallet", Text, nullable=False),
    Column("branch", Integer, nullable=False),
    Column("index", Integer, nullable=False),
    Column("purpose", Text, nullable=False),
    # Empty where the address was skipped: whose it is nobody knows (`custody.skipped`).
    Column("party", Text),
    Column("reference", Text, nullable=False),
    Column("assigned_at", Timestamp, nullable=False),
    Column("chain_asset", Text),
    PrimaryKeyConstraint("chain", "address"),
    UniqueConstraint("wallet", "branch", "index"),
    CheckConstraint("index >= 0", name="index"),
    CheckConstraint("(purpose IN ('hot', 'change')) = (party IS NULL)", name="party"),
    schema=SCHEMA,
)
# Asking for the same thing again gives the same address.
Index(
    "uq_address_reference",
    address.c.wallet,
    address.c.purpose,
    address.c.party,
    address.c.reference,
    unique=True,
    postgresql_where=address.c.reference != "",
    postgresql_nulls_not_distinct=True,
)

# A client has one deposit address for each asset of a chain in a wallet.
Index(
    "uq_address_chain_asset",
    address.c.wallet,
    address.c.party,
    address.c.chain_asset,
    unique=True,
    postgresql_where=address.c.chain_asset.is_not(None),
)

wallet_key = Table(
    "wallet_key",
    metadata,
    Column("wallet", Text, primary_key=True),
    # Public halves and the signer's name of them (`registry.model.Wallet.key_text`, `key_root`).
    Column("keys", Text, nullable=False),
    Column("key_root", Text, nullable=False),
    # The known answer: what both libraries derived at 0/0 when the key was seen first.
    Column("first_address", Text, nullable=False),
    Column("checked_at", Timestamp, nullable=False),
    schema=SCHEMA,
)

address_branch = Table(
    "address_branch",
    metadata,
    Column("wallet", Text, nullable=False),
    Column("branch", Integer, nullable=False),
    Column("next_index", Integer, nullable=False),
    PrimaryKeyConstraint("wallet", "branch"),
    schema=SCHEMA,
)


def _arrival_columns() -> list[Column[Any]]:
    return [
        Column("id", Uuid, primary_key=True),
        Column("chain", Text, nullable=False),
        Column("tx_hash", Text, nullable=False),
        Column("position", Text, nullable=False),
        Column("contract", Text),
        Column("asset", Text, nullable=False),
        Column("amount", Units, nullable=False),
        Column("sender", Text, nullable=False),
        Column("address", Text, nullable=False),
        Column("wallet", Text, nullable=False),
        Column("party", Text),
        Column("credit", Text, nullable=False),
        Column("epoch", Integer, nullable=False),
        Column("block_hash", Text, nullable=False),
        Column("height", BigInteger, nullable=False),
        Column("postings", ARRAY(Uuid), nullable=False),
        Column("version", Integer, nullable=False),
        Column("first_seen_at", Timestamp, nullable=False),
        Column("state", Text, nullable=False),
        Column("depth_required", Integer, nullable=False),
        Column("finality_required", Boolean, nullable=False),
        Column("policy_version", Integer, nullable=False),
        Column("policy_rule", Integer, nullable=False, server_default="0"),
        Column("remainder", Units, nullable=False, server_default="0"),
        Column("received", Units),
        Column("received_rest", Units, nullable=False, server_default="0"),
        Column("waiting_for", Text, nullable=False, server_default=""),
    ]


deposit = Table(
    "deposit",
    metadata,
    *_arrival_columns(),
    Column("kind", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("shortfall", Units, nullable=False),
    Column("reason", Text, nullable=False),
    Column("refund", Uuid),
    UniqueConstraint("chain", "tx_hash", "position"),
    ForeignKeyConstraint(
        ["chain", "address"], ["custody.address.chain", "custody.address.address"]
    ),
    CheckConstraint("amount > 0 AND epoch > 0 AND shortfall >= 0", name="amounts"),
    CheckConstraint("(kind = 'quarantined') = (credit = '')", name="credit"),
    CheckConstraint("received >= 0", name="received"),
    CheckConstraint("state <> 'refunding' OR refund IS NOT NULL", name="refund"),
    schema=SCHEMA,
)
Index("ix_deposit_state", deposit.c.chain, deposit.c.state, deposit.c.height)
Index("ix_deposit_block", deposit.c.block_hash)
Index("ix_deposit_refund", deposit.c.refund, postgresql_where=deposit.c.refund.is_not(None))

receipt = Table(
    "receipt",
    metadata,
    *_arrival_columns(),
    Column("reference", Text, nullable=False),
    Column("matched_to", Text, nullable=False),
    UniqueConstraint("chain", "tx_hash", "position"),
    ForeignKeyConstraint(
        ["chain", "address"], ["custody.address.chain", "custody.address.address"]
    ),
    CheckConstraint("amount > 0 AND epoch > 0", name="amounts"),
    CheckConstraint("received >= 0", name="received"),
    CheckConstraint("state <> 'matched' OR matched_to <> ''", name="matched"),
    schema=SCHEMA,
)
Index("ix_receipt_state", receipt.c.chain, receipt.c.state, receipt.c.height)
Index("ix_receipt_block", receipt.c.block_hash)

observation = Table(
    "observation",
    metadata,
    Column("arrival_id", Uuid, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("block_hash", Text, nullable=False),
    Column("height", BigInteger, nullable=False),
    Column("observed_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("arrival_id", "epoch"),
    schema=SCHEMA,
)

attribution = Table(
    "attribution",
    metadata,
    Column("deposit_id", Uuid, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("credit", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("first", Text, nullable=False),
    Column("first_signature", LargeBinary, nullable=False),
    Column("second", Text, nullable=False),
    Column("second_signature", LargeBinary, nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("deposit_id", "epoch"),
    ForeignKeyConstraint(["deposit_id"], ["custody.deposit.id"]),
    CheckConstraint("first <> second", name="four_eyes"),
    schema=SCHEMA,
)

confirmation_policy = Table(
    "confirmation_policy",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("content_hash", Text, nullable=False),
    Column("content", JSONB, nullable=False),
    Column("first_used_at", Timestamp, nullable=False),
    CheckConstraint("version > 0", name="version"),
    schema=SCHEMA,
)

pending_arrival = Table(
    "pending_arrival",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("chain", Text, nullable=False),
    Column("tx_hash", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("contract", Text),
    Column("sender", Text, nullable=False),
    Column("nonce", BigInteger, nullable=False),
    Column("amount", Units, nullable=False),
    Column("party", Text),
    Column("state", Text, nullable=False),
    Column("first_seen_at", Timestamp, nullable=False),
    Column("last_seen_at", Timestamp, nullable=False),
    Column("version", Integer, nullable=False),
    # Outpoints as <transaction>:<output>.
    Column("inputs", ARRAY(Text), nullable=False, server_default="{}"),
    UniqueConstraint(
        "chain", "tx_hash", "recipient", "contract", postgresql_nulls_not_distinct=True
    ),
    schema=SCHEMA,
)
Index("ix_pending_arrival_state", pending_arrival.c.chain, pending_arrival.c.state)

remainder = Table(
    "remainder",
    metadata,
    Column("wallet", Text, nullable=False),
    Column("chain_asset", Text, nullable=False),
    # Smallest units of the chain that no whole unit of the asset has been posted for yet.
    Column("amount", Units, nullable=False),
    Column("version", Integer, nullable=False),
    PrimaryKeyConstraint("wallet", "chain_asset"),
    CheckConstraint("amount >= 0", name="amount"),
    schema=SCHEMA,
)

unregistered_day = Table(
    "unregistered_day",
    metadata,
    Column("chain", Text, nullable=False),
    Column("day", Date, nullable=False),
    # Empty for every contract of which nothing was kept that day.
    Column("contract", Text, nullable=False),
    Column("kept", BigInteger, nullable=False),
    Column("left_out", BigInteger, nullable=False),
    PrimaryKeyConstraint("chain", "day", "contract"),
    CheckConstraint("kept >= 0 AND left_out >= 0", name="counts"),
    schema=SCHEMA,
)
