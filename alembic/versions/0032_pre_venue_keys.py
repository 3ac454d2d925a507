"""The keys of accounts at venues, sealed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0032_pre_venue_keys"
down_revision: str | None = "0031_pre_venue_breaks"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "venue_key",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("kek_id", sa.Text, nullable=False),
        sa.Column("wrap_nonce", sa.LargeBinary, nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary, nullable=False),
        sa.Column("nonce", sa.LargeBinary, nullable=False),
        sa.Column("ciphertext", sa.LargeBinary, nullable=False),
        sa.Column("enrolled_by", sa.Text, nullable=False),
        sa.Column("enrolled_at", TIMESTAMP, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("retired_at", TIMESTAMP),
        sa.Column("retired_by", sa.Text, nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("id", name="pk_venue_key"),
        sa.CheckConstraint("purpose IN ('trading', 'withdrawal')", name="purpose"),
        sa.CheckConstraint("version > 0 AND generation > 0", name="numbers"),
        schema="venues",
    )
    op.create_index(
        "uq_venue_key_version",
        "venue_key",
        ["venue", "account", "purpose", "version"],
        unique=True,
        schema="venues",
    )
    op.create_index(
        "uq_venue_key_in_force",
        "venue_key",
        ["venue", "account", "purpose"],
        unique=True,
        schema="venues",
        postgresql_where=sa.text("retired_at IS NULL"),
    )
    op.execute("GRANT SELECT, INSERT, UPDATE ON venues.venue_key TO causeway_app")


def downgrade() -> None:
    """Drop it."""
    op.drop_table("venue_key", schema="venues")
