"""Deals: where they came from, what they were resolved to, how far from the market they were."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0038_pre_deals"
down_revision: str | None = "0037_pre_terms"
branch_labels = None
depends_on = None

SCHEMA = "trading"
TIMESTAMP = sa.DateTime(timezone=True)
# What a deal is that a release of before books: so its deals are filled, and it may still run.
ADDED = (
    ("origin", sa.Text, "'voice'"),
    ("purpose", sa.Text, "'client'"),
    ("agreed_at", TIMESTAMP, "now()"),
    ("terms_version", sa.Integer, "0"),
    ("calendars", sa.Text, "''"),
    ("instructions", postgresql.JSONB, "'[]'"),
    ("off_market_reason", sa.Text, "''"),
)
NULLABLE = (("quote_id", sa.Uuid), ("mid_price_id", sa.Uuid), ("off_market_ppm", sa.Numeric(78, 0)))
CHECKS = (
    (
        "origin",
        "origin IN ('quote', 'voice', 'file') AND (origin = 'quote') = (quote_id IS NOT NULL)",
    ),
    ("purpose", "purpose IN ('client', 'hedge', 'transfer')"),
    (
        "transfer",
        "purpose <> 'transfer' OR (party = 'treasury' AND fee_units = 0 AND pulled_at IS NULL)",
    ),
    ("off_market", "off_market_ppm IS NULL OR off_market_reason <> ''"),
)


def upgrade() -> None:
    """Add the columns, filled for the deals that there are."""
    for name, kind in NULLABLE:
        op.add_column("deal", sa.Column(name, kind), schema=SCHEMA)
    for name, kind, default in ADDED:
        column = sa.Column(name, kind, nullable=False, server_default=sa.text(default))
        op.add_column("deal", column, schema=SCHEMA)
    op.execute("UPDATE trading.deal SET agreed_at = created_at")
    for name, condition in CHECKS:
        op.create_check_constraint(op.f(f"ck_deal_{name}"), "deal", condition, schema=SCHEMA)
    op.create_foreign_key(
        "fk_deal_mid_price_id_price",
        "deal",
        "price",
        ["mid_price_id"],
        ["id"],
        source_schema=SCHEMA,
        referent_schema="marketdata",
    )
    op.drop_index("ix_deal_to_settle", "deal", schema=SCHEMA)
    op.create_index(
        "ix_deal_to_settle",
        "deal",
        ["book", "value_date"],
        schema=SCHEMA,
        postgresql_where=sa.text(
            "state = 'booked' AND pulled_at IS NULL AND purpose <> 'transfer'"
        ),
    )
    op.create_index("ix_deal_blotter", "deal", ["book", "created_at", "id"], schema=SCHEMA)
    op.create_index("ix_deal_party", "deal", ["party", "created_at"], schema=SCHEMA)
    # A quote is dealt on once; what amends such a deal is agreed anew.
    op.create_index(
        "uq_deal_quote",
        "deal",
        ["quote_id"],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("quote_id IS NOT NULL"),
    )


def downgrade() -> None:
    """Take them away."""
    for name in ("uq_deal_quote", "ix_deal_party", "ix_deal_blotter", "ix_deal_to_settle"):
        op.drop_index(name, "deal", schema=SCHEMA)
    op.create_index(
        "ix_deal_to_settle",
        "deal",
        ["book", "value_date"],
        schema=SCHEMA,
        postgresql_where=sa.text("state = 'booked' AND pulled_at IS NULL"),
    )
    for name, _ in CHECKS:
        op.drop_constraint(op.f(f"ck_deal_{name}"), "deal", schema=SCHEMA)
    # A release of before cannot tell a transfer from a client's deal, and would settle it.
    op.execute(
        "UPDATE trading.deal SET pulled_at = now()"
        " WHERE purpose = 'transfer' AND state = 'booked' AND pulled_at IS NULL"
    )
    for name in (*(name for name, *_ in ADDED), *(name for name, _ in NULLABLE)):
        op.drop_column("deal", name, schema=SCHEMA)
