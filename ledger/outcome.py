"""What can become of a transfer: one vocabulary, in order of precedence.

The names and the order are TigerBeetle's (its public ``create_transfers`` page); where several
apply, the first listed is the answer. Groups of this ledger's own stand where their like stands:
reversals after the resolution of holds, closed periods before closed accounts, frozen accounts after
closed ones. Left out is what cannot happen here: an account is a path *and* an asset, so assets
cannot differ between the two accounts of a transfer (the account is not found instead); a caller can
never set the ledger's own time; posting a hold carries its own code.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Outcome(StrEnum):
    """The answer to one transfer of a batch; earlier members win over later ones."""

    CREATED = "created"
    LINKED_EVENT_FAILED = "linked_event_failed"
    LINKED_EVENT_CHAIN_OPEN = "linked_event_chain_open"
    IMPORTED_EVENT_EXPECTED = "imported_event_expected"
    IMPORTED_EVENT_NOT_EXPECTED = "imported_event_not_expected"
    IMPORTED_EVENT_TIMESTAMP_OUT_OF_RANGE = "imported_event_timestamp_out_of_range"
    IMPORTED_EVENT_TIMESTAMP_MUST_NOT_ADVANCE = "imported_event_timestamp_must_not_advance"
    RESERVED_FLAG = "reserved_flag"
    ID_MUST_NOT_BE_ZERO = "id_must_not_be_zero"
    ID_MUST_NOT_BE_RESERVED = "id_must_not_be_reserved"
    EXISTS_WITH_DIFFERENT_FLAGS = "exists_with_different_flags"
    EXISTS_WITH_DIFFERENT_PENDING_ID = "exists_with_different_pending_id"
    EXISTS_WITH_DIFFERENT_REVERSES = "exists_with_different_reverses"
    EXISTS_WITH_DIFFERENT_TIMEOUT = "exists_with_different_timeout"
    EXISTS_WITH_DIFFERENT_DEBIT_ACCOUNT_ID = "exists_with_different_debit_account_id"
    EXISTS_WITH_DIFFERENT_CREDIT_ACCOUNT_ID = "exists_with_different_credit_account_id"
    EXISTS_WITH_DIFFERENT_AMOUNT = "exists_with_different_amount"
    EXISTS_WITH_DIFFERENT_USER_DATA = "exists_with_different_user_data"
    EXISTS_WITH_DIFFERENT_LEDGER = "exists_with_different_ledger"
    EXISTS_WITH_DIFFERENT_CODE = "exists_with_different_code"
    EXISTS = "exists"
    ID_ALREADY_FAILED = "id_already_failed"
    FLAGS_ARE_MUTUALLY_EXCLUSIVE = "flags_are_mutually_exclusive"
    DEBIT_ACCOUNT_ID_MUST_NOT_BE_ZERO = "debit_account_id_must_not_be_zero"
    CREDIT_ACCOUNT_ID_MUST_NOT_BE_ZERO = "credit_account_id_must_not_be_zero"
    ACCOUNTS_MUST_BE_DIFFERENT = "accounts_must_be_different"
    PENDING_ID_MUST_BE_ZERO = "pending_id_must_be_zero"
    PENDING_ID_MUST_NOT_BE_ZERO = "pending_id_must_not_be_zero"
    PENDING_ID_MUST_BE_DIFFERENT = "pending_id_must_be_different"
    REVERSES_MUST_BE_ZERO = "reverses_must_be_zero"
    REVERSES_MUST_NOT_BE_ZERO = "reverses_must_not_be_zero"
    REVERSES_MUST_BE_DIFFERENT = "reverses_must_be_different"
    TIMEOUT_RESERVED_FOR_PENDING_TRANSFER = "timeout_reserved_for_pending_transfer"
    CLOSING_TRANSFER_MUST_BE_PENDING = "closing_transfer_must_be_pending"
    LEDGER_MUST_NOT_BE_ZERO = "ledger_must_not_be_zero"
    CODE_MUST_NOT_BE_ZERO = "code_must_not_be_zero"
    DEBIT_ACCOUNT_NOT_FOUND = "debit_account_not_found"
    CREDIT_ACCOUNT_NOT_FOUND = "credit_account_not_found"
    PENDING_TRANSFER_NOT_FOUND = "pending_transfer_not_found"
    PENDING_TRANSFER_NOT_PENDING = "pending_transfer_not_pending"
    PENDING_TRANSFER_HAS_DIFFERENT_DEBIT_ACCOUNT_ID = (
        "pending_transfer_has_different_debit_account_id"
    )
    PENDING_TRANSFER_HAS_DIFFERENT_CREDIT_ACCOUNT_ID = (
        "pending_transfer_has_different_credit_account_id"
    )
    PENDING_TRANSFER_HAS_DIFFERENT_LEDGER = "pending_transfer_has_different_ledger"
    EXCEEDS_PENDING_TRANSFER_AMOUNT = "exceeds_pending_transfer_amount"
    PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT = "pending_transfer_has_different_amount"
    PENDING_TRANSFER_ALREADY_POSTED = "pending_transfer_already_posted"
    PENDING_TRANSFER_ALREADY_VOIDED = "pending_transfer_already_voided"
    PENDING_TRANSFER_EXPIRED = "pending_transfer_expired"
    REVERSED_TRANSFER_NOT_FOUND = "reversed_transfer_not_found"
    REVERSED_TRANSFER_NOT_REVERSIBLE = "reversed_transfer_not_reversible"
    REVERSED_TRANSFER_HAS_DIFFERENT_DEBIT_ACCOUNT_ID = (
        "reversed_transfer_has_different_debit_account_id"
    )
    REVERSED_TRANSFER_HAS_DIFFERENT_CREDIT_ACCOUNT_ID = (
        "reversed_transfer_has_different_credit_account_id"
    )
    REVERSED_TRANSFER_HAS_DIFFERENT_LEDGER = "reversed_transfer_has_different_ledger"
    REVERSED_TRANSFER_HAS_DIFFERENT_AMOUNT = "reversed_transfer_has_different_amount"
    REVERSED_TRANSFER_ALREADY_REVERSED = "reversed_transfer_already_reversed"
    IMPORTED_EVENT_TIMESTAMP_MUST_NOT_REGRESS = "imported_event_timestamp_must_not_regress"
    IMPORTED_EVENT_TIMESTAMP_MUST_POSTDATE_DEBIT_ACCOUNT = (
        "imported_event_timestamp_must_postdate_debit_account"
    )
    IMPORTED_EVENT_TIMESTAMP_MUST_POSTDATE_CREDIT_ACCOUNT = (
        "imported_event_timestamp_must_postdate_credit_account"
    )
    IMPORTED_EVENT_TIMEOUT_MUST_BE_ZERO = "imported_event_timeout_must_be_zero"
    EFFECTIVE_PERIOD_CLOSED = "effective_period_closed"
    DEBIT_ACCOUNT_ALREADY_CLOSED = "debit_account_already_closed"
    CREDIT_ACCOUNT_ALREADY_CLOSED = "credit_account_already_closed"
    DEBIT_ACCOUNT_FROZEN = "debit_account_frozen"
    CREDIT_ACCOUNT_FROZEN = "credit_account_frozen"
    OVERFLOWS_DEBITS_PENDING = "overflows_debits_pending"
    OVERFLOWS_CREDITS_PENDING = "overflows_credits_pending"
    OVERFLOWS_DEBITS_POSTED = "overflows_debits_posted"
    OVERFLOWS_CREDITS_POSTED = "overflows_credits_posted"
    OVERFLOWS_DEBITS = "overflows_debits"
    OVERFLOWS_CREDITS = "overflows_credits"
    OVERFLOWS_TIMEOUT = "overflows_timeout"
    EXCEEDS_CREDITS = "exceeds_credits"
    EXCEEDS_DEBITS = "exceeds_debits"

    @property
    def applied(self) -> bool:
        """Tell whether the transfer is in the journal."""
        return self in APPLIED

    @property
    def transient(self) -> bool:
        """Tell whether the refusal could have been otherwise at another time, so spends the id."""
        return self in TRANSIENT


APPLIED: Final = frozenset({Outcome.CREATED, Outcome.EXISTS})

TRANSIENT: Final = frozenset(
    {
        Outcome.DEBIT_ACCOUNT_NOT_FOUND,
        Outcome.CREDIT_ACCOUNT_NOT_FOUND,
        Outcome.PENDING_TRANSFER_NOT_FOUND,
        Outcome.REVERSED_TRANSFER_NOT_FOUND,
        Outcome.EFFECTIVE_PERIOD_CLOSED,
        Outcome.DEBIT_ACCOUNT_ALREADY_CLOSED,
        Outcome.CREDIT_ACCOUNT_ALREADY_CLOSED,
        Outcome.DEBIT_ACCOUNT_FROZEN,
        Outcome.CREDIT_ACCOUNT_FROZEN,
        Outcome.EXCEEDS_CREDITS,
        Outcome.EXCEEDS_DEBITS,
    }
)
"""Refusals that depend on the state of the book: the id is spent, so a replay cannot turn out
otherwise; ask again under a new id."""


class AccountOutcome(StrEnum):
    """The answer to one account that was to be opened; earlier members win over later ones."""

    CREATED = "created"
    FLAGS_ARE_MUTUALLY_EXCLUSIVE = "flags_are_mutually_exclusive"
    EXISTS_WITH_DIFFERENT_SIDE = "exists_with_different_side"
    EXISTS_WITH_DIFFERENT_FLAGS = "exists_with_different_flags"
    EXISTS_WITH_DIFFERENT_OWNER = "exists_with_different_owner"
    EXISTS_WITH_DIFFERENT_PURPOSE = "exists_with_different_purpose"
    EXISTS_WITH_DIFFERENT_METADATA = "exists_with_different_metadata"
    EXISTS_WITH_DIFFERENT_EFFECTIVE_TIME = "exists_with_different_effective_time"
    EXISTS = "exists"
