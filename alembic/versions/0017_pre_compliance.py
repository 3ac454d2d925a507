"""Compliance: what deposits and payouts wait for."""

from __future__ import annotations

revision = "0017_pre_compliance"
down_revision: str | None = "0016_pre_following"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
