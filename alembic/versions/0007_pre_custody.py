"""What arrives: addresses, deposits, receipts, their inclusions, attributions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007_pre_custody"
down_revision: str | None = "0006_pre_venues"
branch_labels = None
depends_on = None

SCHEMA = "custody"
TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)

DEPOSIT_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.deposit_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('included', 'quarantined') THEN
            RAISE EXCEPTION 'custody.deposit cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'deposit_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('attributed', 'reversed'),
            ('confirmed', 'dust'),
            ('confirmed', 'held'),
            ('confirmed', 'orphaned'),
            ('confirmed', 'screened'),
            ('confirmed', 'unattributed'),
            ('credited', 'reversed'),
            ('dust', 'reversed'),
            ('held', 'credited'),
            ('held', 'reversed'),
            ('included', 'confirmed'),
            ('included', 'orphaned'),
            ('orphaned', 'included'),
            ('orphaned', 'quarantined'),
            ('quarantined', 'orphaned'),
            ('reversed', 'included'),
            ('reversed', 'quarantined'),
            ('screened', 'credited'),
            ('screened', 'orphaned'),
            ('unattributed', 'attributed'),
            ('unattributed', 'reversed')
        ) THEN
            RAISE EXCEPTION 'custody.deposit cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'deposit_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
DEPOSIT_TRIGGER = (
    "CREATE OR REPLACE TRIGGER deposit_state_edges BEFORE INSERT OR UPDATE ON custody.deposit "
    "FOR EACH ROW EXECUTE FUNCTION custody.deposit_state_edges()"
)
RECEIPT_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.receipt_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('included') THEN
            RAISE EXCEPTION 'custody.receipt cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'receipt_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('final', 'matched'),
            ('final', 'reversed'),
            ('included', 'final'),
            ('included', 'orphaned'),
            ('matched', 'reversed'),
            ('orphaned', 'included'),
            ('reversed', 'included')
        ) THEN
            RAISE EXCEPTION 'custody.receipt cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'receipt_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
RECEIPT_TRIGGER = (
    "CREATE OR REPLACE TRIGGER receipt_state_edges BEFORE INSERT OR UPDATE ON custody.receipt "
    "FOR EACH ROW EXECUTE FUNCTION custody.receipt_state_edges()"
)
INCLUSION_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.keep_inclusion() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.epoch <> OLD.epoch THEN
        -- A hold is known by its epoch: one more of them only after the last one is undone.
        IF NEW.epoch <> OLD.epoch + 1 OR OLD.state NOT IN ('orphaned', 'reversed') THEN
            RAISE EXCEPTION 'custody.% % is included again only after it was undone',
                TG_TABLE_NAME, OLD.id
                USING ERRCODE = 'check_violation', CONSTRAINT = TG_TABLE_NAME || '_unlike_epoch';
        END IF;
    ELSIF OLD.state IN ('orphaned', 'reversed') AND NEW.state <> OLD.state
        OR NEW.credit <> OLD.credit AND NEW.state <> 'attributed'
        OR (NEW.contract, NEW.asset, NEW.amount, NEW.sender, NEW.address, NEW.wallet, NEW.party,
            NEW.block_hash, NEW.height)
        IS DISTINCT FROM
           (OLD.contract, OLD.asset, OLD.amount, OLD.sender, OLD.address, OLD.wallet, OLD.party,
            OLD.block_hash, OLD.height)
    THEN
        RAISE EXCEPTION 'what a block said of custody.% % stands for its epoch',
            TG_TABLE_NAME, OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = TG_TABLE_NAME || '_unlike_inclusion';
    END IF;
    RETURN NEW;
END
$$"""
KEPT_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.keep_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of custody.% are kept for ever', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', CONSTRAINT = TG_TABLE_NAME || '_kept';
END
$$"""


def arrival_columns() -> list[sa.Column]:
    return [
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("tx_hash", sa.Text, nullable=False),
        sa.Column("position", sa.Text, nullable=False),
        sa.Column("contract", sa.Text),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("wallet", sa.Text, nullable=False),
        sa.Column("party", sa.Text),
        sa.Column("credit", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("block_hash", sa.Text, nullable=False),
        sa.Column("height", sa.BigInteger, nullable=False),
        sa.Column("postings", postgresql.ARRAY(sa.Uuid), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("first_seen_at", TIMESTAMP, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("depth_required", sa.Integer, nullable=False),
        sa.Column("finality_required", sa.Boolean, nullable=False),
        sa.Column("policy_version", sa.Integer, nullable=False),
    ]


def arrival_constraints(table: str) -> list[sa.Constraint]:
    return [
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        sa.UniqueConstraint(
            "chain", "tx_hash", "position", name=f"uq_{table}_chain_tx_hash_position"
        ),
        sa.ForeignKeyConstraint(
            ["chain", "address"],
            ["custody.address.chain", "custody.address.address"],
            name=f"fk_{table}_chain_address_address",
        ),
    ]


def index_arrivals(table: str) -> None:
    op.create_index(f"ix_{table}_state", table, ["chain", "state", "height"], schema=SCHEMA)
    op.create_index(f"ix_{table}_block", table, ["block_hash"], schema=SCHEMA)


def create_addresses() -> None:
    op.create_table(
        "address",
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("wallet", sa.Text, nullable=False),
        sa.Column("branch", sa.Integer, nullable=False),
        sa.Column("index", sa.Integer, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("party", sa.Text),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("assigned_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("chain", "address", name="pk_address"),
        sa.UniqueConstraint("wallet", "branch", "index", name="uq_address_wallet_branch_index"),
        sa.CheckConstraint("index >= 0", name=op.f("ck_address_index")),
        sa.CheckConstraint("(purpose = 'hot') = (party IS NULL)", name=op.f("ck_address_party")),
        schema=SCHEMA,
    )
    op.create_index(
        "uq_address_reference",
        "address",
        ["wallet", "purpose", "party", "reference"],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("reference != ''"),
        postgresql_nulls_not_distinct=True,
    )
    op.create_table(
        "address_branch",
        sa.Column("wallet", sa.Text, nullable=False),
        sa.Column("branch", sa.Integer, nullable=False),
        sa.Column("next_index", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("wallet", "branch", name="pk_address_branch"),
        schema=SCHEMA,
    )


def create_arrivals() -> None:
    op.create_table(
        "deposit",
        *arrival_columns(),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("shortfall", UNITS, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        *arrival_constraints("deposit"),
        sa.CheckConstraint(
            "amount > 0 AND epoch > 0 AND shortfall >= 0", name=op.f("ck_deposit_amounts")
        ),
        sa.CheckConstraint(
            "(kind = 'quarantined') = (credit = '')", name=op.f("ck_deposit_credit")
        ),
        schema=SCHEMA,
    )
    index_arrivals("deposit")
    op.create_table(
        "receipt",
        *arrival_columns(),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("matched_to", sa.Text, nullable=False),
        *arrival_constraints("receipt"),
        sa.CheckConstraint("amount > 0 AND epoch > 0", name=op.f("ck_receipt_amounts")),
        sa.CheckConstraint(
            "state <> 'matched' OR matched_to <> ''", name=op.f("ck_receipt_matched")
        ),
        schema=SCHEMA,
    )
    index_arrivals("receipt")


def create_statements() -> None:
    op.create_table(
        "observation",
        sa.Column("arrival_id", sa.Uuid, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("block_hash", sa.Text, nullable=False),
        sa.Column("height", sa.BigInteger, nullable=False),
        sa.Column("observed_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("arrival_id", "epoch", name="pk_observation"),
        schema=SCHEMA,
    )
    op.create_table(
        "attribution",
        sa.Column("deposit_id", sa.Uuid, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("credit", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("first", sa.Text, nullable=False),
        sa.Column("first_signature", sa.LargeBinary, nullable=False),
        sa.Column("second", sa.Text, nullable=False),
        sa.Column("second_signature", sa.LargeBinary, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("deposit_id", "epoch", name="pk_attribution"),
        sa.ForeignKeyConstraint(
            ["deposit_id"], ["custody.deposit.id"], name="fk_attribution_deposit_id_deposit"
        ),
        sa.CheckConstraint("first <> second", name=op.f("ck_attribution_four_eyes")),
        schema=SCHEMA,
    )


def guard() -> None:
    for statement in (DEPOSIT_FUNCTION, DEPOSIT_TRIGGER, RECEIPT_FUNCTION, RECEIPT_TRIGGER):
        op.execute(statement)
    op.execute(INCLUSION_FUNCTION)
    for table in ("deposit", "receipt"):
        # Named to come after the trigger of the state's edges, which says more.
        op.execute(
            f"CREATE OR REPLACE TRIGGER {table}_unlike_inclusion BEFORE UPDATE ON custody.{table} "
            "FOR EACH ROW EXECUTE FUNCTION custody.keep_inclusion()"
        )
    op.execute(KEPT_FUNCTION)
    for table in ("address", "observation", "attribution"):
        op.execute(
            f"CREATE OR REPLACE TRIGGER {table}_kept BEFORE UPDATE OR DELETE OR TRUNCATE "
            f"ON custody.{table} FOR EACH STATEMENT EXECUTE FUNCTION custody.keep_rows()"
        )


def grant() -> None:
    # All but what an arrival is known by: another branch may log another amount at the same place.
    arriving = (
        "contract, asset, amount, sender, address, wallet, party, credit, epoch, block_hash, "
        "height, postings, version, state, depth_required, finality_required, policy_version"
    )
    op.execute("GRANT USAGE ON SCHEMA custody TO causeway_app")
    op.execute(
        "GRANT SELECT, INSERT ON custody.address, custody.address_branch, custody.deposit, "
        "custody.receipt, custody.observation, custody.attribution TO causeway_app"
    )
    op.execute("GRANT UPDATE (next_index) ON custody.address_branch TO causeway_app")
    op.execute(
        f"GRANT UPDATE ({arriving}, kind, source, shortfall, reason) ON custody.deposit "
        "TO causeway_app"
    )
    op.execute(
        f"GRANT UPDATE ({arriving}, reference, matched_to) ON custody.receipt TO causeway_app"
    )


def upgrade_deposits() -> None:
    create_addresses()
    create_arrivals()
    create_statements()
    guard()
    grant()


def upgrade() -> None:
    op.execute("CREATE SCHEMA custody")
    upgrade_deposits()


def downgrade() -> None:
    op.execute("DROP SCHEMA custody CASCADE")
