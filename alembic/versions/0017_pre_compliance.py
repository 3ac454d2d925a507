"""Compliance: what deposits and payouts wait for; and the rest of a deposit's life."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017_pre_compliance"
down_revision: str | None = "0016_pre_following"
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
            ('confirmed', 'quarantined'),
            ('confirmed', 'screened'),
            ('confirmed', 'unattributed'),
            ('credited', 'reversed'),
            ('dismissed', 'included'),
            ('dismissed', 'orphaned'),
            ('dust', 'reversed'),
            ('held', 'credited'),
            ('held', 'refunding'),
            ('held', 'reversed'),
            ('included', 'confirmed'),
            ('included', 'orphaned'),
            ('orphaned', 'included'),
            ('orphaned', 'quarantined'),
            ('quarantined', 'dismissed'),
            ('quarantined', 'included'),
            ('quarantined', 'orphaned'),
            ('refunded', 'refunding'),
            ('refunded', 'reversed'),
            ('refunding', 'held'),
            ('refunding', 'refunded'),
            ('refunding', 'reversed'),
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
DEPOSIT_FUNCTION_BEFORE = """\
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
INCLUSION_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.keep_inclusion() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    -- What was outside the books is judged anew when two people let it in.
    adopted boolean := OLD.state IN ('quarantined', 'dismissed') AND NEW.state = 'included';
    redirected boolean := NEW.state <> OLD.state
        AND NEW.state IN ('attributed', 'unattributed', 'quarantined');
BEGIN
    IF NEW.epoch <> OLD.epoch THEN
        -- A hold is known by its epoch: one more of them only after the last one is undone.
        IF NEW.epoch <> OLD.epoch + 1 OR OLD.state NOT IN ('orphaned', 'reversed') THEN
            RAISE EXCEPTION 'custody.% % is included again only after it was undone',
                TG_TABLE_NAME, OLD.id
                USING ERRCODE = 'check_violation', CONSTRAINT = TG_TABLE_NAME || '_unlike_epoch';
        END IF;
    ELSIF OLD.state IN ('orphaned', 'reversed') AND NEW.state <> OLD.state
        OR NEW.credit <> OLD.credit AND NOT (adopted OR redirected)
        OR (NEW.asset, NEW.amount, NEW.remainder) <> (OLD.asset, OLD.amount, OLD.remainder)
            AND NOT adopted
        OR (NEW.contract, NEW.sender, NEW.address, NEW.wallet, NEW.party, NEW.block_hash, NEW.height)
        IS DISTINCT FROM
           (OLD.contract, OLD.sender, OLD.address, OLD.wallet, OLD.party, OLD.block_hash, OLD.height)
    THEN
        RAISE EXCEPTION 'what a block said of custody.% % stands for its epoch',
            TG_TABLE_NAME, OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = TG_TABLE_NAME || '_unlike_inclusion';
    END IF;
    RETURN NEW;
END
$$"""
INCLUSION_FUNCTION_BEFORE = """\
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
PENDING_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.pending_arrival_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('seen') THEN
            RAISE EXCEPTION 'custody.pending_arrival cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'pending_arrival_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('dropped', 'included'),
            ('dropped', 'seen'),
            ('included', 'seen'),
            ('replaced', 'included'),
            ('replaced', 'seen'),
            ('seen', 'dropped'),
            ('seen', 'included'),
            ('seen', 'replaced')
        ) THEN
            RAISE EXCEPTION 'custody.pending_arrival cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'pending_arrival_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
PENDING_TRIGGER = (
    "CREATE OR REPLACE TRIGGER pending_arrival_state_edges BEFORE INSERT OR UPDATE ON custody.pending_arrival "
    "FOR EACH ROW EXECUTE FUNCTION custody.pending_arrival_state_edges()"
)
CASE_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.compliance_case_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('held', 'open') THEN
            RAISE EXCEPTION 'custody.compliance_case cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'compliance_case_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('cleared', 'held'),
            ('held', 'refunded'),
            ('held', 'released'),
            ('open', 'cleared'),
            ('open', 'held'),
            ('refunded', 'held'),
            ('released', 'held')
        ) THEN
            RAISE EXCEPTION 'custody.compliance_case cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'compliance_case_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
CASE_TRIGGER = (
    "CREATE OR REPLACE TRIGGER compliance_case_state_edges BEFORE INSERT OR UPDATE ON custody.compliance_case "
    "FOR EACH ROW EXECUTE FUNCTION custody.compliance_case_state_edges()"
)
LEGAL_HOLD_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.legal_hold_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('placed') THEN
            RAISE EXCEPTION 'custody.legal_hold cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'legal_hold_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('placed', 'lifted')
        ) THEN
            RAISE EXCEPTION 'custody.legal_hold cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'legal_hold_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
LEGAL_HOLD_TRIGGER = (
    "CREATE OR REPLACE TRIGGER legal_hold_state_edges BEFORE INSERT OR UPDATE ON custody.legal_hold "
    "FOR EACH ROW EXECUTE FUNCTION custody.legal_hold_state_edges()"
)
PROOF_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.address_proof_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('asked') THEN
            RAISE EXCEPTION 'custody.address_proof cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'address_proof_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('asked', 'proven')
        ) THEN
            RAISE EXCEPTION 'custody.address_proof cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'address_proof_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
PROOF_TRIGGER = (
    "CREATE OR REPLACE TRIGGER address_proof_state_edges BEFORE INSERT OR UPDATE ON custody.address_proof "
    "FOR EACH ROW EXECUTE FUNCTION custody.address_proof_state_edges()"
)

KEPT = (
    "confirmation_policy",
    "wallet_key",
    "compliance_opinion",
    "compliance_decision",
    "travel_rule_record",
)
"""Tables whose rows nobody changes."""

TABLES = (
    *KEPT,
    "pending_arrival",
    "remainder",
    "compliance_case",
    "legal_hold",
    "rescreening",
    "address_proof",
)


def create_arrivals() -> None:
    op.create_table(
        "confirmation_policy",
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("content", postgresql.JSONB(), nullable=False),
        sa.Column("first_used_at", TIMESTAMP, nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_confirmation_policy_version")),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_confirmation_policy")),
        schema=SCHEMA,
    )
    op.create_table(
        "pending_arrival",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("tx_hash", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("contract", sa.Text(), nullable=True),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.Column("party", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("first_seen_at", TIMESTAMP, nullable=False),
        sa.Column("last_seen_at", TIMESTAMP, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pending_arrival")),
        sa.UniqueConstraint(
            "chain",
            "tx_hash",
            "recipient",
            "contract",
            name=op.f("uq_pending_arrival_chain_tx_hash_recipient_contract"),
            postgresql_nulls_not_distinct=True,
        ),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_pending_arrival_state",
        "pending_arrival",
        ["chain", "state"],
        unique=False,
        schema=SCHEMA,
    )
    op.create_table(
        "remainder",
        sa.Column("wallet", sa.Text(), nullable=False),
        sa.Column("chain_asset", sa.Text(), nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_remainder_amount")),
        sa.PrimaryKeyConstraint("wallet", "chain_asset", name=op.f("pk_remainder")),
        schema=SCHEMA,
    )
    op.create_table(
        "wallet_key",
        sa.Column("wallet", sa.Text(), nullable=False),
        sa.Column("account_xpub", sa.Text(), nullable=False),
        sa.Column("account_path", sa.Text(), nullable=False),
        sa.Column("first_address", sa.Text(), nullable=False),
        sa.Column("checked_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("wallet", name=op.f("pk_wallet_key")),
        schema=SCHEMA,
    )


def create_cases() -> None:
    op.create_table(
        "compliance_case",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("party", sa.Text(), nullable=True),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("list_version", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("opened_at", TIMESTAMP, nullable=False),
        sa.Column("answered_at", TIMESTAMP, nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "state IN ('open', 'held') OR answered_at IS NOT NULL",
            name=op.f("ck_compliance_case_answered"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_compliance_case")),
        sa.UniqueConstraint(
            "subject",
            "subject_id",
            "epoch",
            name=op.f("uq_compliance_case_subject_subject_id_epoch"),
        ),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_compliance_case_address",
        "compliance_case",
        ["chain", "address"],
        unique=False,
        schema=SCHEMA,
    )
    op.create_index(
        "ix_compliance_case_waiting",
        "compliance_case",
        ["chain", "state", "id"],
        unique=False,
        schema=SCHEMA,
        postgresql_where=sa.text("state IN ('open', 'held')"),
    )
    op.create_table(
        "compliance_decision",
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("verb", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("operators", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("signatures", postgresql.ARRAY(sa.LargeBinary()), nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("subject_id", "number", name=op.f("pk_compliance_decision")),
        schema=SCHEMA,
    )
    op.create_table(
        "rescreening",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("list_version", sa.Text(), nullable=False),
        sa.Column("finished_at", TIMESTAMP, nullable=False),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column("hits", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("provider", "list_version", name=op.f("pk_rescreening")),
        schema=SCHEMA,
    )
    op.create_table(
        "compliance_opinion",
        sa.Column("number", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("case_id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("list_version", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.ForeignKeyConstraint(
            ["case_id"],
            ["custody.compliance_case.id"],
            name=op.f("fk_compliance_opinion_case_id_compliance_case"),
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_compliance_opinion")),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_compliance_opinion_case", "compliance_opinion", ["case_id"], unique=False, schema=SCHEMA
    )


def create_papers() -> None:
    op.create_table(
        "address_proof",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("party", sa.Text(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("asked_at", TIMESTAMP, nullable=False),
        sa.Column("expires_at", TIMESTAMP, nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=True),
        sa.Column("proven_at", TIMESTAMP, nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "(state = 'proven') = (signature IS NOT NULL)", name=op.f("ck_address_proof_signature")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_address_proof")),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_address_proof_address",
        "address_proof",
        ["party", "chain", "address"],
        unique=False,
        schema=SCHEMA,
    )
    op.create_table(
        "legal_hold",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("party", sa.Text(), nullable=False),
        sa.Column("order", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("placed_by", sa.Text(), nullable=False),
        sa.Column("placed_at", TIMESTAMP, nullable=False),
        sa.Column("lifted_at", TIMESTAMP, nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_legal_hold")),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_legal_hold_party",
        "legal_hold",
        ["party"],
        unique=False,
        schema=SCHEMA,
        postgresql_where=sa.text("state = 'placed'"),
    )
    op.create_table(
        "travel_rule_record",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("missing", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("recorded_by", sa.Text(), nullable=False),
        sa.Column("recorded_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_travel_rule_record")),
        sa.UniqueConstraint(
            "direction",
            "subject_id",
            "number",
            name=op.f("uq_travel_rule_record_direction_subject_id_number"),
        ),
        schema=SCHEMA,
    )


def widen() -> None:
    op.add_column("address", sa.Column("chain_asset", sa.Text(), nullable=True), schema=SCHEMA)
    op.create_index(
        "uq_address_chain_asset",
        "address",
        ["wallet", "party", "chain_asset"],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("chain_asset IS NOT NULL"),
    )
    op.add_column(
        "deposit",
        sa.Column("policy_rule", sa.Integer(), server_default="0", nullable=False),
        schema=SCHEMA,
    )
    op.add_column(
        "deposit", sa.Column("remainder", UNITS, server_default="0", nullable=False), schema=SCHEMA
    )
    op.add_column("deposit", sa.Column("received", UNITS, nullable=True), schema=SCHEMA)
    op.add_column("deposit", sa.Column("refund", sa.Uuid(), nullable=True), schema=SCHEMA)
    op.add_column(
        "deposit",
        sa.Column("waiting_for", sa.Text(), server_default="", nullable=False),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_deposit_refund",
        "deposit",
        ["refund"],
        unique=False,
        schema=SCHEMA,
        postgresql_where=sa.text("refund IS NOT NULL"),
    )
    op.add_column(
        "receipt",
        sa.Column("policy_rule", sa.Integer(), server_default="0", nullable=False),
        schema=SCHEMA,
    )
    op.add_column(
        "receipt", sa.Column("remainder", UNITS, server_default="0", nullable=False), schema=SCHEMA
    )
    op.create_check_constraint(
        op.f("ck_deposit_received"), "deposit", "received >= 0", schema=SCHEMA
    )
    op.create_check_constraint(
        op.f("ck_deposit_refund"),
        "deposit",
        "state <> 'refunding' OR refund IS NOT NULL",
        schema=SCHEMA,
    )


def guard() -> None:
    op.execute(DEPOSIT_FUNCTION)
    op.execute(INCLUSION_FUNCTION)
    for statement in (
        *(PENDING_FUNCTION, PENDING_TRIGGER, CASE_FUNCTION, CASE_TRIGGER),
        *(LEGAL_HOLD_FUNCTION, LEGAL_HOLD_TRIGGER, PROOF_FUNCTION, PROOF_TRIGGER),
    ):
        op.execute(statement)
    for table in KEPT:
        op.execute(
            f"CREATE OR REPLACE TRIGGER {table}_kept BEFORE UPDATE OR DELETE OR TRUNCATE "
            f"ON custody.{table} FOR EACH STATEMENT EXECUTE FUNCTION custody.keep_rows()"
        )


def grant() -> None:
    for table in TABLES:
        op.execute(f"GRANT SELECT, INSERT ON custody.{table} TO causeway_app")
    for columns, table in (
        ("policy_rule, remainder, received, refund, waiting_for", "deposit"),
        ("policy_rule, remainder", "receipt"),
        ("state, last_seen_at, version", "pending_arrival"),
        ("amount, version", "remainder"),
        ("state, provider, list_version, reason, answered_at, version", "compliance_case"),
        ("state, lifted_at, version", "legal_hold"),
        ("finished_at, asked, hits", "rescreening"),
        ("state, signature, proven_at, version", "address_proof"),
    ):
        op.execute(f"GRANT UPDATE ({columns}) ON custody.{table} TO causeway_app")


def upgrade() -> None:
    create_arrivals()
    create_cases()
    create_papers()
    widen()
    guard()
    grant()


def downgrade() -> None:
    op.execute(INCLUSION_FUNCTION_BEFORE)
    op.execute(DEPOSIT_FUNCTION_BEFORE)
    op.drop_index("ix_deposit_refund", "deposit", schema=SCHEMA)
    op.drop_constraint(op.f("ck_deposit_received"), "deposit", schema=SCHEMA)
    op.drop_constraint(op.f("ck_deposit_refund"), "deposit", schema=SCHEMA)
    for table, columns in (
        ("deposit", ("policy_rule", "remainder", "received", "refund", "waiting_for")),
        ("receipt", ("policy_rule", "remainder")),
    ):
        for column in columns:
            op.drop_column(table, column, schema=SCHEMA)
    op.drop_index("uq_address_chain_asset", "address", schema=SCHEMA)
    op.drop_column("address", "chain_asset", schema=SCHEMA)
    op.execute("DROP TABLE custody.compliance_opinion")
    for table in TABLES:
        op.execute(f"DROP TABLE IF EXISTS custody.{table}")
    for machine in ("pending_arrival", "compliance_case", "legal_hold", "address_proof"):
        op.execute(f"DROP FUNCTION custody.{machine}_state_edges()")
