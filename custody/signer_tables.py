"""Tables of what the signer is told and has said: the queue of control messages, its checkpoints."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Identity,
    Index,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, metadata

SCHEMA = "custody"

control_message = Table(
    "control_message",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("number", BigInteger, Identity(always=True), nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("message", JSONB, nullable=False),
    Column("state", Text, nullable=False),
    Column("queued_at", Timestamp, nullable=False),
    Column("answered_at", Timestamp),
    Column("signer", Text),
    Column("record", BigInteger),
    Column("refusal", Text),
    CheckConstraint("(state = 'queued') = (answered_at IS NULL)", name="answered_or_queued"),
    CheckConstraint("(state = 'accepted') = (record IS NOT NULL)", name="accepted_as_a_record"),
    CheckConstraint("(state = 'refused') = (refusal IS NOT NULL)", name="refused_for_a_reason"),
    schema=SCHEMA,
)
Index(
    "ix_control_message_queued",
    control_message.c.number,
    postgresql_where=control_message.c.state == "queued",
)

signer_checkpoint = Table(
    "signer_checkpoint",
    metadata,
    Column("signer", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    CheckConstraint("size >= 0", name="size_not_negative"),
    schema=SCHEMA,
)
