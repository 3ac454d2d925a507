"""A restore: what the database says of it, and which doors it keeps shut."""

from __future__ import annotations

revision = "0053_pre_restore"
down_revision: str | None = "0052_pre_alerts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
