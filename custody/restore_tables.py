"""Tables of restores: marks, what was compared last, what was found and what is taken in again. Private."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from kernel.db import Timestamp, Units, metadata

SCHEMA = "custody"

restore_mark = Table(
    "restore_mark",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("previous", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("made_at", Timestamp, nullable=False),
    Column("about", JSONB, nullable=False),
    CheckConstraint("number > 0", name="number_positive"),
    CheckConstraint("(number = 1) = (previous = '')", name="first_has_none_before"),
    schema=SCHEMA,
)

restore_watch = Table(
    "restore_watch",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    # The server that was compared last: its start, and where its log of changes stood then.
    Column("started", Text, nullable=False),
    Column("system", Text, nullable=False),
    Column("timeline", BigInteger, nullable=False),
    Column("at", Timestamp, nullable=False),
    CheckConstraint("one = 1", name="one_row"),
    schema=SCHEMA,
)

restore_witness = Table(
    "restore_witness",
    metadata,
    Column("witness", Text, primary_key=True),
    # The newest mark that the witness has told us it has.
    Column("number", BigInteger, nullable=False),
    Column("at", Timestamp, nullable=False),
    CheckConstraint("number >= 0", name="number_not_negative"),
    schema=SCHEMA,
)

restore = Table(
    "restore",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("state", Text, nullable=False),
    Column("found_by", Text, nullable=False),
    Column("found_at", Timestamp, nullable=False),
    Column("evidence", Text, nullable=False),
    # From where on what was done outside may be unknown.
    Column("since", Timestamp, nullable=False),
    # What the signer knew when it was asked: its store, its newest mark, and the one that both know.
    Column("signer", Text, nullable=False),
    Column("signer_mark", BigInteger, nullable=False),
    Column("signer_token", Text, nullable=False),
    Column("mark", BigInteger, nullable=False),
    Column("token", Text, nullable=False),
    # So many records of the signer's log were read.
    Column("records", BigInteger, nullable=False),
    Column("sent_known_at", Timestamp),
    # Whether the database may have been worked with between its being set back and its being found.
    Column("worked_on", Boolean),
    Column("opened_by", JSONB),
    Column("opened_reason", Text),
    Column("opened_at", Timestamp),
    CheckConstraint(
        "(state = 'open') = (opened_at IS NOT NULL) AND (state = 'open') = (opened_by IS NOT NULL)"
        " AND (state = 'open') = (opened_reason IS NOT NULL)",
        name="opened_as_a_whole",
    ),
    CheckConstraint("state <> 'open' OR sent_known_at IS NOT NULL", name="opened_when_known"),
    schema=SCHEMA,
)
# One stands at a time: what is found meanwhile belongs to it.
Index(
    "uq_restore_frozen",
    restore.c.state,
    unique=True,
    postgresql_where=restore.c.state == "frozen",
)

restore_source = Table(
    "restore_source",
    metadata,
    Column("restore_id", Uuid, ForeignKey("custody.restore.id"), nullable=False),
    Column("source", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("detail", Text, nullable=False),
    # Of a chain: the height that it is to be followed to.
    Column("target", BigInteger),
    Column("done_by", Text),
    Column("signature", LargeBinary),
    Column("done_at", Timestamp),
    PrimaryKeyConstraint("restore_id", "source"),
    CheckConstraint("stage IN ('sent', 'facts')", name="stage"),
    CheckConstraint(
        "(state = 'waiting') = (done_at IS NULL) AND (state = 'waiting') = (done_by IS NULL)",
        name="done_as_a_whole",
    ),
    # A person who says that a place has nothing signs that.
    CheckConstraint("(state = 'vouched') = (signature IS NOT NULL)", name="vouched_under_a_key"),
    schema=SCHEMA,
)

restore_item = Table(
    "restore_item",
    metadata,
    Column("restore_id", Uuid, ForeignKey("custody.restore.id"), nullable=False),
    Column("source", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("payout_id", Uuid),
    Column("what", Text, nullable=False),
    Column("found_at", Timestamp, nullable=False),
    Column("settled_by", JSONB),
    Column("reason", Text),
    Column("settled_at", Timestamp),
    PrimaryKeyConstraint("restore_id", "source", "key"),
    CheckConstraint(
        "(state = 'settled') = (settled_by IS NOT NULL)"
        " AND (state = 'settled') = (settled_at IS NOT NULL)",
        name="settled_by_people",
    ),
    schema=SCHEMA,
)
# A request that asks for a payout again is held against those that were taken in.
Index(
    "ix_restore_item_payout",
    restore_item.c.payout_id,
    postgresql_where=restore_item.c.payout_id.is_not(None),
)

# What is known of a withdrawal that was forgotten, at a venue that lists no id of ours.
restore_withdrawal = Table(
    "restore_withdrawal",
    metadata,
    Column("restore_id", Uuid, nullable=False),
    Column("source", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("venue", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("network", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("sent", Units, nullable=False),
    Column("fee", Units, nullable=False),
    # Under which reference it was asked for, as two people have said who settled it.
    Column("reference", Text),
    PrimaryKeyConstraint("restore_id", "source", "key"),
    ForeignKeyConstraint(
        ["restore_id", "source", "key"],
        [
            "custody.restore_item.restore_id",
            "custody.restore_item.source",
            "custody.restore_item.key",
        ],
    ),
    CheckConstraint("sent >= 0 AND fee >= 0", name="amounts_not_negative"),
    CheckConstraint("reference <> ''", name="reference_not_empty"),
    schema=SCHEMA,
)
Index("ix_restore_withdrawal_place", restore_withdrawal.c.venue, restore_withdrawal.c.account)

# Indexes of a branch that a restored database may have given out before; the ordinary verb never does.
address_skip = Table(
    "address_skip",
    metadata,
    Column("restore_id", Uuid, ForeignKey("custody.restore.id"), nullable=False),
    Column("wallet", Text, nullable=False),
    Column("branch", Integer, nullable=False),
    Column("chain", Text, nullable=False),
    Column("first", Integer, nullable=False),
    Column("last", Integer, nullable=False),
    # How many of them have a row, and are watched.
    Column("written", Integer, nullable=False),
    PrimaryKeyConstraint("restore_id", "wallet", "branch"),
    CheckConstraint("0 <= first AND first <= last", name="first_and_last"),
    CheckConstraint("written >= 0", name="written_not_negative"),
    schema=SCHEMA,
)

# What two people have said of whose such an address is.
address_return = Table(
    "address_return",
    metadata,
    Column("chain", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("party", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("chain_asset", Text),
    Column("reason", Text, nullable=False),
    Column("signed_by", JSONB, nullable=False),
    PrimaryKeyConstraint("chain", "address", "at"),
    ForeignKeyConstraint(
        ["chain", "address"], ["custody.address.chain", "custody.address.address"]
    ),
    CheckConstraint("purpose IN ('deposit', 'settlement')", name="purpose"),
    CheckConstraint("party <> ''", name="party"),
    schema=SCHEMA,
)
