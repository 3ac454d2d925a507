"""Treasury: bands, sweeps and differences."""

from __future__ import annotations

revision = "0020_pre_treasury"
down_revision: str | None = "0019_pre_payout_execution"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
