"""The chain schema."""

from __future__ import annotations

from alembic import op

revision = "0004_pre_chain"
down_revision: str | None = "0003_pre_ledger"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA chain")
    op.execute("GRANT USAGE ON SCHEMA chain TO causeway_app")


def downgrade() -> None:
    op.execute("DROP SCHEMA chain CASCADE")
