"""Blocks, what they hold for us, the cursor, and whether a chain is followed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_pre_chain"
down_revision: str | None = "0003_pre_ledger"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)

BLOCK_FUNCTION = """\
CREATE OR REPLACE FUNCTION chain.block_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('canonical') THEN
            RAISE EXCEPTION 'chain.block cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'block_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('canonical', 'orphaned'),
            ('orphaned', 'canonical')
        ) THEN
            RAISE EXCEPTION 'chain.block cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'block_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
BLOCK_TRIGGER = (
    "CREATE OR REPLACE TRIGGER block_state_edges BEFORE INSERT OR UPDATE ON chain.block "
    "FOR EACH ROW EXECUTE FUNCTION chain.block_state_edges()"
)
FOLLOWING_FUNCTION = """\
CREATE OR REPLACE FUNCTION chain.following_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('running') THEN
            RAISE EXCEPTION 'chain.following cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'following_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('halted', 'running'),
            ('running', 'halted')
        ) THEN
            RAISE EXCEPTION 'chain.following cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'following_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
FOLLOWING_TRIGGER = (
    "CREATE OR REPLACE TRIGGER following_state_edges BEFORE INSERT OR UPDATE ON chain.following "
    "FOR EACH ROW EXECUTE FUNCTION chain.following_state_edges()"
)


def content_columns() -> list[sa.Column]:
    return [
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("block_hash", sa.Text, nullable=False),
        sa.Column("inclusion", sa.Integer, nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("tx_hash", sa.Text, nullable=False),
    ]


def upgrade() -> None:
    op.execute("CREATE SCHEMA chain")
    op.create_table(
        "block",
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("height", sa.BigInteger, nullable=False),
        sa.Column("parent", sa.Text, nullable=False),
        sa.Column("time", TIMESTAMP, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("inclusion", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("chain", "hash", name="pk_block"),
        sa.CheckConstraint("height >= 0", name=op.f("ck_block_height")),
        sa.CheckConstraint("hash <> parent", name=op.f("ck_block_parent")),
        schema="chain",
    )
    op.create_index(
        "uq_block_canonical_height",
        "block",
        ["chain", "height"],
        unique=True,
        schema="chain",
        postgresql_where=sa.text("state = 'canonical'"),
    )
    op.create_table(
        "movement",
        *content_columns(),
        sa.Column("position", sa.Text, nullable=False),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("contract", sa.Text),
        sa.Column("amount", UNITS, nullable=False),
        sa.PrimaryKeyConstraint("chain", "block_hash", "inclusion", "ordinal", name="pk_movement"),
        sa.UniqueConstraint(
            "chain",
            "block_hash",
            "inclusion",
            "tx_hash",
            "position",
            name="uq_movement_chain_block_hash_inclusion_tx_hash_position",
        ),
        sa.ForeignKeyConstraint(
            ["chain", "block_hash"],
            ["chain.block.chain", "chain.block.hash"],
            name="fk_movement_chain_block_hash_block",
        ),
        sa.CheckConstraint("amount > 0", name=op.f("ck_movement_amount")),
        schema="chain",
    )
    op.create_table(
        "outcome",
        *content_columns(),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("nonce", sa.BigInteger, nullable=False),
        sa.Column("succeeded", sa.Boolean, nullable=False),
        sa.Column("fee", UNITS, nullable=False),
        sa.Column("recipient", sa.Text),
        sa.PrimaryKeyConstraint("chain", "block_hash", "inclusion", "ordinal", name="pk_outcome"),
        sa.UniqueConstraint(
            "chain",
            "block_hash",
            "inclusion",
            "tx_hash",
            name="uq_outcome_chain_block_hash_inclusion_tx_hash",
        ),
        sa.ForeignKeyConstraint(
            ["chain", "block_hash"],
            ["chain.block.chain", "chain.block.hash"],
            name="fk_outcome_chain_block_hash_block",
        ),
        sa.CheckConstraint("fee >= 0", name=op.f("ck_outcome_fee")),
        sa.CheckConstraint("nonce >= 0", name=op.f("ck_outcome_nonce")),
        schema="chain",
    )
    op.create_table(
        "following",
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("depth_granted", sa.Integer),
        sa.PrimaryKeyConstraint("chain", name="pk_following"),
        sa.UniqueConstraint("id", name="uq_following_id"),
        schema="chain",
    )
    op.create_table(
        "cursor",
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("height", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("chain", name="pk_cursor"),
        sa.ForeignKeyConstraint(
            ["chain", "hash"],
            ["chain.block.chain", "chain.block.hash"],
            name="fk_cursor_chain_hash_block",
        ),
        schema="chain",
    )
    for statement in (BLOCK_FUNCTION, BLOCK_TRIGGER, FOLLOWING_FUNCTION, FOLLOWING_TRIGGER):
        op.execute(statement)
    op.execute("GRANT USAGE ON SCHEMA chain TO causeway_app")
    op.execute(
        "GRANT SELECT, INSERT ON chain.block, chain.movement, chain.outcome, "
        "chain.following, chain.cursor TO causeway_app"
    )
    # What a block held when it was included is a fact: no right to change it.
    op.execute("GRANT UPDATE (state, inclusion) ON chain.block TO causeway_app")
    op.execute("GRANT UPDATE (state, reason, depth_granted) ON chain.following TO causeway_app")
    op.execute("GRANT UPDATE (height, hash, version) ON chain.cursor TO causeway_app")


def downgrade() -> None:
    op.execute("DROP SCHEMA chain CASCADE")
