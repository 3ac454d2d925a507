"""For the ledger's reads: paths in the order of bytes, transfers by their own effective time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012_pre_ledger_reads"
down_revision: str | None = "0011_pre_ledger"
branch_labels = None
depends_on = None


def upgrade() -> None:
    collate("C")
    op.create_index(
        "ix_transfer_effective_at",
        "transfer",
        ["book", "effective_at", "sequence"],
        schema="ledger",
        postgresql_where=sa.text("effective_at IS NOT NULL"),
    )


def collate(collation: str) -> None:
    for column in ("path", "asset"):
        op.execute(
            f'ALTER TABLE ledger.account ALTER COLUMN {column} TYPE text COLLATE "{collation}"'
        )


def downgrade() -> None:
    op.drop_index("ix_transfer_effective_at", "transfer", schema="ledger")
    collate("default")
