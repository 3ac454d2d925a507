"""Terms of clients; agreements and standing instructions move to trading, and changes cool off.

Code of before goes on through views of the old names. What it reads there is in force: a change
that cools off, or was not confirmed by a call back, is hidden from it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0037_pre_terms"
down_revision: str | None = "0036_pre_backfills"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
SCHEMA = "trading"

AGREEMENT_VIEW = """\
CREATE VIEW settlement.agreement AS
SELECT party, version, effective_from, prefunded, agreed_by, approved_by, document_hash, at
  FROM trading.agreement"""
STANDING_VIEW = """\
CREATE VIEW settlement.standing_instruction AS
SELECT party, asset, rail, version, destination, proposed_by, approved_by, at
  FROM trading.standing_instruction s
 WHERE effective_from <= (now() AT TIME ZONE 'UTC')::date
   AND NOT EXISTS (SELECT FROM trading.call_back c
                    WHERE (c.party, c.asset, c.rail, c.version)
                        = (s.party, s.asset, s.rail, s.version) AND NOT c.confirmed)
   AND (NOT needs_call_back
        OR EXISTS (SELECT FROM trading.call_back c
                    WHERE (c.party, c.asset, c.rail, c.version)
                        = (s.party, s.asset, s.rail, s.version) AND c.confirmed))"""
NOTHING_WAITS = """\
DO $$
BEGIN
    IF EXISTS (SELECT FROM trading.standing_instruction s
                WHERE NOT EXISTS (SELECT FROM settlement.standing_instruction v
                                   WHERE (v.party, v.asset, v.rail, v.version)
                                       = (s.party, s.asset, s.rail, s.version))) THEN
        RAISE EXCEPTION 'a standing instruction waits or was denied, and would be in force before 0037'
            USING HINT = 'Take its row away by hand, with a second person looking on';
    END IF;
END
$$"""


def upgrade() -> None:
    """Move the two tables, and make those of call backs and terms."""
    op.execute("ALTER TABLE settlement.agreement SET SCHEMA trading")
    op.execute("ALTER TABLE settlement.standing_instruction SET SCHEMA trading")
    op.add_column(
        "standing_instruction",
        sa.Column("effective_from", sa.Date, server_default="1970-01-01", nullable=False),
        schema=SCHEMA,
    )
    op.add_column(
        "standing_instruction",
        sa.Column("needs_call_back", sa.Boolean, server_default="false", nullable=False),
        schema=SCHEMA,
    )
    op.execute(
        "UPDATE trading.standing_instruction SET effective_from = (at AT TIME ZONE 'UTC')::date"
    )
    _create_call_back()
    _create_client_terms()
    for statement in (
        AGREEMENT_VIEW,
        STANDING_VIEW,
        "GRANT SELECT, INSERT, UPDATE ON settlement.agreement TO causeway_app",
        "GRANT SELECT, INSERT ON settlement.standing_instruction TO causeway_app",
        "GRANT SELECT, INSERT ON trading.call_back, trading.client_terms TO causeway_app",
    ):
        op.execute(statement)


def _create_call_back() -> None:
    op.create_table(
        "call_back",
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("rail", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("confirmed", sa.Boolean, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("called_by", sa.Text, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("party", "asset", "rail", "version", name="pk_call_back"),
        sa.ForeignKeyConstraint(
            ["party", "asset", "rail", "version"],
            [
                "trading.standing_instruction.party",
                "trading.standing_instruction.asset",
                "trading.standing_instruction.rail",
                "trading.standing_instruction.version",
            ],
            name="fk_call_back_standing_instruction",
        ),
        sa.CheckConstraint("reference <> ''", name="reference"),
        schema=SCHEMA,
    )


def _create_client_terms() -> None:
    op.create_table(
        "client_terms",
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("effective_from", sa.Date, nullable=False),
        sa.Column("tenor_days", sa.Integer, nullable=False),
        sa.Column("fee_ppm", sa.Integer, nullable=False),
        sa.Column("spreads", postgresql.JSONB, nullable=False),
        sa.Column("quote_seconds", sa.Integer, nullable=False),
        sa.Column("last_look_ms", sa.Integer),
        sa.Column("last_look_ppm", sa.Integer),
        sa.Column("off_market_ppm", sa.Integer, nullable=False),
        sa.Column("desk", sa.Text, nullable=False),
        sa.Column("entered_by", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("party", "version", name="pk_client_terms"),
        sa.CheckConstraint("version > 0", name="version"),
        sa.CheckConstraint("entered_by <> approved_by", name="two_people"),
        sa.CheckConstraint(
            "tenor_days >= 0 AND fee_ppm >= 0 AND quote_seconds > 0 AND off_market_ppm >= 0",
            name="figures",
        ),
        sa.CheckConstraint(
            "(last_look_ms IS NULL) = (last_look_ppm IS NULL)"
            " AND (last_look_ms IS NULL OR last_look_ms > 0 AND last_look_ppm >= 0)",
            name="last_look",
        ),
        schema=SCHEMA,
    )


def downgrade() -> None:
    """Move the two tables back, unless code of before would take what waits for what is in force."""
    for statement in (
        # Whoever writes a change at this moment is waited for, so that it is looked at too.
        "LOCK TABLE trading.standing_instruction, trading.call_back IN ACCESS EXCLUSIVE MODE",
        NOTHING_WAITS,
        "DROP VIEW settlement.agreement",
        "DROP VIEW settlement.standing_instruction",
        "DROP TABLE trading.client_terms",
        "DROP TABLE trading.call_back",
        "ALTER TABLE trading.standing_instruction DROP COLUMN effective_from, DROP COLUMN needs_call_back",
        "ALTER TABLE trading.agreement SET SCHEMA settlement",
        "ALTER TABLE trading.standing_instruction SET SCHEMA settlement",
    ):
        op.execute(statement)
