"""Market streams: their gaps, and how each is doing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0033_pre_market_streams"
down_revision: str | None = "0032_pre_venue_keys"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
SCHEMA = "marketdata"
CHANNELS = "channel IN ('best', 'book', 'candles', 'ticker', 'trades')"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "gap",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", TIMESTAMP, nullable=False),
        sa.Column("until", TIMESTAMP),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("filled_at", TIMESTAMP),
        sa.Column("filled_by", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("missing", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_gap"),
        sa.CheckConstraint(CHANNELS, name="channel"),
        sa.CheckConstraint("until >= since", name="range"),
        sa.CheckConstraint(
            "(filled_at IS NULL AND missing = '') OR until IS NOT NULL", name="filled"
        ),
        sa.CheckConstraint("filled_at IS NULL OR missing = ''", name="missing"),
        schema=SCHEMA,
    )
    op.create_index("ix_gap_time", "gap", ["venue", "symbol", "channel", "since"], schema=SCHEMA)
    op.create_index(
        "ix_gap_open",
        "gap",
        ["venue"],
        schema=SCHEMA,
        postgresql_where=sa.text("until IS NULL"),
    )
    op.create_table(
        "stream_status",
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("since", TIMESTAMP, nullable=False),
        sa.Column("last_event_at", TIMESTAMP),
        sa.Column("sequence", sa.Text, nullable=False),
        sa.Column("gaps", sa.BigInteger, nullable=False),
        sa.Column("reconnects", sa.BigInteger, nullable=False),
        sa.Column("messages", sa.BigInteger, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("told_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("venue", "symbol", "channel", name="pk_stream_status"),
        sa.CheckConstraint(CHANNELS, name="channel"),
        sa.CheckConstraint(
            "state IN ('connecting', 'down', 'live', 'stale', 'syncing')", name="state"
        ),
        schema=SCHEMA,
    )
    op.execute("GRANT SELECT, INSERT ON marketdata.gap TO causeway_app")
    op.execute(
        'GRANT UPDATE ("until", detail, filled_at, filled_by, rows, missing) '
        "ON marketdata.gap TO causeway_app"
    )
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON marketdata.stream_status TO causeway_app")


def downgrade() -> None:
    """Drop them."""
    op.drop_table("stream_status", schema=SCHEMA)
    op.drop_table("gap", schema=SCHEMA)
