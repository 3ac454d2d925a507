"""Bank accounts, payouts through banks, files of payments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0046_pre_bank_payouts"
down_revision: str | None = "0045_pre_agreements"
branch_labels = None
depends_on = None

TIMESTAMP = sa.DateTime(timezone=True)
UNITS = sa.Numeric(78, 0)
REGISTRY = "registry"
SCHEMA = "custody"

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
            ('signed', 'confirmed'),
            ('signed', 'mined'),
            ('signed', 'refused'),
            ('signed', 'security_hold')
        ) THEN
            RAISE EXCEPTION 'custody.payout cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'payout_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
FILE_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.payment_file_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('drafted') THEN
            RAISE EXCEPTION 'custody.payment_file cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'payment_file_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('approved', 'discarded'),
            ('approved', 'released'),
            ('drafted', 'approved'),
            ('drafted', 'discarded'),
            ('held', 'closed'),
            ('held', 'released'),
            ('held', 'submitted'),
            ('released', 'closed'),
            ('released', 'held'),
            ('released', 'submitted'),
            ('released', 'unknown'),
            ('submitted', 'closed'),
            ('submitted', 'held'),
            ('unknown', 'closed'),
            ('unknown', 'held'),
            ('unknown', 'submitted')
        ) THEN
            RAISE EXCEPTION 'custody.payment_file cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'payment_file_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
FILE_TRIGGER = (
    "CREATE OR REPLACE TRIGGER payment_file_state_edges BEFORE INSERT OR UPDATE ON "
    "custody.payment_file FOR EACH ROW EXECUTE FUNCTION custody.payment_file_state_edges()"
)
LINE_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.payment_line_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('written') THEN
            RAISE EXCEPTION 'custody.payment_line cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'payment_line_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('accepted', 'booked'),
            ('accepted', 'refused'),
            ('booked', 'returned'),
            ('released', 'accepted'),
            ('released', 'booked'),
            ('released', 'refused'),
            ('written', 'discarded'),
            ('written', 'released')
        ) THEN
            RAISE EXCEPTION 'custody.payment_line cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'payment_line_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
LINE_TRIGGER = (
    "CREATE OR REPLACE TRIGGER payment_line_state_edges BEFORE INSERT OR UPDATE ON "
    "custody.payment_line FOR EACH ROW EXECUTE FUNCTION custody.payment_line_state_edges()"
)

NEW_EDGES = ("            ('signed', 'confirmed'),\n", "            ('signed', 'refused'),\n")
ENDED_BEFORE = "state NOT IN ('rejected', 'cancelled', 'expired', 'failed_on_chain') OR released_at IS NOT NULL"
ENDED = (
    "state NOT IN ('rejected', 'cancelled', 'expired', 'failed_on_chain', 'refused')"
    " OR released_at IS NOT NULL"
)
PROVED_BEFORE = (
    "state <> 'active' OR kind = 'eoa' OR (code_hash IS NOT NULL AND return_tx IS NOT NULL)"
)
PROVED = (
    "state <> 'active' OR kind <> 'contract' OR (code_hash IS NOT NULL AND return_tx IS NOT NULL)"
)
# Two people, and what they approved: said by the database too, whoever writes the row.
FIXED_FUNCTION = """\
CREATE FUNCTION custody.payment_file_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.book, NEW.account, NEW.asset, NEW.message_id, NEW.execution_date, NEW.content,
        NEW.sha256, NEW.line_count, NEW.total, NEW.drafted_by, NEW.drafted_at)
       IS DISTINCT FROM
       (OLD.id, OLD.book, OLD.account, OLD.asset, OLD.message_id, OLD.execution_date, OLD.content,
        OLD.sha256, OLD.line_count, OLD.total, OLD.drafted_by, OLD.drafted_at)
       OR (OLD.released_at IS NOT NULL AND NEW.released_at IS DISTINCT FROM OLD.released_at)
    THEN
        RAISE EXCEPTION 'a payment file never changes'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'payment_file_fixed';
    END IF;
    IF OLD.released_at IS NULL AND NEW.released_at IS NOT NULL
       AND (SELECT count(*) FROM custody.payment_approval
             WHERE file_id = NEW.id AND operator <> NEW.drafted_by) < 2
    THEN
        RAISE EXCEPTION 'two people approve a payment file before it is released'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'payment_file_two_people';
    END IF;
    RETURN NEW;
END
$$"""
FIXED_TRIGGER = (
    "CREATE TRIGGER payment_file_fixed BEFORE UPDATE ON custody.payment_file "
    "FOR EACH ROW EXECUTE FUNCTION custody.payment_file_fixed()"
)
GRANTS = (
    "GRANT SELECT, INSERT ON registry.bank_account TO causeway_app",
    "GRANT UPDATE (bank, bic, active, version, valid_from) ON registry.bank_account TO causeway_app",
    (
        "GRANT SELECT, INSERT ON custody.payment_file, custody.payment_line, custody.payment_approval,"
        " custody.payment_report TO causeway_app"
    ),
    (
        "GRANT UPDATE (state, submissions, waiting_for, bank_status, run_after, released_at,"
        " lease_holder, lease_until, fence) ON custody.payment_file TO causeway_app"
    ),
    (
        "GRANT UPDATE (state, bank_status, bank_reason, booked_entry, returned_entry)"
        " ON custody.payment_line TO causeway_app"
    ),
)


def upgrade() -> None:
    """Make the tables, and let payouts and destinations be at banks."""
    _accounts()
    _payouts()
    _files()
    _lines()
    _reports()
    for statement in (
        *(FILE_FUNCTION, FILE_TRIGGER, LINE_FUNCTION, LINE_TRIGGER),
        *(FIXED_FUNCTION, FIXED_TRIGGER, *GRANTS),
    ):
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    for table in ("payment_report", "payment_approval", "payment_line", "payment_file"):
        op.drop_table(table, schema=SCHEMA)
    for name in ("file_state_edges", "line_state_edges", "file_fixed"):
        op.execute(f"DROP FUNCTION custody.payment_{name}()")
    before = PAYOUT_FUNCTION
    for edge in NEW_EDGES:
        before = before.replace(edge, "")
    op.execute(before)
    for name in ("ended_by_its_rail", "banks_have_no_chain"):
        op.drop_constraint(op.f(f"ck_payout_{name}"), "payout", schema=SCHEMA)
    _check("payout", "released_at_a_time", ENDED_BEFORE)
    op.drop_constraint(op.f("ck_allowed_destination_bank"), "allowed_destination", schema=SCHEMA)
    _check("allowed_destination", "kind", "kind IN ('eoa', 'contract')")
    _check("allowed_destination", "contract_proved", PROVED_BEFORE)
    op.drop_constraint(op.f("ck_chain_code"), "chain", schema=REGISTRY)
    op.drop_table("bank_account", schema=REGISTRY)


def _check(table: str, name: str, condition: str) -> None:
    """Put a check in the place of the one that has its name."""
    op.drop_constraint(op.f(f"ck_{table}_{name}"), table, schema=SCHEMA)
    op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition, schema=SCHEMA)


def _accounts() -> None:
    op.create_table(
        "bank_account",
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("bank", sa.Text, nullable=False),
        sa.Column("iban", sa.Text, nullable=False),
        sa.Column("bic", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("owner_party", sa.Text),
        sa.Column("entity", sa.Text, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("valid_from", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("code", name="pk_bank_account"),
        sa.ForeignKeyConstraint(
            ["asset"], ["registry.asset.code"], name="fk_bank_account_asset_asset"
        ),
        sa.ForeignKeyConstraint(
            ["owner_party"], ["registry.party.code"], name="fk_bank_account_owner_party_party"
        ),
        sa.ForeignKeyConstraint(
            ["entity"], ["registry.entity.code"], name="fk_bank_account_entity_entity"
        ),
        sa.UniqueConstraint("iban", "asset", name="uq_bank_account_iban_asset"),
        sa.CheckConstraint(
            "owner_party IS NULL AND owner IN ('client', 'house') "
            "OR owner_party IS NOT NULL AND owner = 'client:' || owner_party",
            name="owner",
        ),
        schema=REGISTRY,
    )
    op.execute(
        "CREATE TRIGGER bank_account_fixed BEFORE UPDATE ON registry.bank_account FOR EACH ROW"
        " EXECUTE FUNCTION registry.keep_fixed('code', 'iban', 'asset', 'owner', 'entity')"
    )
    op.create_check_constraint(op.f("ck_chain_code"), "chain", "code <> 'bank'", schema=REGISTRY)


def _payouts() -> None:
    op.execute(PAYOUT_FUNCTION)
    _check("payout", "released_at_a_time", ENDED)
    op.create_check_constraint(
        op.f("ck_payout_ended_by_its_rail"),
        "payout",
        "rail = 'bank' OR (state <> 'refused' AND (state <> 'confirmed' OR tx_hash IS NOT NULL))",
        schema=SCHEMA,
    )
    op.create_check_constraint(
        op.f("ck_payout_banks_have_no_chain"),
        "payout",
        "(rail = 'bank') = (chain = 'bank')",
        schema=SCHEMA,
    )
    _check("allowed_destination", "kind", "kind IN ('eoa', 'contract', 'bank')")
    _check("allowed_destination", "contract_proved", PROVED)
    op.create_check_constraint(
        op.f("ck_allowed_destination_bank"),
        "allowed_destination",
        "(kind = 'bank') = (chain = 'bank')",
        schema=SCHEMA,
    )


def _files() -> None:
    op.create_table(
        "payment_file",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("book", sa.Integer, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("execution_date", sa.Date, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("line_count", sa.Integer, nullable=False),
        sa.Column("total", UNITS, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("drafted_by", sa.Text, nullable=False),
        sa.Column("drafted_at", TIMESTAMP, nullable=False),
        sa.Column("submissions", sa.Integer, nullable=False),
        sa.Column("waiting_for", sa.Text, nullable=False),
        sa.Column("bank_status", sa.Text, nullable=False),
        sa.Column("run_after", TIMESTAMP, nullable=False),
        sa.Column("released_at", TIMESTAMP),
        sa.Column("lease_holder", sa.Text),
        sa.Column("lease_until", TIMESTAMP),
        sa.Column("fence", sa.Integer, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("id", name="pk_payment_file"),
        sa.UniqueConstraint("message_id", name="uq_payment_file_message_id"),
        sa.UniqueConstraint("sha256", name="uq_payment_file_sha256"),
        sa.CheckConstraint("sha256 = encode(sha256(content), 'hex')", name="sha256"),
        sa.CheckConstraint("octet_length(content) <= 2000000", name="content"),
        sa.CheckConstraint("line_count BETWEEN 1 AND 500", name="line_count"),
        sa.CheckConstraint("total > 0", name="total"),
        sa.CheckConstraint(
            "(released_at IS NULL) = (state IN ('drafted', 'approved', 'discarded'))",
            name="released_at",
        ),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_payment_file_account", "payment_file", ["account", "drafted_at", "id"], schema=SCHEMA
    )
    op.create_index(
        "ix_payment_file_due",
        "payment_file",
        ["book", "run_after"],
        schema=SCHEMA,
        postgresql_where=sa.text("state IN ('approved', 'released', 'unknown')"),
    )
    op.create_table(
        "payment_approval",
        sa.Column("file_id", sa.Uuid, nullable=False),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("file_id", "operator", name="pk_payment_approval"),
        sa.ForeignKeyConstraint(
            ["file_id"],
            ["custody.payment_file.id"],
            name="fk_payment_approval_file_id_payment_file",
        ),
        sa.CheckConstraint("octet_length(signature) = 64", name="signature"),
        schema=SCHEMA,
    )


def _lines() -> None:
    op.create_table(
        "payment_line",
        sa.Column("file_id", sa.Uuid, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("payout_id", sa.Uuid, nullable=False),
        sa.Column("end_to_end", sa.Text, nullable=False),
        sa.Column("amount", UNITS, nullable=False),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("bank_status", sa.Text, nullable=False),
        sa.Column("bank_reason", sa.Text, nullable=False),
        sa.Column("booked_entry", sa.Uuid),
        sa.Column("returned_entry", sa.Uuid),
        sa.PrimaryKeyConstraint("file_id", "number", name="pk_payment_line"),
        sa.UniqueConstraint("booked_entry", name="uq_payment_line_booked_entry"),
        sa.UniqueConstraint("returned_entry", name="uq_payment_line_returned_entry"),
        sa.ForeignKeyConstraint(
            ["file_id"], ["custody.payment_file.id"], name="fk_payment_line_file_id_payment_file"
        ),
        sa.ForeignKeyConstraint(
            ["payout_id"], ["custody.payout.id"], name="fk_payment_line_payout_id_payout"
        ),
        sa.CheckConstraint("amount > 0", name="amount"),
        sa.CheckConstraint(
            "(booked_entry IS NULL) = (state NOT IN ('booked', 'returned'))", name="booked"
        ),
        sa.CheckConstraint("(returned_entry IS NULL) = (state <> 'returned')", name="returned"),
        schema=SCHEMA,
    )
    for name, column in (("payout", "payout_id"), ("end_to_end", "end_to_end")):
        op.create_index(
            f"uq_payment_line_{name}",
            "payment_line",
            [column],
            unique=True,
            schema=SCHEMA,
            postgresql_where=sa.text("state <> 'discarded'"),
        )


def _reports() -> None:
    op.create_table(
        "payment_report",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("file_id", sa.Uuid),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("received_by", sa.Text, nullable=False),
        sa.Column("received_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_payment_report"),
        sa.UniqueConstraint("sha256", name="uq_payment_report_sha256"),
        sa.ForeignKeyConstraint(
            ["file_id"],
            ["custody.payment_file.id"],
            name="fk_payment_report_file_id_payment_file",
        ),
        sa.CheckConstraint("sha256 = encode(sha256(content), 'hex')", name="sha256"),
        sa.CheckConstraint("state IN ('applied', 'quarantined')", name="state"),
        sa.CheckConstraint("state <> 'applied' OR file_id IS NOT NULL", name="applied"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_payment_report_file", "payment_report", ["file_id", "received_at"], schema=SCHEMA
    )
