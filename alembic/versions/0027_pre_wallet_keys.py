"""Wallets whose keys are in a token or shared by several signers; approvals that lapse."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0027_pre_wallet_keys"
down_revision: str | None = "0026_pre_spends"
branch_labels = None
depends_on = None

SCHEMA = "registry"
BEFORE = ("code", "chain", "owner", "account_xpub", "account_path")
NEW = (
    ("token_key", sa.Text(), ""),
    ("token_public_key", sa.Text(), ""),
    ("cosigners", postgresql.ARRAY(sa.Text()), "{}"),
    ("required", sa.Integer(), "0"),
)
KNOWN = (("account_xpub", "keys"), ("account_path", "key_root"))
FIXED = (*BEFORE, *(column for column, _, _ in NEW))

PAYOUT_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.payout_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('requested') THEN
            RAISE EXCEPTION 'custody.payout cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'payout_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('allocated', 'approved'),
            ('allocated', 'expired'),
            ('allocated', 'rejected'),
            ('allocated', 'security_hold'),
            ('allocated', 'signed'),
            ('approved', 'allocated'),
            ('approved', 'cancelled'),
            ('approved', 'expired'),
            ('approved', 'rejected'),
            ('cancelled', 'security_hold'),
            ('cancelling', 'mined'),
            ('cancelling', 'security_hold'),
            ('cancelling', 'signed'),
            ('confirmed', 'cancelling'),
            ('confirmed', 'signed'),
            ('failed_on_chain', 'security_hold'),
            ('mined', 'cancelled'),
            ('mined', 'cancelling'),
            ('mined', 'confirmed'),
            ('mined', 'failed_on_chain'),
            ('mined', 'signed'),
            ('pending_approval', 'approved'),
            ('pending_approval', 'cancelled'),
            ('pending_approval', 'expired'),
            ('pending_approval', 'rejected'),
            ('requested', 'allocated'),
            ('requested', 'cancelled'),
            ('requested', 'expired'),
            ('requested', 'rejected'),
            ('requested', 'reserved'),
            ('reserved', 'cancelled'),
            ('reserved', 'expired'),
            ('reserved', 'pending_approval'),
            ('reserved', 'rejected'),
            ('security_hold', 'allocated'),
            ('security_hold', 'cancelling'),
            ('security_hold', 'failed_on_chain'),
            ('security_hold', 'mined'),
            ('security_hold', 'signed'),
            ('signed', 'cancelling'),
            ('signed', 'mined'),
            ('signed', 'security_hold')
        ) THEN
            RAISE EXCEPTION 'custody.payout cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'payout_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""

PAYOUT_TRIGGER = (
    "CREATE OR REPLACE TRIGGER payout_state_edges BEFORE INSERT OR UPDATE ON custody.payout "
    "FOR EACH ROW EXECUTE FUNCTION custody.payout_state_edges()"
)


def keep_fixed(columns: tuple[str, ...]) -> None:
    arguments = ", ".join(f"'{column}'" for column in columns)
    op.execute(
        "CREATE OR REPLACE TRIGGER wallet_fixed BEFORE UPDATE ON registry.wallet "
        f"FOR EACH ROW EXECUTE FUNCTION registry.keep_fixed({arguments})"
    )


def unique(name: str, columns: list[str], where: str) -> None:
    op.create_index(
        f"uq_wallet_{name}",
        "wallet",
        columns,
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text(where),
    )


def upgrade() -> None:
    """Add where the keys are, and let no two wallets have the same."""
    for column, kind, default in NEW:
        op.add_column(
            "wallet",
            sa.Column(column, kind, nullable=False, server_default=default),
            schema=SCHEMA,
        )
    # The defaults were for the rows that stood; whoever writes says where the keys are.
    for column, _, _ in NEW:
        op.alter_column("wallet", column, server_default=None, schema=SCHEMA)
    op.create_check_constraint(
        op.f("ck_wallet_keys"),
        "wallet",
        "num_nonnulls(nullif(account_xpub, ''), nullif(token_key, ''), "
        "nullif(cardinality(cosigners), 0)) = 1",
        schema=SCHEMA,
    )
    op.drop_constraint("uq_wallet_account_xpub", "wallet", schema=SCHEMA)
    unique("account_xpub", ["account_xpub"], "account_xpub <> ''")
    unique("token_key", ["token_key"], "token_key <> ''")
    unique("token_public_key", ["token_public_key"], "token_public_key <> ''")
    unique("cosigners", ["cosigners", "required"], "cardinality(cosigners) > 0")
    keep_fixed(FIXED)
    op.execute(PAYOUT_FUNCTION)
    op.execute(PAYOUT_TRIGGER)
    for before, after in KNOWN:
        op.alter_column("wallet_key", before, new_column_name=after, schema="custody")


def downgrade() -> None:
    """Back to wallets of one account each."""
    for before, after in KNOWN:
        op.alter_column("wallet_key", after, new_column_name=before, schema="custody")
    op.execute(PAYOUT_FUNCTION.replace("            ('allocated', 'expired'),\n", ""))
    keep_fixed(BEFORE)
    for name in ("cosigners", "token_public_key", "token_key", "account_xpub"):
        op.drop_index(f"uq_wallet_{name}", "wallet", schema=SCHEMA)
    op.create_unique_constraint("uq_wallet_account_xpub", "wallet", ["account_xpub"], schema=SCHEMA)
    op.drop_constraint("ck_wallet_keys", "wallet", schema=SCHEMA)
    for column, _, _ in reversed(NEW):
        op.drop_column("wallet", column, schema=SCHEMA)
