"""Idempotency: is a request what is already recorded under its id?"""

from __future__ import annotations

from ledger.form import INHERITING
from ledger.model import ALL, AT_ORIGINAL, BALANCING, Kind, Transfer
from ledger.outcome import Outcome
from ledger.records import microseconds
from ledger.state import Request, Standing, TransferRow


def compare(item: Request, row: TransferRow, debit: Standing, credit: Standing) -> Outcome:
    """Return ``exists``, or the name of the first field that differs.

    Args:
        item: what is asked now.
        row: what is recorded under the same id.
        debit: the account that was debited.
        credit: the account that was credited.
    """
    asked = item.transfer
    inherits = row.kind in INHERITING
    checks = (
        (
            asked.kind is not row.kind or item.flags != row.flags,
            Outcome.EXISTS_WITH_DIFFERENT_FLAGS,
        ),
        (asked.pending_id != row.pending_id, Outcome.EXISTS_WITH_DIFFERENT_PENDING_ID),
        (asked.reverses != row.reverses, Outcome.EXISTS_WITH_DIFFERENT_REVERSES),
        (microseconds(asked.timeout) != row.timeout_us, Outcome.EXISTS_WITH_DIFFERENT_TIMEOUT),
        (
            asked.debit != debit.path and not (inherits and not asked.debit),
            Outcome.EXISTS_WITH_DIFFERENT_DEBIT_ACCOUNT_ID,
        ),
        (
            asked.credit != credit.path and not (inherits and not asked.credit),
            Outcome.EXISTS_WITH_DIFFERENT_CREDIT_ACCOUNT_ID,
        ),
        (not _same_amount(asked, row), Outcome.EXISTS_WITH_DIFFERENT_AMOUNT),
        (not _same_user_data(item, row), Outcome.EXISTS_WITH_DIFFERENT_USER_DATA),
        (
            asked.asset != debit.asset and not (inherits and not asked.asset),
            Outcome.EXISTS_WITH_DIFFERENT_LEDGER,
        ),
        (asked.code != row.code, Outcome.EXISTS_WITH_DIFFERENT_CODE),
    )
    return next((outcome for differs, outcome in checks if differs), Outcome.EXISTS)


def _same_amount(asked: Transfer, row: TransferRow) -> bool:
    """Tell whether the amount asked now would have come to the recorded one."""
    match row.kind:
        case Kind.SINGLE | Kind.PENDING | Kind.EXPIRE:
            if row.flags & BALANCING:
                return asked.amount == ALL or asked.amount >= row.amount
            return asked.amount == row.amount
        case Kind.POST:
            if row.amount == row.held:
                return asked.amount == ALL or asked.amount >= row.amount
            return asked.amount == row.amount
        case Kind.VOID:
            return asked.amount in {ALL, 0, row.amount}
        case Kind.REVERSAL:
            return asked.amount in {ALL, row.amount}


def _same_user_data(item: Request, row: TransferRow) -> bool:
    asked = item.transfer
    return (
        asked.purpose == row.purpose
        # The time of one that is effective when its original was is not asked for, but found.
        and asked.effective_at == (None if row.flags & AT_ORIGINAL else row.effective_at)
        and asked.reference == row.reference
        and asked.correlation == row.correlation
        and item.metadata_hash == row.metadata_hash
    )
