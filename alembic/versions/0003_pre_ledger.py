"""The ledger schema."""

from __future__ import annotations

from alembic import op

revision = "0003_pre_ledger"
down_revision: str | None = "0002_pre_registry"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA ledger")
    op.execute("GRANT USAGE ON SCHEMA ledger TO causeway_app")


def downgrade() -> None:
    op.execute("DROP SCHEMA ledger CASCADE")
