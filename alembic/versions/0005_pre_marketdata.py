"""Instruments by version, recorded prices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005_pre_marketdata"
down_revision: str | None = "0004_pre_chain"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)


def upgrade() -> None:
    op.execute("CREATE SCHEMA marketdata")
    op.create_table(
        "instrument",
        sa.Column("venue", sa.Text, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("base_scale", sa.Integer, nullable=False),
        sa.Column("quote", sa.Text, nullable=False),
        sa.Column("quote_scale", sa.Integer, nullable=False),
        sa.Column("price_scale", sa.Integer, nullable=False),
        sa.Column("tick", UNITS, nullable=False),
        sa.Column("lot", UNITS, nullable=False),
        sa.Column("lots_min", UNITS, nullable=False),
        sa.Column("lots_max", UNITS, nullable=False),
        sa.Column("min_notional", UNITS, nullable=False),
        sa.Column("recorded_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("venue", "symbol", "version", name="pk_instrument"),
        sa.CheckConstraint("version > 0", name=op.f("ck_instrument_version")),
        sa.CheckConstraint(
            "tick > 0 AND lot > 0 AND lots_min > 0 AND lots_max >= lots_min",
            name=op.f("ck_instrument_grid"),
        ),
        schema="marketdata",
    )
    op.create_table(
        "price",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("base_scale", sa.Integer, nullable=False),
        sa.Column("quote", sa.Text, nullable=False),
        sa.Column("quote_scale", sa.Integer, nullable=False),
        sa.Column("numerator", UNITS, nullable=False),
        sa.Column("denominator", UNITS, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("quality", sa.Text, nullable=False),
        sa.Column("constituents", postgresql.JSONB, nullable=False),
        sa.Column("observed_at", TIMESTAMP, nullable=False),
        sa.Column("recorded_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_price"),
        sa.CheckConstraint("numerator > 0 AND denominator > 0", name=op.f("ck_price_positive")),
        sa.CheckConstraint(
            "quality IN ('good', 'degraded', 'manual')", name=op.f("ck_price_quality")
        ),
        schema="marketdata",
    )
    op.create_index("ix_price_pair", "price", ["base", "quote", "observed_at"], schema="marketdata")
    op.execute("GRANT USAGE ON SCHEMA marketdata TO causeway_app")
    op.execute("GRANT SELECT, INSERT ON marketdata.instrument, marketdata.price TO causeway_app")


def downgrade() -> None:
    op.execute("DROP SCHEMA marketdata CASCADE")
