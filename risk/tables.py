"""Tables of risk: switches, limits and their versions, orders counted, health of venues. Private."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, Units, metadata

SCHEMA = "risk"

# The row of a desk is its lock; the row `*` is the house's switch and comes before every other.
desk_control = Table(
    "desk_control",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("changed_by", Text, nullable=False),
    Column("since", Timestamp),
    # Changes of the switch; 0: nobody ever touched it.
    Column("version", Integer, nullable=False),
    CheckConstraint("state IN ('active', 'halted', 'reducing')", name="state"),
    CheckConstraint("version >= 0", name="version"),
    CheckConstraint("(since IS NULL) = (version = 0)", name="since"),
    schema=SCHEMA,
)

desk_limits = Table(
    "desk_limits",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("currency", Text, nullable=False),
    # Asset or venue to smallest units, as text: JSON has no integers of this size.
    Column("asset_units", JSONB, nullable=False),
    Column("venue_units", JSONB, nullable=False),
    Column("notional_units", Units),
    Column("order_notional_units", Units),
    Column("orders_per_minute", Integer),
    Column("unknown_orders_max", Integer),
    Column("loss_units", Units),
    Column("book_age_max_ms", BigInteger),
    Column("set_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("set_at", Timestamp, nullable=False),
    CheckConstraint("version > 0", name="version"),
    CheckConstraint("set_by <> approved_by", name="two_people"),
    CheckConstraint("notional_units >= 0 AND order_notional_units >= 0", name="notional"),
    CheckConstraint("orders_per_minute >= 0 AND unknown_orders_max >= 0", name="counts"),
    CheckConstraint("loss_units > 0 AND book_age_max_ms >= 0", name="loss_and_age"),
    schema=SCHEMA,
)

# The row of a party is its lock: whoever books a deal with it holds this row until it is booked.
party_limit = Table(
    "party_limit",
    metadata,
    Column("party", Text, primary_key=True),
    # Of the limits in force; 0: none of its own, the default of all parties holds.
    Column("version", Integer, nullable=False),
    CheckConstraint("version >= 0", name="version"),
    schema=SCHEMA,
)

party_limits = Table(
    "party_limits",
    metadata,
    Column("party", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("currency", Text, nullable=False),
    Column("exposure_units", Units),
    Column("settlement_units", Units),
    Column("set_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("set_at", Timestamp, nullable=False),
    CheckConstraint("version > 0", name="version"),
    CheckConstraint("set_by <> approved_by", name="two_people"),
    CheckConstraint("exposure_units >= 0 AND settlement_units >= 0", name="amounts"),
    schema=SCHEMA,
)

# Orders that passed, for the rate only: what is older than the window is taken away. Numbered under
# the desk's lock.
order_passed = Table(
    "order_passed",
    metadata,
    Column("desk", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("passed_at", Timestamp, nullable=False),
    schema=SCHEMA,
)

venue_health = Table(
    "venue_health",
    metadata,
    Column("venue", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("since", Timestamp, nullable=False),
    # How often it tripped without having been well in between: each time it rests for longer.
    Column("trips", Integer, nullable=False),
    # When the one order that may try the venue was let through; NULL: none is under way.
    Column("trial_at", Timestamp),
    Column("reason", Text, nullable=False),
    # The last outcomes, bounded: [[milliseconds since 1970, outcome, latency in milliseconds], …].
    Column("samples", JSONB, nullable=False),
    CheckConstraint("state IN ('closed', 'half-open', 'open')", name="state"),
    CheckConstraint("trips >= 0", name="trips"),
    CheckConstraint("trial_at IS NULL OR state = 'half-open'", name="trial"),
    schema=SCHEMA,
)
