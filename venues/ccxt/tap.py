"""What ccxt.pro makes of every single frame: its own hooks are listened to, on the instance.

ccxt hands out the latest value when it is waited for, so of fifty updates in a burst three are seen.
But each of its handlers ends in `client.resolve` with what it has made, frame by frame. So that is
where values are taken from; and each frame is looked at before ccxt gets it, because one that it cannot
parse ends its receiving loop without a word, and one with malformed levels is counted and dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from kernel.errors import BadInput
from marketdata.events import Channel, GapReason
from venues.ccxt.connection import FAILURES, WRONG_SHAPE
from venues.ccxt.decimal_text import decimal_text
from venues.ccxt.instance import exact_json
from venues.ccxt.unified import BestSaid, BookSaid, CandleSaid, Said, TickerSaid, TradeSaid

DEPTH: Final = 100
"""Levels of a side that are told; who trades sees no deeper."""
SIDES: Final = frozenset({"b", "a", "bids", "asks", "bid", "ask"})
"""How venues call the sides of a book."""
NESTED_MAX: Final = 4
CANDLE: Final = 6
NEW_MAX: Final = 1_000
"""Trades of one frame; ccxt itself keeps no more."""

Told = Callable[[str, Sequence[Said]], None]
Broken = Callable[[GapReason, str], None]


class Tap:
    """Listens to one instance of ccxt, of which one stream of one symbol is watched."""

    def __init__(
        self,
        exchange: Any,
        reader: Reader,
        *,
        told: Told,
        broken: Broken,
        connected: Callable[[], None],
        checks_levels: bool,
    ) -> None:
        """Listen to *exchange*, which must not have connected yet.

        Args:
            exchange: an instance of a ccxt.pro class.
            reader: makes values of what ccxt resolves.
            told: gets each frame with what was made of it.
            broken: is told what is wrong with a frame; nothing more of this instance counts.
            connected: is told when a connection is open; ccxt subscribes on it at once.
            checks_levels: whether its frames are of books.
        """
        self._reader = reader
        self._told = told
        self._broken = broken
        self._connected = connected
        self._checks_levels = checks_levels
        self._said: list[Said] | None = None
        self._is_over = False
        self._make = exchange.client
        exchange.client = self._client

    def end(self) -> None:
        """Tell nothing more: what still comes while ccxt closes is of a stream that is over."""
        self._is_over = True

    def _client(self, url: str) -> Any:
        client = self._make(url)
        if not getattr(client, "is_tapped", False):
            client.is_tapped = True
            self._listen(client)
        return client

    def _listen(self, client: Any) -> None:
        pass_on, resolve = client.handle_text_or_binary_message, client.resolve

        def received(data: Any) -> None:
            text = data.decode(errors="replace") if isinstance(data, bytes) else str(data)
            self._receive(text, lambda: pass_on(data))

        def resolved(result: Any, message_hash: Any) -> Any:
            self._note(result)
            return resolve(result, message_hash)

        def opened(future: Any) -> None:
            if not future.cancelled() and future.exception() is None:
                self._connected()

        client.handle_text_or_binary_message = received
        client.resolve = resolved
        client.connected.add_done_callback(opened)

    def _receive(self, text: str, pass_on: Callable[[], None]) -> None:
        """Take a frame; whatever it holds, nothing is raised into ccxt's receiving loop."""
        if self._is_over:
            return
        try:
            frame = exact_json(text) if text[:1] in {"{", "["} else None
            if self._checks_levels:
                check_levels(frame)
        except BadInput as error:
            self._end(GapReason.MALFORMED, str(error))
            return
        except ValueError as error:
            self._end(GapReason.UNREADABLE, str(error))
            return
        self._said = []
        try:
            pass_on()
        except FAILURES as error:
            self._end(GapReason.UNREADABLE, f"ccxt cannot read a frame: {type(error).__name__}")
        said, self._said = self._said, None
        if said and not self._is_over:
            self._told(text, said)

    def _note(self, result: Any) -> None:
        if self._is_over:
            return
        try:
            said = self._reader.read(result)
        except (BadInput, *WRONG_SHAPE) as error:
            self._end(GapReason.MALFORMED, f"what ccxt made of it cannot be read: {error}")
            return
        if self._said is not None:
            self._said.extend(said)
        elif said:
            self._told("", said)  # not within a frame: ccxt had asked for a snapshot

    def _end(self, reason: GapReason, detail: str) -> None:
        self._is_over = True
        self._broken(reason, detail[:200])


class Reader:
    """Makes values of what ccxt resolves, of one channel of one symbol; only what is new."""

    def __init__(self, symbol: str, unified: str, channel: Channel, interval_s: int) -> None:
        """Read *channel* of ccxt's symbol *unified*, which is *symbol* to us."""
        self._symbol = symbol
        self._unified = unified
        self._interval_s = interval_s
        self._count = 0
        self._sides: tuple[dict[str, str], dict[str, str]] | None = None
        self._last: Any = None
        self._read = {
            Channel.BOOK: self._book,
            Channel.TRADES: self._trades,
            Channel.BEST: self._best,
            Channel.TICKER: self._ticker,
            Channel.CANDLES: self._candles,
        }[channel]

    def read(self, result: Any) -> Sequence[Said]:
        """Return what is new in *result*; nothing if it is not of our stream."""
        return self._read(result)

    def _book(self, result: Any) -> Sequence[Said]:
        if not isinstance(result, Mapping) or "bids" not in result:
            return ()
        if result.get("symbol") not in {None, self._unified}:
            return ()
        sides = (_side(result["bids"]), _side(result["asks"]))
        before, self._sides = self._sides, sides
        if before is None:
            changes = [list(side.items()) for side in sides]
        else:
            changes = [_changes(old, new) for old, new in zip(before, sides, strict=True)]
            if not any(changes):
                return ()
        self._count += 1
        return (
            BookSaid(
                symbol=self._symbol,
                n=self._count,
                is_whole=before is None,
                bids=changes[0],
                asks=changes[1],
                ms=_ms(result.get("timestamp")),
            ),
        )

    def _trades(self, result: Any) -> Sequence[Said]:
        if not isinstance(result, list):
            return ()
        new: deque[Any] = deque(maxlen=NEW_MAX)
        for row in reversed(result):
            if row is self._last:
                break
            new.appendleft(row)
        if new:
            self._last = new[-1]
        return [self._trade(row) for row in new if row["symbol"] == self._unified]

    def _trade(self, row: Mapping[str, Any]) -> TradeSaid:
        if row["side"] not in {"buy", "sell"}:
            raise BadInput("a trade has no side")
        return TradeSaid(
            symbol=self._symbol,
            id=None if row.get("id") is None else str(row["id"]),
            price=_text(row["price"]),
            amount=_text(row["amount"]),
            side=row["side"],
            ms=_ms(row.get("timestamp")),
        )

    def _best(self, result: Any) -> Sequence[Said]:
        row = self._row(result)
        if row is None:
            return ()
        said = BestSaid(
            symbol=self._symbol,
            bid=_maybe(row.get("bid")),
            bid_amount=_maybe(row.get("bidVolume")),
            ask=_maybe(row.get("ask")),
            ask_amount=_maybe(row.get("askVolume")),
            ms=_ms(row.get("timestamp")),
        )
        return self._if_new(said)

    def _ticker(self, result: Any) -> Sequence[Said]:
        row = self._row(result)
        if row is None:
            return ()
        last = _text(row["last"])
        said = TickerSaid(
            symbol=self._symbol,
            last=last,
            open=_maybe(row.get("open")) or last,
            high=_maybe(row.get("high")) or last,
            low=_maybe(row.get("low")) or last,
            volume=_maybe(row.get("baseVolume")) or "0",
            ms=_ms(row.get("timestamp")),
        )
        return self._if_new(said)

    def _candles(self, result: Any) -> Sequence[Said]:
        rows = result[2] if isinstance(result, list) and result[:1] == [self._unified] else result
        if not isinstance(rows, list) or not len(rows):
            return ()
        found = []
        for row in list(rows)[-2:]:
            if not isinstance(row, list) or len(row) < CANDLE:
                raise BadInput("a candle has not six fields")
            found.append(
                CandleSaid(
                    symbol=self._symbol,
                    seconds=self._interval_s,
                    open_ms=int(row[0]),
                    open=_text(row[1]),
                    high=_text(row[2]),
                    low=_text(row[3]),
                    close=_text(row[4]),
                    volume=_text(row[5]),
                )
            )
        before = self._last or []
        self._last = found
        return [candle for candle in found if candle not in before]

    def _row(self, result: Any) -> Mapping[str, Any] | None:
        """Return our symbol's ticker, from one or from a table of several."""
        if not isinstance(result, Mapping):
            return None
        row = result.get(self._unified, result)
        return row if isinstance(row, Mapping) and row.get("symbol") == self._unified else None

    def _if_new(self, said: BestSaid | TickerSaid) -> Sequence[Said]:
        """Leave out what is said twice: ccxt resolves one frame under several names."""
        if said == self._last:
            return ()
        self._last = said
        return (said,)


def check_levels(frame: Any, depth: int = 0) -> None:
    """Check that whatever a frame has of the sides of a book is lists of levels.

    Raises:
        BadInput: it is not. ccxt would count the update and drop the levels.
    """
    if isinstance(frame, Mapping):
        for name in SIDES & frame.keys():
            if not _are_levels(frame[name]):
                raise BadInput(f"{name!r} of a book's frame is no list of levels")
        inner: Sequence[Any] = tuple(frame.values())
    else:
        inner = frame if isinstance(frame, list) else ()
    if depth < NESTED_MAX:
        for value in inner:
            if isinstance(value, Mapping | list):
                check_levels(value, depth + 1)


def _are_levels(rows: Any) -> bool:
    return rows is None or (isinstance(rows, list) and all(map(_is_level, rows)))


def _is_level(row: Any) -> bool:
    if isinstance(row, Mapping):
        return True
    return (
        isinstance(row, list)
        and len(row) >= 2
        and all(isinstance(x, str | int) and not isinstance(x, bool) for x in row[:2])
    )


def _side(rows: Any) -> dict[str, str]:
    return {_text(row[0]): _text(row[1]) for row in rows[:DEPTH]}


def _changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[tuple[str, str]]:
    gone = [(price, "0") for price in old if price not in new]
    return gone + [(price, size) for price, size in new.items() if old.get(price) != size]


def _text(number: Any) -> str:
    if isinstance(number, bool) or number is None:
        raise BadInput(f"{number!r} is no number")
    return number if isinstance(number, str) else decimal_text(number)


def _maybe(number: Any) -> str | None:
    return None if number is None else _text(number)


def _ms(number: Any) -> int | None:
    return None if number is None else int(number)
