"""Tables of venues: orders, decisions on them, fills, account states, balance snapshots."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from kernel.db import Timestamp, Units, lease_columns, metadata
from venues.model import ATTEMPTS_MAX

SCHEMA = "venues"

venue_order = Table(
    "venue_order",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("instrument_version", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("side", Text, nullable=False),
    Column("base_units", Units, nullable=False),
    Column("quantity", Text, nullable=False),
    Column("price", Text),
    Column("time_in_force", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("intent", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("client_order_id", Text, nullable=False),
    Column("venue_order_id", Text),
    Column("state", Text, nullable=False),
    Column("state_reason", Text, nullable=False),
    Column("signed_at", Timestamp),
    Column("recv_window_ms", Integer, nullable=False),
    Column("executed_units", Units, nullable=False, server_default="0"),
    Column("cancel_requested_at", Timestamp),
    # The venue showed it alive after it had been proven not to be; until the venue says it is over.
    Column("revived_at", Timestamp),
    Column("refusal", Text),
    Column("sought_since", Timestamp),
    Column("looked_at", Timestamp),
    # Ended, and as much filled as the venue says: only others are looked at again.
    Column("is_complete", Boolean, nullable=False, server_default="false"),
    # Events of the order on record: the next one's version is one more.
    Column("version", Integer, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    *lease_columns(),
    UniqueConstraint("venue", "account", "client_order_id", name="uq_venue_order_client_order_id"),
    UniqueConstraint(
        "venue", "account", "symbol", "venue_order_id", name="uq_venue_order_venue_order_id"
    ),
    UniqueConstraint("venue", "account", "intent", "attempt", name="uq_venue_order_attempt"),
    CheckConstraint("side IN ('buy', 'sell')", name="side"),
    CheckConstraint("kind IN ('limit', 'market', 'post-only')", name="kind"),
    CheckConstraint("(kind = 'market') = (price IS NULL)", name="price"),
    CheckConstraint(f"attempt BETWEEN 1 AND {ATTEMPTS_MAX}", name="attempt"),
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
# At most one order of an intent can ever trade: all others are proven not to exist at the venue.
Index(
    "uq_venue_order_alive",
    venue_order.c.venue,
    venue_order.c.account,
    venue_order.c.intent,
    unique=True,
    postgresql_where=venue_order.c.state.not_in(["not_placed", "refused"]),
)
Index(
    "ix_venue_order_revived",
    venue_order.c.venue,
    venue_order.c.account,
    venue_order.c.symbol,
    postgresql_where=venue_order.c.revived_at.is_not(None),
)

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

unread_fill = Table(
    "unread_fill",
    metadata,
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("trade_id", Text, nullable=False),
    Column("venue_order_id", Text),
    Column("reason", Text, nullable=False),
    Column("raw", Text, nullable=False),
    Column("seen_at", Timestamp, nullable=False),
    Column("read_at", Timestamp),
    PrimaryKeyConstraint("venue", "account", "symbol", "trade_id"),
    schema=SCHEMA,
)

venue_account_state = Table(
    "venue_account_state",
    metadata,
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", Timestamp, nullable=False),
    Column("by", Text, nullable=False),
    PrimaryKeyConstraint("venue", "account"),
    CheckConstraint("state IN ('active', 'halted', 'reducing')", name="state"),
    schema=SCHEMA,
)

order_decision = Table(
    "order_decision",
    metadata,
    Column("order_id", Uuid, ForeignKey("venues.venue_order.id"), nullable=False),
    Column("operator", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("venue_order_id", Text),
    Column("status", Text),
    Column("executed_units", Units),
    Column("decided_at", Timestamp, nullable=False),
    # A person counts once, so two rows are two people.
    PrimaryKeyConstraint("order_id", "operator"),
    CheckConstraint("verdict IN ('not-placed', 'placed')", name="verdict"),
    CheckConstraint("evidence <> ''", name="evidence"),
    CheckConstraint(
        "(verdict = 'placed') = (venue_order_id IS NOT NULL AND status IS NOT NULL"
        " AND executed_units IS NOT NULL)",
        name="report",
    ),
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
