"""What is not believed: amounts above a token's supply, and floods of unregistered tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023_pre_disbelief"
down_revision: str | None = "0022_pre_agreement"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the column and the table."""
    op.add_column(
        "chain_asset", sa.Column("supply_max", sa.Numeric(78, 0), nullable=True), schema="registry"
    )
    op.create_check_constraint(
        op.f("ck_chain_asset_supply_max"), "chain_asset", "supply_max > 0", schema="registry"
    )
    op.execute("GRANT UPDATE (supply_max) ON registry.chain_asset TO causeway_app")
    op.create_table(
        "unregistered_day",
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("contract", sa.Text, nullable=False),
        sa.Column("kept", sa.BigInteger, nullable=False),
        sa.Column("left_out", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("chain", "day", "contract", name=op.f("pk_unregistered_day")),
        sa.CheckConstraint("kept >= 0 AND left_out >= 0", name=op.f("ck_unregistered_day_counts")),
        schema="custody",
    )
    op.execute("GRANT SELECT, INSERT ON custody.unregistered_day TO causeway_app")
    op.execute("GRANT UPDATE (kept, left_out) ON custody.unregistered_day TO causeway_app")


def downgrade() -> None:
    """Drop them."""
    op.drop_table("unregistered_day", schema="custody")
    op.drop_column("chain_asset", "supply_max", schema="registry")
