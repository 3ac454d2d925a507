"""The marketdata schema."""

from __future__ import annotations

from alembic import op

revision = "0005_pre_marketdata"
down_revision: str | None = "0004_pre_chain"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SCHEMA marketdata")
    op.execute("GRANT USAGE ON SCHEMA marketdata TO causeway_app")


def downgrade() -> None:
    op.execute("DROP SCHEMA marketdata CASCADE")
