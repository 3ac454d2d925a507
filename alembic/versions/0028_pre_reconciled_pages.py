"""What a token does not tell is written down as such by reconciliation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028_pre_reconciled_pages"
down_revision: str | None = "0027_pre_wallet_keys"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let a run end with something unknown."""
    _results("'clean', 'different', 'unknown'")
    op.alter_column(
        "reconciliation_item",
        "chain_amount",
        existing_type=sa.Numeric(78, 0),
        nullable=True,
        schema="custody",
    )


def downgrade() -> None:
    """Forbid it again."""
    op.alter_column(
        "reconciliation_item",
        "chain_amount",
        existing_type=sa.Numeric(78, 0),
        nullable=False,
        schema="custody",
    )
    _results("'clean', 'different'")


def _results(names: str) -> None:
    name = op.f("ck_reconciliation_result")
    op.drop_constraint(name, "reconciliation", schema="custody")
    op.create_check_constraint(name, "reconciliation", f"result IN ({names})", schema="custody")
