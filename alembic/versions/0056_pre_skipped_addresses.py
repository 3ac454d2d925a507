"""Addresses that a database which was set back may have given out: skipped, and given back by people."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0056_pre_skipped_addresses"
down_revision: str | None = "0055_pre_restore_again"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
SCHEMA = "custody"
KEPT_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.keep_address() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.chain, NEW.address, NEW.wallet, NEW.branch, NEW.index)
        = (OLD.chain, OLD.address, OLD.wallet, OLD.branch, OLD.index)
    THEN
        -- Nobody's becomes somebody's where two people have said whose it is.
        IF OLD.purpose = 'skipped' AND EXISTS (
            SELECT FROM custody.address_return r
            WHERE (r.chain, r.address, r.at) = (NEW.chain, NEW.address, NEW.assigned_at)
            AND (r.purpose, r.party, r.reference) = (NEW.purpose, NEW.party, NEW.reference)
            AND r.chain_asset IS NOT DISTINCT FROM NEW.chain_asset
        ) THEN
            RETURN NEW;
        END IF;
        -- Somebody's becomes nobody's while a restore stands: it may have been given out twice.
        IF OLD.purpose IN ('deposit', 'settlement') AND NEW.purpose = 'skipped'
            AND NEW.party = '' AND NEW.reference = '' AND NEW.chain_asset IS NULL
            AND EXISTS (SELECT FROM custody.restore WHERE state = 'frozen')
        THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'rows of custody.% are kept for ever', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', CONSTRAINT = 'address_kept';
END
$$"""
TRIGGERS = (
    (
        "CREATE OR REPLACE TRIGGER address_kept BEFORE DELETE OR TRUNCATE ON custody.address "
        "FOR EACH STATEMENT EXECUTE FUNCTION custody.keep_rows()"
    ),
    (
        "CREATE OR REPLACE TRIGGER address_given BEFORE UPDATE ON custody.address "
        "FOR EACH ROW EXECUTE FUNCTION custody.keep_address()"
    ),
    (
        "CREATE OR REPLACE TRIGGER address_return_kept BEFORE UPDATE OR DELETE OR TRUNCATE "
        "ON custody.address_return FOR EACH STATEMENT EXECUTE FUNCTION custody.keep_rows()"
    ),
)
BEFORE = (
    "DROP TRIGGER address_given ON custody.address",
    (
        "CREATE OR REPLACE TRIGGER address_kept BEFORE UPDATE OR DELETE OR TRUNCATE "
        "ON custody.address FOR EACH STATEMENT EXECUTE FUNCTION custody.keep_rows()"
    ),
    (
        "REVOKE UPDATE (purpose, party, reference, chain_asset, assigned_at) ON custody.address "
        "FROM causeway_app"
    ),
)
GRANTS = (
    "GRANT SELECT, INSERT ON custody.address_skip, custody.address_return TO causeway_app",
    "GRANT UPDATE (written) ON custody.address_skip TO causeway_app",
    (
        "GRANT UPDATE (purpose, party, reference, chain_asset, assigned_at) ON custody.address "
        "TO causeway_app"
    ),
)


def upgrade() -> None:
    """Make the tables, and let an address that is nobody's be given back."""
    op.add_column("restore", sa.Column("worked_on", sa.Boolean), schema=SCHEMA)
    op.create_table(
        "address_skip",
        sa.Column("restore_id", sa.Uuid, nullable=False),
        sa.Column("wallet", sa.Text, nullable=False),
        sa.Column("branch", sa.Integer, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("first", sa.Integer, nullable=False),
        sa.Column("last", sa.Integer, nullable=False),
        sa.Column("written", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("restore_id", "wallet", "branch", name="pk_address_skip"),
        sa.ForeignKeyConstraint(
            ["restore_id"], ["custody.restore.id"], name="fk_address_skip_restore_id_restore"
        ),
        sa.CheckConstraint("0 <= first AND first <= last", name="first_and_last"),
        sa.CheckConstraint("written >= 0", name="written_not_negative"),
        schema=SCHEMA,
    )
    op.create_table(
        "address_return",
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("party", sa.Text, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("chain_asset", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("signed_by", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("chain", "address", "at", name="pk_address_return"),
        sa.ForeignKeyConstraint(
            ["chain", "address"],
            ["custody.address.chain", "custody.address.address"],
            name="fk_address_return_chain_address_address",
        ),
        sa.CheckConstraint("purpose IN ('deposit', 'settlement')", name="purpose"),
        sa.CheckConstraint("party <> ''", name="party"),
        schema=SCHEMA,
    )
    for statement in (KEPT_FUNCTION, *TRIGGERS, *GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Drop them; addresses that were given back stay whose they are."""
    for statement in BEFORE:
        op.execute(statement)
    op.execute("DROP FUNCTION custody.keep_address()")
    op.drop_table("address_return", schema=SCHEMA)
    op.drop_table("address_skip", schema=SCHEMA)
    op.drop_column("restore", "worked_on", schema=SCHEMA)
