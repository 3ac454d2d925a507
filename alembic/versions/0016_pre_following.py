"""Following a chain: what re-scans, traces and people need."""

from __future__ import annotations

revision = "0016_pre_following"
down_revision: str | None = "0015_pre_client_money"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
