"""Streams that have something to say, by what the others of their symbol show. Pure.

Trades, tickers and candles may rightly say nothing for hours, so their silence alone proves nothing. But
a trade changes the candle and the ticker, and a candle that changes had a trade. Which of them is told
first is not certain: a word from shortly before counts too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from marketdata.events import Channel

TOGETHER_NS: Final = 3 * 10**9
"""What follows from one trade is told within so long, in any order."""
DUE_NS: Final = 10 * 10**9
"""A stream that still says nothing then has lost what it had to say."""
LACKS: Final = "other streams show what this one lacks"


class DueStreams:
    """The streams of one symbol."""

    def __init__(self) -> None:
        self._said: dict[Channel, int] = {}
        self._due: dict[Channel, int] = {}

    def note(self, channel: Channel, evidence_of: Iterable[Channel], now_ns: int) -> None:
        """Note that a stream has said something, and of which others that is evidence."""
        self._said[channel] = now_ns
        self._due.pop(channel, None)
        for other in evidence_of:
            if now_ns - self._said.get(other, -TOGETHER_NS) >= TOGETHER_NS:
                self._due.setdefault(other, now_ns)

    def overdue(self, now_ns: int) -> list[Channel]:
        """Return the streams that are silent although they had something to say."""
        return [one for one, since_ns in self._due.items() if now_ns - since_ns >= DUE_NS]

    def excuse(self, channel: Channel) -> None:
        """Expect nothing of a stream until the next evidence, as when it was just asked for."""
        self._due.pop(channel, None)

    def clear(self) -> None:
        """Begin anew, as after a lost connection."""
        self._said.clear()
        self._due.clear()
