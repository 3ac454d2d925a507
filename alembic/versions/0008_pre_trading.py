"""The trading schema."""

from __future__ import annotations

from alembic import op

revision = "0008_pre_trading"
down_revision: str | None = "0007b_pre_payouts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA trading")
    op.execute("GRANT USAGE ON SCHEMA trading TO causeway_app")


def downgrade() -> None:
    op.execute("DROP SCHEMA trading CASCADE")
