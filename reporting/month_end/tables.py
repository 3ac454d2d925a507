"""Tables of month ends: manifests as they were built, and what two people let pass; private."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Date,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from kernel.db import Timestamp, metadata

SCHEMA = "reporting"

month_end = Table(
    "month_end",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", SmallInteger, nullable=False),
    # Its first day.
    Column("month", Date, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("manifest_sha256", Text, nullable=False),
    Column("built_by", Text, nullable=False),
    Column("built_at", Timestamp, nullable=False),
    UniqueConstraint("book", "month", "manifest_sha256", name="uq_month_end_manifest"),
    CheckConstraint(
        "manifest_sha256 = encode(sha256(convert_to(manifest, 'UTF8')), 'hex')",
        name="manifest_sha256",
    ),
    schema=SCHEMA,
)

month_end_waiver = Table(
    "month_end_waiver",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", SmallInteger, nullable=False),
    Column("month", Date, nullable=False),
    Column("obstacle", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("proposal", LargeBinary, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("approval", LargeBinary, nullable=False),
    Column("at", Timestamp, nullable=False),
    UniqueConstraint("book", "month", "obstacle", name="uq_month_end_waiver_obstacle"),
    CheckConstraint("proposed_by <> approved_by", name="two_people"),
    CheckConstraint("reason <> '' AND obstacle <> ''", name="said"),
    schema=SCHEMA,
)
