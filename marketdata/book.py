"""A level-2 book stitched from a snapshot and its updates, on integer ticks.

Two rules cover the venues. `BINANCE_DIFF` ("How to manage a local order book correctly", Binance
spot WebSocket streams): the snapshot comes by another way, so updates that arrive before it wait;
those wholly before it are dropped; the first one applied must span the update after it; each later
one must begin right after the last. `SNAPSHOT_DELTA`: the snapshot is the stream's first message
and each update begins right after the last; where the venue numbers nothing, a checksum of the best
levels tells whether something is missing.

After any fault the book is empty and says so until it gets a new snapshot: a repaired book would be
a guess. So is a book that has moved past the last level of a snapshot that was not the whole book.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from datetime import datetime
from enum import Enum, unique
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from marketdata.events import GapReason, Row, Rows
from marketdata.model import BookView, Level, TopOfBook

WAITING_MAX: Final = 2_000
"""Updates kept while the snapshot is on its way; more of them means that it never comes."""

LEVELS_MAX: Final = 50_000
"""Levels of a side; more of them means that removals are lost."""

UNITS_END: Final = 10**38
"""Quantities are below it; there is no such amount of anything."""

OLD_RUN_MAX: Final = 20
"""Old updates in a row that may be repetitions; more of them mean that the venue began anew."""

CHECKED_LEVELS: Final = 10
"""Levels of a side that a checksum covers, at Kraken and at most others that have one."""

Checksum: TypeAlias = Callable[[Rows, Rows], int]
"""Makes the venue's checksum of the best `CHECKED_LEVELS` bids and asks, best first."""


@unique
class StitchRule(Enum):
    """How snapshot and updates of a venue belong together."""

    BINANCE_DIFF = "updates wait for a snapshot that comes by another way"
    SNAPSHOT_DELTA = "the stream begins with its snapshot"


@unique
class BookOutcome(Enum):
    """What became of a snapshot or an update."""

    APPLIED = "applied"
    KEPT = "kept until the snapshot comes"
    OLD = "older than the book, dropped"
    GAP = "updates are missing, a new snapshot is needed"
    CROSSED = "the best bid reached the best ask, a new snapshot is needed"
    MALFORMED = "a level is not a positive price with a quantity, a new snapshot is needed"
    CHECKSUM = "the best levels are not the venue's, a new snapshot is needed"
    RESTARTED = "the venue counts from a lower number again, a new snapshot is needed"
    OVERFULL = "more levels or waiting updates than there is room for, a new snapshot is needed"
    EXHAUSTED = "the levels of the snapshot are used up, a new snapshot is needed"

    @property
    def is_fault(self) -> bool:
        """Whether the book is unusable from here on."""
        return self in _GAP_REASONS

    @property
    def gap_reason(self) -> GapReason | None:
        """What the fault is called in a gap's row; None: it is none."""
        return _GAP_REASONS.get(self)


# Looking a member up in its enum takes longer than changing a level.
_APPLIED: Final = BookOutcome.APPLIED

_GAP_REASONS: Final = {
    BookOutcome.GAP: GapReason.SEQUENCE,
    BookOutcome.CROSSED: GapReason.CROSSED,
    BookOutcome.MALFORMED: GapReason.MALFORMED,
    BookOutcome.CHECKSUM: GapReason.CHECKSUM,
    BookOutcome.RESTARTED: GapReason.RESTARTED,
    BookOutcome.OVERFULL: GapReason.OVERFLOW,
    BookOutcome.EXHAUSTED: GapReason.OVERFLOW,
}


class _Update(NamedTuple):
    first: int
    last: int
    bids: Rows
    asks: Rows
    checksum: int | None


class L2Book:
    """One symbol's book. Mutable, without I/O; whoever feeds it asks for views.

    Keys of bids are their ticks and keys of asks are negated, both ascending: so the best level is
    the last one, near which nearly all changes are, and where a list changes at the least cost.
    """

    def __init__(
        self,
        venue: str,
        symbol: str,
        rule: StitchRule = StitchRule.BINANCE_DIFF,
        *,
        depth: int = 0,
        checksum: Checksum | None = None,
    ) -> None:
        """Begin empty.

        Args:
            venue: whose book it is.
            symbol: the venue's own spelling.
            rule: how the venue's snapshot and updates belong together.
            depth: levels of a side that the venue keeps us told of: what falls out of them after a
                message is forgotten, as the venue does not tell when it goes. 0: it tells all.
            checksum: makes what is compared with the checksums given; None: they are not looked at.
        """
        self.venue = venue
        self.symbol = symbol
        self.rule = rule
        self.sequence: int | None = None
        """The number of the last update that it includes; None: it must not be used."""
        self.cut_bids: Rows = ()
        self.cut_asks: Rows = ()
        """What fell out of the depth with the last message, as removals of levels."""
        self._depth = depth
        self._checksum = checksum
        self._fresh_snapshot = False
        self._old_run = 0
        self._waiting: deque[_Update] = deque()
        self._bids: dict[int, int] = {}
        self._asks: dict[int, int] = {}
        self._bid_keys: list[int] = []
        self._ask_keys: list[int] = []
        self._bid_horizon = 0
        self._ask_horizon = 0

    @property
    def is_live(self) -> bool:
        """Whether a view of it may be used."""
        return self.sequence is not None

    @property
    def top(self) -> TopOfBook | None:
        """The best level of both sides; None while one of them is empty."""
        if self.sequence is None or not self._bid_keys or not self._ask_keys:
            return None
        bid, ask = self._bid_keys[-1], -self._ask_keys[-1]
        return TopOfBook(
            bid=Level(bid, self._bids[bid]),
            ask=Level(ask, self._asks[ask]),
            sequence=self.sequence,
        )

    def snapshot(
        self,
        sequence: int,
        bids: Rows,
        asks: Rows,
        *,
        checksum: int | None = None,
        is_whole: bool = True,
    ) -> BookOutcome:
        """Start over from a book that includes update *sequence*, then apply what waited.

        Args:
            sequence: where the venue numbers nothing: 1.
            bids: the levels, in any order.
            asks: the levels, in any order.
            checksum: the venue's, of this very book.
            is_whole: False: the venue has more levels than it gave. Those beyond the last one given
                are not known, so nothing beyond them is ever shown.
        """
        self._clear()
        self.sequence = sequence
        outcome = self._put(bids, asks, checksum)
        if outcome is not _APPLIED:
            return outcome
        self._fresh_snapshot = True
        if not is_whole:
            self._bid_horizon = self._bid_keys[0] if self._bid_keys else 0
            self._ask_horizon = self._ask_keys[0] if self._ask_keys else 0
        waiting, self._waiting = self._waiting, deque()
        while waiting:
            outcome = self.apply(*waiting.popleft())
            if outcome.is_fault:
                self._waiting.extend(waiting)
                return outcome
        return _APPLIED

    def apply(
        self, first: int, last: int, bids: Rows, asks: Rows, checksum: int | None = None
    ) -> BookOutcome:
        """Apply absolute quantities of levels, of the updates *first* to *last*.

        After a fault, `BINANCE_DIFF` keeps what follows for the next snapshot. With
        `SNAPSHOT_DELTA` an update without a snapshot before it is a gap, and *last* 0 says that the
        venue numbers nothing.
        """
        sequence = self.sequence
        if sequence is None:
            return self._wait(_Update(first, last, bids, asks, checksum))
        if last == 0 and self.rule is StitchRule.SNAPSHOT_DELTA:
            first = last = sequence + 1
        if first != sequence + 1:
            if last <= sequence:
                return self._drop()
            if not (self._fresh_snapshot and first <= sequence):
                self._clear()
                self._wait(_Update(first, last, bids, asks, checksum))
                return BookOutcome.GAP
        elif last < first:
            return self._fail(BookOutcome.MALFORMED)
        self.sequence = last
        self._fresh_snapshot = False
        self._old_run = 0
        return self._put(bids, asks, checksum)

    def reset(self) -> None:
        """Forget everything, as after a lost connection."""
        self._waiting.clear()
        self._clear()

    def view(self, received_at: datetime, levels_max: int = 100) -> BookView | None:
        """Return the book as a value; None while it must not be used."""
        if self.sequence is None:
            return None
        bids, asks = self.rows(levels_max)
        return BookView(
            venue=self.venue,
            symbol=self.symbol,
            sequence=self.sequence,
            received_at=received_at,
            bids=tuple(map(_as_level, bids)),
            asks=tuple(map(_as_level, asks)),
        )

    def rows(self, levels_max: int) -> tuple[Rows, Rows]:
        """Return the best bids and asks, best first; what is beyond the snapshot is left out."""
        bids, asks = self._bids, self._asks
        bid_keys = _best(self._bid_keys, levels_max, self._bid_horizon)
        ask_keys = _best(self._ask_keys, levels_max, self._ask_horizon)
        return (
            tuple([(key, bids[key]) for key in bid_keys]),
            tuple([(-key, asks[-key]) for key in ask_keys]),
        )

    def _put(self, bids: Rows, asks: Rows, checksum: int | None) -> BookOutcome:
        bid_keys, ask_keys = self._bid_keys, self._ask_keys
        if not (_put_bids(self._bids, bid_keys, bids) and _put_asks(self._asks, ask_keys, asks)):
            return self._fail(BookOutcome.MALFORMED)
        if self._depth:
            self.cut_bids = _cut(self._bids, bid_keys, self._depth, 1)
            self.cut_asks = _cut(self._asks, ask_keys, self._depth, -1)
        elif len(bid_keys) > LEVELS_MAX or len(ask_keys) > LEVELS_MAX:
            return self._fail(BookOutcome.OVERFULL)
        # An ask's key is negated: the sum is bid less ask.
        if bid_keys and ask_keys and bid_keys[-1] + ask_keys[-1] >= 0:
            return self._fail(BookOutcome.CROSSED)
        if (self._bid_horizon or self._ask_horizon) and self._is_exhausted():
            return self._fail(BookOutcome.EXHAUSTED)
        if checksum is not None and not self._has(checksum):
            return self._fail(BookOutcome.CHECKSUM)
        return _APPLIED

    def _has(self, checksum: int) -> bool:
        return self._checksum is None or self._checksum(*self.rows(CHECKED_LEVELS)) == checksum

    def _is_exhausted(self) -> bool:
        bid_keys, ask_keys = self._bid_keys, self._ask_keys
        if self._bid_horizon and (not bid_keys or bid_keys[-1] < self._bid_horizon):
            return True
        return self._ask_horizon != 0 and (not ask_keys or ask_keys[-1] < self._ask_horizon)

    def _wait(self, update: _Update) -> BookOutcome:
        if self.rule is StitchRule.SNAPSHOT_DELTA:
            return BookOutcome.GAP
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.clear()
            return BookOutcome.OVERFULL
        self._waiting.append(update)
        return BookOutcome.KEPT

    def _drop(self) -> BookOutcome:
        """Drop an old update; those sent before the snapshot may be many, later ones may not."""
        if self._fresh_snapshot:
            return BookOutcome.OLD
        self._old_run += 1
        return (
            BookOutcome.OLD if self._old_run <= OLD_RUN_MAX else self._fail(BookOutcome.RESTARTED)
        )

    def _fail(self, outcome: BookOutcome) -> BookOutcome:
        self._clear()
        return outcome

    def _clear(self) -> None:
        self.sequence = None
        self._fresh_snapshot = False
        self._old_run = 0
        self._bids, self._asks = {}, {}
        self._bid_keys, self._ask_keys = [], []
        self._bid_horizon = self._ask_horizon = 0


_as_level: Final[Callable[[Row], Level]] = partial(tuple.__new__, Level)
"""What `Level._make` does, without a function of Python around it for every level."""


def _put_bids(levels: dict[int, int], keys: list[int], rows: Rows) -> bool:
    for ticks, units in rows:
        if 0 < units < UNITS_END:
            if ticks not in levels:
                if ticks <= 0:
                    return False
                insort(keys, ticks)
            levels[ticks] = units
        elif units or ticks <= 0:
            return False
        elif ticks in levels:
            del levels[ticks]
            del keys[bisect_left(keys, ticks)]
    return True


def _put_asks(levels: dict[int, int], keys: list[int], rows: Rows) -> bool:
    for ticks, units in rows:
        if 0 < units < UNITS_END:
            if ticks not in levels:
                if ticks <= 0:
                    return False
                insort(keys, -ticks)
            levels[ticks] = units
        elif units or ticks <= 0:
            return False
        elif ticks in levels:
            del levels[ticks]
            del keys[bisect_left(keys, -ticks)]
    return True


def _cut(levels: dict[int, int], keys: list[int], depth: int, sign: int) -> Rows:
    surplus = len(keys) - depth
    if surplus <= 0:
        return ()
    cut = tuple([(key * sign, 0) for key in keys[:surplus]])
    for ticks, _ in cut:
        del levels[ticks]
    del keys[:surplus]
    return cut


def _best(keys: list[int], levels_max: int, horizon: int) -> list[int]:
    first = max(0, len(keys) - levels_max)
    if horizon:
        first = max(first, bisect_left(keys, horizon))
    return keys[first:][::-1]
