"""Netting agreements as objects, settlement limits, collateral, kept calendars and cut-offs.

Code of before goes on with `trading.agreement`, which knows agreements over everything: what it
writes there is written as a version of `trading.netting_agreement` too.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0045_pre_agreements"
down_revision: str | None = "0044_pre_cycle"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)
NAMES = postgresql.ARRAY(sa.Text)

CARRY = """\
INSERT INTO trading.netting_agreement
    (party, name, version, kind, effective_from, prefunded, multilateral, close_out,
     agreed_by, approved_by, document_hash, at)
SELECT party, 'master', version, 'bespoke', effective_from, prefunded, false, false,
       agreed_by, approved_by, document_hash, at
  FROM trading.agreement"""
FOLLOW_FUNCTION = """\
CREATE FUNCTION trading.agreement_followed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO trading.netting_agreement
        (party, name, version, kind, effective_from, prefunded, multilateral, close_out,
         agreed_by, approved_by, document_hash, at)
    VALUES (NEW.party, 'master', NEW.version, 'bespoke', NEW.effective_from, NEW.prefunded,
            false, false, NEW.agreed_by, NEW.approved_by, NEW.document_hash, NEW.at)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$"""
FOLLOW_TRIGGER = (
    "CREATE TRIGGER agreement_followed AFTER INSERT OR UPDATE ON trading.agreement "
    "FOR EACH ROW EXECUTE FUNCTION trading.agreement_followed()"
)
GRANTS = (
    "GRANT SELECT, INSERT ON trading.netting_agreement TO causeway_app",
    "GRANT SELECT, INSERT ON registry.calendar_version, registry.calendar_day TO causeway_app",
    "GRANT SELECT, INSERT ON registry.cutoff TO causeway_app",
    "GRANT SELECT, INSERT ON risk.settlement_limit TO causeway_app",
    "GRANT SELECT, INSERT ON settlement.standing_choice, settlement.collateral TO causeway_app",
)
NOTHING_IS_LOST = """\
DO $$
BEGIN
    IF EXISTS (SELECT FROM (SELECT DISTINCT ON (party, name) * FROM trading.netting_agreement
                             ORDER BY party, name, version DESC) n
                WHERE n.name <> 'master' OR n.ends_on IS NOT NULL OR n.trades_from IS NOT NULL
                   OR num_nonnulls(n.products, n.offices, n.assets) > 0) THEN
        RAISE EXCEPTION 'a netting agreement covers less than everything, which nothing before 0045 knows'
            USING HINT = 'Take its rows away by hand, with a second person looking on';
    END IF;
END
$$"""


def upgrade() -> None:
    """Make the tables, and carry over what was agreed."""
    _agreements()
    _calendars()
    _cutoffs()
    _limits()
    _settlement()
    for statement in (
        # Whoever writes an agreement at this moment is waited for, so that it is carried over too.
        "LOCK TABLE trading.agreement IN SHARE ROW EXCLUSIVE MODE",
        *(CARRY, FOLLOW_FUNCTION, FOLLOW_TRIGGER, *GRANTS),
    ):
        op.execute(statement)


def downgrade() -> None:
    """Drop them, unless there is an agreement that only the new table can tell."""
    for statement in (
        "LOCK TABLE trading.netting_agreement IN ACCESS EXCLUSIVE MODE",
        NOTHING_IS_LOST,
        "DROP TRIGGER agreement_followed ON trading.agreement",
        "DROP FUNCTION trading.agreement_followed()",
        "DROP TABLE settlement.collateral",
        "DROP TABLE settlement.standing_choice",
        "DROP TABLE risk.settlement_limit",
        "DROP TABLE registry.cutoff",
        "DROP TABLE registry.calendar_day",
        "DROP TABLE registry.calendar_version",
        "DROP TABLE trading.netting_agreement",
    ):
        op.execute(statement)


def _agreements() -> None:
    op.create_table(
        "netting_agreement",
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("products", NAMES),
        sa.Column("offices", NAMES),
        sa.Column("assets", NAMES),
        sa.Column("effective_from", sa.Date, nullable=False),
        sa.Column("ends_on", sa.Date),
        sa.Column("trades_from", sa.Date),
        sa.Column("prefunded", sa.Boolean, nullable=False),
        sa.Column("multilateral", sa.Boolean, nullable=False),
        sa.Column("close_out", sa.Boolean, nullable=False),
        sa.Column("agreed_by", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text, nullable=False),
        sa.Column("document_hash", sa.Text, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("party", "name", "version", name="pk_netting_agreement"),
        sa.CheckConstraint("version > 0", name="version"),
        sa.CheckConstraint("agreed_by <> approved_by", name="two_people"),
        sa.CheckConstraint("ends_on IS NULL OR ends_on >= effective_from", name="ends"),
        sa.CheckConstraint(
            "kind IN ('bespoke', 'isda-1992', 'isda-2002', 'terms-of-business')", name="kind"
        ),
        schema="trading",
    )


def _calendars() -> None:
    op.create_table(
        "calendar_version",
        sa.Column("calendar", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("first_day", sa.Date, nullable=False),
        sa.Column("last_day", sa.Date, nullable=False),
        sa.Column("weekend", postgresql.ARRAY(sa.SmallInteger), nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("entered_by", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("calendar", "version", name="pk_calendar_version"),
        sa.CheckConstraint("version > 0", name="version"),
        sa.CheckConstraint("entered_by <> approved_by", name="two_people"),
        sa.CheckConstraint("first_day <= last_day", name="days"),
        schema="registry",
    )
    op.create_table(
        "calendar_day",
        sa.Column("calendar", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("calendar", "version", "day", name="pk_calendar_day"),
        sa.ForeignKeyConstraint(
            ["calendar", "version"],
            ["registry.calendar_version.calendar", "registry.calendar_version.version"],
            name="fk_calendar_day_calendar_version",
        ),
        schema="registry",
    )


def _cutoffs() -> None:
    op.create_table(
        "cutoff",
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("rail", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("local", sa.Time, nullable=False),
        sa.Column("zone", sa.Text, nullable=False),
        sa.Column("entered_by", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("asset", "rail", "version", name="pk_cutoff"),
        sa.CheckConstraint("version > 0", name="version"),
        sa.CheckConstraint("entered_by <> approved_by", name="two_people"),
        schema="registry",
    )


def _limits() -> None:
    op.create_table(
        "settlement_limit",
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("gross_units", UNITS),
        sa.Column("net_units", UNITS),
        sa.Column("set_by", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("set_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("party", "asset", "version", name="pk_settlement_limit"),
        sa.CheckConstraint("version > 0", name="version"),
        sa.CheckConstraint("set_by <> approved_by", name="two_people"),
        sa.CheckConstraint("gross_units >= 0 AND net_units >= 0", name="units"),
        schema="risk",
    )


def _settlement() -> None:
    op.create_table(
        "standing_choice",
        sa.Column("instruction_id", sa.Uuid, nullable=False),
        sa.Column("standing_version", sa.Integer, nullable=False),
        sa.Column("chosen_by", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("instruction_id", "standing_version", name="pk_standing_choice"),
        sa.ForeignKeyConstraint(
            ["instruction_id"],
            ["settlement.instruction.id"],
            name="fk_standing_choice_instruction_id_instruction",
        ),
        sa.CheckConstraint("chosen_by <> approved_by", name="two_people"),
        sa.CheckConstraint("reason <> ''", name="reason"),
        schema="settlement",
    )
    op.create_table(
        "collateral",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.SmallInteger, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("move", sa.Text, nullable=False),
        sa.Column("way", sa.Text, nullable=False),
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.Column("value_date", sa.Date, nullable=False),
        sa.Column("obligation_id", sa.Uuid),
        sa.Column("entered_by", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_collateral"),
        sa.UniqueConstraint("book", "reference", name="uq_collateral_book_reference"),
        sa.ForeignKeyConstraint(
            ["obligation_id"],
            ["settlement.obligation.id"],
            name="fk_collateral_obligation_id_obligation",
        ),
        sa.CheckConstraint("amount > 0", name="amount"),
        sa.CheckConstraint("move IN ('give', 'give-back', 'take', 'take-back')", name="move"),
        sa.CheckConstraint("way IN ('account', 'settlement')", name="way"),
        sa.CheckConstraint("(way = 'settlement') = (obligation_id IS NOT NULL)", name="obligation"),
        sa.CheckConstraint("entered_by <> approved_by", name="two_people"),
        sa.CheckConstraint("reason <> ''", name="reason"),
        schema="settlement",
    )
