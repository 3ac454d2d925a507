"""What spent outputs of ours, block by block."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024_pre_chain_spends"
down_revision: str | None = "0023_pre_disbelief"
branch_labels = None
depends_on = None

UNITS = sa.Numeric(78, 0)


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "spend",
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("block_hash", sa.Text, nullable=False),
        sa.Column("inclusion", sa.Integer, nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("tx_hash", sa.Text, nullable=False),
        sa.Column("index", sa.BigInteger, nullable=False),
        sa.Column("spent_tx", sa.Text, nullable=False),
        sa.Column("spent_index", sa.BigInteger, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.PrimaryKeyConstraint("chain", "block_hash", "inclusion", "ordinal", name="pk_spend"),
        sa.UniqueConstraint(
            "chain",
            "block_hash",
            "inclusion",
            "spent_tx",
            "spent_index",
            name="uq_spend_chain_block_hash_inclusion_spent_tx_spent_index",
        ),
        sa.ForeignKeyConstraint(
            ["chain", "block_hash"],
            ["chain.block.chain", "chain.block.hash"],
            name="fk_spend_chain_block_hash_block",
        ),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_spend_amount")),
        sa.CheckConstraint("index >= 0", name=op.f("ck_spend_index")),
        sa.CheckConstraint("spent_index >= 0", name=op.f("ck_spend_spent_index")),
        schema="chain",
    )
    # What a block held when it was included is a fact: no right to change it.
    op.execute("GRANT SELECT, INSERT ON chain.spend TO causeway_app")


def downgrade() -> None:
    """Drop it."""
    op.drop_table("spend", schema="chain")
