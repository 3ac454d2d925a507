"""Table of client statements; private to reporting. A trigger keeps what was issued as it is."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from kernel.db import Timestamp, metadata

SCHEMA = "reporting"

client_statement = Table(
    "client_statement",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", SmallInteger, nullable=False),
    Column("party", Text, nullable=False),
    Column("first", Date, nullable=False),
    Column("last", Date, nullable=False),
    # The last record of the journal that the statement knows.
    Column("sequence", BigInteger, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("csv", LargeBinary, nullable=False),
    Column("csv_sha256", Text, nullable=False),
    Column("pdf", LargeBinary),
    Column("pdf_sha256", Text),
    Column("issued_by", Text, nullable=False),
    Column("issued_at", Timestamp, nullable=False),
    UniqueConstraint("book", "party", "first", "last", name="uq_client_statement_period"),
    CheckConstraint("first <= last AND sequence >= 0 AND lines >= 0", name="period"),
    CheckConstraint("csv_sha256 = encode(sha256(csv), 'hex')", name="csv_sha256"),
    CheckConstraint("(pdf IS NULL) = (pdf_sha256 IS NULL)", name="pdf"),
    CheckConstraint("pdf_sha256 = encode(sha256(pdf), 'hex')", name="pdf_sha256"),
    schema=SCHEMA,
)
