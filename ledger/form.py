"""What is wrong with a request as such, whatever the book holds: the first checks of a decision."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from ledger.model import AT_ORIGINAL, BALANCING, CLOSING, IMPORTED, Kind, Transfer
from ledger.outcome import Outcome

NIL: Final = UUID(int=0)

RESERVED_VERSION: Final = 0xF
"""Version nibble of the ids that the ledger gives its own records; no caller may use it."""

INHERITING: Final = frozenset({Kind.POST, Kind.VOID, Kind.REVERSAL})
"""Kinds whose accounts and asset follow from another transfer and may be left empty."""


def is_reserved(transfer_id: UUID) -> bool:
    """Tell whether an id is one that only the ledger itself makes."""
    return transfer_id.int >> 76 & 0xF == RESERVED_VERSION


def check_id(asked: Transfer) -> Outcome | None:
    """Return what keeps a request from being looked up at all."""
    if asked.kind is Kind.EXPIRE:
        return Outcome.RESERVED_FLAG
    if asked.id == NIL:
        return Outcome.ID_MUST_NOT_BE_ZERO
    if is_reserved(asked.id):
        return Outcome.ID_MUST_NOT_BE_RESERVED
    return None


def check_form(asked: Transfer, flags: int) -> Outcome | None:
    """Return the first fault of a request, None where it is well formed."""
    kind = asked.kind
    if (
        kind is Kind.SINGLE
        and not flags
        and asked.pending_id is None
        and asked.reverses is None
        and asked.timeout is None
        and asked.debit
        and asked.credit
        and asked.debit != asked.credit
        and asked.asset
        and asked.code
    ):
        return None
    if _flags_contradict(asked, kind, flags):
        return Outcome.FLAGS_ARE_MUTUALLY_EXCLUSIVE
    return (
        _check_accounts(asked)
        or _check_pending_id(asked)
        or _check_reverses(asked)
        or _check_rest(asked, flags)
    )


def _flags_contradict(asked: Transfer, kind: Kind, flags: int) -> bool:
    if not flags:
        return False
    if flags & (BALANCING | CLOSING) and kind is not Kind.SINGLE and kind is not Kind.PENDING:
        return True
    if not flags & AT_ORIGINAL:
        return False
    return kind is not Kind.REVERSAL or bool(flags & IMPORTED) or asked.effective_at is not None


def _check_accounts(asked: Transfer) -> Outcome | None:
    inherits = asked.kind in INHERITING
    if not asked.debit and not inherits:
        return Outcome.DEBIT_ACCOUNT_ID_MUST_NOT_BE_ZERO
    if not asked.credit and not inherits:
        return Outcome.CREDIT_ACCOUNT_ID_MUST_NOT_BE_ZERO
    if asked.debit and asked.debit == asked.credit:
        return Outcome.ACCOUNTS_MUST_BE_DIFFERENT
    return None


def _check_pending_id(asked: Transfer) -> Outcome | None:
    if asked.kind is not Kind.POST and asked.kind is not Kind.VOID:
        return None if asked.pending_id is None else Outcome.PENDING_ID_MUST_BE_ZERO
    if asked.pending_id is None or asked.pending_id == NIL:
        return Outcome.PENDING_ID_MUST_NOT_BE_ZERO
    if asked.pending_id == asked.id:
        return Outcome.PENDING_ID_MUST_BE_DIFFERENT
    return None


def _check_reverses(asked: Transfer) -> Outcome | None:
    if asked.kind is not Kind.REVERSAL:
        return None if asked.reverses is None else Outcome.REVERSES_MUST_BE_ZERO
    if asked.reverses is None or asked.reverses == NIL:
        return Outcome.REVERSES_MUST_NOT_BE_ZERO
    if asked.reverses == asked.id:
        return Outcome.REVERSES_MUST_BE_DIFFERENT
    return None


def _check_rest(asked: Transfer, flags: int) -> Outcome | None:
    pending = asked.kind is Kind.PENDING
    if asked.timeout is not None and not pending:
        return Outcome.TIMEOUT_RESERVED_FOR_PENDING_TRANSFER
    if flags & CLOSING and not pending:
        return Outcome.CLOSING_TRANSFER_MUST_BE_PENDING
    if not asked.asset and asked.kind not in INHERITING:
        return Outcome.LEDGER_MUST_NOT_BE_ZERO
    if not asked.code:
        return Outcome.CODE_MUST_NOT_BE_ZERO
    return None


def may_be_all(asked: Transfer) -> bool:
    """Tell whether the amount may be `ledger.model.ALL`."""
    moves = asked.kind is Kind.SINGLE or asked.kind is Kind.PENDING
    return not moves or asked.balancing_debit or asked.balancing_credit
