"""What payouts in sets need."""

from __future__ import annotations

revision = "0029_pre_payout_speed"
down_revision: str | None = "0028_pre_reconciled_pages"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
