"""Trace ids in rows, so that work is one trace across jobs and restarts."""

from __future__ import annotations

revision = "0054_pre_traces"
down_revision: str | None = "0053_pre_restore"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
