"""The manifest of recordings: files, and what is missing from them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0034_pre_recordings"
down_revision: str | None = "0033_pre_market_streams"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "recording_file",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("store", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("session", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("first_ns", sa.BigInteger, nullable=False),
        sa.Column("last_ns", sa.BigInteger, nullable=False),
        sa.Column("first_sequence", sa.Text, nullable=False),
        sa.Column("last_sequence", sa.Text, nullable=False),
        sa.Column("gaps", sa.Integer, nullable=False),
        sa.Column("instrument_version", sa.Integer, nullable=False),
        sa.Column("recorded_at", TIMESTAMP, nullable=False),
        sa.Column("held_for", sa.Text, nullable=False, server_default=""),
        sa.Column("removed_at", TIMESTAMP),
        sa.PrimaryKeyConstraint("id", name="pk_recording_file"),
        sa.UniqueConstraint("store", "path", name="uq_recording_file_store_path"),
        sa.CheckConstraint("kind IN ('raw', 'parquet')", name=op.f("ck_recording_file_kind")),
        sa.CheckConstraint(
            "size >= 0 AND rows >= 0 AND gaps >= 0", name=op.f("ck_recording_file_counts")
        ),
        sa.CheckConstraint("last_ns >= first_ns", name=op.f("ck_recording_file_span")),
        sa.CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name=op.f("ck_recording_file_sha256")),
        sa.CheckConstraint(
            "removed_at IS NULL OR held_for = ''", name=op.f("ck_recording_file_held")
        ),
        schema="marketdata",
    )
    op.create_index(
        "ix_recording_file_span",
        "recording_file",
        ["venue", "kind", "first_ns"],
        schema="marketdata",
    )
    op.create_table(
        "recording_loss",
        sa.Column("file_id", sa.Uuid, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since_ns", sa.BigInteger, nullable=False),
        sa.Column("until_ns", sa.BigInteger, nullable=False),
        sa.Column("items", sa.BigInteger),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("file_id", "number", name="pk_recording_loss"),
        sa.ForeignKeyConstraint(
            ["file_id"],
            ["marketdata.recording_file.id"],
            name="fk_recording_loss_file_id_recording_file",
        ),
        sa.CheckConstraint("until_ns >= since_ns", name=op.f("ck_recording_loss_span")),
        sa.CheckConstraint("items >= 0 AND size >= 0", name=op.f("ck_recording_loss_counts")),
        schema="marketdata",
    )
    op.execute("GRANT SELECT, INSERT, UPDATE ON marketdata.recording_file TO causeway_app")
    op.execute("GRANT SELECT, INSERT, DELETE ON marketdata.recording_loss TO causeway_app")


def downgrade() -> None:
    """Drop them."""
    op.drop_table("recording_loss", schema="marketdata")
    op.drop_table("recording_file", schema="marketdata")
