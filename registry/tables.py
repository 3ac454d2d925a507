"""Tables of the registry: the records as they stand, every version they had, and the decisions.

Private to this package.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from kernel.db import Timestamp, Units, metadata

SCHEMA = "registry"


def _version_columns() -> list[Column[object]]:
    return [
        Column("version", Integer, nullable=False),
        Column("valid_from", Timestamp, nullable=False),
    ]


entity = Table(
    "entity",
    metadata,
    Column("code", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("book", Integer, nullable=False, unique=True),
    *_version_columns(),
    CheckConstraint("book > 0", name="book"),
    schema=SCHEMA,
)

asset = Table(
    "asset",
    metadata,
    Column("code", Text, primary_key=True),
    Column("scale", Integer, nullable=False),
    *_version_columns(),
    CheckConstraint("scale BETWEEN 0 AND 36", name="scale"),
    schema=SCHEMA,
)

chain = Table(
    "chain",
    metadata,
    Column("code", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    # An EIP-155 chain id is a uint256 in principle.
    Column("network_id", Units, nullable=False),
    Column("native_asset", Text, nullable=False),
    *_version_columns(),
    ForeignKeyConstraint(["native_asset"], ["registry.asset.code"]),
    # Where chains are named, this says that money is in banks.
    CheckConstraint("code <> 'bank'", name="code"),
    schema=SCHEMA,
)

chain_asset = Table(
    "chain_asset",
    metadata,
    Column("code", Text, primary_key=True),
    Column("chain", Text, nullable=False),
    Column("contract", Text),
    Column("decimals", Integer, nullable=False),
    Column("asset", Text, nullable=False),
    Column("supply_max", Units),
    *_version_columns(),
    ForeignKeyConstraint(["chain"], ["registry.chain.code"]),
    ForeignKeyConstraint(["asset"], ["registry.asset.code"]),
    UniqueConstraint("chain", "asset"),
    # One native coin per chain, and one asset per contract.
    UniqueConstraint("chain", "contract", postgresql_nulls_not_distinct=True),
    CheckConstraint("decimals BETWEEN 0 AND 36", name="decimals"),
    CheckConstraint("supply_max > 0", name="supply_max"),
    schema=SCHEMA,
)

party = Table(
    "party",
    metadata,
    Column("code", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("entity", Text, nullable=False),
    *_version_columns(),
    ForeignKeyConstraint(["entity"], ["registry.entity.code"]),
    schema=SCHEMA,
)

operator = Table(
    "operator",
    metadata,
    Column("code", Text, primary_key=True),
    # Two operators with one key would be one person with four eyes.
    Column("public_key", LargeBinary, nullable=False, unique=True),
    Column("active", Boolean, nullable=False),
    *_version_columns(),
    CheckConstraint("octet_length(public_key) = 32", name="public_key"),
    schema=SCHEMA,
)

operator_role = Table(
    "operator_role",
    metadata,
    Column("operator", Text, nullable=False),
    Column("role", Text, nullable=False),
    PrimaryKeyConstraint("operator", "role"),
    ForeignKeyConstraint(["operator"], ["registry.operator.code"]),
    schema=SCHEMA,
)

wallet = Table(
    "wallet",
    metadata,
    Column("code", Text, primary_key=True),
    Column("chain", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("owner_party", Text),
    Column("purpose", Text, nullable=False),
    Column("account_xpub", Text, nullable=False),
    Column("account_path", Text, nullable=False),
    Column("token_key", Text, nullable=False),
    Column("token_public_key", Text, nullable=False),
    Column("cosigners", ARRAY(Text), nullable=False),
    Column("required", Integer, nullable=False),
    *_version_columns(),
    ForeignKeyConstraint(["chain"], ["registry.chain.code"]),
    ForeignKeyConstraint(["owner_party"], ["registry.party.code"]),
    CheckConstraint(
        "owner_party IS NULL AND owner IN ('client', 'house') "
        "OR owner_party IS NOT NULL AND owner = 'client:' || owner_party",
        name="owner",
    ),
    CheckConstraint(
        "num_nonnulls(nullif(account_xpub, ''), nullif(token_key, ''), "
        "nullif(cardinality(cosigners), 0)) = 1",
        name="keys",
    ),
    schema=SCHEMA,
)
# The same keys are one wallet: two would hand out the same addresses.
Index(
    "uq_wallet_account_xpub",
    wallet.c.account_xpub,
    unique=True,
    postgresql_where=wallet.c.account_xpub != "",
)
Index(
    "uq_wallet_token_public_key",
    wallet.c.token_public_key,
    unique=True,
    postgresql_where=wallet.c.token_public_key != "",
)
Index(
    "uq_wallet_token_key",
    wallet.c.token_key,
    unique=True,
    postgresql_where=wallet.c.token_key != "",
)
Index(
    "uq_wallet_cosigners",
    wallet.c.cosigners,
    wallet.c.required,
    unique=True,
    postgresql_where=func.cardinality(wallet.c.cosigners) > 0,
)

bank_account = Table(
    "bank_account",
    metadata,
    Column("code", Text, primary_key=True),
    Column("bank", Text, nullable=False),
    Column("iban", Text, nullable=False),
    Column("bic", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("owner_party", Text),
    Column("entity", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    *_version_columns(),
    ForeignKeyConstraint(["asset"], ["registry.asset.code"]),
    ForeignKeyConstraint(["owner_party"], ["registry.party.code"]),
    ForeignKeyConstraint(["entity"], ["registry.entity.code"]),
    # One account of money: a bank may keep several currencies under one number.
    UniqueConstraint("iban", "asset"),
    CheckConstraint(
        "owner_party IS NULL AND owner IN ('client', 'house') "
        "OR owner_party IS NOT NULL AND owner = 'client:' || owner_party",
        name="owner",
    ),
    schema=SCHEMA,
)

proposal = Table(
    "proposal",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("base_version", Integer, nullable=False),
    Column("content", JSONB, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("proposed_at", Timestamp, nullable=False),
    Column("state", Text, nullable=False),
    ForeignKeyConstraint(["proposed_by"], ["registry.operator.code"]),
    # So that an approval can repeat who proposed, and the check below can compare.
    UniqueConstraint("id", "proposed_by"),
    schema=SCHEMA,
)

approval = Table(
    "approval",
    metadata,
    Column("proposal_id", Uuid, primary_key=True),
    Column("proposed_by", Text, nullable=False),
    Column("decided_by", Text, nullable=False),
    Column("approved", Boolean, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    Column("decided_at", Timestamp, nullable=False),
    ForeignKeyConstraint(
        ["proposal_id", "proposed_by"], ["registry.proposal.id", "registry.proposal.proposed_by"]
    ),
    ForeignKeyConstraint(["decided_by"], ["registry.operator.code"]),
    CheckConstraint("decided_by <> proposed_by", name="four_eyes"),
    schema=SCHEMA,
)

revision = Table(
    "revision",
    metadata,
    Column("kind", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("content", JSONB, nullable=False),
    Column("proposal_id", Uuid),
    Column("valid_from", Timestamp, nullable=False),
    PrimaryKeyConstraint("kind", "code", "version"),
    ForeignKeyConstraint(["proposal_id"], ["registry.proposal.id"]),
    schema=SCHEMA,
)

genesis = Table(
    "genesis",
    metadata,
    # One row at most: of two foundings at once, one waits here and is then refused.
    Column("singleton", Boolean, primary_key=True, server_default="true"),
    Column("founded_at", Timestamp, nullable=False),
    CheckConstraint("singleton", name="singleton"),
    schema=SCHEMA,
)
