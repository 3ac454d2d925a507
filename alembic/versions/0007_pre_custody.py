"""The custody schema."""

from __future__ import annotations

from alembic import op

revision = "0007_pre_custody"
down_revision: str | None = "0006_pre_venues"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA custody")
    op.execute("GRANT USAGE ON SCHEMA custody TO causeway_app")


def downgrade() -> None:
    op.execute("DROP SCHEMA custody CASCADE")
