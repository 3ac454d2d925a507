"""Outputs of Bitcoin that are ours."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0025_pre_coins"
down_revision: str | None = "0024_pre_chain_spends"
branch_labels = None
depends_on = None

COIN_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.coin_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('spent', 'unspent') THEN
            RAISE EXCEPTION 'custody.coin cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'coin_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('orphaned', 'spent'),
            ('orphaned', 'unspent'),
            ('spent', 'orphaned'),
            ('spent', 'unspent'),
            ('unspent', 'orphaned'),
            ('unspent', 'spent')
        ) THEN
            RAISE EXCEPTION 'custody.coin cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'coin_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
COIN_TRIGGER = (
    "CREATE OR REPLACE TRIGGER coin_state_edges BEFORE INSERT OR UPDATE ON custody.coin "
    "FOR EACH ROW EXECUTE FUNCTION custody.coin_state_edges()"
)


def upgrade() -> None:
    """Make the tables of coins and of their locks, and addresses for change."""
    op.drop_constraint(op.f("ck_address_party"), "address", schema="custody")
    op.create_check_constraint(
        op.f("ck_address_party"),
        "address",
        "(purpose IN ('hot', 'change')) = (party IS NULL)",
        schema="custody",
    )
    op.add_column(
        "pending_arrival",
        sa.Column("inputs", postgresql.ARRAY(sa.Text), nullable=False, server_default="{}"),
        schema="custody",
    )
    create_coin()
    create_coin_lock()
    op.execute(COIN_FUNCTION)
    op.execute(COIN_TRIGGER)
    op.execute("GRANT SELECT, INSERT ON custody.coin TO causeway_app")
    op.execute(
        "GRANT UPDATE (height, block_hash, state, spent_by, spent_height, spent_block, coinbase, own) "
        "ON custody.coin TO causeway_app"
    )
    # A lock is no fact: it goes when its transaction is settled.
    op.execute("GRANT SELECT, INSERT, DELETE ON custody.coin_lock TO causeway_app")


def create_coin() -> None:
    """Make the table of outputs."""
    op.create_table(
        "coin",
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("tx_id", sa.Text, nullable=False),
        sa.Column("index", sa.Integer, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("wallet", sa.Text, nullable=False),
        sa.Column("branch", sa.Integer, nullable=False),
        sa.Column("address_index", sa.Integer, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("amount", sa.Numeric(78, 0), nullable=False),
        sa.Column("coinbase", sa.Boolean, nullable=False),
        sa.Column("own", sa.Boolean, nullable=False),
        sa.Column("height", sa.BigInteger),
        sa.Column("block_hash", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("spent_by", sa.Text),
        sa.Column("spent_height", sa.BigInteger),
        sa.Column("spent_block", sa.Text),
        sa.PrimaryKeyConstraint("chain", "tx_id", "index", name=op.f("pk_coin")),
        sa.ForeignKeyConstraint(
            ["chain", "address"],
            ["custody.address.chain", "custody.address.address"],
            name=op.f("fk_coin_chain_address_address"),
        ),
        sa.CheckConstraint("amount > 0 AND index >= 0", name=op.f("ck_coin_amount")),
        sa.CheckConstraint("(height IS NULL) = (block_hash IS NULL)", name=op.f("ck_coin_made")),
        sa.CheckConstraint(
            "(spent_by IS NULL) = (spent_block IS NULL) "
            "AND (spent_by IS NULL) = (spent_height IS NULL)",
            name=op.f("ck_coin_spent"),
        ),
        sa.CheckConstraint(
            "(state = 'spent') = (spent_block IS NOT NULL)", name=op.f("ck_coin_is_spent")
        ),
        sa.CheckConstraint(
            "state <> 'unspent' OR block_hash IS NOT NULL", name=op.f("ck_coin_is_unspent")
        ),
        sa.CheckConstraint(
            "state <> 'orphaned' OR block_hash IS NULL", name=op.f("ck_coin_is_orphaned")
        ),
        schema="custody",
    )
    op.create_index(
        "ix_coin_unspent",
        "coin",
        ["chain", "wallet", "amount"],
        schema="custody",
        postgresql_where=sa.text("state = 'unspent'"),
    )
    op.create_index("ix_coin_block", "coin", ["block_hash"], schema="custody")
    op.create_index("ix_coin_spent_block", "coin", ["spent_block"], schema="custody")


def create_coin_lock() -> None:
    """Make the table of coins that are going to be spent."""
    op.create_table(
        "coin_lock",
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("tx_id", sa.Text, nullable=False),
        sa.Column("index", sa.Integer, nullable=False),
        sa.Column("spend_id", sa.Uuid, nullable=False),
        sa.Column("locked_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("chain", "tx_id", "index", name=op.f("pk_coin_lock")),
        sa.ForeignKeyConstraint(
            ["chain", "tx_id", "index"],
            ["custody.coin.chain", "custody.coin.tx_id", "custody.coin.index"],
            name=op.f("fk_coin_lock_chain_tx_id_index_coin"),
        ),
        schema="custody",
    )
    op.create_index("ix_coin_lock_spend", "coin_lock", ["spend_id"], schema="custody")


def downgrade() -> None:
    """Drop them."""
    op.drop_table("coin_lock", schema="custody")
    op.drop_table("coin", schema="custody")
    op.execute("DROP FUNCTION custody.coin_state_edges()")
    op.drop_column("pending_arrival", "inputs", schema="custody")
    op.drop_constraint(op.f("ck_address_party"), "address", schema="custody")
    op.create_check_constraint(
        op.f("ck_address_party"), "address", "(purpose = 'hot') = (party IS NULL)", schema="custody"
    )
