"""Table of the imports; private to this room."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, metadata

SCHEMA = "books"

import_set = Table(
    "import_set",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", SmallInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("files", JSONB, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("imported_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("begun_at", Timestamp, nullable=False),
    Column("completed_at", Timestamp),
    # A name is bound to its files, and files to their name: a corrected file under another name
    # would bring the same balances twice.
    UniqueConstraint("book", "name"),
    UniqueConstraint("book", "digest"),
    CheckConstraint("imported_by <> approved_by", name="people"),
    CheckConstraint("octet_length(signature) = 64", name="signed"),
    CheckConstraint("(state = 'completed') = (completed_at IS NOT NULL)", name="completed"),
    schema=SCHEMA,
)
