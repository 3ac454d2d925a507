"""Runs of profit and loss: what they valued with, and the lines that came out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0042_pre_pnl"
down_revision: str | None = "0041_pre_hedge_places"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)
SCHEMA = "trading"
COMPONENTS = (
    "component IN ('client_spread', 'internalised', 'hedge_slippage', 'unwind', 'inventory', "
    "'revaluation', 'other', 'deal_fee', 'venue_fee')"
)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "pnl_run",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("since", TIMESTAMP, nullable=False),
        sa.Column("until", TIMESTAMP, nullable=False),
        sa.Column("after", sa.BigInteger, nullable=False),
        sa.Column("through", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("currency_scale", sa.Integer, nullable=False),
        sa.Column("inputs_hash", sa.Text, nullable=False),
        sa.Column("lines_hash", sa.Text, nullable=False),
        sa.Column("trading", UNITS, nullable=False),
        sa.Column("net", UNITS, nullable=False),
        sa.Column("run_by", sa.Text, nullable=False),
        sa.Column("run_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pnl_run"),
        sa.CheckConstraint("since < until", name="interval"),
        sa.CheckConstraint("after >= 0 AND through >= after", name="sequences"),
        sa.CheckConstraint("length(inputs_hash) = 64 AND length(lines_hash) = 64", name="hashes"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_pnl_run_desk", "pnl_run", ["book", "desk", "until", "run_at"], schema=SCHEMA
    )
    _marks()
    _lines()
    for table in ("pnl_run", "pnl_mark", "pnl_line"):
        op.execute(f"GRANT SELECT, INSERT ON trading.{table} TO causeway_app")


def _marks() -> None:
    op.create_table(
        "pnl_mark",
        sa.Column("run_id", sa.Uuid, nullable=False),
        sa.Column("at_end", sa.Boolean, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("price_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "at_end", "asset", name="pk_pnl_mark"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["trading.pnl_run.id"], name="fk_pnl_mark_run_id_pnl_run"
        ),
        sa.ForeignKeyConstraint(
            ["price_id"], ["marketdata.price.id"], name="fk_pnl_mark_price_id_price"
        ),
        schema=SCHEMA,
    )


def _lines() -> None:
    op.create_table(
        "pnl_line",
        sa.Column("run_id", sa.Uuid, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("component", sa.Text, nullable=False),
        sa.Column("deal_id", sa.Uuid),
        sa.Column("flow_id", sa.Uuid),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("units", UNITS, nullable=False),
        sa.Column("at_end", sa.Boolean, nullable=False),
        sa.Column("value", UNITS, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "number", name="pk_pnl_line"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["trading.pnl_run.id"], name="fk_pnl_line_run_id_pnl_run"
        ),
        sa.CheckConstraint("number > 0 AND units <> 0", name="line"),
        sa.CheckConstraint(COMPONENTS, name="component"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_pnl_line_deal",
        "pnl_line",
        ["deal_id"],
        schema=SCHEMA,
        postgresql_where=sa.text("deal_id IS NOT NULL"),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("pnl_line", schema=SCHEMA)
    op.drop_table("pnl_mark", schema=SCHEMA)
    op.drop_table("pnl_run", schema=SCHEMA)
