"""Tables of venues: orders, fills, how far fills were read, balance snapshots."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from kernel.db import Timestamp, Units, lease_columns, metadata

SCHEMA = "venues"

venue_order = Table(
    "venue_order",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("instrument_version", Integer, nullable=False),
    Column("side", Text, nullable=False),
    Column("base_units", Units, nullable=False),
    Column("quantity", Text, nullable=False),
    Column("price", Text, nullable=False),
    Column("time_in_force", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("client_order_id", Text, nullable=False),
    Column("venue_order_id", Text),
    Column("state", Text, nullable=False),
    Column("state_reason", Text, nullable=False),
    Column("signed_at", Timestamp),
    Column("recv_window_ms", Integer, nullable=False),
    Column("executed_units", Units, nullable=False, server_default="0"),
    # Ended, and as much filled as the venue says: only others are looked at again.
    Column("is_complete", Boolean, nullable=False, server_default="false"),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    *lease_columns(),
    UniqueConstraint("venue", "account", "client_order_id", name="uq_venue_order_client_order_id"),
    UniqueConstraint(
        "venue", "account", "symbol", "venue_order_id", name="uq_venue_order_venue_order_id"
    ),
    CheckConstraint("side IN ('buy', 'sell')", name="side"),
    CheckConstraint("base_units > 0", name="base_units"),
    CheckConstraint("executed_units >= 0", name="executed_units"),
    CheckConstraint("signed_at IS NOT NULL OR state IN ('intent', 'not_placed')", name="signed"),
    schema=SCHEMA,
)
Index(
    "ix_venue_order_open",
    venue_order.c.venue,
    venue_order.c.account,
    venue_order.c.symbol,
    postgresql_where=venue_order.c.state.in_(
        ["acked", "escalated", "intent", "partially_filled", "submitting", "unknown"]
    ),
)
Index(
    "ix_venue_order_incomplete",
    venue_order.c.venue,
    venue_order.c.account,
    venue_order.c.symbol,
    postgresql_where=~venue_order.c.is_complete,
)
Index("ix_venue_order_reference", venue_order.c.reference)

fill = Table(
    "fill",
    metadata,
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("trade_id", Text, nullable=False),
    Column("id", Uuid, nullable=False, unique=True),
    Column("venue_order_id", Text, nullable=False),
    Column("side", Text, nullable=False),
    Column("price", Text, nullable=False),
    Column("base", Text, nullable=False),
    Column("base_units", Units, nullable=False),
    Column("quote", Text, nullable=False),
    Column("quote_units", Units, nullable=False),
    Column("quote_dust", Units, nullable=False),
    Column("fee_asset", Text, nullable=False),
    Column("fee_units", Units, nullable=False),
    Column("fee_dust", Units, nullable=False),
    Column("is_maker", Boolean, nullable=False),
    Column("executed_at", Timestamp, nullable=False),
    Column("source", Text, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    Column("booked_at", Timestamp),
    PrimaryKeyConstraint("venue", "account", "symbol", "trade_id"),
    CheckConstraint("side IN ('buy', 'sell')", name="side"),
    CheckConstraint(
        "base_units > 0 AND quote_units >= 0 AND quote_dust >= 0 AND fee_dust >= 0", name="amounts"
    ),
    schema=SCHEMA,
)
Index("ix_fill_order", fill.c.venue, fill.c.account, fill.c.symbol, fill.c.venue_order_id)
Index(
    "ix_fill_unbooked",
    fill.c.venue,
    fill.c.account,
    fill.c.symbol,
    postgresql_where=fill.c.booked_at.is_(None),
)

fill_cursor = Table(
    "fill_cursor",
    metadata,
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("trade_id", Text, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("venue", "account", "symbol"),
    schema=SCHEMA,
)

balance_snapshot = Table(
    "balance_snapshot",
    metadata,
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("taken_at", Timestamp, nullable=False),
    Column("asset", Text, nullable=False),
    Column("free", Units, nullable=False),
    Column("locked", Units, nullable=False),
    Column("dust", Units, nullable=False),
    Column("is_opening", Boolean, nullable=False),
    PrimaryKeyConstraint("venue", "account", "taken_at", "asset"),
    schema=SCHEMA,
)
