"""The registry schema."""

from __future__ import annotations

from alembic import op

revision = "0002_pre_registry"
down_revision: str | None = "0001_pre_kernel"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA registry")
    op.execute("GRANT USAGE ON SCHEMA registry TO causeway_app")


def downgrade() -> None:
    op.execute("DROP SCHEMA registry CASCADE")
