"""The signer: control messages on their way to it, and the checkpoints it has shown."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0021_pre_signer_sync"
down_revision: str | None = "0020_pre_treasury"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the two tables."""
    op.create_table(
        "control_message",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("message", JSONB, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("queued_at", TIMESTAMP, nullable=False),
        sa.Column("answered_at", TIMESTAMP),
        sa.Column("signer", sa.Text),
        sa.Column("record", sa.BigInteger),
        sa.Column("refusal", sa.Text),
        sa.CheckConstraint(
            "(state = 'queued') = (answered_at IS NULL)",
            name=op.f("ck_control_message_answered_or_queued"),
        ),
        sa.CheckConstraint(
            "(state = 'accepted') = (record IS NOT NULL)",
            name=op.f("ck_control_message_accepted_as_a_record"),
        ),
        sa.CheckConstraint(
            "(state = 'refused') = (refusal IS NOT NULL)",
            name=op.f("ck_control_message_refused_for_a_reason"),
        ),
        schema="custody",
    )
    op.create_index(
        "ix_control_message_queued",
        "control_message",
        ["number"],
        schema="custody",
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_table(
        "signer_checkpoint",
        sa.Column("signer", sa.Text, primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.CheckConstraint("size >= 0", name=op.f("ck_signer_checkpoint_size_not_negative")),
        schema="custody",
    )
    op.execute("GRANT SELECT, INSERT ON custody.control_message TO causeway_app")
    op.execute(
        "GRANT UPDATE (state, answered_at, signer, record, refusal)"
        " ON custody.control_message TO causeway_app"
    )
    op.execute("GRANT SELECT, INSERT ON custody.signer_checkpoint TO causeway_app")
    op.execute("GRANT UPDATE (size, note, at) ON custody.signer_checkpoint TO causeway_app")


def downgrade() -> None:
    """Drop them."""
    op.drop_table("signer_checkpoint", schema="custody")
    op.drop_table("control_message", schema="custody")
