"""Tables of confirmations: what is due, what was issued, what was said to it, and the keys."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from kernel.db import Timestamp, metadata

SCHEMA = "trading"

confirmation_due = Table(
    "confirmation_due",
    metadata,
    Column("deal_id", Uuid, nullable=False),
    Column("is_cancellation", Boolean, nullable=False),
    Column("since", Timestamp, nullable=False),
    PrimaryKeyConstraint("deal_id", "is_cancellation"),
    ForeignKeyConstraint(["deal_id"], ["trading.deal.id"]),
    schema=SCHEMA,
)
Index("ix_confirmation_due_since", confirmation_due.c.since, confirmation_due.c.deal_id)

confirmation = Table(
    "confirmation",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("book", Integer, nullable=False),
    Column("deal_id", Uuid, nullable=False),
    Column("trade_id", Uuid, nullable=False),
    Column("version", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("party", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("supersedes", Uuid),
    Column("text", Text, nullable=False),
    Column("text_sha256", Text, nullable=False),
    Column("pdf", LargeBinary),
    Column("pdf_sha256", Text),
    Column("value_date", Date, nullable=False),
    Column("issued_by", Text, nullable=False),
    Column("issued_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    UniqueConstraint("trade_id", "version", name="uq_confirmation_version"),
    UniqueConstraint("text_sha256", name="uq_confirmation_text"),
    ForeignKeyConstraint(["deal_id"], ["trading.deal.id"]),
    ForeignKeyConstraint(["trade_id"], ["trading.deal.id"]),
    ForeignKeyConstraint(["supersedes"], ["trading.confirmation.id"]),
    CheckConstraint("kind IN ('new', 'amendment', 'cancellation')", name="kind"),
    CheckConstraint("(version = 1) = (kind = 'new')", name="version"),
    CheckConstraint("version > 0 AND (version = 1) = (supersedes IS NULL)", name="supersedes"),
    CheckConstraint(
        "text_sha256 = encode(sha256(convert_to(text, 'UTF8')), 'hex')", name="text_sha256"
    ),
    CheckConstraint("(pdf IS NULL) = (pdf_sha256 IS NULL)", name="pdf"),
    CheckConstraint("pdf_sha256 = encode(sha256(pdf), 'hex')", name="pdf_sha256"),
    schema=SCHEMA,
)
Index("ix_confirmation_deal", confirmation.c.deal_id)
Index(
    "ix_confirmation_undrawn",
    confirmation.c.issued_at,
    confirmation.c.id,
    postgresql_where=confirmation.c.pdf_sha256.is_(None),
)
Index(
    "ix_confirmation_open",
    confirmation.c.book,
    confirmation.c.value_date,
    postgresql_where=confirmation.c.state.in_(["issued", "disputed"]),
)

affirmation = Table(
    "affirmation",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("confirmation_id", Uuid, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("key_party", Text),
    Column("key_version", Integer),
    Column("signature", LargeBinary),
    Column("evidence", Text),
    Column("entered_by", Text, nullable=False),
    Column("approved_by", Text),
    Column("approval", LargeBinary),
    Column("reason", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    ForeignKeyConstraint(["confirmation_id"], ["trading.confirmation.id"]),
    ForeignKeyConstraint(
        ["key_party", "key_version"],
        ["trading.confirmation_key.party", "trading.confirmation_key.version"],
    ),
    CheckConstraint("verdict IN ('affirmed', 'disputed')", name="verdict"),
    CheckConstraint(
        "(signature IS NULL) = (key_version IS NULL) "
        "AND (key_party IS NULL) = (key_version IS NULL)",
        name="signed",
    ),
    CheckConstraint("(approval IS NULL) = (approved_by IS NULL)", name="approved"),
    CheckConstraint(
        "verdict = 'disputed' OR signature IS NOT NULL "
        "OR (evidence IS NOT NULL AND approved_by IS NOT NULL AND approved_by <> entered_by)",
        name="proof",
    ),
    CheckConstraint("verdict = 'affirmed' OR reason <> ''", name="reason"),
    schema=SCHEMA,
)
Index("ix_affirmation_confirmation", affirmation.c.confirmation_id)
Index(
    "uq_affirmation_affirmed",
    affirmation.c.confirmation_id,
    unique=True,
    postgresql_where=affirmation.c.verdict == "affirmed",
)

confirmation_key = Table(
    "confirmation_key",
    metadata,
    Column("party", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("label", Text, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("enrolled_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("approval", LargeBinary, nullable=False),
    Column("enrolled_at", Timestamp, nullable=False),
    Column("revoked_at", Timestamp),
    Column("revoked_by", Text),
    PrimaryKeyConstraint("party", "version"),
    CheckConstraint("octet_length(public_key) = 32", name="public_key"),
    CheckConstraint("approved_by <> enrolled_by", name="two_people"),
    CheckConstraint("(revoked_at IS NULL) = (revoked_by IS NULL)", name="revoked"),
    schema=SCHEMA,
)
Index(
    "uq_confirmation_key_public_key",
    confirmation_key.c.public_key,
    unique=True,
    postgresql_where=confirmation_key.c.revoked_at.is_(None),
)
