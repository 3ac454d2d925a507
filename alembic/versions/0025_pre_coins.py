"""Outputs of Bitcoin that are ours."""

from __future__ import annotations

revision = "0025_pre_coins"
down_revision: str | None = "0024_pre_chain_spends"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
