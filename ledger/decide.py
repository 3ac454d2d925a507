"""The decision over a batch: pure, in order, one answer for each transfer.

The checks stand in the order of `ledger.outcome`, and each first finding is the answer. What a chain
has done is undone from a log when a member fails; the failing member keeps its own outcome, the
others answer ``linked_event_failed`` and their ids stay free.

Two rules go beyond the vocabulary's source. A chain whose every id is recorded already is a
replay: each member is answered by itself. A chain in which only some are recorded fails at the
first of those, which answers ``exists``: it is never completed piecemeal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from kernel.ids import derive_id
from kernel.money import AMOUNT_MAX
from ledger.model import (
    ALL,
    BALANCING,
    BALANCING_CREDIT,
    BALANCING_DEBIT,
    CLOSING,
    CLOSING_CREDIT,
    CLOSING_DEBIT,
    HoldState,
    Kind,
    PostResult,
    Transfer,
)
from ledger.outcome import TRANSIENT, Outcome
from ledger.state import (
    AccountState,
    Columns,
    Decisions,
    EntryRow,
    HoldRow,
    RefusalRow,
    Request,
    Snapshot,
    TransferRow,
)

EXPIRIES_MAX: Final = 256
"""Holds that one block expires before the caller's transfers."""

TIME_MAX: Final = datetime.max.replace(tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
NIL: Final = UUID(int=0)

Key = TypeVar("Key")
Value = TypeVar("Value")


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


class Working:
    """A snapshot with the changes of this batch laid over it, and a log to undo them."""

    def __init__(self, snapshot: Snapshot, at: datetime) -> None:
        self.snapshot = snapshot
        self.at = at
        self.sequence = snapshot.sequence
        self.numbers = {(a.path, a.asset): a.number for a in snapshot.accounts.values()}
        self.columns: dict[int, Columns] = {}
        self.holds: dict[UUID, HoldRow] = {}
        self.transfers: dict[UUID, TransferRow] = {}
        self.refusals: dict[UUID, RefusalRow] = {}
        self.reversed_ids: dict[UUID, bool] = {}
        self.records: list[TransferRow | RefusalRow] = []
        self.entries: list[EntryRow] = []
        self.metadata: list[tuple[int, str]] = []
        self.undo: list[tuple[dict[Any, Any], Any, Any]] | None = None

    def transfer(self, transfer_id: UUID) -> TransferRow | None:
        """Return the recorded transfer of that id, of this batch or earlier."""
        return self.transfers.get(transfer_id) or self.snapshot.transfers.get(transfer_id)

    def refusal(self, transfer_id: UUID) -> RefusalRow | None:
        """Return the refusal that spent the id."""
        return self.refusals.get(transfer_id) or self.snapshot.refusals.get(transfer_id)

    def hold(self, hold_id: UUID) -> HoldRow | None:
        """Return a hold as it stands now."""
        return self.holds.get(hold_id) or self.snapshot.holds.get(hold_id)

    def is_reversed(self, transfer_id: UUID) -> bool:
        """Tell whether a transfer has been reversed."""
        return transfer_id in self.reversed_ids or transfer_id in self.snapshot.reversed_ids

    def columns_of(self, number: int) -> Columns:
        """Return an account's columns as they stand now."""
        found = self.columns.get(number)
        return self.snapshot.accounts[number].columns if found is None else found

    def put(self, table: dict[Key, Value], key: Key, value: Value) -> None:
        """Write through the undo log, where one is kept."""
        if self.undo is not None:
            self.undo.append((table, key, table.get(key)))
        table[key] = value

    def attempt(self, work: Callable[[], Outcome | None]) -> Outcome | None:
        """Run *work*; if it returns a refusal, leave everything as it was."""
        marks = (self.sequence, len(self.records), len(self.entries), len(self.metadata))
        self.undo = []
        refusal = work()
        log, self.undo = self.undo, None
        if refusal is not None:
            for table, key, before in reversed(log):
                if before is None:
                    del table[key]
                else:
                    table[key] = before
            self.sequence = marks[0]
            del self.records[marks[1] :]
            del self.entries[marks[2] :]
            del self.metadata[marks[3] :]
        return refusal

    def spend(self, transfer_id: UUID, outcome: Outcome) -> RefusalRow:
        """Record that *outcome* has spent the id."""
        self.sequence += 1
        row = RefusalRow(self.sequence, transfer_id, outcome, self.at)
        self.records.append(row)
        self.put(self.refusals, transfer_id, row)
        return row

    def decisions(self, results: list[PostResult]) -> Decisions:
        """Return what the batch came to."""
        stored = self.snapshot.holds
        return Decisions(
            results=results,
            sequence=self.sequence,
            records=self.records,
            entries=self.entries,
            balances=self.columns,
            new_holds=[hold for key, hold in self.holds.items() if key not in stored],
            resolved_holds=[hold for key, hold in self.holds.items() if key in stored],
            metadata=self.metadata,
        )


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
    if outcome is Outcome.EXISTS:
        return _answer_recorded(book, item)
    return _plain(item, outcome)


def _answer_recorded(book: Working, item: Request) -> PostResult:
    row = book.transfer(item.transfer.id)
    assert row is not None
    outcome = compare(book, item, row)
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
        return compare(book, item, row)
    if book.refusal(asked.id) is not None:
        return Outcome.ID_ALREADY_FAILED
    malformed = check_form(asked)
    if malformed is not None:
        return malformed
    match asked.kind:
        case Kind.SINGLE | Kind.PENDING:
            return _move(book, item)
        case Kind.POST | Kind.VOID:
            return _resolve(book, item)
        case Kind.REVERSAL:
            return _reverse(book, item)


def compare(book: Working, item: Request, row: TransferRow) -> Outcome:
    """Compare a request with the recorded transfer of its id; name the first field that differs."""
    asked = item.transfer
    debit, credit = book.snapshot.accounts[row.debit], book.snapshot.accounts[row.credit]
    inherits = row.kind in {Kind.POST, Kind.VOID, Kind.REVERSAL}
    checks = (
        (
            asked.kind is not row.kind or asked.flags != row.flags,
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
    return _first(checks) or Outcome.EXISTS


def _same_amount(asked: Transfer, row: TransferRow) -> bool:
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
    return (asked.purpose, asked.effective_at, asked.reference, asked.correlation) == (
        row.purpose,
        row.effective_at,
        row.reference,
        row.correlation,
    ) and item.metadata_hash == row.metadata_hash


def check_form(asked: Transfer) -> Outcome | None:
    """Return what is wrong with a request as such, whatever the book holds."""
    return (
        _check_flags(asked) or _check_accounts(asked) or _check_links(asked) or _check_rest(asked)
    )


def _check_flags(asked: Transfer) -> Outcome | None:
    if not asked.flags:
        return None
    if asked.kind not in {Kind.SINGLE, Kind.PENDING}:
        return Outcome.FLAGS_ARE_MUTUALLY_EXCLUSIVE
    return None


def _check_accounts(asked: Transfer) -> Outcome | None:
    inherits = asked.kind in {Kind.POST, Kind.VOID, Kind.REVERSAL}
    if not asked.debit and not inherits:
        return Outcome.DEBIT_ACCOUNT_ID_MUST_NOT_BE_ZERO
    if not asked.credit and not inherits:
        return Outcome.CREDIT_ACCOUNT_ID_MUST_NOT_BE_ZERO
    if asked.debit and asked.debit == asked.credit:
        return Outcome.ACCOUNTS_MUST_BE_DIFFERENT
    return None


def _check_links(asked: Transfer) -> Outcome | None:
    resolves = asked.kind in {Kind.POST, Kind.VOID}
    reverses = asked.kind is Kind.REVERSAL
    checks = (
        (not resolves and asked.pending_id is not None, Outcome.PENDING_ID_MUST_BE_ZERO),
        (resolves and asked.pending_id in {None, NIL}, Outcome.PENDING_ID_MUST_NOT_BE_ZERO),
        (resolves and asked.pending_id == asked.id, Outcome.PENDING_ID_MUST_BE_DIFFERENT),
        (not reverses and asked.reverses is not None, Outcome.REVERSES_MUST_BE_ZERO),
        (reverses and asked.reverses in {None, NIL}, Outcome.REVERSES_MUST_NOT_BE_ZERO),
        (reverses and asked.reverses == asked.id, Outcome.REVERSES_MUST_BE_DIFFERENT),
    )
    return _first(checks)


def _check_rest(asked: Transfer) -> Outcome | None:
    inherits = asked.kind in {Kind.POST, Kind.VOID, Kind.REVERSAL}
    pending = asked.kind is Kind.PENDING
    if asked.timeout is not None and not pending:
        return Outcome.TIMEOUT_RESERVED_FOR_PENDING_TRANSFER
    if asked.flags & CLOSING and not pending:
        return Outcome.CLOSING_TRANSFER_MUST_BE_PENDING
    if not asked.asset and not inherits:
        return Outcome.LEDGER_MUST_NOT_BE_ZERO
    if not asked.code:
        return Outcome.CODE_MUST_NOT_BE_ZERO
    return None


def _move(book: Working, item: Request) -> Outcome:
    """Decide a SINGLE or PENDING transfer."""
    asked = item.transfer
    numbers = book.numbers
    debit = numbers.get((asked.debit, asked.asset))
    if debit is None:
        return Outcome.DEBIT_ACCOUNT_NOT_FOUND
    credit = numbers.get((asked.credit, asked.asset))
    if credit is None:
        return Outcome.CREDIT_ACCOUNT_NOT_FOUND
    accounts = book.snapshot.accounts
    from_account, to_account = accounts[debit], accounts[credit]
    amount = asked.amount
    if asked.flags & BALANCING:
        amount = _at_most(book, asked, from_account, to_account)
    before_debit, before_credit = book.columns_of(debit), book.columns_of(credit)
    refusal = check_standing(from_account, before_debit, to_account, before_credit)
    if refusal is not None:
        return refusal
    if asked.kind is Kind.PENDING:
        after_debit = before_debit._replace(
            debits_pending=before_debit.debits_pending + amount,
            closed=before_debit.closed or bool(asked.flags & CLOSING_DEBIT),
        )
        after_credit = before_credit._replace(
            credits_pending=before_credit.credits_pending + amount,
            closed=before_credit.closed or bool(asked.flags & CLOSING_CREDIT),
        )
    else:
        after_debit = before_debit._replace(debits_posted=before_debit.debits_posted + amount)
        after_credit = before_credit._replace(credits_posted=before_credit.credits_posted + amount)
    refusal = _check_limits(book, asked, from_account, after_debit, to_account, after_credit)
    if refusal is not None:
        return refusal
    row = _row(book, item, debit=debit, credit=credit, amount=amount)
    if asked.kind is Kind.PENDING:
        book.put(book.holds, asked.id, _new_hold(book, asked, row))
    apply(book, row, item.metadata, after_debit, after_credit)
    return Outcome.CREATED


def _at_most(book: Working, asked: Transfer, debit: AccountState, credit: AccountState) -> int:
    """Return what a balancing transfer moves: the amount asked, or less if less is available."""
    amount = AMOUNT_MAX if asked.amount == ALL else asked.amount
    if asked.flags & BALANCING_DEBIT:
        d = book.columns_of(debit.number)
        amount = min(amount, max(0, d.credits_posted - d.debits_posted - d.debits_pending))
    if asked.flags & BALANCING_CREDIT:
        c = book.columns_of(credit.number)
        amount = min(amount, max(0, c.debits_posted - c.credits_posted - c.credits_pending))
    return amount


def check_standing(
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
    if asked.kind is Kind.POST and asked.amount != ALL:
        posted = asked.amount
    else:
        posted = hold.amount if asked.kind is Kind.POST else 0
    debit, credit = book.columns_of(hold.debit), book.columns_of(hold.credit)
    reopens = asked.kind is Kind.VOID
    after_debit = debit._replace(
        debits_pending=debit.debits_pending - hold.amount,
        debits_posted=debit.debits_posted + posted,
        closed=debit.closed and not (reopens and hold.flags & CLOSING_DEBIT),
    )
    after_credit = credit._replace(
        credits_pending=credit.credits_pending - hold.amount,
        credits_posted=credit.credits_posted + posted,
        closed=credit.closed and not (reopens and hold.flags & CLOSING_CREDIT),
    )
    amount = posted if asked.kind is Kind.POST else hold.amount
    row = _row(book, item, debit=hold.debit, credit=hold.credit, amount=amount, held=hold.amount)
    state = HoldState.POSTED if asked.kind is Kind.POST else HoldState.VOIDED
    close_hold(book, hold, state, row.sequence)
    apply(book, row, item.metadata, after_debit, after_credit)
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
    before_debit, before_credit = book.columns_of(debit.number), book.columns_of(credit.number)
    after_debit = before_debit._replace(debits_posted=before_debit.debits_posted + amount)
    after_credit = before_credit._replace(credits_posted=before_credit.credits_posted + amount)
    refusal = check_standing(debit, before_debit, credit, before_credit) or _check_limits(
        book, asked, debit, after_debit, credit, after_credit
    )
    if refusal is not None:
        return refusal
    row = _row(book, item, debit=debit.number, credit=credit.number, amount=amount)
    book.put(book.reversed_ids, original.id, True)
    apply(book, row, item.metadata, after_debit, after_credit)
    return Outcome.CREATED


def expire(book: Working, hold_id: UUID) -> None:
    """Release a due hold; the id follows from the hold, so it is the same whoever meets it."""
    hold = book.hold(hold_id)
    assert hold is not None
    assert hold.expires_at is not None
    debit, credit = book.columns_of(hold.debit), book.columns_of(hold.credit)
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
    close_hold(book, hold, HoldState.EXPIRED, row.sequence)
    apply(
        book,
        row,
        "",
        debit._replace(
            debits_pending=debit.debits_pending - hold.amount,
            closed=debit.closed and not hold.flags & CLOSING_DEBIT,
        ),
        credit._replace(
            credits_pending=credit.credits_pending - hold.amount,
            closed=credit.closed and not hold.flags & CLOSING_CREDIT,
        ),
    )


def apply(book: Working, row: TransferRow, metadata: str, debit: Columns, credit: Columns) -> None:
    """Lay a decided transfer over the book: its record, two entries, two balances."""
    book.records.append(row)
    book.put(book.transfers, row.id, row)
    for number, after in ((row.debit, debit), (row.credit, credit)):
        version = after.version + 1
        book.put(book.columns, number, after._replace(version=version))
        book.entries.append(EntryRow(number, row.sequence, version, *after[:4]))
    if metadata:
        book.metadata.append((row.sequence, metadata))


def close_hold(book: Working, hold: HoldRow, state: HoldState, sequence: int) -> None:
    """Give a hold its final state."""
    closed = HoldRow(
        hold.id,
        hold.sequence,
        hold.debit,
        hold.credit,
        hold.amount,
        state,
        hold.purpose,
        hold.correlation,
        hold.expires_at,
        sequence,
        hold.flags,
    )
    book.put(book.holds, hold.id, closed)


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
    book: Working, item: Request, *, debit: int, credit: int, amount: int, held: int | None = None
) -> TransferRow:
    asked = item.transfer
    book.sequence += 1
    return TransferRow(
        book.sequence,
        asked.id,
        asked.kind,
        asked.flags,
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


def microseconds(interval: timedelta | None) -> int | None:
    """Return an interval as the journal stores it."""
    return None if interval is None else interval // MICROSECOND


def _first(checks: Iterable[tuple[bool, Outcome]]) -> Outcome | None:
    return next((outcome for found, outcome in checks if found), None)
