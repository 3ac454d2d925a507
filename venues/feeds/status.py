"""How each stream of a feed is doing: counted as its events go by. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kernel.clock import from_unix_ns
from marketdata.events import (
    BestSeen,
    BookUpdate,
    CandleSeen,
    Channel,
    GapReason,
    GapSeen,
    MarketEvent,
    TickerSeen,
    TradeSeen,
)
from marketdata.model import StreamState, StreamStatus

CHANNELS = {
    BookUpdate: Channel.BOOK,
    TradeSeen: Channel.TRADES,
    BestSeen: Channel.BEST,
    TickerSeen: Channel.TICKER,
    CandleSeen: Channel.CANDLES,
}


@dataclass(slots=True)
class StreamRecord:
    """What is counted of one stream; times in nanoseconds since 1970, 0: never."""

    symbol: str
    channel: Channel
    state: StreamState = StreamState.CONNECTING
    since_ns: int = 0
    last_ns: int = 0
    sequence: int = 0
    gaps: int = 0
    messages: int = 0
    detail: str = ""
    gap_since_ns: int = 0

    def turn(self, state: StreamState, now_ns: int, detail: str) -> None:
        """Come into a state."""
        if state is not self.state:
            self.state, self.since_ns = state, now_ns
        self.detail = detail


class StatusBoard:
    """The streams of one venue, in the order in which they were first heard of."""

    def __init__(self, venue: str) -> None:
        self.venue = venue
        self.reconnects = 0
        self._records: dict[tuple[str, Channel], StreamRecord] = {}

    def record(self, symbol: str, channel: Channel) -> StreamRecord:
        """Return what is counted of a stream."""
        found = self._records.get((symbol, channel))
        if found is None:
            found = self._records[symbol, channel] = StreamRecord(symbol, channel)
        return found

    def note(self, event: MarketEvent) -> None:
        """Count an event."""
        if type(event) is GapSeen:
            self._note_gap(event)
            return
        record = self.record(event.symbol, CHANNELS[type(event)])
        record.messages += 1
        record.last_ns = event.received_ns
        if type(event) is BookUpdate:
            record.sequence = event.last
        elif type(event) is BestSeen:
            record.sequence = event.sequence
        elif type(event) is TradeSeen and event.trade_id.isdecimal():
            record.sequence = int(event.trade_id)

    def statuses(self) -> tuple[StreamStatus, ...]:
        """Return every stream as a value."""
        return tuple(self._status(record) for record in self._records.values())

    def streams(self) -> Iterable[tuple[str, Channel]]:
        """Return every stream's key."""
        return tuple(self._records)

    def _note_gap(self, gap: GapSeen) -> None:
        record = self.record(gap.symbol, gap.channel)
        if gap.until_ns:
            if gap.since_ns == record.gap_since_ns:  # not one that was over before
                record.turn(StreamState.LIVE, gap.until_ns, "")
            return
        record.gaps += 1
        record.gap_since_ns = gap.since_ns
        record.turn(_state_in(gap.reason), gap.received_ns, f"{gap.reason}: {gap.detail}")

    def _status(self, record: StreamRecord) -> StreamStatus:
        return StreamStatus(
            venue=self.venue,
            symbol=record.symbol,
            channel=record.channel,
            state=record.state,
            since=from_unix_ns(record.since_ns),
            last_event_at=from_unix_ns(record.last_ns) if record.last_ns else None,
            sequence=record.sequence,
            gaps=record.gaps,
            reconnects=self.reconnects,
            messages=record.messages,
            detail=record.detail.removesuffix(": "),
        )


def _state_in(reason: GapReason) -> StreamState:
    match reason:
        case GapReason.CLOSED | GapReason.REFUSED:
            return StreamState.DOWN
        case GapReason.SILENT:
            return StreamState.STALE
        case _:
            return StreamState.SYNCING
