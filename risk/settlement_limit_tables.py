"""The table of settlement limits; private to the package."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Integer, PrimaryKeyConstraint, Table, Text

from kernel.db import Timestamp, Units, metadata

settlement_limit = Table(
    "settlement_limit",
    metadata,
    Column("party", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("gross_units", Units),
    Column("net_units", Units),
    Column("set_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("set_at", Timestamp, nullable=False),
    PrimaryKeyConstraint("party", "asset", "version"),
    CheckConstraint("version > 0", name="version"),
    CheckConstraint("set_by <> approved_by", name="two_people"),
    CheckConstraint("gross_units >= 0 AND net_units >= 0", name="units"),
    schema="risk",
)
