"""What one WebSocket v2 connection has subscribed to."""

from dataclasses import dataclass, field

from venues.simulator.connections import Connection, Json


@dataclass(slots=True)
class PrivateStream:
    """A private subscription: `sequence` counts its frames."""

    account: str
    api_key: str
    with_details: bool = True
    with_counter: bool = False
    entries_seen: int = 0
    sequence: int = 0


@dataclass(slots=True, eq=False)
class Session:
    """A connection with its subscriptions. Symbols are those of WebSocket v2."""

    connection: Connection
    is_private: bool
    books: dict[str, int] = field(default_factory=dict)
    tickers: dict[str, str] = field(default_factory=dict)
    trades: set[str] = field(default_factory=set)
    candles: set[tuple[str, int]] = field(default_factory=set)
    instruments: bool = False
    executions: PrivateStream | None = None
    balances: PrivateStream | None = None
    last_sent_ms: int = 0
    held: list[tuple[str, Json]] | None = None

    @property
    def is_listening(self) -> bool:
        """Whether it has any subscription: then it gets heartbeats."""
        return bool(
            self.books
            or self.tickers
            or self.trades
            or self.candles
            or self.instruments
            or self.executions
            or self.balances
        )

    def hold(self) -> None:
        """Keep frames back until the request that causes them is answered."""
        self.held = []

    def release(self) -> None:
        """Send what was kept back."""
        held, self.held = self.held, None
        for stream, frame in held or []:
            self._send(stream, frame)

    def offer(self, stream: str, frame: Json, now_ms: int) -> None:
        """Send a public frame."""
        self.last_sent_ms = now_ms
        self._send(stream, frame)

    def offer_private(
        self, channel: str, kind: str, rows: list[Json], stream: PrivateStream, now_ms: int
    ) -> None:
        """Send a private frame with its number in the stream."""
        stream.sequence += 1
        self.last_sent_ms = now_ms
        frame = {"channel": channel, "type": kind, "data": rows, "sequence": stream.sequence}
        self._send(f"user/{channel}", frame)

    def _send(self, stream: str, frame: Json) -> None:
        if self.held is None:
            self.connection.offer(stream, frame, private=stream.startswith("user/"))
        else:
            self.held.append((stream, frame))
