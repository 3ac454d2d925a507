"""What is known of a withdrawal that a restored database has forgotten, at a venue that lists no id of ours."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0057_pre_forgotten_withdrawals"
down_revision: str | None = "0056_pre_skipped_addresses"
branch_labels = None
depends_on = None

SCHEMA = "custody"
TABLE = "restore_withdrawal"
UNITS = sa.Numeric(precision=78, scale=0)


def upgrade() -> None:
    """Make the table: what such a withdrawal was, and under which reference people say it was asked for."""
    op.create_table(
        TABLE,
        sa.Column("restore_id", sa.Uuid, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("network", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("sent", UNITS, nullable=False),
        sa.Column("fee", UNITS, nullable=False),
        sa.Column("reference", sa.Text),
        sa.PrimaryKeyConstraint("restore_id", "source", "key", name="pk_restore_withdrawal"),
        sa.ForeignKeyConstraint(
            ["restore_id", "source", "key"],
            [
                "custody.restore_item.restore_id",
                "custody.restore_item.source",
                "custody.restore_item.key",
            ],
            name="fk_restore_withdrawal_restore_id_source_key_restore_item",
        ),
        sa.CheckConstraint("sent >= 0 AND fee >= 0", name="amounts_not_negative"),
        sa.CheckConstraint("reference <> ''", name="reference_not_empty"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_restore_withdrawal_place", TABLE, ["venue", "account"], unique=False, schema=SCHEMA
    )
    op.execute(f"GRANT SELECT, INSERT ON custody.{TABLE} TO causeway_app")
    op.execute(f"GRANT UPDATE (reference) ON custody.{TABLE} TO causeway_app")


def downgrade() -> None:
    """Drop it."""
    op.drop_table(TABLE, schema=SCHEMA)
