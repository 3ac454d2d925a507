"""One symbol's book, from its diffs and the venue's snapshots. Pure.

Rule ("How to manage a local order book correctly", web-socket-streams.md): updates wait until a
snapshot has come; those wholly before it are dropped, the first one applied spans the update after
it, each later one begins right after the last. The snapshot is asked for only once the subscription
is acknowledged, so that nothing can happen between the two unseen.

Whatever is wrong empties the book and asks for a snapshot. A snapshot that is older than what was
streamed already is asked for again; only if the venue insists, it has begun to count anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from kernel.errors import BadInput
from marketdata.book import BookOutcome, L2Book, StitchRule
from marketdata.events import (
    BookUpdate,
    Channel,
    GapReason,
    MarketEvent,
    Request,
    Rows,
    WantCheck,
    WantSnapshot,
)
from marketdata.grid import Grid
from marketdata.model import Instrument
from venues.binance.frames import DEPTH_BODIES, UNREADABLE, Depth, DepthBody
from venues.binance.policy import StreamWatch
from venues.feeds.cross_check import differences
from venues.feeds.gap_log import StreamGaps

SNAPSHOT_LEVELS: Final = 1_000
CHECK_LEVELS: Final = 100
WAITING_MAX: Final = 2_000
"""Updates that wait for a snapshot, and updates between a question and its answer."""
RECENT_MAX: Final = 64
"""Updates that may come a second time without harm; an older one is a venue that began anew."""
OLD_ANSWERS_MAX: Final = 3

Out = Sequence[MarketEvent | Request]
_NS_PER_MS: Final = 1_000_000
_APPLIED: Final = BookOutcome.APPLIED
"""Looked up once: in its enum it takes longer than changing a level of the book."""


class BookFollower:
    """Keeps one book true or empty."""

    def __init__(
        self,
        instrument: Instrument,
        watch: StreamWatch,
        ask_again: Callable[[StreamGaps, int], Out],
    ) -> None:
        """Follow *instrument*'s book; *ask_again* has the stream subscribed to again."""
        self.symbol = instrument.symbol
        self.gaps = StreamGaps(instrument.venue, instrument.symbol, Channel.BOOK)
        self.book = L2Book(instrument.venue, instrument.symbol, StitchRule.BINANCE_DIFF)
        self._grid = Grid(instrument)
        self._watch = watch
        self._ask_again = ask_again
        self._venue = instrument.venue
        self._is_subscribed = False
        self._highest = self._began_at = 0
        self._old_snapshots = 0
        self._waiting: list[BookUpdate] = []
        self._recent: deque[int] = deque(maxlen=RECENT_MAX)
        self._is_whole = True
        self._checked_ns = self._proved_ns = 0
        self._journal: list[BookUpdate] | None = None
        """Updates since a question was asked; None: none is open."""
        self._answer: tuple[int, Rows, Rows, bool] | None = None
        self._answered_ns = self._asked_ns = self._asked_at = 0
        self._unanswered = self._older_answers = 0

    def take(self, frame: Depth, now_ns: int) -> Out:
        """Follow one diff."""
        try:
            bids, asks = frame.rows(self._grid)
        except BadInput as error:
            return self.fault(GapReason.MALFORMED, str(error), now_ns)
        first, last = frame.first, frame.u
        update = BookUpdate(
            venue=self._venue,
            symbol=self.symbol,
            first=first,
            last=last,
            is_snapshot=False,
            bids=bids,
            asks=asks,
            exchange_ns=frame.exchange_ms * _NS_PER_MS,
            received_ns=now_ns,
        )
        if self.book.sequence is None:
            return self._keep(update)
        outcome = self.book.apply(first, last, bids, asks)
        if outcome is not _APPLIED:
            return self._not_applied(update, outcome, now_ns)
        self.gaps.good_ns = now_ns
        self._recent.append(last)
        return (update,) if self._journal is None else self._compared(update, now_ns)

    def subscribed(self, now_ns: int) -> Out:
        """Begin: the venue has acknowledged that it streams."""
        self._is_subscribed = True
        self._checked_ns = now_ns
        return (WantSnapshot(self.symbol),)

    def fault(self, reason: GapReason, detail: str, now_ns: int) -> Out:
        """Empty the book, for a new snapshot."""
        self._clear()
        gap = self.gaps.open(reason, detail, now_ns)
        return (*gap, WantSnapshot(self.symbol)) if self._is_subscribed else gap

    def unsubscribed(self) -> None:
        """Empty the book: nothing is streamed until the venue says so again."""
        self._is_subscribed = False
        self._clear()

    def snapshot(self, body: bytes, now_ns: int) -> Out:
        """Stitch what was streamed to the venue's book."""
        if self.book.is_live or not self._is_subscribed:
            return ()
        again = (WantSnapshot(self.symbol),)
        read = self._read(body, SNAPSHOT_LEVELS)
        if read is None:
            return again
        sequence, bids, asks, is_whole = read
        if sequence < self._needed() and self._old_snapshots < OLD_ANSWERS_MAX:
            self._old_snapshots += 1
            return again
        if self.book.snapshot(sequence, bids, asks, is_whole=is_whole).is_fault:
            self.book.reset()
            return again
        whole = self._update(sequence, bids, asks, now_ns, is_snapshot=True)
        applied = self._apply_waiting()
        if applied is None:
            return again
        self._is_whole = is_whole
        self._checked_ns = self._proved_ns = now_ns
        restarted: Out = ()
        if (self.book.sequence or 0) < self._highest:
            detail = f"update {self.book.sequence} after {self._highest}"
            restarted = self.gaps.reopen(GapReason.RESTARTED, detail, now_ns)
        self._highest = self._old_snapshots = 0
        self._began_at = sequence
        return (*restarted, *self.gaps.end(now_ns), whole, *applied)

    def check(self, body: bytes, now_ns: int) -> Out:
        """Compare the book with the venue's."""
        if self._journal is None or self.book.sequence is None:
            return ()
        read = self._read(body, CHECK_LEVELS)
        if read is None:
            return ()
        if read[0] < self._asked_at:
            return self._older_answer(read[0], now_ns)
        self._answer, self._answered_ns = read, now_ns
        return self._compare(now_ns) if read[0] <= self.book.sequence else ()

    def look(self, now_ns: int) -> Out:
        """Judge by the time whether the stream has gone silent, and ask."""
        if not self.book.is_live:
            return ()
        watch = self._watch
        if self._journal is None:
            is_quiet = now_ns - self.gaps.good_ns > watch.silence_ns
            if is_quiet or now_ns - self._checked_ns > watch.check_every_ns:
                return self._ask(now_ns)
            return ()
        if self._answer is not None:
            if now_ns - self._answered_ns <= watch.catch_up_ns:
                return ()
            return self._silent(f"the venue is at update {self._answer[0]}", now_ns)
        if now_ns - self._asked_ns <= watch.answer_ns:
            return ()
        if self._unanswered and now_ns - self.gaps.good_ns > watch.silence_ns:
            return self._silent("nobody answers what the book is", now_ns)
        unanswered = self._unanswered + 1
        asked = self._ask(now_ns)
        self._unanswered = unanswered
        return asked

    def _keep(self, update: BookUpdate) -> Out:
        waiting = self._waiting
        if waiting and update.last <= waiting[-1].last:
            if any(update.last == one.last for one in waiting):
                return ()
            waiting.clear()  # the venue began anew, or sent them in the wrong order
            self._highest = 0
        if len(waiting) >= WAITING_MAX:
            waiting.clear()  # the snapshot will not fit, and is asked for again
        waiting.append(update)
        self._highest = max(self._highest, update.last)
        return ()

    def _needed(self) -> int:
        """Return what a snapshot has to include, as far as we know of the venue's updates."""
        return self._waiting[0].first - 1 if self._waiting else self._highest

    def _not_applied(self, update: BookUpdate, outcome: BookOutcome, now_ns: int) -> Out:
        last = update.last
        if outcome is BookOutcome.OLD:
            if not self._recent or last in self._recent:
                return ()  # from before the snapshot, or a repetition
            outcome = BookOutcome.RESTARTED
        reason = outcome.gap_reason or GapReason.SEQUENCE
        detail = f"updates {update.first} to {last}: {outcome.value}"
        found = self.fault(reason, detail, now_ns)
        if outcome in {BookOutcome.GAP, BookOutcome.RESTARTED}:
            self._waiting.append(update)
        self._highest = 0 if outcome is BookOutcome.RESTARTED else last
        return found

    def _apply_waiting(self) -> list[BookUpdate] | None:
        """Apply what waited and return what was not too old; None: it does not fit."""
        applied: list[BookUpdate] = []
        for position, update in enumerate(self._waiting):
            outcome = self.book.apply(update.first, update.last, update.bids, update.asks)
            if outcome is BookOutcome.APPLIED:
                applied.append(update)
            elif outcome.is_fault:
                keep = position if outcome is BookOutcome.GAP else position + 1
                del self._waiting[:keep]
                self.book.reset()
                return None
        self._waiting.clear()
        self._recent.extend(update.last for update in applied)
        return applied

    # Questions to the venue.

    def _ask(self, now_ns: int) -> Out:
        self._journal = []
        self._answer = None
        self._unanswered = 0
        self._asked_ns = now_ns
        self._asked_at = self.book.sequence or 0
        return (WantCheck(self.symbol),)

    def _forget_question(self, now_ns: int) -> None:
        self._journal = self._answer = None
        self._unanswered = self._older_answers = 0
        self._checked_ns = now_ns

    def _compared(self, update: BookUpdate, now_ns: int) -> Out:
        """Note an update that comes while a question is open."""
        assert self._journal is not None
        self._journal.append(update)
        if len(self._journal) > WAITING_MAX:
            self._forget_question(now_ns)
        elif self._answer is not None and update.last >= self._answer[0]:
            return (update, *self._compare(now_ns))
        return (update,)

    def _compare(self, now_ns: int) -> Out:
        assert self._answer is not None
        assert self._journal is not None
        sequence, bids, asks, is_whole = self._answer
        found = differences(
            self.book,
            bids,
            asks,
            later=[update for update in self._journal if update.last > sequence],
            is_whole=is_whole and self._is_whole,
        )
        if found:
            self.gaps.good_ns = self._proved_ns  # since then it may have been wrong
            return self.fault(GapReason.DISAGREES, f"at update {sequence}: {found}", now_ns)
        self._forget_question(now_ns)
        self.gaps.good_ns = self._proved_ns = now_ns
        self.gaps.strikes = 0
        # No rows: the book is as it was, and that is known as of now.
        return (self._update(self.book.sequence or 0, (), (), now_ns, is_snapshot=False),)

    def _older_answer(self, sequence: int, now_ns: int) -> Out:
        """The venue's book is older than ours was when we asked: some of its hosts may be behind."""
        older = self._older_answers + 1
        if older > OLD_ANSWERS_MAX and sequence >= self._began_at:
            self._forget_question(now_ns)  # nothing is proved; it is asked again in its time
            return ()
        if older > OLD_ANSWERS_MAX:
            detail = f"the venue is at update {sequence}, we were at {self._asked_at}"
            found = self.fault(GapReason.RESTARTED, detail, now_ns)
            self._highest = 0
            return found
        asked = self._ask(now_ns)
        self._older_answers = older
        return asked

    def _silent(self, detail: str, now_ns: int) -> Out:
        self.unsubscribed()
        gap = self.gaps.open(GapReason.SILENT, detail, now_ns)
        return (*gap, *self._ask_again(self.gaps, now_ns))

    def _clear(self) -> None:
        self._highest = max(self._highest, self.book.sequence or 0)
        self.book.reset()
        self._waiting.clear()
        self._recent.clear()
        self._forget_question(self._checked_ns)

    def _read(self, body: bytes, limit: int) -> tuple[int, Rows, Rows, bool] | None:
        try:
            read: DepthBody = DEPTH_BODIES.decode(body)
            bids, asks = self._grid.rows(read.bids), self._grid.rows(read.asks)
        except (BadInput, *UNREADABLE):
            return None
        return read.last_update_id, bids, asks, max(len(bids), len(asks)) < limit

    def _update(
        self, sequence: int, bids: Rows, asks: Rows, now_ns: int, *, is_snapshot: bool
    ) -> BookUpdate:
        return BookUpdate(
            venue=self._venue,
            symbol=self.symbol,
            first=sequence,
            last=sequence,
            is_snapshot=is_snapshot,
            bids=bids,
            asks=asks,
            exchange_ns=0,
            received_ns=now_ns,
        )
