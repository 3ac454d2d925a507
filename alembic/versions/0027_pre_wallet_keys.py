"""Wallets whose keys are in a token, or shared by several signers."""

from __future__ import annotations

revision = "0027_pre_wallet_keys"
down_revision: str | None = "0026_pre_spends"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
