"""From the bytes of a frame to a checked book and a callback: how fast, beside ccxt.pro, cryptofeed?

All get the same frames of Binance's combined depth stream and handle them with the code that handles
what their sockets receive; each calls back once a frame. Ours is the machine of the live feed:
decoding, the instrument's grid, the gap check, the book on integers, the crossed check, the event.
ccxt.pro's is `handle_message` after orjson, floats. cryptofeed's is `message_handler`, Decimals, in
a process of its own. Before anything is timed, all three must have made the same book.

The limit is decoding alone: the same frames as typed structs, all texts as integer ticks and units.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import ccxt.pro
import orjson

from bench import feed_load
from bench.measure import Measured, Result, Shared, Turn, alternate, versions
from marketdata.events import BookUpdate, Channel, Rows
from marketdata.grid import Grid
from marketdata.raw import RawItem, RawKind
from venues.binance.feed import BinanceFeed
from venues.binance.frames import read_depth

FRAMES: Final = 4_000
PEERS_AT_LEAST: Final = 2.0
LIMIT_AT_LEAST: Final = 0.4
COMPARED: Final = 50
"""Best levels of a side that the books of all three must agree on."""
UNIFIED: Final = "BTC/USDT"
BEGAN_NS: Final = 1_767_600_000_000_000_000
PROGRAM: Final = Path(__file__).with_name("cryptofeed_program.py")


def measure(shared: Shared) -> Measured:
    """Let three feeds and a bare decoder handle the same frames in turn."""
    del shared
    frames = feed_load.frames(FRAMES)
    with cryptofeed(frames) as peer:
        _require_the_same_books(frames, peer)
        contestants: dict[str, Callable[[], Turn]] = {
            "ours": lambda: _ours(frames)[0],
            "ccxt": lambda: _ccxt(frames)[0],
            "cryptofeed": peer.prepare,
            "decode": lambda: _decode(frames),
        }
        rates = alternate(contestants)
    against = (
        ("ccxt", "ccxt.pro, handle_message (peer)", PEERS_AT_LEAST),
        ("cryptofeed", "cryptofeed, message_handler (peer)", PEERS_AT_LEAST),
        ("decode", "decoding alone to integer ticks and units (limit)", LIMIT_AT_LEAST),
    )
    return Measured(
        [
            Result(
                name=f"feed_frames.{short}",
                value=rates["ours"],
                unit="frames/s",
                baseline=words,
                baseline_value=rates[short],
                at_least=goal,
            )
            for short, words, goal in against
        ],
        {
            "input": f"{FRAMES:,} frames of {len(frames[0])} bytes, {feed_load.SHAPE}",
            "timed": "bytes of a frame to the callback; the socket is not",
            "checked": f"all three have the same {COMPARED} best levels a side at the end",
        },
        versions("ccxt", "cryptofeed", "msgspec", "orjson"),
    )


def machine() -> BinanceFeed:
    """Return the live feed's machine, connected, subscribed, with the snapshot of the load."""
    feed = BinanceFeed([feed_load.instrument()], channels=[Channel.BOOK])
    feed.take(RawItem(RawKind.CONNECTED, 1, 1, data=b"ws://localhost/stream"))
    request = orjson.loads(feed.subscriptions()[0])
    feed.take(RawItem(RawKind.FRAME, 2, 1, data=b'{"result":null,"id":%d}' % request["id"]))
    feed.take(RawItem(RawKind.SNAPSHOT, 3, 1, feed_load.SYMBOL, feed_load.snapshot_body()))
    return feed


def _ours(frames: Sequence[bytes]) -> tuple[Turn, BinanceFeed]:
    """Return a turn of ours, from the bytes as the runner hands them on, and the machine."""
    feed = machine()
    called = 0

    def callback(event: object) -> None:
        nonlocal called
        called += type(event) is BookUpdate

    def turn() -> int:
        now_ns, kind = BEGAN_NS, RawKind.FRAME
        for frame in frames:
            now_ns += 1_000_000
            for event in feed.take(RawItem(kind, now_ns, 1, "", frame)):
                callback(event)
        if called != len(frames):
            raise AssertionError("a frame was not followed by its callback")
        return len(frames)

    return turn, feed


def _ccxt(frames: Sequence[bytes]) -> tuple[Turn, Any]:
    """Return a turn of ccxt.pro's, and the object that has the book."""
    exchange: Any = ccxt.pro.binance({"options": {"defaultType": "spot"}})
    exchange.set_markets([_MARKET])
    begin = orjson.loads(feed_load.snapshot_body())
    sides = {
        side: [[float(price), float(size)] for price, size in begin[side]]
        for side in ("bids", "asks")
    }
    exchange.orderbooks[UNIFIED] = exchange.order_book(
        {**sides, "symbol": UNIFIED, "nonce": begin["lastUpdateId"]}, feed_load.LEVELS_PER_SIDE
    )
    client = _Client()

    def turn() -> int:
        for frame in frames:
            exchange.handle_message(client, orjson.loads(frame))
        if client.called != len(frames):
            raise AssertionError("a frame was not followed by its callback")
        return len(frames)

    return turn, exchange


_MARKET: Final = {
    "id": feed_load.SYMBOL,
    "symbol": UNIFIED,
    "base": "BTC",
    "quote": "USDT",
    "baseId": "BTC",
    "quoteId": "USDT",
    "type": "spot",
    "spot": True,
    "contract": False,
    "precision": {},
    "limits": {},
    "info": {},
}


class _Client:
    """What ccxt.pro wants of a connection: where it leads, and to be told of results."""

    url = "ws://localhost/stream/ws"

    def __init__(self) -> None:
        self.subscriptions: dict[str, Any] = {}
        self.called = 0

    def resolve(self, *result: object) -> None:
        del result
        self.called += 1

    def reject(self, error: BaseException, *hashes: object) -> None:
        del hashes
        raise error


class Cryptofeed:
    """The other process, and what it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def prepare(self) -> Turn:
        """Let it load the snapshot; the turn lets it handle all frames."""
        self.ask("prepare")
        return lambda: int(self.ask("go"))

    def ask(self, line: str) -> str:
        """Return what it answers to *line*."""
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None
        assert sink is not None
        sink.write(f"{line}\n")
        sink.flush()
        return source.readline()


@contextmanager
def cryptofeed(frames: Sequence[bytes]) -> Iterator[Cryptofeed]:
    """Run cryptofeed with *frames* as long as the context is open."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"\n".join((feed_load.snapshot_body(), *frames, b"")))
        file.flush()
        with subprocess.Popen(
            [sys.executable, str(PROGRAM), file.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            yield Cryptofeed(process)


def _decode(frames: Sequence[bytes]) -> Turn:
    # Ours knows the prices of the snapshot when it begins, too.
    grid = Grid(feed_load.instrument())
    begin = orjson.loads(feed_load.snapshot_body())
    grid.rows([*begin["bids"], *begin["asks"]])

    def turn() -> int:
        for frame in frames:
            read_depth(frame).data.rows(grid)
        return len(frames)

    return turn


def _require_the_same_books(frames: Sequence[bytes], peer: Cryptofeed) -> None:
    """Handle all frames once by each, and compare what came of it."""
    turn, feed = _ours(frames)
    turn()
    book = feed.book(feed_load.SYMBOL)
    assert book is not None
    turn, exchange = _ccxt(frames)
    turn()
    peer.prepare()()
    grid = Grid(feed_load.instrument())
    their = exchange.orderbooks[UNIFIED]
    sides = [
        [
            (format(Decimal(repr(price)), "f"), format(Decimal(repr(size)), "f"))
            for price, size in side
        ]
        for side in (their["bids"][:COMPARED], their["asks"][:COMPARED])
    ]
    books: dict[str, tuple[Rows, ...]] = {
        "ours": book.rows(COMPARED),
        "ccxt": tuple(grid.rows(side) for side in sides),
        "cryptofeed": tuple(grid.rows(side) for side in orjson.loads(peer.ask(f"top {COMPARED}"))),
    }
    if not books["ours"] == books["ccxt"] == books["cryptofeed"]:
        raise AssertionError("the books are not the same at the end")
