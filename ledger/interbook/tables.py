"""Table of the moves between books; private to this room."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Index,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from kernel.db import Timestamp, Units, metadata

SCHEMA = "books"

book_move = Table(
    "book_move",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("reference", Text, nullable=False),
    Column("from_book", SmallInteger, nullable=False),
    Column("to_book", SmallInteger, nullable=False),
    Column("asset", Text, nullable=False),
    Column("amount", Units, nullable=False),
    Column("claim_from", Text, nullable=False),
    Column("claim_to", Text, nullable=False),
    Column("funds_from", Text, nullable=False),
    Column("funds_to", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("outcome", Text, nullable=False, server_default=""),
    Column("requested_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    UniqueConstraint("from_book", "reference"),
    CheckConstraint("from_book <> to_book", name="two_books"),
    CheckConstraint("amount > 0", name="positive"),
    CheckConstraint("requested_by <> approved_by", name="people"),
    CheckConstraint("octet_length(signature) = 64", name="signed"),
    CheckConstraint("(claim_from = '') = (claim_to = '')", name="claim"),
    CheckConstraint("(funds_from = '') = (funds_to = '')", name="funds"),
    CheckConstraint("claim_from <> '' OR funds_from <> ''", name="something"),
    CheckConstraint(
        "(state IN ('refused', 'bounced', 'returned')) = (outcome <> '')", name="outcome"
    ),
    schema=SCHEMA,
)
Index(
    "ix_book_move_in_flight",
    book_move.c.created_at,
    book_move.c.id,
    postgresql_where=book_move.c.state.in_(["requested", "held", "arrived", "bounced"]),
)
