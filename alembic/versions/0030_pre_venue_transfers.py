"""Funds on their way to venues and back."""

from __future__ import annotations

from alembic import op

revision = "0030_pre_venue_transfers"
down_revision: str | None = "0029_pre_venue_orders"
branch_labels = None
depends_on = None

VENUE_ADDRESS = """\
CREATE TABLE custody.venue_address (
    id UUID NOT NULL,
    venue TEXT NOT NULL,
    account TEXT NOT NULL,
    asset TEXT NOT NULL,
    network TEXT NOT NULL,
    chain TEXT NOT NULL,
    address TEXT NOT NULL,
    tag TEXT NOT NULL,
    destination_id UUID NOT NULL,
    state TEXT NOT NULL,
    proposed_by TEXT NOT NULL,
    proposed_at TIMESTAMP WITH TIME ZONE NOT NULL,
    proposal_signature BYTEA NOT NULL,
    approved_by TEXT,
    approved_at TIMESTAMP WITH TIME ZONE,
    signature BYTEA,
    verified_at TIMESTAMP WITH TIME ZONE,
    reason TEXT DEFAULT '' NOT NULL,
    CONSTRAINT pk_venue_address PRIMARY KEY (id),
    CONSTRAINT ck_venue_address_four_eyes CHECK (approved_by <> proposed_by),
    CONSTRAINT ck_venue_address_approved_by_somebody CHECK (state IN ('proposed', 'rejected') OR (approved_by IS NOT NULL AND approved_at IS NOT NULL AND signature IS NOT NULL))
)"""
VENUE_DEPOSIT = """\
CREATE TABLE custody.venue_deposit (
    id UUID NOT NULL,
    book INTEGER NOT NULL,
    payout_id UUID NOT NULL,
    address_id UUID NOT NULL,
    venue TEXT NOT NULL,
    account TEXT NOT NULL,
    source TEXT NOT NULL,
    asset TEXT NOT NULL,
    network TEXT NOT NULL,
    amount NUMERIC(78, 0) NOT NULL,
    state TEXT NOT NULL,
    venue_ref TEXT,
    credited NUMERIC(78, 0),
    epoch INTEGER NOT NULL,
    waiting_for TEXT NOT NULL,
    late_since TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_venue_deposit PRIMARY KEY (id),
    CONSTRAINT uq_venue_deposit_payout UNIQUE (payout_id),
    CONSTRAINT uq_venue_deposit_venue_ref UNIQUE (venue, account, venue_ref),
    CONSTRAINT ck_venue_deposit_amount_positive CHECK (amount > 0),
    CONSTRAINT ck_venue_deposit_credited_by_venue CHECK ((state = 'credited') = (venue_ref IS NOT NULL)),
    CONSTRAINT ck_venue_deposit_credited_so_much CHECK ((state = 'credited') = (credited IS NOT NULL)),
    CONSTRAINT ck_venue_deposit_credited_at_most CHECK (credited BETWEEN 0 AND amount),
    CONSTRAINT fk_venue_deposit_address_id_venue_address FOREIGN KEY(address_id) REFERENCES custody.venue_address (id)
)"""
VENUE_WITHDRAWAL = """\
CREATE TABLE custody.venue_withdrawal (
    id UUID NOT NULL,
    book INTEGER NOT NULL,
    client_ref TEXT NOT NULL,
    venue TEXT NOT NULL,
    account TEXT NOT NULL,
    asset TEXT NOT NULL,
    network TEXT NOT NULL,
    chain TEXT NOT NULL,
    chain_id BIGINT NOT NULL,
    wallet TEXT NOT NULL,
    address TEXT NOT NULL,
    amount NUMERIC(78, 0) NOT NULL,
    text TEXT NOT NULL,
    fee_max NUMERIC(78, 0) NOT NULL,
    requested_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    policy_version INTEGER NOT NULL,
    rule INTEGER NOT NULL,
    required JSONB NOT NULL,
    withdrawal_id TEXT NOT NULL,
    state TEXT NOT NULL,
    signed_at TIMESTAMP WITH TIME ZONE,
    window_ms INTEGER NOT NULL,
    venue_ref TEXT,
    sent NUMERIC(78, 0),
    fee NUMERIC(78, 0),
    tx_id TEXT,
    arrival_id UUID,
    not_found INTEGER DEFAULT '0' NOT NULL,
    waiting_for TEXT DEFAULT '' NOT NULL,
    run_after TIMESTAMP WITH TIME ZONE NOT NULL,
    requested_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    released_at TIMESTAMP WITH TIME ZONE,
    late_since TIMESTAMP WITH TIME ZONE,
    lease_holder TEXT,
    lease_until TIMESTAMP WITH TIME ZONE,
    fence INTEGER DEFAULT '0' NOT NULL,
    CONSTRAINT pk_venue_withdrawal PRIMARY KEY (id),
    CONSTRAINT uq_venue_withdrawal_ref UNIQUE (book, venue, account, client_ref),
    CONSTRAINT uq_venue_withdrawal_ours UNIQUE (venue, account, withdrawal_id),
    CONSTRAINT uq_venue_withdrawal_theirs UNIQUE (venue, account, venue_ref),
    CONSTRAINT uq_venue_withdrawal_arrival UNIQUE (arrival_id),
    CONSTRAINT ck_venue_withdrawal_amounts CHECK (amount > 0 AND fee_max >= 0),
    CONSTRAINT ck_venue_withdrawal_moved CHECK (sent >= 0 AND fee >= 0),
    CONSTRAINT ck_venue_withdrawal_moved_as_a_whole CHECK ((sent IS NULL) = (fee IS NULL)),
    CONSTRAINT ck_venue_withdrawal_arrived CHECK ((state = 'arrived') = (arrival_id IS NOT NULL)),
    CONSTRAINT ck_venue_withdrawal_signed CHECK (signed_at IS NOT NULL OR state IN ('requested', 'pending_approval', 'approved', 'rejected', 'cancelled', 'expired')),
    CONSTRAINT ck_venue_withdrawal_debited_by_venue CHECK (state NOT IN ('debited', 'sent', 'arrived') OR (venue_ref IS NOT NULL AND sent IS NOT NULL)),
    CONSTRAINT ck_venue_withdrawal_sent_on_chain CHECK (state NOT IN ('sent', 'arrived') OR tx_id IS NOT NULL)
)"""
VENUE_WITHDRAWAL_APPROVAL = """\
CREATE TABLE custody.venue_withdrawal_approval (
    withdrawal_id UUID NOT NULL,
    operator TEXT NOT NULL,
    signature BYTEA NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_venue_withdrawal_approval PRIMARY KEY (withdrawal_id, operator),
    CONSTRAINT fk_venue_withdrawal_approval_withdrawal_id_venue_withdrawal FOREIGN KEY(withdrawal_id) REFERENCES custody.venue_withdrawal (id)
)"""
INDEXES = (
    (
        "CREATE UNIQUE INDEX uq_venue_address_active "
        "ON custody.venue_address (venue, account, asset, chain) "
        "WHERE state = 'active'"
    ),
    (
        "CREATE UNIQUE INDEX uq_venue_address_proposed "
        "ON custody.venue_address (venue, account, asset, chain) "
        "WHERE state = 'proposed'"
    ),
    (
        "CREATE INDEX ix_venue_deposit_open "
        "ON custody.venue_deposit (venue, account) "
        "WHERE state = 'open'"
    ),
    (
        "CREATE INDEX ix_venue_withdrawal_open "
        "ON custody.venue_withdrawal (venue, account) "
        "WHERE state IN ('pending_approval', 'approved', 'submitting', 'unknown', "
        "'escalated', 'acked', 'debited', 'sent')"
    ),
    (
        "CREATE INDEX ix_venue_withdrawal_tx "
        "ON custody.venue_withdrawal (chain, tx_id) "
        "WHERE tx_id IS NOT NULL"
    ),
)
VENUE_ADDRESS_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.venue_address_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('proposed') THEN
            RAISE EXCEPTION 'custody.venue_address cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'venue_address_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('active', 'changed'),
            ('active', 'revoked'),
            ('changed', 'revoked'),
            ('proposed', 'active'),
            ('proposed', 'rejected')
        ) THEN
            RAISE EXCEPTION 'custody.venue_address cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'venue_address_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
VENUE_ADDRESS_TRIGGER = (
    "CREATE OR REPLACE TRIGGER venue_address_state_edges "
    "BEFORE INSERT OR UPDATE ON custody.venue_address "
    "FOR EACH ROW EXECUTE FUNCTION custody.venue_address_state_edges()"
)
VENUE_DEPOSIT_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.venue_deposit_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('open') THEN
            RAISE EXCEPTION 'custody.venue_deposit cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'venue_deposit_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('credited', 'open'),
            ('open', 'credited'),
            ('open', 'ended')
        ) THEN
            RAISE EXCEPTION 'custody.venue_deposit cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'venue_deposit_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
VENUE_DEPOSIT_TRIGGER = (
    "CREATE OR REPLACE TRIGGER venue_deposit_state_edges "
    "BEFORE INSERT OR UPDATE ON custody.venue_deposit "
    "FOR EACH ROW EXECUTE FUNCTION custody.venue_deposit_state_edges()"
)
VENUE_WITHDRAWAL_FUNCTION = """\
CREATE OR REPLACE FUNCTION custody.venue_withdrawal_state_edges() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state IS NULL OR NEW.state NOT IN ('requested') THEN
            RAISE EXCEPTION 'custody.venue_withdrawal cannot begin as %', NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'venue_withdrawal_state_edges';
        END IF;
    ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
        IF NEW.state IS NULL OR (OLD.state, NEW.state) NOT IN (
            ('acked', 'debited'),
            ('acked', 'escalated'),
            ('acked', 'returned'),
            ('approved', 'cancelled'),
            ('approved', 'expired'),
            ('approved', 'rejected'),
            ('approved', 'submitting'),
            ('arrived', 'sent'),
            ('debited', 'lost'),
            ('debited', 'returned'),
            ('debited', 'sent'),
            ('escalated', 'acked'),
            ('escalated', 'debited'),
            ('escalated', 'not_placed'),
            ('not_placed', 'acked'),
            ('pending_approval', 'approved'),
            ('pending_approval', 'cancelled'),
            ('pending_approval', 'expired'),
            ('pending_approval', 'rejected'),
            ('refused', 'acked'),
            ('requested', 'pending_approval'),
            ('requested', 'rejected'),
            ('sent', 'arrived'),
            ('sent', 'lost'),
            ('sent', 'returned'),
            ('submitting', 'acked'),
            ('submitting', 'refused'),
            ('submitting', 'unknown'),
            ('unknown', 'acked'),
            ('unknown', 'escalated'),
            ('unknown', 'not_placed')
        ) THEN
            RAISE EXCEPTION 'custody.venue_withdrawal cannot go from % to %', OLD.state, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'venue_withdrawal_state_edges';
        END IF;
    END IF;
    RETURN NEW;
END
$$"""
VENUE_WITHDRAWAL_TRIGGER = (
    "CREATE OR REPLACE TRIGGER venue_withdrawal_state_edges "
    "BEFORE INSERT OR UPDATE ON custody.venue_withdrawal "
    "FOR EACH ROW EXECUTE FUNCTION custody.venue_withdrawal_state_edges()"
)
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
            ('arrived', 'reversed'),
            ('attributed', 'reversed'),
            ('confirmed', 'arrived'),
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
            ('unattributed', 'arrived'),
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
GRANTS = (
    (
        "GRANT SELECT, INSERT ON custody.venue_address, custody.venue_deposit,"
        " custody.venue_withdrawal, custody.venue_withdrawal_approval TO causeway_app"
    ),
    (
        "GRANT UPDATE (state, approved_by, approved_at, signature, verified_at, reason)"
        " ON custody.venue_address TO causeway_app"
    ),
    (
        "GRANT UPDATE (state, venue_ref, credited, epoch, waiting_for, late_since, updated_at)"
        " ON custody.venue_deposit TO causeway_app"
    ),
    (
        "GRANT UPDATE (state, signed_at, venue_ref, sent, fee, tx_id, arrival_id, not_found,"
        " waiting_for, run_after, updated_at, released_at, late_since, lease_holder, lease_until,"
        " fence) ON custody.venue_withdrawal TO causeway_app"
    ),
)


def upgrade() -> None:
    """Make the tables and their triggers, and let arrivals be own transfers."""
    for statement in (
        VENUE_ADDRESS,
        VENUE_DEPOSIT,
        VENUE_WITHDRAWAL,
        VENUE_WITHDRAWAL_APPROVAL,
        *INDEXES,
        VENUE_ADDRESS_FUNCTION,
        VENUE_ADDRESS_TRIGGER,
        VENUE_DEPOSIT_FUNCTION,
        VENUE_DEPOSIT_TRIGGER,
        VENUE_WITHDRAWAL_FUNCTION,
        VENUE_WITHDRAWAL_TRIGGER,
        DEPOSIT_FUNCTION,
        *GRANTS,
    ):
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute(DEPOSIT_FUNCTION_BEFORE)
    for table in (
        "venue_withdrawal_approval",
        "venue_withdrawal",
        "venue_deposit",
        "venue_address",
    ):
        op.drop_table(table, schema="custody")
    for table in ("venue_withdrawal", "venue_deposit", "venue_address"):
        op.execute(f"DROP FUNCTION custody.{table}_state_edges()")
