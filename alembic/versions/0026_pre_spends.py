"""Transactions of Bitcoin that carry payouts."""

from __future__ import annotations

revision = "0026_pre_spends"
down_revision: str | None = "0025_pre_coins"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
