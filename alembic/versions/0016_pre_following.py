"""Following a chain: what re-scans, traces and people need."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016_pre_following"
down_revision: str | None = "0015_pre_client_money"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A block says whether it was traced, a chain up to where it was read a second time."""
    op.add_column(
        "block",
        sa.Column("traced", sa.Boolean, nullable=False, server_default=sa.false()),
        schema="chain",
    )
    op.alter_column("block", "traced", server_default=None, schema="chain")
    op.add_column("following", sa.Column("reread", sa.BigInteger), schema="chain")
    op.execute("GRANT UPDATE (traced) ON chain.block TO causeway_app")
    op.execute("GRANT UPDATE (reread) ON chain.following TO causeway_app")


def downgrade() -> None:
    """Take both away."""
    op.drop_column("following", "reread", schema="chain")
    op.drop_column("block", "traced", schema="chain")
