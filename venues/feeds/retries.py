"""One stream that is asked for again when it fails, after pauses that grow. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from marketdata.events import Channel, GapReason, MarketEvent, Request, WantResubscribe
from venues.feeds.gap_log import StreamGaps

_SECOND_NS: Final = 1_000_000_000
RETRY_MIN_NS: Final = _SECOND_NS // 2
RETRY_MAX_NS: Final = 60 * _SECOND_NS
ANSWER_NS: Final = 5 * _SECOND_NS
"""A subscription that brought nothing for so long is made again."""
STEADY_NS: Final = 30 * _SECOND_NS
"""A stream that was good for so long begins anew with short pauses."""


class RetriedStream(StreamGaps):
    """The gaps of one stream, and how often it had to be asked for. It begins as just asked for."""

    __slots__ = ("asked_ns", "attempts", "is_asked", "live_ns")

    def __init__(self, venue: str, symbol: str, channel: Channel) -> None:
        super().__init__(venue, symbol, channel)
        self.begin(0)

    def begin(self, now_ns: int) -> None:
        """Count from a new connection, over which it was asked for."""
        self.asked_ns, self.live_ns = now_ns, now_ns
        self.attempts = 1
        self.is_asked = True
        """Whether the answer to the last request is still to come."""

    def ask(self, now_ns: int) -> WantResubscribe:
        """Ask for it again."""
        self.asked_ns, self.is_asked = now_ns, True
        self.attempts += 1
        return WantResubscribe(self.symbol, self.channel)

    def fail(self, reason: GapReason, detail: str, now_ns: int) -> Iterator[MarketEvent | Request]:
        """Say that it cannot be relied on, and ask for it again unless that was just done."""
        was_live = not self.is_open
        yield from self.open(reason, detail, now_ns)
        if was_live and now_ns - self.live_ns >= STEADY_NS:
            self.attempts = 0
        self.is_asked = False
        if self.attempts <= 1:
            yield self.ask(now_ns)

    def recover(self, now_ns: int) -> Iterator[MarketEvent | Request]:
        """Say that it can be relied on."""
        if self.is_open:
            self.live_ns, self.is_asked = now_ns, False
        yield from self.end(now_ns)

    def is_due(self, now_ns: int, *, retry_max_ns: int = RETRY_MAX_NS) -> bool:
        """Whether it is lost and has to be asked for again; no pause is longer than the longest."""
        if not self.is_open:
            return False
        pause = min(RETRY_MIN_NS << min(self.attempts, 20), retry_max_ns)
        return now_ns - self.asked_ns >= (max(pause, ANSWER_NS) if self.is_asked else pause)
