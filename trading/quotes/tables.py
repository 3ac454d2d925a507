"""Tables of quotes: one row each, and every attempt to take one."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, Units, metadata

SCHEMA = "trading"

quote = Table(
    "quote",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", Integer, nullable=False),
    Column("client_ref", Text, nullable=False),
    Column("desk", Text, nullable=False),
    Column("party", Text, nullable=False),
    Column("base", Text, nullable=False),
    Column("base_scale", Integer, nullable=False),
    Column("quote", Text, nullable=False),
    Column("quote_scale", Integer, nullable=False),
    Column("units", Units, nullable=False),
    Column("sized_in", Text, nullable=False),
    Column("sides", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("answer_until", Timestamp, nullable=False),
    Column("state", Text, nullable=False),
    Column("why_not", Text),
    Column("detail", Text, nullable=False),
    Column("made_at", Timestamp),
    Column("valid_until", Timestamp),
    Column("terms_version", Integer),
    Column("mid_price_id", Uuid),
    Column("bid_numerator", Units),
    Column("bid_denominator", Units),
    Column("bid_base_units", Units),
    Column("bid_quote_units", Units),
    Column("bid_fee_units", Units),
    Column("ask_numerator", Units),
    Column("ask_denominator", Units),
    Column("ask_base_units", Units),
    Column("ask_quote_units", Units),
    Column("ask_fee_units", Units),
    Column("why", JSONB),
    Column("look_ms", Integer),
    Column("tolerance_ppm", Integer),
    Column("taken_side", Text),
    Column("accept_ref", Text),
    Column("taken_by", Text),
    Column("taken_at", Timestamp),
    Column("look_until", Timestamp),
    Column("look_price_id", Uuid),
    Column("moved_ppm", Integer),
    Column("deal_id", Uuid),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    UniqueConstraint("book", "client_ref", name="uq_quote_client_ref"),
    ForeignKeyConstraint(["mid_price_id"], ["marketdata.price.id"]),
    ForeignKeyConstraint(["look_price_id"], ["marketdata.price.id"]),
    ForeignKeyConstraint(["deal_id"], ["trading.deal.id"]),
    CheckConstraint("units > 0", name="amount_positive"),
    CheckConstraint("sized_in IN ('base', 'quote')", name="sized_in"),
    CheckConstraint("sides IN ('two_way', 'desk_buys', 'desk_sells')", name="sides"),
    CheckConstraint(
        "(state IN ('requested', 'refused')) = (valid_until IS NULL) "
        "AND (valid_until IS NULL) = (made_at IS NULL) "
        "AND (valid_until IS NULL) = (terms_version IS NULL) "
        "AND (valid_until IS NULL) = (mid_price_id IS NULL) "
        "AND (valid_until IS NULL) = (why IS NULL) "
        "AND (valid_until IS NULL) = (bid_numerator IS NULL AND ask_numerator IS NULL)",
        name="offer",
    ),
    CheckConstraint("valid_until > made_at", name="validity"),
    CheckConstraint(
        "num_nulls(bid_numerator, bid_denominator, bid_base_units, bid_quote_units, bid_fee_units) "
        "IN (0, 5) AND bid_numerator > 0 AND bid_denominator > 0 "
        "AND bid_base_units > 0 AND bid_quote_units > 0 AND bid_fee_units >= 0",
        name="bid",
    ),
    CheckConstraint(
        "num_nulls(ask_numerator, ask_denominator, ask_base_units, ask_quote_units, ask_fee_units) "
        "IN (0, 5) AND ask_numerator > 0 AND ask_denominator > 0 "
        "AND ask_base_units > 0 AND ask_quote_units > 0 AND ask_fee_units >= 0",
        name="ask",
    ),
    CheckConstraint("(look_ms IS NULL) = (tolerance_ppm IS NULL)", name="look"),
    CheckConstraint(
        "(state IN ('accepted', 'booked', 'declined')) = (accept_ref IS NOT NULL) "
        "AND num_nulls(taken_side, accept_ref, taken_by, taken_at) IN (0, 4)",
        name="taken",
    ),
    CheckConstraint("taken_at < valid_until", name="taken_in_time"),
    CheckConstraint(
        "taken_side IS NULL OR (taken_side = 'desk_buys' AND bid_numerator IS NOT NULL) "
        "OR (taken_side = 'desk_sells' AND ask_numerator IS NOT NULL)",
        name="taken_side",
    ),
    CheckConstraint(
        "look_until IS NULL OR (look_ms IS NOT NULL AND taken_at IS NOT NULL)", name="look_until"
    ),
    CheckConstraint("(look_price_id IS NULL) = (moved_ppm IS NULL)", name="looked_at"),
    CheckConstraint("(state IN ('refused', 'declined')) = (why_not IS NOT NULL)", name="why_not"),
    CheckConstraint("(state = 'booked') = (deal_id IS NOT NULL)", name="deal"),
    schema=SCHEMA,
)
Index(
    "ix_quote_open",
    quote.c.book,
    quote.c.party,
    quote.c.created_at,
    postgresql_where=quote.c.state.in_(("requested", "quoted", "accepted")),
)
Index("ix_quote_party", quote.c.book, quote.c.party, quote.c.created_at)
Index("uq_quote_deal", quote.c.deal_id, unique=True, postgresql_where=quote.c.deal_id.is_not(None))

quote_acceptance = Table(
    "quote_acceptance",
    metadata,
    Column("book", Integer, nullable=False),
    Column("accept_ref", Text, nullable=False),
    Column("quote_id", Uuid, nullable=False),
    Column("side", Text, nullable=False),
    Column("accepted_by", Text, nullable=False),
    Column("accepted_at", Timestamp, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("detail", Text, nullable=False),
    PrimaryKeyConstraint("book", "accept_ref"),
    ForeignKeyConstraint(["quote_id"], ["trading.quote.id"]),
    CheckConstraint("side IN ('desk_buys', 'desk_sells')", name="side"),
    CheckConstraint(
        "verdict IN ('won', 'taken', 'expired', 'withdrawn', 'refused')", name="verdict"
    ),
    schema=SCHEMA,
)
Index("ix_quote_acceptance_quote", quote_acceptance.c.quote_id)
Index(
    "uq_quote_acceptance_won",
    quote_acceptance.c.quote_id,
    unique=True,
    postgresql_where=quote_acceptance.c.verdict == "won",
)
