"""Carrying payouts out: nonces, replacements, cancellations."""

from __future__ import annotations

revision = "0019_pre_payout_execution"
down_revision: str | None = "0018_pre_payout_control"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
