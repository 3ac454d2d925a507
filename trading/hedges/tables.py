"""Tables of hedging: lines, their places, which fills were posted, fills entered by hand."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from kernel.db import Timestamp, Units, metadata

SCHEMA = "trading"

hedge = Table(
    "hedge",
    metadata,
    Column("desk", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("id", Uuid, nullable=False, unique=True),
    # The one place of a line as the release before this one writes it; it is in `hedge_place` too.
    Column("venue", Text),
    Column("account", Text),
    Column("symbol", Text),
    Column("quote", Text),
    Column("target", Units, nullable=False),
    Column("state", Text, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("pace_started_at", Timestamp),
    Column("pace_units", Units),
    Column("pace_until", Timestamp),
    Column("looked_at", Timestamp),
    Column("look_verdict", Text),
    Column("look_detail", Text),
    Column("look_position", Units),
    Column("look_low", Units),
    Column("look_high", Units),
    Column("look_need", Units),
    Column("look_waiting", Units),
    Column("look_residual", Units),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("desk", "asset"),
    UniqueConstraint("venue", "account", "symbol", name="uq_hedge_instrument"),
    CheckConstraint("sequence >= 0", name="sequence"),
    CheckConstraint(
        "num_nulls(pace_started_at, pace_units, pace_until) IN (0, 3)", name="pace_whole"
    ),
    CheckConstraint(
        "num_nulls(looked_at, look_verdict, look_detail, look_position, look_low, look_high, "
        "look_need, look_waiting, look_residual) IN (0, 9)",
        name="look_whole",
    ),
    schema=SCHEMA,
)

hedge_place = Table(
    "hedge_place",
    metadata,
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("desk", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("is_open", Boolean, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("venue", "account", "symbol"),
    ForeignKeyConstraint(["desk", "asset"], ["trading.hedge.desk", "trading.hedge.asset"]),
    schema=SCHEMA,
)
Index("ix_hedge_place_line", hedge_place.c.desk, hedge_place.c.asset)

fill_posting = Table(
    "fill_posting",
    metadata,
    Column("fill_id", Uuid, primary_key=True),
    Column("book", Integer, nullable=False),
    Column("desk", Text, nullable=False),
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("trade_id", Text, nullable=False),
    Column("fee_value", Units),
    Column("fee_price_id", Uuid),
    Column("posted_at", Timestamp, nullable=False),
    UniqueConstraint("venue", "account", "symbol", "trade_id", name="uq_fill_posting_trade"),
    ForeignKeyConstraint(["fee_price_id"], ["marketdata.price.id"]),
    CheckConstraint("(fee_value IS NULL) = (fee_price_id IS NULL)", name="fee_price"),
    schema=SCHEMA,
)

hand_fill = Table(
    "hand_fill",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", Integer, nullable=False),
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("trade_id", Text, nullable=False),
    Column("venue_order_id", Text, nullable=False),
    Column("side", Text, nullable=False),
    Column("price", Text, nullable=False),
    Column("base", Text, nullable=False),
    Column("base_units", Units, nullable=False),
    Column("quote", Text, nullable=False),
    Column("quote_units", Units, nullable=False),
    Column("fee_asset", Text, nullable=False),
    Column("fee_units", Units, nullable=False),
    Column("executed_at", Timestamp, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("decided_by", Text),
    Column("decided_at", Timestamp),
    Column("signature", LargeBinary),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    UniqueConstraint("venue", "account", "symbol", "trade_id", name="uq_hand_fill_trade"),
    ForeignKeyConstraint(
        ["venue", "account", "symbol"],
        [
            "trading.hedge_place.venue",
            "trading.hedge_place.account",
            "trading.hedge_place.symbol",
        ],
        name="fk_hand_fill_place",
    ),
    CheckConstraint("side IN ('buy', 'sell')", name="side"),
    CheckConstraint("base_units > 0 AND quote_units >= 0", name="amounts"),
    CheckConstraint(
        "num_nulls(decided_by, decided_at, signature) = "
        "CASE WHEN state = 'proposed' THEN 3 ELSE 0 END",
        name="decided",
    ),
    CheckConstraint("decided_by <> proposed_by", name="two_people"),
    schema=SCHEMA,
)
Index(
    "ix_hand_fill_waiting",
    hand_fill.c.created_at,
    postgresql_where=hand_fill.c.state == "proposed",
)
