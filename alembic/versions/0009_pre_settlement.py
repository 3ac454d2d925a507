"""The settlement schema."""

from __future__ import annotations

from alembic import op

revision = "0009_pre_settlement"
down_revision: str | None = "0008_pre_trading"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA settlement")
    op.execute("GRANT USAGE ON SCHEMA settlement TO causeway_app")


def downgrade() -> None:
    op.execute("DROP SCHEMA settlement CASCADE")
