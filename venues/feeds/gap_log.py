"""When a stream can be relied on and when it cannot: what a machine keeps of one stream. Pure.

A gap begins where the stream was last known to be complete, which is before its fault was found, and
ends where it is complete again. While one is open, further faults are part of it.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from marketdata.events import Channel, GapReason, GapSeen

STRIKES_MAX: Final = 5
"""Failures in a row of one stream; then subscribing again on the same socket does not help."""

RETRY_NS_MIN: Final = 2 * 10**9
RETRY_NS_MAX: Final = 60 * 10**9
DETAIL_MAX: Final = 500


class StreamGaps:
    """The gaps of one stream.

    Attributes:
        good_ns: until when it is known to be complete; 0: it never was.
        strikes: silences in a row; whoever finds one waits longer before the next attempt.
    """

    def __init__(self, venue: str, symbol: str, channel: Channel) -> None:
        self.venue = venue
        self.symbol = symbol
        self.channel = channel
        self.good_ns = 0
        self.strikes = 0
        self._open: GapSeen | None = None

    @property
    def is_open(self) -> bool:
        """Whether the stream cannot be relied on now."""
        return self._open is not None

    @property
    def reason(self) -> GapReason | None:
        """Return why it cannot be relied on; None: it can."""
        return None if self._open is None else self._open.reason

    def open(self, reason: GapReason, detail: str, now_ns: int) -> tuple[GapSeen, ...]:
        """Return the gap that opens; nothing if one is open already."""
        if self._open is not None:
            return ()
        return self._begin(reason, detail, self.good_ns or now_ns, now_ns)

    def reopen(self, reason: GapReason, detail: str, now_ns: int) -> tuple[GapSeen, ...]:
        """Return the end of an open gap of another reason, and the gap that goes on from there."""
        if self.reason is reason:
            return ()
        ended = self.end(now_ns)
        return (*ended, *self._begin(reason, detail, self.good_ns or now_ns, now_ns))

    def end(self, now_ns: int, detail: str = "") -> tuple[GapSeen, ...]:
        """Return the end of the open gap: from *now_ns* on the stream is complete."""
        self.good_ns = now_ns
        gap, self._open = self._open, None
        if gap is None:
            return ()
        until_ns = max(gap.since_ns, now_ns)
        return (_changed(gap, until_ns, detail or gap.detail, now_ns),)

    def note(
        self, reason: GapReason, detail: str, since_ns: int, until_ns: int
    ) -> tuple[GapSeen, ...]:
        """Return a gap that is over as it is found, opened and ended."""
        opened = self._seen(reason, detail, since_ns, until_ns)
        return (opened, _changed(opened, max(since_ns, until_ns), detail, until_ns))

    def amend(self, gap: GapSeen, detail: str, now_ns: int) -> GapSeen:
        """Return *gap*, which is over, with what is known of it by now."""
        return _changed(gap, gap.until_ns, detail, now_ns)

    def retry_ns(self) -> int:
        """Return how long to wait before the next attempt after so many strikes."""
        return min(RETRY_NS_MAX, RETRY_NS_MIN * int(2 ** min(self.strikes, 10)))

    def _begin(
        self, reason: GapReason, detail: str, since_ns: int, now_ns: int
    ) -> tuple[GapSeen, ...]:
        self._open = self._seen(reason, detail, min(since_ns, now_ns), now_ns)
        return (self._open,)

    def _seen(self, reason: GapReason, detail: str, since_ns: int, now_ns: int) -> GapSeen:
        return GapSeen(
            venue=self.venue,
            symbol=self.symbol,
            channel=self.channel,
            reason=reason,
            since_ns=since_ns,
            until_ns=0,
            detail=detail[:DETAIL_MAX],
            received_ns=now_ns,
        )


def _changed(gap: GapSeen, until_ns: int, detail: str, now_ns: int) -> GapSeen:
    return replace(gap, until_ns=until_ns, detail=detail[:DETAIL_MAX], received_ns=now_ns)
