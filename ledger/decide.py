"""The decision over a batch: pure, in order, one answer for each transfer.

What a chain has done is undone from a log when a member fails; the failing member keeps its own
outcome, the others answer ``linked_event_failed`` and their ids stay free.

Two rules go beyond the vocabulary's source. A chain whose every id is recorded already is a
replay: each member is answered by itself. A chain in which only some are recorded fails at the
first of those, which answers ``exists``: it is never completed piecemeal. (A chain that names one
id twice fails too, and all its members answer ``linked_event_failed``.)
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from ledger.model import PostResult
from ledger.outcome import TRANSIENT, Outcome
from ledger.rules import compare_recorded, decide_one, expire
from ledger.state import Decisions, Request, Snapshot
from ledger.working import Working

EXPIRIES_MAX: Final = 256
"""Holds that one block expires before the caller's transfers."""


def decide(snapshot: Snapshot, batch: Sequence[Request], at: datetime) -> Decisions:
    """Decide *batch* against *snapshot* at block time *at*.

    The standings of the snapshot are changed in place: use it once, or go on with it only if what
    was decided is committed.
    """
    deciding = Deciding(snapshot, at, imports=bool(batch) and batch[0].transfer.imported)
    deciding.add(batch)
    return deciding.finish()


class Deciding:
    """A batch that is decided piece by piece; `decide` for those who have it in one piece.

    Args:
        snapshot: what the batch touches; changed in place.
        at: the block's time.
        imports: whether the first transfer of the batch is imported, which all must be then.
    """

    def __init__(self, snapshot: Snapshot, at: datetime, *, imports: bool) -> None:
        self._book = Working(snapshot, at, imports=imports)
        self._results: list[PostResult] = []
        for hold_id in snapshot.due[:EXPIRIES_MAX]:
            expire(self._book, hold_id)

    def add(self, batch: Sequence[Request]) -> None:
        """Decide the next transfers; a piece may only be cut where a chain ends."""
        book, results = self._book, self._results
        start = 0
        while start < len(batch):
            item = batch[start]
            if item.is_simple and not book.imports:
                results.append(book.accept(item) or _alone(book, item))
                start += 1
                continue
            if not item.transfer.linked:
                results.append(_alone(book, item))
                start += 1
                continue
            end = start
            while end < len(batch) and batch[end].transfer.linked:
                end += 1
            results.extend(_chain(book, batch[start : end + 1], is_open=end == len(batch)))
            start = end + 1

    def finish(self) -> Decisions:
        """Return what the batch comes to."""
        return self._book.decisions(self._results)


def _chain(book: Working, chain: Sequence[Request], *, is_open: bool) -> list[PostResult]:
    """Decide a chain; *is_open*: the batch ended before the chain did."""
    if not is_open and all(book.is_recorded(item.transfer.id) for item in chain):
        return [_alone(book, item) for item in chain]
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
    _, sequence, _, _, amount, _, _ = book.made[transfer_id]
    return PostResult(Outcome.CREATED, transfer_id, sequence, book.at, amount)


def _plain(item: Request, outcome: Outcome) -> PostResult:
    return PostResult(outcome, item.transfer.id)


def _refused(book: Working, item: Request, outcome: Outcome) -> PostResult:
    transfer_id = item.transfer.id
    if outcome in TRANSIENT:
        spent = book.spend(transfer_id, outcome)
        return PostResult(outcome, transfer_id, spent.sequence, spent.recorded_at)
    if outcome is Outcome.ID_ALREADY_FAILED:
        first = book.refusal(transfer_id)
        assert first is not None
        return PostResult(
            outcome,
            transfer_id,
            first.sequence,
            first.recorded_at,
            replayed=True,
            first=first.outcome,
        )
    if outcome is Outcome.EXISTS and not book.is_recorded(transfer_id):
        # The chain itself had made it, and has been undone.
        return _plain(item, Outcome.LINKED_EVENT_FAILED)
    if outcome is Outcome.EXISTS:
        return _answer_recorded(book, item)
    return _plain(item, outcome)


def _answer_recorded(book: Working, item: Request) -> PostResult:
    row = book.transfer(item.transfer.id)
    assert row is not None
    outcome = compare_recorded(book, item, row)
    if outcome is not Outcome.EXISTS:
        return _plain(item, outcome)
    return PostResult(outcome, row.id, row.sequence, row.recorded_at, row.amount, replayed=True)
