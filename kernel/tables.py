"""Tables of the kernel: history, outbox and its delivery marks, jobs, leases."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, lease_columns, metadata

SCHEMA = "kernel"

history = Table(
    "history",
    metadata,
    Column("entity_type", Text, nullable=False),
    Column("entity_id", Uuid, nullable=False),
    Column("version", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("from_state", Text),
    Column("to_state", Text),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    Column("payload", JSONB, nullable=False),
    # W3C Trace Context; null unless the process that wrote the row was traced, here and below.
    Column("traceparent", Text),
    PrimaryKeyConstraint("entity_type", "entity_id", "version"),
    schema=SCHEMA,
)

outbox = Table(
    "outbox",
    metadata,
    # Identity values are taken while the aggregate's row is locked, so within one aggregate the
    # position is commit order; between aggregates it is not, and no reader may rely on it.
    Column("position", BigInteger, Identity(always=True), primary_key=True),
    Column("id", Uuid, nullable=False, unique=True),
    Column("aggregatetype", Text, nullable=False),
    Column("aggregateid", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("payload", JSONB, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    Column("delivered_at", Timestamp),
    Column("traceparent", Text),
    schema=SCHEMA,
)
Index("ix_outbox_undelivered", outbox.c.position, postgresql_where=outbox.c.delivered_at.is_(None))

job = Table(
    "job",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("scheduled_for", Timestamp, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("run_after", Timestamp, nullable=False),
    Column("payload", JSONB, nullable=False),
    Column("last_error", Text),
    Column("finished_at", Timestamp),
    *lease_columns(),
    Column("traceparent", Text),
    UniqueConstraint("name", "scheduled_for"),
    schema=SCHEMA,
)
Index("ix_job_open", job.c.run_after, postgresql_where=job.c.finished_at.is_(None))

lease = Table(
    "lease",
    metadata,
    Column("name", Text, primary_key=True),
    *lease_columns(),
    schema=SCHEMA,
)
