"""Whether the providers of a chain agree, and since when they do not."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022_pre_agreement"
down_revision: str | None = "0021_pre_signer_sync"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "agreement",
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("tip_height", sa.BigInteger),
        sa.Column("disputed_since", TIMESTAMP),
        sa.Column("alarmed", sa.Boolean, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("chain", name="pk_agreement"),
        sa.UniqueConstraint("id", name="uq_agreement_id"),
        sa.CheckConstraint(
            "NOT alarmed OR disputed_since IS NOT NULL",
            name=op.f("ck_agreement_alarmed_about_something"),
        ),
        schema="chain",
    )
    op.execute("GRANT SELECT, INSERT ON chain.agreement TO causeway_app")
    op.execute(
        "GRANT UPDATE (tip_height, disputed_since, alarmed, detail) ON chain.agreement "
        "TO causeway_app"
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("agreement", schema="chain")
