"""Tables of terms; private to the package."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from kernel.db import Timestamp, metadata

SCHEMA = "trading"

# What code of before reads and writes: of each party its agreement over everything. What it writes is
# a version of `netting_agreement` too (a trigger); nobody else reads it.
agreement = Table(
    "agreement",
    metadata,
    Column("party", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("effective_from", Date, nullable=False),
    Column("prefunded", Boolean, nullable=False),
    Column("agreed_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("document_hash", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    CheckConstraint("agreed_by <> approved_by", name="two_people"),
    schema=SCHEMA,
)

netting_agreement = Table(
    "netting_agreement",
    metadata,
    Column("party", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    # Null: every one.
    Column("products", ARRAY(Text)),
    Column("offices", ARRAY(Text)),
    Column("assets", ARRAY(Text)),
    Column("effective_from", Date, nullable=False),
    Column("ends_on", Date),
    Column("trades_from", Date),
    Column("prefunded", Boolean, nullable=False),
    Column("multilateral", Boolean, nullable=False),
    Column("close_out", Boolean, nullable=False),
    Column("agreed_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("document_hash", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("party", "name", "version"),
    CheckConstraint("version > 0", name="version"),
    CheckConstraint("agreed_by <> approved_by", name="two_people"),
    CheckConstraint("ends_on IS NULL OR ends_on >= effective_from", name="ends"),
    CheckConstraint(
        "kind IN ('bespoke', 'isda-1992', 'isda-2002', 'terms-of-business')", name="kind"
    ),
    schema=SCHEMA,
)

standing_instruction = Table(
    "standing_instruction",
    metadata,
    Column("party", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("rail", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("destination", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    # What code of before writes is in force at once, as it was for that code.
    Column("effective_from", Date, nullable=False, server_default="1970-01-01"),
    Column("needs_call_back", Boolean, nullable=False, server_default="false"),
    PrimaryKeyConstraint("party", "asset", "rail", "version"),
    CheckConstraint("proposed_by <> approved_by", name="two_people"),
    schema=SCHEMA,
)

call_back = Table(
    "call_back",
    metadata,
    Column("party", Text, nullable=False),
    Column("asset", Text, nullable=False),
    Column("rail", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("confirmed", Boolean, nullable=False),
    Column("reference", Text, nullable=False),
    Column("called_by", Text, nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("party", "asset", "rail", "version"),
    ForeignKeyConstraint(
        ["party", "asset", "rail", "version"],
        [
            "trading.standing_instruction.party",
            "trading.standing_instruction.asset",
            "trading.standing_instruction.rail",
            "trading.standing_instruction.version",
        ],
        name="fk_call_back_standing_instruction",
    ),
    CheckConstraint("reference <> ''", name="reference"),
    schema=SCHEMA,
)

client_terms = Table(
    "client_terms",
    metadata,
    Column("party", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("effective_from", Date, nullable=False),
    Column("tenor_days", Integer, nullable=False),
    Column("fee_ppm", Integer, nullable=False),
    Column("spreads", JSONB, nullable=False),
    Column("quote_seconds", Integer, nullable=False),
    Column("last_look_ms", Integer),
    Column("last_look_ppm", Integer),
    Column("off_market_ppm", Integer, nullable=False),
    Column("desk", Text, nullable=False),
    Column("entered_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("at", Timestamp, nullable=False),
    PrimaryKeyConstraint("party", "version"),
    CheckConstraint("version > 0", name="version"),
    CheckConstraint("entered_by <> approved_by", name="two_people"),
    CheckConstraint(
        "tenor_days >= 0 AND fee_ppm >= 0 AND quote_seconds > 0 AND off_market_ppm >= 0",
        name="figures",
    ),
    CheckConstraint(
        "(last_look_ms IS NULL) = (last_look_ppm IS NULL)"
        " AND (last_look_ms IS NULL OR last_look_ms > 0 AND last_look_ppm >= 0)",
        name="last_look",
    ),
    schema=SCHEMA,
)
