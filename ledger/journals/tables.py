"""Tables of manual journals and of the close of periods; private to this room.

They stand in a schema apart from the journal's: their rows move along the edges of a machine,
the journal's only grow.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, metadata

SCHEMA = "books"

manual_journal = Table(
    "manual_journal",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", SmallInteger, nullable=False),
    Column("reference", Text, nullable=False),
    Column("template", Text, nullable=False),
    Column("content", JSONB, nullable=False),
    Column("reason", Text, nullable=False),
    Column("attachment", Text, nullable=False),
    Column("effective_on", Date, nullable=False),
    Column("state", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("proposed_at", Timestamp, nullable=False),
    Column("decided_by", Text),
    Column("decided_at", Timestamp),
    Column("decision_reason", Text),
    Column("signature", LargeBinary),
    Column("outcome", Text),
    Column("sequence", BigInteger),
    UniqueConstraint("book", "reference"),
    # Whoever rejects may be who proposed: that only takes it back.
    CheckConstraint(
        "state IN ('proposed', 'rejected') OR decided_by <> proposed_by", name="people"
    ),
    CheckConstraint("(state = 'proposed') = (decided_by IS NULL)", name="decided"),
    CheckConstraint(
        "state IN ('proposed', 'rejected') OR coalesce(octet_length(signature), 0) = 64",
        name="signed",
    ),
    CheckConstraint("(state = 'posted') = (sequence IS NOT NULL)", name="posted"),
    CheckConstraint("(state = 'refused') = (outcome IS NOT NULL)", name="refused"),
    CheckConstraint("attachment ~ '^[0-9a-f]{64}$'", name="attachment"),
    schema=SCHEMA,
)
Index(
    "ix_manual_journal_open",
    manual_journal.c.book,
    manual_journal.c.effective_on,
    postgresql_where=manual_journal.c.state == "proposed",
)

period_proposal = Table(
    "period_proposal",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", SmallInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("through", Date, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("proposed_at", Timestamp, nullable=False),
    Column("decided_at", Timestamp),
    Column("rejected_by", Text),
    Column("rejection_reason", Text),
    CheckConstraint("kind IN ('closed', 'reopened')", name="kind"),
    CheckConstraint("(state = 'proposed') = (decided_at IS NULL)", name="decided"),
    CheckConstraint("(state = 'rejected') = (rejected_by IS NOT NULL)", name="rejected"),
    schema=SCHEMA,
)
Index(
    "uq_period_proposal_open",
    period_proposal.c.book,
    unique=True,
    postgresql_where=period_proposal.c.state == "proposed",
)

period_approval = Table(
    "period_approval",
    metadata,
    Column("proposal", Uuid, ForeignKey("books.period_proposal.id"), nullable=False),
    Column("operator", Text, nullable=False),
    # Repeated from the proposal, so that the check below can compare.
    Column("proposed_by", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("proposal", "operator"),
    CheckConstraint("operator <> proposed_by", name="people"),
    CheckConstraint("octet_length(signature) = 64", name="signed"),
    schema=SCHEMA,
)
