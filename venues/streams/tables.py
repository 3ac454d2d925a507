"""Tables of private streams: the gaps."""

from __future__ import annotations

from typing import Final

from sqlalchemy import CheckConstraint, Column, Index, Integer, Table, Text, Uuid

from kernel.db import Timestamp, metadata

SCHEMA: Final = "venues"

stream_gap = Table(
    "stream_gap",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("since", Timestamp, nullable=False),
    # None: it lasts.
    Column("until", Timestamp),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    # None: not everything was asked for yet that may have happened meanwhile.
    Column("filled_at", Timestamp),
    Column("fills_found", Integer, nullable=False),
    Column("orders_left", Integer, nullable=False),
    CheckConstraint("until >= since", name="until"),
    CheckConstraint("filled_at IS NULL OR until IS NOT NULL", name="filled_at"),
    CheckConstraint("attempts >= 0 AND fills_found >= 0 AND orders_left >= 0", name="counts"),
    schema=SCHEMA,
)
Index("ix_stream_gap_since", stream_gap.c.venue, stream_gap.c.account, stream_gap.c.since)
Index(
    "ix_stream_gap_unfilled",
    stream_gap.c.venue,
    stream_gap.c.account,
    postgresql_where=stream_gap.c.filled_at.is_(None),
)
