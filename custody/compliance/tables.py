"""Tables of compliance: cases, opinions, decisions, legal holds, travel rule, proofs. Private."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY

from kernel.db import Timestamp, Units, metadata

SCHEMA = "custody"

compliance_case = Table(
    "compliance_case",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("subject", Text, nullable=False),
    Column("subject_id", Uuid, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("direction", Text, nullable=False),
    Column("chain", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("party", Text),
    Column("asset", Text, nullable=False),
    Column("amount", Units, nullable=False),
    Column("state", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("list_version", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("opened_at", Timestamp, nullable=False),
    Column("answered_at", Timestamp),
    Column("version", Integer, nullable=False),
    UniqueConstraint("subject", "subject_id", "epoch"),
    CheckConstraint("state IN ('open', 'held') OR answered_at IS NOT NULL", name="answered"),
    schema=SCHEMA,
)
Index(
    "ix_compliance_case_waiting",
    compliance_case.c.chain,
    compliance_case.c.state,
    compliance_case.c.id,
    postgresql_where=compliance_case.c.state.in_(["open", "held"]),
)
Index("ix_compliance_case_address", compliance_case.c.chain, compliance_case.c.address)

compliance_opinion = Table(
    "compliance_opinion",
    metadata,
    Column("number", Integer, Identity(always=True), primary_key=True),
    Column("case_id", Uuid, nullable=False),
    Column("provider", Text, nullable=False),
    Column("list_version", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    ForeignKeyConstraint(["case_id"], ["custody.compliance_case.id"]),
    schema=SCHEMA,
)
Index("ix_compliance_opinion_case", compliance_opinion.c.case_id)

compliance_decision = Table(
    "compliance_decision",
    metadata,
    Column("subject_id", Uuid, nullable=False),
    Column("number", Integer, nullable=False),
    Column("verb", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("operators", ARRAY(Text), nullable=False),
    Column("signatures", ARRAY(LargeBinary), nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("subject_id", "number"),
    schema=SCHEMA,
)

legal_hold = Table(
    "legal_hold",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("party", Text, nullable=False),
    Column("order", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("placed_by", Text, nullable=False),
    Column("placed_at", Timestamp, nullable=False),
    Column("lifted_at", Timestamp),
    Column("version", Integer, nullable=False),
    schema=SCHEMA,
)
Index("ix_legal_hold_party", legal_hold.c.party, postgresql_where=legal_hold.c.state == "placed")

rescreening = Table(
    "rescreening",
    metadata,
    Column("provider", Text, nullable=False),
    Column("list_version", Text, nullable=False),
    Column("finished_at", Timestamp, nullable=False),
    Column("asked", Integer, nullable=False),
    Column("hits", Integer, nullable=False),
    PrimaryKeyConstraint("provider", "list_version"),
    schema=SCHEMA,
)

travel_rule_record = Table(
    "travel_rule_record",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("direction", Text, nullable=False),
    Column("subject_id", Uuid, nullable=False),
    Column("number", Integer, nullable=False),
    # AES-256-GCM under a key that the database never sees; the names of people are in here only.
    Column("sealed", LargeBinary, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("content_hash", LargeBinary, nullable=False),
    Column("missing", ARRAY(Text), nullable=False),
    Column("recorded_by", Text, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    UniqueConstraint("direction", "subject_id", "number"),
    schema=SCHEMA,
)

address_proof = Table(
    "address_proof",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("party", Text, nullable=False),
    Column("chain", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("asked_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
    Column("signature", LargeBinary),
    Column("proven_at", Timestamp),
    Column("version", Integer, nullable=False),
    CheckConstraint("(state = 'proven') = (signature IS NOT NULL)", name="signature"),
    schema=SCHEMA,
)
Index(
    "ix_address_proof_address",
    address_proof.c.party,
    address_proof.c.chain,
    address_proof.c.address,
)
