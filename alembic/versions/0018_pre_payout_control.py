"""Control of payouts: freezes, limits, decisions."""

from __future__ import annotations

revision = "0018_pre_payout_control"
down_revision: str | None = "0017_pre_compliance"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
