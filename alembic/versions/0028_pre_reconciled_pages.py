"""What reconciliation of many addresses keeps between its pages."""

from __future__ import annotations

revision = "0028_pre_reconciled_pages"
down_revision: str | None = "0027_pre_wallet_keys"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
