"""The decision over a batch: pure, in order, one answer for each transfer.

The checks stand in the order of `ledger.outcome`, and each first finding is the answer. What a chain
has done is undone from a log when a member fails; the failing member keeps its own outcome, the
others answer ``linked_event_failed`` and their ids stay free.

Two rules go beyond the vocabulary's source. A chain whose every id is recorded already is a
replay: each member is answered by itself. A chain in which only some are recorded fails at the
first of those, which answers ``exists``: it is never completed piecemeal. (A chain that names one
id twice fails too, and all its members answer ``linked_event_failed``.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from kernel.ids import derive_id
from kernel.money import AMOUNT_MAX
from ledger.form import NIL, check_form
from ledger.model import (
    ALL,
    BALANCING,
    BALANCING_CREDIT,
    BALANCING_DEBIT,
    CLOSING_CREDIT,
    CLOSING_DEBIT,
    HoldState,
    Kind,
    PostResult,
    Transfer,
)
from ledger.outcome import TRANSIENT, Outcome
from ledger.records import microseconds
from ledger.replay import compare
from ledger.state import AccountState, Columns, Decisions, HoldRow, Request, Snapshot, TransferRow
from ledger.working import Working

EXPIRIES_MAX: Final = 256
"""Holds that one block expires before the caller's transfers."""

TIME_MAX: Final = datetime.max.replace(tzinfo=UTC)


def decide(snapshot: Snapshot, batch: Sequence[Request], at: datetime) -> Decisions:
    """Decide *batch* against *snapshot* at block time *at*."""
    book = Working(snapshot, at)
    for hold_id in snapshot.due[:EXPIRIES_MAX]:
        expire(book, hold_id)
    results: list[PostResult] = []
    start = 0
    while start < len(batch):
        end = start
        while end < len(batch) and batch[end].transfer.linked:
            end += 1
        if end == start:
            results.append(_alone(book, batch[start]))
        else:
            results.extend(decide_chain(book, batch[start : end + 1], is_open=end == len(batch)))
        start = end + 1
    return book.decisions(results)


def decide_chain(book: Working, chain: Sequence[Request], *, is_open: bool) -> list[PostResult]:
    """Decide a chain; *is_open*: the batch ended before the chain did."""
    if not is_open and all(book.transfer(item.transfer.id) for item in chain):
        return [_answer_recorded(book, item) for item in chain]
    failed_at = 0
    results: list[PostResult] = []

    def run() -> Outcome | None:
        nonlocal failed_at
        for failed_at, item in enumerate(chain):
            if is_open and failed_at == len(chain) - 1:
                return Outcome.LINKED_EVENT_CHAIN_OPEN
            outcome = decide_one(book, item)
            if outcome is not Outcome.CREATED:
                return outcome
            results.append(_created(book, item.transfer.id))
        return None

    refusal = book.attempt(run)
    if refusal is None:
        return results
    results = [_plain(item, Outcome.LINKED_EVENT_FAILED) for item in chain]
    results[failed_at] = _refused(book, chain[failed_at], refusal)
    if is_open:
        results[-1] = _plain(chain[-1], Outcome.LINKED_EVENT_CHAIN_OPEN)
    return results


def _alone(book: Working, item: Request) -> PostResult:
    outcome = decide_one(book, item)
    if outcome is Outcome.CREATED:
        return _created(book, item.transfer.id)
    return _refused(book, item, outcome)


def _created(book: Working, transfer_id: UUID) -> PostResult:
    row = book.transfers[transfer_id]
    return PostResult(
        outcome=Outcome.CREATED,
        transfer_id=transfer_id,
        sequence=row.sequence,
        recorded_at=row.recorded_at,
        amount=row.amount,
    )


def _plain(item: Request, outcome: Outcome) -> PostResult:
    return PostResult(outcome=outcome, transfer_id=item.transfer.id)


def _refused(book: Working, item: Request, outcome: Outcome) -> PostResult:
    transfer_id = item.transfer.id
    if outcome in TRANSIENT:
        spent = book.spend(transfer_id, outcome)
        return PostResult(
            outcome=outcome,
            transfer_id=transfer_id,
            sequence=spent.sequence,
            recorded_at=spent.recorded_at,
        )
    if outcome is Outcome.ID_ALREADY_FAILED:
        first = book.refusal(transfer_id)
        assert first is not None
        return PostResult(
            outcome=outcome,
            transfer_id=transfer_id,
            sequence=first.sequence,
            recorded_at=first.recorded_at,
            replayed=True,
            first=first.outcome,
        )
    if outcome is Outcome.EXISTS and book.transfer(transfer_id) is None:
        # The chain itself had made it, and has been undone.
        return _plain(item, Outcome.LINKED_EVENT_FAILED)
    if outcome is Outcome.EXISTS:
        return _answer_recorded(book, item)
    return _plain(item, outcome)


def _answer_recorded(book: Working, item: Request) -> PostResult:
    row = book.transfer(item.transfer.id)
    assert row is not None
    outcome = _compare(book, item, row)
    if outcome is not Outcome.EXISTS:
        return _plain(item, outcome)
    return PostResult(
        outcome=outcome,
        transfer_id=row.id,
        sequence=row.sequence,
        recorded_at=row.recorded_at,
        amount=row.amount,
        replayed=True,
    )


def decide_one(book: Working, item: Request) -> Outcome:
    """Decide one transfer and, if it is created, lay its changes over the book."""
    asked = item.transfer
    if asked.kind is Kind.EXPIRE:
        return Outcome.RESERVED_FLAG
    if asked.id == NIL:
        return Outcome.ID_MUST_NOT_BE_ZERO
    row = book.transfer(asked.id)
    if row is not None:
        return _compare(book, item, row)
    if book.refusal(asked.id) is not None:
        return Outcome.ID_ALREADY_FAILED
    malformed = check_form(asked, asked.flags)
    if malformed is not None:
        return malformed
    match asked.kind:
        case Kind.SINGLE | Kind.PENDING:
            return _move(book, item)
        case Kind.POST | Kind.VOID:
            return _resolve(book, item)
        case Kind.REVERSAL:
            return _reverse(book, item)


def _compare(book: Working, item: Request, row: TransferRow) -> Outcome:
    accounts = book.snapshot.accounts
    return compare(item, row, accounts[row.debit], accounts[row.credit])


def _move(book: Working, item: Request) -> Outcome:
    """Decide a SINGLE or PENDING transfer."""
    asked = item.transfer
    flags = asked.flags
    debit_number = book.numbers.get((asked.debit, asked.asset))
    if debit_number is None:
        return Outcome.DEBIT_ACCOUNT_NOT_FOUND
    credit_number = book.numbers.get((asked.credit, asked.asset))
    if credit_number is None:
        return Outcome.CREDIT_ACCOUNT_NOT_FOUND
    debit, credit = book.snapshot.accounts[debit_number], book.snapshot.accounts[credit_number]
    d, c = book.columns_of(debit_number), book.columns_of(credit_number)
    amount = _at_most(asked, flags, d, c) if flags & BALANCING else asked.amount
    refusal = _check_standing(debit, d, credit, c)
    if refusal is not None:
        return refusal
    if asked.kind is Kind.PENDING:
        after_d = d.moved(pending_debits=amount, closed=d.closed or bool(flags & CLOSING_DEBIT))
        after_c = c.moved(pending_credits=amount, closed=c.closed or bool(flags & CLOSING_CREDIT))
    else:
        after_d, after_c = d.debited(amount), c.credited(amount)
    refusal = _check_limits(book, asked, debit, after_d, credit, after_c)
    if refusal is not None:
        return refusal
    row = _row(book, item, flags, debit_number, credit_number, amount)
    if asked.kind is Kind.PENDING:
        book.put(book.holds, asked.id, _new_hold(book, asked, row))
    book.apply(row, item.metadata, after_d, after_c)
    return Outcome.CREATED


def _at_most(asked: Transfer, flags: int, d: Columns, c: Columns) -> int:
    """Return what a balancing transfer moves: the amount asked, or less if less is available."""
    amount = AMOUNT_MAX if asked.amount == ALL else asked.amount
    if flags & BALANCING_DEBIT:
        amount = min(amount, max(0, d.credits_posted - d.debits_posted - d.debits_pending))
    if flags & BALANCING_CREDIT:
        amount = min(amount, max(0, c.debits_posted - c.credits_posted - c.credits_pending))
    return amount


def _check_standing(
    debit: AccountState, debit_now: Columns, credit: AccountState, credit_now: Columns
) -> Outcome | None:
    """Refuse new debits and credits of closed and of frozen accounts."""
    if debit_now.closed:
        return Outcome.DEBIT_ACCOUNT_ALREADY_CLOSED
    if credit_now.closed:
        return Outcome.CREDIT_ACCOUNT_ALREADY_CLOSED
    if debit.frozen:
        return Outcome.DEBIT_ACCOUNT_FROZEN
    if credit.frozen:
        return Outcome.CREDIT_ACCOUNT_FROZEN
    return None


def _check_limits(
    book: Working,
    asked: Transfer,
    debit: AccountState,
    after_debit: Columns,
    credit: AccountState,
    after_credit: Columns,
) -> Outcome | None:
    debits = after_debit.debits_pending + after_debit.debits_posted
    credits_ = after_credit.credits_pending + after_credit.credits_posted
    if debits > AMOUNT_MAX or credits_ > AMOUNT_MAX:
        return _overflow(after_debit, after_credit)
    if asked.timeout is not None and asked.timeout > TIME_MAX - book.at:
        return Outcome.OVERFLOWS_TIMEOUT
    if debit.debits_capped and debits > after_debit.credits_posted:
        return Outcome.EXCEEDS_CREDITS
    if credit.credits_capped and credits_ > after_credit.debits_posted:
        return Outcome.EXCEEDS_DEBITS
    return None


def _overflow(debit: Columns, credit: Columns) -> Outcome:
    found = _first(
        (
            (debit.debits_pending > AMOUNT_MAX, Outcome.OVERFLOWS_DEBITS_PENDING),
            (credit.credits_pending > AMOUNT_MAX, Outcome.OVERFLOWS_CREDITS_PENDING),
            (debit.debits_posted > AMOUNT_MAX, Outcome.OVERFLOWS_DEBITS_POSTED),
            (credit.credits_posted > AMOUNT_MAX, Outcome.OVERFLOWS_CREDITS_POSTED),
            (debit.debits_pending + debit.debits_posted > AMOUNT_MAX, Outcome.OVERFLOWS_DEBITS),
        )
    )
    return found or Outcome.OVERFLOWS_CREDITS


def _resolve(book: Working, item: Request) -> Outcome:
    """Decide a POST or VOID."""
    asked = item.transfer
    assert asked.pending_id is not None
    pending = book.transfer(asked.pending_id)
    if pending is None:
        return Outcome.PENDING_TRANSFER_NOT_FOUND
    hold = book.hold(asked.pending_id)
    if hold is None:
        return Outcome.PENDING_TRANSFER_NOT_PENDING
    refusal = _check_hold(book, asked, hold)
    if refusal is not None:
        return refusal
    posts = asked.kind is Kind.POST
    amount = asked.amount if posts and asked.amount != ALL else hold.amount
    posted = amount if posts else 0
    d, c = book.columns_of(hold.debit), book.columns_of(hold.credit)
    row = _row(book, item, 0, hold.debit, hold.credit, amount, hold.amount)
    state = HoldState.POSTED if posts else HoldState.VOIDED
    book.close_hold(hold, state, row.sequence)
    book.apply(
        row,
        item.metadata,
        d.moved(
            pending_debits=-hold.amount,
            debits=posted,
            closed=d.closed and (posts or not hold.flags & CLOSING_DEBIT),
        ),
        c.moved(
            pending_credits=-hold.amount,
            credits_=posted,
            closed=c.closed and (posts or not hold.flags & CLOSING_CREDIT),
        ),
    )
    return Outcome.CREATED


def _check_hold(book: Working, asked: Transfer, hold: HoldRow) -> Outcome | None:
    accounts = book.snapshot.accounts
    debit, credit = accounts[hold.debit], accounts[hold.credit]
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
        (posts and book.columns_of(hold.debit).closed, Outcome.DEBIT_ACCOUNT_ALREADY_CLOSED),
        (posts and book.columns_of(hold.credit).closed, Outcome.CREDIT_ACCOUNT_ALREADY_CLOSED),
    )
    return _first(checks)


def _reverse(book: Working, item: Request) -> Outcome:
    """Decide a REVERSAL: what was credited is debited, and the other way round."""
    asked = item.transfer
    assert asked.reverses is not None
    original = book.transfer(asked.reverses)
    if original is None:
        return Outcome.REVERSED_TRANSFER_NOT_FOUND
    accounts = book.snapshot.accounts
    debit, credit = accounts[original.credit], accounts[original.debit]
    checks = (
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
    refusal = _first(checks)
    if refusal is not None:
        return refusal
    amount = original.amount
    d, c = book.columns_of(debit.number), book.columns_of(credit.number)
    after_d, after_c = d.debited(amount), c.credited(amount)
    refusal = _check_standing(debit, d, credit, c) or _check_limits(
        book, asked, debit, after_d, credit, after_c
    )
    if refusal is not None:
        return refusal
    row = _row(book, item, 0, debit.number, credit.number, amount)
    book.put(book.reversed_ids, original.id, row.id)
    book.apply(row, item.metadata, after_d, after_c)
    return Outcome.CREATED


def expire(book: Working, hold_id: UUID) -> None:
    """Release a due hold; the id follows from the hold, so it is the same whoever meets it."""
    hold = book.hold(hold_id)
    assert hold is not None
    assert hold.expires_at is not None
    d, c = book.columns_of(hold.debit), book.columns_of(hold.credit)
    book.sequence += 1
    row = TransferRow(
        sequence=book.sequence,
        id=derive_id(hold.expires_at, "expire", hold.id),
        kind=Kind.EXPIRE,
        flags=0,
        debit=hold.debit,
        credit=hold.credit,
        amount=hold.amount,
        code="hold.expired",
        pending_id=hold.id,
        reverses=None,
        purpose="",
        timeout_us=None,
        effective_at=None,
        reference="",
        correlation=hold.correlation,
        metadata_hash="",
        recorded_at=book.at,
        held=hold.amount,
    )
    book.close_hold(hold, HoldState.EXPIRED, row.sequence)
    book.apply(
        row,
        "",
        d.moved(pending_debits=-hold.amount, closed=d.closed and not hold.flags & CLOSING_DEBIT),
        c.moved(pending_credits=-hold.amount, closed=c.closed and not hold.flags & CLOSING_CREDIT),
    )


def _new_hold(book: Working, asked: Transfer, row: TransferRow) -> HoldRow:
    return HoldRow(
        row.id,
        row.sequence,
        row.debit,
        row.credit,
        row.amount,
        HoldState.OPEN,
        row.purpose,
        row.correlation,
        None if asked.timeout is None else book.at + asked.timeout,
        None,
        row.flags,
    )


def _row(
    book: Working,
    item: Request,
    flags: int,
    debit: int,
    credit: int,
    amount: int,
    held: int | None = None,
) -> TransferRow:
    asked = item.transfer
    book.sequence += 1
    return TransferRow(
        book.sequence,
        asked.id,
        asked.kind,
        flags,
        debit,
        credit,
        amount,
        asked.code,
        asked.pending_id,
        asked.reverses,
        asked.purpose,
        microseconds(asked.timeout),
        asked.effective_at,
        asked.reference,
        asked.correlation,
        item.metadata_hash,
        book.at,
        held,
    )


def _first(checks: Iterable[tuple[bool, Outcome]]) -> Outcome | None:
    return next((outcome for found, outcome in checks if found), None)
