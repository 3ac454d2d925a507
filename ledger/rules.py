"""The decision over one transfer: pure, and each check in the order of `ledger.outcome`.

The first finding is the answer. A transfer that is created is laid over the book at once, so the next
one sees it; what a chain did is taken back by `ledger.working.Working.attempt`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from kernel.ids import derive_id
from kernel.money import AMOUNT_MAX
from ledger.form import RESERVED_VERSION, check_id
from ledger.model import (
    ALL,
    AT_ORIGINAL,
    BALANCING,
    BALANCING_CREDIT,
    BALANCING_DEBIT,
    CLOSING_CREDIT,
    CLOSING_DEBIT,
    HoldState,
    Kind,
    Transfer,
)
from ledger.outcome import Outcome
from ledger.records import tail_of, user_data_of
from ledger.replay import compare
from ledger.state import HoldRow, Request, Standing, TransferRow
from ledger.working import Working, effective_day

EXPIRED_CODE: Final = "hold.expired"

TIME_MAX: Final = datetime.max.replace(tzinfo=UTC)

_VERSION_BITS: Final = 0xF << 76


def decide_one(book: Working, item: Request) -> Outcome:
    """Decide one transfer and, if it is created, lay its changes over the book."""
    asked = item.transfer
    answer = _answer_before(book, item)
    if answer is not None:
        return answer
    match asked.kind:
        case Kind.SINGLE | Kind.PENDING:
            return _move(book, item)
        case Kind.POST | Kind.VOID:
            return _resolve(book, item)
        case Kind.REVERSAL:
            return _reverse(book, item)
        case Kind.EXPIRE:
            return Outcome.RESERVED_FLAG


def _answer_before(book: Working, item: Request) -> Outcome | None:
    """Return what can be said without the book's accounts: a wrong batch, a replay, bad form."""
    asked = item.transfer
    refusal = check_import(book, asked)
    if refusal is not None:
        return refusal
    if item.fault is not None:
        unusable = check_id(asked)
        if unusable is not None:
            return unusable
    if book.is_recorded(asked.id):
        row = book.transfer(asked.id)
        assert row is not None
        return compare_recorded(book, item, row)
    if book.refusal(asked.id) is not None:
        return Outcome.ID_ALREADY_FAILED
    return item.fault


def check_import(book: Working, asked: Transfer) -> Outcome | None:
    """Refuse what is history among other transfers, or the other way round, or has no past time."""
    if asked.imported is not book.imports:
        if book.imports:
            return Outcome.IMPORTED_EVENT_EXPECTED
        return Outcome.IMPORTED_EVENT_NOT_EXPECTED
    if not asked.imported:
        return None
    if asked.effective_at is None:
        return Outcome.IMPORTED_EVENT_TIMESTAMP_OUT_OF_RANGE
    if asked.effective_at > book.at:
        return Outcome.IMPORTED_EVENT_TIMESTAMP_MUST_NOT_ADVANCE
    return None


def compare_recorded(book: Working, item: Request, row: TransferRow) -> Outcome:
    """Return ``exists``, or in what a request differs from what is recorded under its id."""
    accounts = book.accounts
    return compare(item, row, accounts[row.debit], accounts[row.credit])


def _move(book: Working, item: Request) -> Outcome:
    """Decide a SINGLE or PENDING transfer."""
    asked, flags = item.transfer, item.flags
    debit = book.by_key.get((asked.debit, asked.asset))
    if debit is None:
        return Outcome.DEBIT_ACCOUNT_NOT_FOUND
    credit = book.by_key.get((asked.credit, asked.asset))
    if credit is None:
        return Outcome.CREDIT_ACCOUNT_NOT_FOUND
    amount = asked.amount
    if flags & BALANCING:
        amount = _at_most(asked, flags, debit, credit)
    refusal = _check_standing(book, asked, debit, credit, asked.effective_at) or _check_limits(
        book, asked, debit, credit, amount
    )
    if refusal is not None:
        return refusal
    if asked.kind is Kind.SINGLE:
        _note_import(book, asked)
        book.move(
            item,
            debit,
            credit,
            amount=amount,
            pending=0,
            posted=amount,
            effective_at=asked.effective_at,
        )
        return Outcome.CREATED
    _note_import(book, asked)
    sequence = book.move(
        item,
        debit,
        credit,
        amount=amount,
        pending=amount,
        posted=0,
        effective_at=asked.effective_at,
    )
    debit.closed = debit.closed or bool(flags & CLOSING_DEBIT)
    credit.closed = credit.closed or bool(flags & CLOSING_CREDIT)
    hold = _new_hold(book, item, sequence, debit.number, credit.number, amount)
    book.put(book.holds, asked.id, hold)
    return Outcome.CREATED


def _note_import(book: Working, asked: Transfer) -> None:
    if asked.imported:
        book.imported_through = asked.effective_at


def _at_most(asked: Transfer, flags: int, d: Standing, c: Standing) -> int:
    """Return what a balancing transfer moves: the amount asked, or less if less is available."""
    amount = AMOUNT_MAX if asked.amount == ALL else asked.amount
    if flags & BALANCING_DEBIT:
        amount = min(amount, max(0, d.credits_posted - d.debits_posted - d.debits_pending))
    if flags & BALANCING_CREDIT:
        amount = min(amount, max(0, c.debits_posted - c.credits_posted - c.credits_pending))
    return amount


def _check_standing(
    book: Working,
    asked: Transfer,
    debit: Standing,
    credit: Standing,
    effective_at: datetime | None,
) -> Outcome | None:
    """Refuse what is out of time, and new debits and credits of closed and of frozen accounts."""
    if effective_at is not None:
        refusal = _check_time(book, asked, debit, credit, effective_at)
        if refusal is not None:
            return refusal
    if debit.closed:
        return Outcome.DEBIT_ACCOUNT_ALREADY_CLOSED
    if credit.closed:
        return Outcome.CREDIT_ACCOUNT_ALREADY_CLOSED
    if debit.frozen:
        return Outcome.DEBIT_ACCOUNT_FROZEN
    if credit.frozen:
        return Outcome.CREDIT_ACCOUNT_FROZEN
    return None


def _check_time(
    book: Working, asked: Transfer, debit: Standing, credit: Standing, effective_at: datetime
) -> Outcome | None:
    """Check an effective time against the order of imports and the periods that are closed."""
    if asked.imported:
        through = book.imported_through
        if through is not None and effective_at < through:
            return Outcome.IMPORTED_EVENT_TIMESTAMP_MUST_NOT_REGRESS
        if effective_at < debit.opened_at:
            return Outcome.IMPORTED_EVENT_TIMESTAMP_MUST_POSTDATE_DEBIT_ACCOUNT
        if effective_at < credit.opened_at:
            return Outcome.IMPORTED_EVENT_TIMESTAMP_MUST_POSTDATE_CREDIT_ACCOUNT
        if asked.timeout is not None:
            return Outcome.IMPORTED_EVENT_TIMEOUT_MUST_BE_ZERO
    closed_through = book.snapshot.closed_through
    if closed_through is not None and effective_day(effective_at) <= closed_through:
        return Outcome.EFFECTIVE_PERIOD_CLOSED
    return None


def _check_limits(
    book: Working, asked: Transfer, debit: Standing, credit: Standing, amount: int
) -> Outcome | None:
    debits = debit.debits_pending + debit.debits_posted + amount
    credits_ = credit.credits_pending + credit.credits_posted + amount
    if debits > AMOUNT_MAX or credits_ > AMOUNT_MAX:
        return _overflow(debit, credit, amount, posts=asked.kind is not Kind.PENDING)
    if asked.timeout is not None and asked.timeout > TIME_MAX - book.at:
        return Outcome.OVERFLOWS_TIMEOUT
    if debit.debits_capped and debits > debit.credits_posted + debit.credit_limit:
        return Outcome.EXCEEDS_CREDITS
    if credit.credits_capped and credits_ > credit.debits_posted + credit.credit_limit:
        return Outcome.EXCEEDS_DEBITS
    return None


def _overflow(debit: Standing, credit: Standing, amount: int, *, posts: bool) -> Outcome:
    posted, pending = (amount, 0) if posts else (0, amount)
    debits_pending, debits = debit.debits_pending + pending, debit.debits_posted + posted
    credits_pending, credits_ = credit.credits_pending + pending, credit.credits_posted + posted
    found = _first(
        (
            (debits_pending > AMOUNT_MAX, Outcome.OVERFLOWS_DEBITS_PENDING),
            (credits_pending > AMOUNT_MAX, Outcome.OVERFLOWS_CREDITS_PENDING),
            (debits > AMOUNT_MAX, Outcome.OVERFLOWS_DEBITS_POSTED),
            (credits_ > AMOUNT_MAX, Outcome.OVERFLOWS_CREDITS_POSTED),
            (debits_pending + debits > AMOUNT_MAX, Outcome.OVERFLOWS_DEBITS),
        )
    )
    return found or Outcome.OVERFLOWS_CREDITS


def _resolve(book: Working, item: Request) -> Outcome:
    """Decide a POST or VOID."""
    asked = item.transfer
    assert asked.pending_id is not None
    if not book.is_recorded(asked.pending_id):
        return Outcome.PENDING_TRANSFER_NOT_FOUND
    hold = book.hold(asked.pending_id)
    if hold is None:
        return Outcome.PENDING_TRANSFER_NOT_PENDING
    debit, credit = book.accounts[hold.debit], book.accounts[hold.credit]
    refusal = _check_hold(book, asked, hold, debit, credit)
    if refusal is not None:
        return refusal
    posts = asked.kind is Kind.POST
    amount = asked.amount if posts and asked.amount != ALL else hold.amount
    _note_import(book, asked)
    sequence = book.move(
        item,
        debit,
        credit,
        amount=amount,
        pending=-hold.amount,
        posted=amount if posts else 0,
        held=hold.amount,
        effective_at=asked.effective_at,
    )
    book.close_hold(hold, HoldState.POSTED if posts else HoldState.VOIDED, sequence)
    if not posts:
        _reopen(hold, debit, credit)
    return Outcome.CREATED


def _reopen(hold: HoldRow, debit: Standing, credit: Standing) -> None:
    """Open the accounts again that a closing hold had closed, now that it is released."""
    debit.closed = debit.closed and not hold.flags & CLOSING_DEBIT
    credit.closed = credit.closed and not hold.flags & CLOSING_CREDIT


def _check_hold(
    book: Working, asked: Transfer, hold: HoldRow, debit: Standing, credit: Standing
) -> Outcome | None:
    posts = asked.kind is Kind.POST
    due = hold.expires_at is not None and hold.expires_at <= book.at
    checks = (
        (
            asked.debit not in {"", debit.path},
            Outcome.PENDING_TRANSFER_HAS_DIFFERENT_DEBIT_ACCOUNT_ID,
        ),
        (
            asked.credit not in {"", credit.path},
            Outcome.PENDING_TRANSFER_HAS_DIFFERENT_CREDIT_ACCOUNT_ID,
        ),
        (asked.asset not in {"", debit.asset}, Outcome.PENDING_TRANSFER_HAS_DIFFERENT_LEDGER),
        (posts and asked.amount > hold.amount, Outcome.EXCEEDS_PENDING_TRANSFER_AMOUNT),
        (
            not posts and asked.amount not in {ALL, 0, hold.amount},
            Outcome.PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT,
        ),
        (hold.state is HoldState.POSTED, Outcome.PENDING_TRANSFER_ALREADY_POSTED),
        (hold.state is HoldState.VOIDED, Outcome.PENDING_TRANSFER_ALREADY_VOIDED),
        (hold.state is HoldState.EXPIRED or due, Outcome.PENDING_TRANSFER_EXPIRED),
    )
    refusal = _first(checks)
    if refusal is None and asked.effective_at is not None:
        refusal = _check_time(book, asked, debit, credit, asked.effective_at)
    if refusal is None and posts:
        # Freezing never keeps a hold from its resolution; closing keeps it from being posted.
        if debit.closed:
            refusal = Outcome.DEBIT_ACCOUNT_ALREADY_CLOSED
        elif credit.closed:
            refusal = Outcome.CREDIT_ACCOUNT_ALREADY_CLOSED
    return refusal


def _reverse(book: Working, item: Request) -> Outcome:
    """Decide a REVERSAL: what was credited is debited, and the other way round."""
    asked = item.transfer
    assert asked.reverses is not None
    original = book.transfer(asked.reverses)
    if original is None:
        return Outcome.REVERSED_TRANSFER_NOT_FOUND
    debit, credit = book.accounts[original.credit], book.accounts[original.debit]
    amount = original.amount
    effective_at = asked.effective_at
    if item.flags & AT_ORIGINAL:
        effective_at = original.effective_at or original.recorded_at
    refusal = (
        _check_original(book, asked, original, debit, credit)
        or _check_standing(book, asked, debit, credit, effective_at)
        or _check_limits(book, asked, debit, credit, amount)
    )
    if refusal is not None:
        return refusal
    _note_import(book, asked)
    book.put(book.reversed_ids, original.id, asked.id)
    book.move(
        item, debit, credit, amount=amount, pending=0, posted=amount, effective_at=effective_at
    )
    return Outcome.CREATED


def _check_original(
    book: Working, asked: Transfer, original: TransferRow, debit: Standing, credit: Standing
) -> Outcome | None:
    return _first(
        (
            (
                original.kind not in {Kind.SINGLE, Kind.POST},
                Outcome.REVERSED_TRANSFER_NOT_REVERSIBLE,
            ),
            (
                asked.debit not in {"", debit.path},
                Outcome.REVERSED_TRANSFER_HAS_DIFFERENT_DEBIT_ACCOUNT_ID,
            ),
            (
                asked.credit not in {"", credit.path},
                Outcome.REVERSED_TRANSFER_HAS_DIFFERENT_CREDIT_ACCOUNT_ID,
            ),
            (asked.asset not in {"", debit.asset}, Outcome.REVERSED_TRANSFER_HAS_DIFFERENT_LEDGER),
            (
                asked.amount not in {ALL, original.amount},
                Outcome.REVERSED_TRANSFER_HAS_DIFFERENT_AMOUNT,
            ),
            (book.is_reversed(original.id), Outcome.REVERSED_TRANSFER_ALREADY_REVERSED),
        )
    )


def expire(book: Working, hold_id: UUID) -> None:
    """Release a due hold; the id follows from the hold, so it is the same whoever meets it."""
    hold = book.hold(hold_id)
    assert hold is not None
    assert hold.expires_at is not None
    debit, credit = book.expire(
        hold,
        expiry_id(hold.expires_at, hold.id),
        tail_of(EXPIRED_CODE, hold.id, None, "", None),
        user_data_of("", hold.correlation, ""),
    )
    _reopen(hold, debit, credit)


def expiry_id(expires_at: datetime, hold_id: UUID) -> UUID:
    """Return the id of a hold's expiry, of a version that no caller may use."""
    plain = derive_id(expires_at, "expire", hold_id).int & ~_VERSION_BITS
    return UUID(int=plain | RESERVED_VERSION << 76)


def _new_hold(
    book: Working, item: Request, sequence: int, debit: int, credit: int, amount: int
) -> HoldRow:
    asked = item.transfer
    return HoldRow(
        asked.id,
        sequence,
        debit,
        credit,
        amount,
        HoldState.OPEN,
        asked.purpose,
        asked.correlation,
        None if asked.timeout is None else book.at + asked.timeout,
        None,
        item.flags,
    )


def _first(checks: Iterable[tuple[bool, Outcome]]) -> Outcome | None:
    return next((outcome for found, outcome in checks if found), None)
