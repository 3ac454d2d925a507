"""The venues schema."""

from __future__ import annotations

from alembic import op

revision = "0006_pre_venues"
down_revision: str | None = "0005_pre_marketdata"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA venues")
    op.execute("GRANT USAGE ON SCHEMA venues TO causeway_app")


def downgrade() -> None:
    op.execute("DROP SCHEMA venues CASCADE")
