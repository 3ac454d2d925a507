"""Recordings of public markets: written by a simulator, replayed by one.

A recording is a file of JSON lines, gzipped if its name ends with `.gz`. The first line says what it
is and of which symbols, each as the command line's `--symbol` has it:

    {"recording": "causeway-market", "version": 1,
     "symbols": ["ETH/USDT:tick=0.01:lot=0.0001:min=5:mid=3000"]}

Every other line is one row, in the order things happened. Prices and quantities are decimal texts,
`ns` is nanoseconds since 1970, `taker` the side of whoever traded with the book:

    {"ns": 1, "symbol": "ETH/USDT", "book": "snapshot", "bids": [["2999.9", "1.5"]], "asks": []}
    {"ns": 2, "symbol": "ETH/USDT", "book": "delta", "bids": [["2999.9", "0"]], "asks": []}
    {"ns": 3, "symbol": "ETH/USDT", "trade": {"price": "3000.1", "quantity": "0.2", "taker": "buy"}}

A snapshot is the whole book. Quantities of a delta are absolute, 0 removes the level. What does not
lie on the symbol's grid is rounded towards the worse price and the smaller quantity.

In a replay the house quotes the recorded book and a taker trades what was recorded; clients' orders
stand beside them and trade with both.
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, Protocol

import msgspec

from matching.model import Side
from venues.simulator.commands import LevelChanged, MirrorLevels, MirrorTrade, VenueEvent
from venues.simulator.decimals import text_from_units, units_from_text
from venues.simulator.errors import RecordingInvalid, SettingsInvalid, VenueRefusal
from venues.simulator.model import PublicTrade, SymbolSpec
from venues.simulator.settings import symbol_from_text
from venues.simulator.state import VenueState

FORMAT: Final = "causeway-market"
VERSION: Final = 1
RAW_SUFFIX: Final = ".raw"
ROWS_AT_ONCE_MAX: Final = 5_000
NS_PER_MS: Final = 1_000_000

_SIDES: Final = {"buy": Side.BUY, "sell": Side.SELL}

Mirror = MirrorLevels | MirrorTrade


class RecordedTrade(msgspec.Struct, frozen=True):
    """A trade with the book."""

    price: str
    quantity: str
    taker: str


class Row(msgspec.Struct, frozen=True):
    """A line of a recording: with `book` a snapshot or a delta, else a trade."""

    ns: int
    symbol: str
    book: str = ""
    bids: tuple[tuple[str, str], ...] = ()
    asks: tuple[tuple[str, str], ...] = ()
    trade: RecordedTrade | None = None


class Recorder:
    """Writes what everybody sees of a venue.

    Raises on opening:
        RecordingInvalid: the file exists.
    """

    def __init__(self, path: Path, state: VenueState, now_ms: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = _creating(path)
        except FileExistsError as error:
            raise RecordingInvalid(f"{path} exists already: name another file") from error
        self._specs = {name: market.spec for name, market in state.markets.items()}
        symbols = [symbol_text(spec) for spec in self._specs.values()]
        self._write({"recording": FORMAT, "version": VERSION, "symbols": symbols})
        for name, market in state.markets.items():
            levels = [
                (side, level.price_ticks, level.quantity_lots)
                for side in Side
                for level in market.depth(side)
            ]
            self._write_levels("snapshot", name, levels, now_ms)

    def heard(self, events: Sequence[VenueEvent], now_ms: int) -> None:
        """Write the public part of what happened."""
        pending: dict[str, dict[tuple[Side, int], int]] = {}
        for event in events:
            if isinstance(event, LevelChanged):
                levels = pending.setdefault(event.symbol, {})
                levels[event.side, event.price_ticks] = event.quantity_lots
            elif isinstance(event, PublicTrade):
                self._flush(pending, now_ms)
                self._write_trade(event, now_ms)
        self._flush(pending, now_ms)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def _flush(self, pending: dict[str, dict[tuple[Side, int], int]], now_ms: int) -> None:
        for name, levels in pending.items():
            rows = [(side, price, lots) for (side, price), lots in levels.items()]
            self._write_levels("delta", name, rows, now_ms)
        pending.clear()

    def _write_levels(
        self, book: str, name: str, levels: Iterable[tuple[Side, int, int]], now_ms: int
    ) -> None:
        spec = self._specs[name]
        texts: dict[Side, list[list[str]]] = {Side.BUY: [], Side.SELL: []}
        for side, price, lots in levels:
            texts[side].append(
                [
                    text_from_units(price * spec.tick_units),
                    text_from_units(lots * spec.lot_units),
                ]
            )
        row = {"ns": now_ms * NS_PER_MS, "symbol": pair_of(spec), "book": book}
        self._write(row | {"bids": texts[Side.BUY], "asks": texts[Side.SELL]})

    def _write_trade(self, trade: PublicTrade, now_ms: int) -> None:
        spec = self._specs[trade.symbol]
        told = {
            "price": text_from_units(trade.price_ticks * spec.tick_units),
            "quantity": text_from_units(trade.quantity_lots * spec.lot_units),
            "taker": "sell" if trade.buyer_is_maker else "buy",
        }
        self._write({"ns": now_ms * NS_PER_MS, "symbol": pair_of(spec), "trade": told})

    def _write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row, separators=(",", ":")) + "\n")


class Recording:
    """A recording to be replayed.

    Raises on opening:
        RecordingInvalid: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with _reading(path) as file:
                header = json.loads(file.readline())
        except (OSError, EOFError, ValueError) as error:
            raise RecordingInvalid(f"recording {path} cannot be read: {error}") from error
        if not isinstance(header, dict) or header.get("recording") != FORMAT:
            raise RecordingInvalid(f"recording {path}: the first line is no header of {FORMAT}")
        if header.get("version") != VERSION:
            raise RecordingInvalid(
                f"recording {path}: version {header.get('version')!r}, only {VERSION} can be read"
            )
        try:
            self.symbols = tuple(symbol_from_text(text) for text in header["symbols"])
        except (KeyError, TypeError, SettingsInvalid) as error:
            raise RecordingInvalid(f"recording {path}: symbols: {error}") from error

    def rows(self, skipped: int = 0) -> Iterator[tuple[int, Row]]:
        """The rows behind the first so many, with their numbers from 1.

        Raises:
            RecordingInvalid: a line cannot be read.
        """
        decoder = msgspec.json.Decoder(Row)
        with _reading(self._path) as file:
            for number, line in enumerate(islice(file, 1 + skipped, None), skipped + 1):
                try:
                    yield number, decoder.decode(line)
                except msgspec.DecodeError as error:
                    raise RecordingInvalid(
                        f"recording {self._path}, line {number + 1}: {error}"
                    ) from error


class Played(Protocol):
    """A recording that can be replayed, whoever made it."""

    symbols: tuple[SymbolSpec, ...]

    def rows(self, skipped: int = 0) -> Iterator[tuple[int, Row]]:
        """The rows behind the first so many, with their numbers from 1."""
        ...


class Replay:
    """Feeds a recording to a venue at a speed, from where the venue's state says it was left."""

    def __init__(self, recording: Played, state: VenueState, *, speed: float = 1.0) -> None:
        self._specs = {pair_of(market.spec): market.spec for market in state.markets.values()}
        self._speed = speed
        self._rows = recording.rows(state.replayed_rows)
        self._next = next(self._rows, None)
        self._began: tuple[int, int] | None = None

    @property
    def is_over(self) -> bool:
        """Whether there are no more rows."""
        return self._next is None

    def due(self, now_ms: int) -> Iterator[Mirror]:
        """The commands of rows whose time has come, a bounded number at once."""
        if self._next is None:
            return
        if self._began is None:
            self._began = (now_ms, self._next[1].ns)
        began_ms, began_ns = self._began
        until_ns = began_ns + int((now_ms - began_ms) * NS_PER_MS * self._speed)
        for _ in range(ROWS_AT_ONCE_MAX):
            if self._next is None or self._next[1].ns > until_ns:
                return
            number, row = self._next
            self._next = next(self._rows, None)
            yield self.command(row, number, now_ms)

    def command(self, row: Row, number: int, at_ms: int) -> Mirror:
        """The command a row is.

        Raises:
            RecordingInvalid: it names a symbol the venue has not, or numbers that are none.
        """
        spec = self._specs.get(row.symbol)
        if spec is None:
            raise RecordingInvalid(
                f"recording, row {number}: the venue has no symbol {row.symbol}; start it without "
                f"--symbol, and it has those of the recording"
            )
        try:
            return _command(spec, row, number, at_ms)
        except (VenueRefusal, KeyError) as error:
            raise RecordingInvalid(f"recording, row {number}: {error}") from error


def open_recording(path: Path) -> Played:
    """Open a recording of a simulator, or raw segments of a venue (a folder, or one ``.raw`` file).

    Raises:
        RecordingInvalid: it is neither, or cannot be read.
    """
    if not path.is_dir() and path.suffix != RAW_SUFFIX:
        return Recording(path)
    # What reads those needs zstd and the machines of the feeds, which no other simulator waits for.
    from venues.simulator.market_recording import MarketRecording  # noqa: PLC0415  start-up time

    return MarketRecording(path)


def symbol_text(spec: SymbolSpec) -> str:
    """A symbol as the command line reads it."""
    values = {
        "tick": spec.tick_units,
        "lot": spec.lot_units,
        "min": spec.min_notional_units,
        "mid": spec.mid_ticks * spec.tick_units,
    }
    texts = [f"{name}={text_from_units(units)}" for name, units in values.items()]
    return ":".join([pair_of(spec), *texts])


def pair_of(spec: SymbolSpec) -> str:
    """A symbol as recordings name it."""
    return f"{spec.base}/{spec.quote}"


def _command(spec: SymbolSpec, row: Row, number: int, at_ms: int) -> Mirror:
    if row.trade is not None:
        side = _SIDES[row.trade.taker]
        return MirrorTrade(
            at_ms,
            spec.name,
            side,
            _ticks(spec, row.trade.price, side.opposite),
            max(1, units_from_text("quantity", row.trade.quantity) // spec.lot_units),
            number,
        )
    sides = ((Side.BUY, row.bids), (Side.SELL, row.asks))
    levels: dict[tuple[Side, int], int] = {}
    for side, texts in sides:
        for price, quantity in texts:
            key = (side, _ticks(spec, price, side))
            levels[key] = units_from_text("quantity", quantity) // spec.lot_units
    told = tuple((side, price, lots) for (side, price), lots in levels.items())
    return MirrorLevels(at_ms, spec.name, told, row.book == "snapshot", number)


def _ticks(spec: SymbolSpec, price: str, side: Side) -> int:
    """A resting price on the grid, off it the next one that is worse for who trades with it."""
    units = units_from_text("price", price)
    return max(1, units // spec.tick_units if side is Side.BUY else -(-units // spec.tick_units))


def _reading(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _creating(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "xt", encoding="utf-8")
    return path.open("x", encoding="utf-8")
