"""A level-2 book stitched from a snapshot and its deltas, on integer ticks.

The rule is Binance's ("How to manage a local order book correctly", spot WebSocket streams): deltas
that arrive before the snapshot are kept; those wholly before it are dropped; the first one applied
must span the update after it; each later one must begin right after the last. Anything else is a
gap. After a gap, or when the best bid reaches the best ask, the book is empty and says so until it
gets a new snapshot: a repaired book would be a guess.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from enum import Enum, unique
from typing import Final

from marketdata.model import BookDelta, BookView, Level

WAITING_MAX: Final = 2_000
"""Deltas kept while the snapshot is on its way; more of them means that it never comes."""


@unique
class BookOutcome(Enum):
    """What became of a snapshot or delta."""

    APPLIED = "applied"
    KEPT = "kept until the snapshot comes"
    OLD = "older than the book, dropped"
    GAP = "updates are missing, a new snapshot is needed"
    CROSSED = "the best bid reached the best ask, a new snapshot is needed"
    MALFORMED = "a level is not a positive price with a quantity, a new snapshot is needed"

    @property
    def is_fault(self) -> bool:
        """Whether the book is unusable from here on."""
        return self in {BookOutcome.GAP, BookOutcome.CROSSED, BookOutcome.MALFORMED}


class _Side:
    """Levels of one side; a bid's key is its negated price, so the best key is always the first."""

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._units: dict[int, int] = {}
        self._keys: list[int] = []

    def put(self, level: Level) -> None:
        key = level.ticks * self._sign
        known = key in self._units
        if level.units:
            self._units[key] = level.units
            if not known:
                insort(self._keys, key)
        elif known:
            del self._units[key]
            del self._keys[bisect_left(self._keys, key)]

    def best(self) -> int | None:
        return self._keys[0] * self._sign if self._keys else None

    def levels(self, levels_max: int) -> tuple[Level, ...]:
        return tuple(Level(k * self._sign, self._units[k]) for k in self._keys[:levels_max])


class L2Book:
    """One symbol's book. Mutable, without I/O; whoever feeds it asks for views."""

    def __init__(self, venue: str, symbol: str) -> None:
        self.venue = venue
        self.symbol = symbol
        self.sequence: int | None = None
        self._fresh_snapshot = False
        self._waiting: deque[BookDelta] = deque()
        self._bids, self._asks = _Side(-1), _Side(1)

    @property
    def is_live(self) -> bool:
        """Whether a view of it may be used."""
        return self.sequence is not None

    def snapshot(self, sequence: int, bids: Iterable[Level], asks: Iterable[Level]) -> BookOutcome:
        """Start over from a whole book that includes update *sequence*, then apply what waited."""
        self._clear()
        outcome = self._put(tuple(bids), tuple(asks))
        if outcome is not BookOutcome.APPLIED:
            return self._fail(outcome)
        self.sequence = sequence
        self._fresh_snapshot = True
        waiting, self._waiting = self._waiting, deque()
        while waiting:
            outcome = self.apply(waiting.popleft())
            if outcome.is_fault:
                self._waiting.extend(waiting)
                return outcome
        return BookOutcome.APPLIED

    def apply(self, delta: BookDelta) -> BookOutcome:
        """Apply a delta; after a fault the deltas that follow wait for the next snapshot."""
        if self.sequence is None:
            return self._keep(delta)
        if delta.last <= self.sequence:
            return BookOutcome.OLD
        follows = delta.first == self.sequence + 1
        spans = self._fresh_snapshot and delta.first <= self.sequence + 1
        if not (follows or spans):
            self._clear()
            self._keep(delta)
            return BookOutcome.GAP
        outcome = self._put(delta.bids, delta.asks)
        if outcome is not BookOutcome.APPLIED:
            return self._fail(outcome)
        self.sequence = delta.last
        self._fresh_snapshot = False
        return outcome

    def reset(self) -> None:
        """Forget everything, as after a lost connection."""
        self._waiting.clear()
        self._fail(BookOutcome.GAP)

    def view(self, received_at: datetime, levels_max: int = 100) -> BookView | None:
        """Return the book as a value; None while it must not be used."""
        if self.sequence is None:
            return None
        return BookView(
            venue=self.venue,
            symbol=self.symbol,
            sequence=self.sequence,
            received_at=received_at,
            bids=self._bids.levels(levels_max),
            asks=self._asks.levels(levels_max),
        )

    def _put(self, bids: tuple[Level, ...], asks: tuple[Level, ...]) -> BookOutcome:
        if any(level.ticks <= 0 or level.units < 0 for level in (*bids, *asks)):
            return BookOutcome.MALFORMED
        for level in bids:
            self._bids.put(level)
        for level in asks:
            self._asks.put(level)
        bid, ask = self._bids.best(), self._asks.best()
        if bid is not None and ask is not None and bid >= ask:
            return BookOutcome.CROSSED
        return BookOutcome.APPLIED

    def _keep(self, delta: BookDelta) -> BookOutcome:
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.clear()
            return BookOutcome.GAP
        self._waiting.append(delta)
        return BookOutcome.KEPT

    def _fail(self, outcome: BookOutcome) -> BookOutcome:
        self._clear()
        return outcome

    def _clear(self) -> None:
        self.sequence = None
        self._fresh_snapshot = False
        self._bids, self._asks = _Side(-1), _Side(1)
