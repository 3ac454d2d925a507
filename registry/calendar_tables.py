"""Tables of kept calendars and cut-offs; private to the package."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Date,
    ForeignKeyConstraint,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Time,
)
from sqlalchemy.dialects.postgresql import ARRAY

from kernel.db import Timestamp, metadata

SCHEMA = "registry"

calendar_version = Table(
    "calendar_version",
    metadata,
    Column("calendar", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("first_day", Date, nullable=False),
    Column("last_day", Date, nullable=False),
    # Weekdays on which it is always closed: Monday is 0.
    Column("weekend", ARRAY(SmallInteger), nullable=False),
    Column("source", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("entered_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("calendar", "version"),
    CheckConstraint("version > 0", name="version"),
    CheckConstraint("entered_by <> approved_by", name="two_people"),
    CheckConstraint("first_day <= last_day", name="days"),
    schema=SCHEMA,
)

calendar_day = Table(
    "calendar_day",
    metadata,
    Column("calendar", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("day", Date, nullable=False),
    Column("name", Text, nullable=False),
    PrimaryKeyConstraint("calendar", "version", "day"),
    ForeignKeyConstraint(
        ["calendar", "version"],
        ["registry.calendar_version.calendar", "registry.calendar_version.version"],
        name="fk_calendar_day_calendar_version",
    ),
    schema=SCHEMA,
)

cutoff = Table(
    "cutoff",
    metadata,
    Column("asset", Text, nullable=False),
    Column("rail", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("local", Time, nullable=False),
    Column("zone", Text, nullable=False),
    Column("entered_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("asset", "rail", "version"),
    CheckConstraint("version > 0", name="version"),
    CheckConstraint("entered_by <> approved_by", name="two_people"),
    schema=SCHEMA,
)
