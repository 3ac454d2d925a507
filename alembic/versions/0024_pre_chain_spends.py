"""What spent outputs of ours, block by block."""

from __future__ import annotations

revision = "0024_pre_chain_spends"
down_revision: str | None = "0023_pre_disbelief"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
