"""Reference data under four eyes: records, their versions, proposals and approvals."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002_pre_registry"
down_revision: str | None = "0001_pre_kernel"
branch_labels = None
depends_on = None

SCHEMA = "registry"
TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)

# What money already booked depends on; the owner's hand-written UPDATE is refused as well.
FIXED = {
    "entity": ("code", "book"),
    "asset": ("code", "scale"),
    "chain": ("code", "kind", "network_id", "native_asset"),
    "chain_asset": ("code", "chain", "contract", "decimals", "asset"),
    "wallet": ("code", "chain", "owner", "account_xpub", "account_path"),
}
CHANGEABLE = {
    "entity": "name, version, valid_from",
    "asset": "version, valid_from",
    "chain": "version, valid_from",
    "chain_asset": "version, valid_from",
    "party": "kind, entity, version, valid_from",
    "operator": "public_key, active, version, valid_from",
    "wallet": "purpose, version, valid_from",
    "proposal": "state",
}
FIXED_FUNCTION = """\
CREATE OR REPLACE FUNCTION registry.keep_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    field text;
BEGIN
    FOREACH field IN ARRAY TG_ARGV LOOP
        IF to_jsonb(NEW) -> field IS DISTINCT FROM to_jsonb(OLD) -> field THEN
            RAISE EXCEPTION '% of registry.% % can never change', field, TG_TABLE_NAME, OLD.code
                USING ERRCODE = 'check_violation', CONSTRAINT = TG_TABLE_NAME || '_fixed';
        END IF;
    END LOOP;
    IF NEW.version <> OLD.version + 1 THEN
        RAISE EXCEPTION 'registry.% % goes from version % to the next one', TG_TABLE_NAME, OLD.code,
            OLD.version USING ERRCODE = 'check_violation', CONSTRAINT = TG_TABLE_NAME || '_version';
    END IF;
    RETURN NEW;
END
$$"""
KEPT_FUNCTION = """\
CREATE OR REPLACE FUNCTION registry.keep_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of registry.% are kept for ever', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', CONSTRAINT = TG_TABLE_NAME || '_kept';
END
$$"""
PROPOSAL_FUNCTION = """\
CREATE OR REPLACE FUNCTION registry.proposal_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('proposed') THEN
            RAISE EXCEPTION 'registry.proposal cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'proposal_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('proposed', 'approved'),
            ('proposed', 'rejected')
        ) THEN
            RAISE EXCEPTION 'registry.proposal cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'proposal_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
PROPOSAL_TRIGGER = (
    "CREATE OR REPLACE TRIGGER proposal_state_edges BEFORE INSERT OR UPDATE ON registry.proposal "
    "FOR EACH ROW EXECUTE FUNCTION registry.proposal_state_edges()"
)


def version_columns() -> list[sa.Column]:
    return [
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("valid_from", TIMESTAMP, nullable=False),
    ]


def foreign_key(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], [f"{SCHEMA}.{target}.code"], name=f"fk_{table}_{column}_{target}"
    )


def create_records() -> None:
    op.create_table(
        "entity",
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("book", sa.Integer, nullable=False),
        *version_columns(),
        sa.PrimaryKeyConstraint("code", name="pk_entity"),
        sa.UniqueConstraint("book", name="uq_entity_book"),
        sa.CheckConstraint("book > 0", name=op.f("ck_entity_book")),
        schema=SCHEMA,
    )
    op.create_table(
        "asset",
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("scale", sa.Integer, nullable=False),
        *version_columns(),
        sa.PrimaryKeyConstraint("code", name="pk_asset"),
        sa.CheckConstraint("scale BETWEEN 0 AND 36", name=op.f("ck_asset_scale")),
        schema=SCHEMA,
    )
    op.create_table(
        "chain",
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("network_id", UNITS, nullable=False),
        sa.Column("native_asset", sa.Text, nullable=False),
        *version_columns(),
        sa.PrimaryKeyConstraint("code", name="pk_chain"),
        foreign_key("chain", "native_asset", "asset"),
        schema=SCHEMA,
    )
    op.create_table(
        "chain_asset",
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("contract", sa.Text),
        sa.Column("decimals", sa.Integer, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        *version_columns(),
        sa.PrimaryKeyConstraint("code", name="pk_chain_asset"),
        foreign_key("chain_asset", "chain", "chain"),
        foreign_key("chain_asset", "asset", "asset"),
        sa.UniqueConstraint("chain", "asset", name="uq_chain_asset_chain_asset"),
        sa.UniqueConstraint(
            "chain",
            "contract",
            name="uq_chain_asset_chain_contract",
            postgresql_nulls_not_distinct=True,
        ),
        sa.CheckConstraint("decimals BETWEEN 0 AND 36", name=op.f("ck_chain_asset_decimals")),
        schema=SCHEMA,
    )
    op.create_table(
        "party",
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("entity", sa.Text, nullable=False),
        *version_columns(),
        sa.PrimaryKeyConstraint("code", name="pk_party"),
        foreign_key("party", "entity", "entity"),
        schema=SCHEMA,
    )


def create_operators_and_wallets() -> None:
    op.create_table(
        "operator",
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        *version_columns(),
        sa.PrimaryKeyConstraint("code", name="pk_operator"),
        sa.UniqueConstraint("public_key", name="uq_operator_public_key"),
        sa.CheckConstraint("octet_length(public_key) = 32", name=op.f("ck_operator_public_key")),
        schema=SCHEMA,
    )
    op.create_table(
        "operator_role",
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("operator", "role", name="pk_operator_role"),
        foreign_key("operator_role", "operator", "operator"),
        schema=SCHEMA,
    )
    op.create_table(
        "wallet",
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("owner_party", sa.Text),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("account_xpub", sa.Text, nullable=False),
        sa.Column("account_path", sa.Text, nullable=False),
        *version_columns(),
        sa.PrimaryKeyConstraint("code", name="pk_wallet"),
        sa.UniqueConstraint("account_xpub", name="uq_wallet_account_xpub"),
        foreign_key("wallet", "chain", "chain"),
        foreign_key("wallet", "owner_party", "party"),
        sa.CheckConstraint(
            "owner_party IS NULL AND owner IN ('client', 'house') "
            "OR owner_party IS NOT NULL AND owner = 'client:' || owner_party",
            name=op.f("ck_wallet_owner"),
        ),
        schema=SCHEMA,
    )


def create_decisions() -> None:
    op.create_table(
        "proposal",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("base_version", sa.Integer, nullable=False),
        sa.Column("content", postgresql.JSONB, nullable=False),
        sa.Column("proposed_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("proposed_at", TIMESTAMP, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_proposal"),
        foreign_key("proposal", "proposed_by", "operator"),
        sa.UniqueConstraint("id", "proposed_by", name="uq_proposal_id_proposed_by"),
        schema=SCHEMA,
    )
    op.create_table(
        "approval",
        sa.Column("proposal_id", sa.Uuid, nullable=False),
        sa.Column("proposed_by", sa.Text, nullable=False),
        sa.Column("decided_by", sa.Text, nullable=False),
        sa.Column("approved", sa.Boolean, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("decided_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("proposal_id", name="pk_approval"),
        sa.ForeignKeyConstraint(
            ["proposal_id", "proposed_by"],
            ["registry.proposal.id", "registry.proposal.proposed_by"],
            name="fk_approval_proposal_id_proposed_by_proposal",
        ),
        foreign_key("approval", "decided_by", "operator"),
        sa.CheckConstraint("decided_by <> proposed_by", name=op.f("ck_approval_four_eyes")),
        schema=SCHEMA,
    )
    op.create_table(
        "revision",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("content", postgresql.JSONB, nullable=False),
        sa.Column("proposal_id", sa.Uuid),
        sa.Column("valid_from", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("kind", "code", "version", name="pk_revision"),
        sa.ForeignKeyConstraint(
            ["proposal_id"], ["registry.proposal.id"], name="fk_revision_proposal_id_proposal"
        ),
        schema=SCHEMA,
    )
    op.create_table(
        "genesis",
        sa.Column("singleton", sa.Boolean, nullable=False, server_default="true"),
        sa.Column("founded_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("singleton", name="pk_genesis"),
        sa.CheckConstraint("singleton", name=op.f("ck_genesis_singleton")),
        schema=SCHEMA,
    )


def guard() -> None:
    op.execute(FIXED_FUNCTION)
    for table, columns in FIXED.items():
        arguments = ", ".join(f"'{column}'" for column in columns)
        op.execute(
            f"CREATE OR REPLACE TRIGGER {table}_fixed BEFORE UPDATE ON registry.{table} "
            f"FOR EACH ROW EXECUTE FUNCTION registry.keep_fixed({arguments})"
        )
    op.execute(KEPT_FUNCTION)
    for table in ("revision", "approval", "genesis"):
        op.execute(
            f"CREATE OR REPLACE TRIGGER {table}_kept BEFORE UPDATE OR DELETE OR TRUNCATE "
            f"ON registry.{table} FOR EACH STATEMENT EXECUTE FUNCTION registry.keep_rows()"
        )
    op.execute(PROPOSAL_FUNCTION)
    op.execute(PROPOSAL_TRIGGER)


def upgrade() -> None:
    op.execute("CREATE SCHEMA registry")
    create_records()
    create_operators_and_wallets()
    create_decisions()
    guard()
    op.execute("GRANT USAGE ON SCHEMA registry TO causeway_app")
    op.execute("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA registry TO causeway_app")
    # A change of roles replaces the rows; what they were stands in the revisions.
    op.execute("GRANT DELETE ON registry.operator_role TO causeway_app")
    for table, columns in CHANGEABLE.items():
        op.execute(f"GRANT UPDATE ({columns}) ON registry.{table} TO causeway_app")


def downgrade() -> None:
    op.execute("DROP SCHEMA registry CASCADE")
