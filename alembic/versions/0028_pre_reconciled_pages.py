"""What a token does not tell, what really arrived at settlement addresses, freezes taken over."""

from __future__ import annotations

from decimal import Decimal

import sqlalchemy as sa
from alembic import op

revision = "0028_pre_reconciled_pages"
down_revision: str | None = "0027_pre_wallet_keys"
branch_labels = None
depends_on = None

EDGES = """\
CREATE OR REPLACE FUNCTION custody.{table}_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('{initial}') THEN
            RAISE EXCEPTION 'custody.{table} cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = '{table}_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            {edges}
        ) THEN
            RAISE EXCEPTION 'custody.{table} cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = '{table}_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
RECEIPT_BEFORE = (
    ("final", "matched"),
    ("final", "reversed"),
    ("included", "final"),
    ("included", "orphaned"),
    ("matched", "reversed"),
    ("orphaned", "included"),
    ("reversed", "included"),
)
RECEIPT = (*RECEIPT_BEFORE, ("included", "not_received"), ("not_received", "orphaned"))
FREEZE_BEFORE = (("closed", "open"),)
FREEZE = (*FREEZE_BEFORE, ("closed", "superseded"))


def edges(table: str, initial: str, allowed: tuple[tuple[str, str], ...]) -> str:
    pairs = ",\n            ".join(f"('{a}', '{b}')" for a, b in sorted(allowed))
    return EDGES.format(table=table, initial=initial, edges=pairs)


RECEIPT_FUNCTION = edges("receipt", "included", RECEIPT)
FREEZE_FUNCTION = edges("freeze", "closed", FREEZE)


def upgrade() -> None:
    """Make the columns, and the states that lead nowhere yet."""
    _results("'clean', 'different', 'unknown'")
    _chain_amount(nullable=True)
    op.add_column("deposit", _received_rest(), schema="custody")
    op.add_column("receipt", sa.Column("received", sa.Numeric(78, 0)), schema="custody")
    op.add_column("receipt", _received_rest(), schema="custody")
    op.add_column(
        "receipt",
        sa.Column("waiting_for", sa.Text(), nullable=False, server_default=""),
        schema="custody",
    )
    op.create_check_constraint(
        op.f("ck_receipt_received"), "receipt", "received >= 0", schema="custody"
    )
    op.add_column("freeze", sa.Column("service_signature", sa.LargeBinary()), schema="custody")
    op.add_column("freeze", sa.Column("signed_by", sa.Text()), schema="custody")
    op.create_check_constraint(
        op.f("ck_freeze_signed_by_one"),
        "freeze",
        "closed_signature IS NULL OR service_signature IS NULL",
        schema="custody",
    )
    op.create_check_constraint(
        op.f("ck_freeze_signed_as_a_whole"),
        "freeze",
        "(signed_by IS NULL) = (closed_signature IS NULL AND service_signature IS NULL)",
        schema="custody",
    )
    op.execute("GRANT UPDATE (service_signature, signed_by) ON custody.freeze TO causeway_app")
    op.execute("GRANT UPDATE (received_rest) ON custody.deposit TO causeway_app")
    op.execute(
        "GRANT UPDATE (received, received_rest, waiting_for) ON custody.receipt TO causeway_app"
    )
    op.add_column(
        "following",
        sa.Column("reread_failures", sa.Integer(), nullable=False, server_default="0"),
        schema="chain",
    )
    op.add_column(
        "following",
        sa.Column("reread_trouble", sa.Text(), nullable=False, server_default=""),
        schema="chain",
    )
    op.create_check_constraint(
        op.f("ck_following_reread_failures"), "following", "reread_failures >= 0", schema="chain"
    )
    op.execute("GRANT UPDATE (reread_failures, reread_trouble) ON chain.following TO causeway_app")
    op.execute(RECEIPT_FUNCTION)
    op.execute(FREEZE_FUNCTION)


def downgrade() -> None:
    """Drop them."""
    op.drop_constraint(op.f("ck_following_reread_failures"), "following", schema="chain")
    op.drop_column("following", "reread_trouble", schema="chain")
    op.drop_column("following", "reread_failures", schema="chain")
    op.execute(edges("freeze", "closed", FREEZE_BEFORE))
    op.execute(edges("receipt", "included", RECEIPT_BEFORE))
    op.drop_constraint(op.f("ck_freeze_signed_as_a_whole"), "freeze", schema="custody")
    op.drop_constraint(op.f("ck_freeze_signed_by_one"), "freeze", schema="custody")
    op.drop_column("freeze", "signed_by", schema="custody")
    op.drop_column("freeze", "service_signature", schema="custody")
    op.drop_constraint(op.f("ck_receipt_received"), "receipt", schema="custody")
    for name in ("waiting_for", "received_rest", "received"):
        op.drop_column("receipt", name, schema="custody")
    op.drop_column("deposit", "received_rest", schema="custody")
    _chain_amount(nullable=False)
    _results("'clean', 'different'")


def _results(names: str) -> None:
    name = op.f("ck_reconciliation_result")
    op.drop_constraint(name, "reconciliation", schema="custody")
    op.create_check_constraint(name, "reconciliation", f"result IN ({names})", schema="custody")


def _chain_amount(*, nullable: bool) -> None:
    op.alter_column(
        "reconciliation_item",
        "chain_amount",
        existing_type=sa.Numeric(78, 0),
        nullable=nullable,
        schema="custody",
    )


def _received_rest() -> sa.Column[Decimal]:
    return sa.Column("received_rest", sa.Numeric(78, 0), nullable=False, server_default="0")
