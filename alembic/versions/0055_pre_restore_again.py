"""More comes back after a restore: coins before their blocks; how far a chain is to be followed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0055_pre_restore_again"
down_revision: str | None = "0054_pre_traces"
branch_labels = None
depends_on = None


def coin_function(initial: str) -> str:
    """Return the function of the coin's machine, which may begin as *initial*."""
    return f"""\
CREATE OR REPLACE FUNCTION custody.coin_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ({initial}) THEN
            RAISE EXCEPTION 'custody.coin cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'coin_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('orphaned', 'spent'),
            ('orphaned', 'unspent'),
            ('spent', 'orphaned'),
            ('spent', 'unspent'),
            ('unspent', 'orphaned'),
            ('unspent', 'spent')
        ) THEN
            RAISE EXCEPTION 'custody.coin cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'coin_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""


def upgrade() -> None:
    """Let a coin begin without a block, and a place have a height to come to."""
    op.execute(coin_function("'orphaned', 'spent', 'unspent'"))
    op.add_column("restore_source", sa.Column("target", sa.BigInteger), schema="custody")
    op.execute("GRANT UPDATE (target) ON custody.restore_source TO causeway_app")


def downgrade() -> None:
    """Take it back; a coin that began without a block has one by then."""
    op.drop_column("restore_source", "target", schema="custody")
    op.execute(coin_function("'spent', 'unspent'"))
