"""Our book and ccxt.pro's, given the same frames of Binance's dialect, are the same book.

ccxt.pro keeps floats: a text of at most 15 digits is the float's shortest decimal text, so the
comparison is exact. Where a frame is missing, both must say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import Any

import ccxt.pro
import orjson
import pytest
from ccxt.base.errors import ChecksumError

from kernel.money import Asset
from marketdata.book import BookOutcome, L2Book
from marketdata.events import Rows
from marketdata.grid import Grid
from marketdata.testing import eth_usdt

FRAMES = 400
LEVELS_PER_SIDE = 200
MID_TICKS = 300_000
SYMBOL = "ETH/USDT"
GRID = Grid(replace(eth_usdt(), base=Asset("ETH", 8), lot=10_000))


class Client:
    """What `handle_message` wants of a connection."""

    url = "ws://localhost/stream/ws"

    def __init__(self) -> None:
        self.subscriptions: dict[str, Any] = {}
        self.rejected: list[BaseException] = []

    def resolve(self, *result: object) -> None:
        del result

    def reject(self, error: BaseException, *hashes: object) -> None:
        del hashes
        self.rejected.append(error)


@dataclass
class Peer:
    """ccxt.pro's Binance, fed by hand."""

    exchange: Any
    client: Client

    def snapshot(self, sequence: int, bids: Rows, asks: Rows) -> None:
        levels = {
            side: [[float(price), float(quantity)] for price, quantity in texts(rows)]
            for side, rows in (("bids", bids), ("asks", asks))
        }
        book = self.exchange.order_book(
            {**levels, "nonce": sequence, "symbol": SYMBOL}, LEVELS_PER_SIDE * 10
        )
        self.exchange.orderbooks[SYMBOL] = book

    def take(self, frame: bytes) -> None:
        self.exchange.handle_message(self.client, orjson.loads(frame))

    def rows(self) -> tuple[Rows, Rows]:
        book = self.exchange.orderbooks[SYMBOL]
        book.limit()
        bids, asks = (
            GRID.rows([(_text(price), _text(quantity)) for price, quantity in book[side]])
            for side in ("bids", "asks")
        )
        return bids, asks


def _text(number: float) -> str:
    return format(Decimal(repr(number)), "f")


def texts(rows: Rows) -> list[tuple[str, str]]:
    return [(f"{t // 100}.{t % 100:02}000000", f"{u // 10**8}.{u % 10**8:08}") for t, u in rows]


def frame(first: int, last: int, bids: Rows, asks: Rows) -> bytes:
    return orjson.dumps(
        {
            "e": "depthUpdate",
            "E": 1_700_000_000_000 + last,
            "s": "ETHUSDT",
            "U": first,
            "u": last,
            "b": texts(bids),
            "a": texts(asks),
        }
    )


def take(book: L2Book, sent: bytes) -> BookOutcome:
    message = orjson.loads(sent)
    return book.apply(message["U"], message["u"], GRID.rows(message["b"]), GRID.rows(message["a"]))


@pytest.fixture
def peer() -> Peer:
    exchange = ccxt.pro.binance({"options": {"defaultType": "spot"}})
    exchange.set_markets(
        [
            {
                "id": "ETHUSDT",
                "symbol": SYMBOL,
                "base": "ETH",
                "quote": "USDT",
                "baseId": "ETH",
                "quoteId": "USDT",
                "type": "spot",
                "spot": True,
                "contract": False,
                "precision": {},
                "limits": {},
                "info": {},
            }
        ]
    )
    return Peer(exchange, Client())


def changes(chance: Random) -> Iterator[tuple[Rows, Rows]]:
    """Yield changes near the top: a fifth remove a level, of which many are not there."""
    for _ in range(FRAMES):
        sides: tuple[dict[int, int], dict[int, int]] = ({}, {})
        for _ in range(chance.randint(0, 20)):
            side = chance.randrange(2)
            step = chance.randint(1, 60)
            units = 0 if chance.random() < 0.2 else chance.randint(1, 10**10)
            sides[side][MID_TICKS + (step if side else -step)] = units
        yield tuple(sides[0].items()), tuple(sides[1].items())


def start() -> tuple[Rows, Rows]:
    steps = range(1, LEVELS_PER_SIDE + 1)
    return (
        tuple((MID_TICKS - step, 10**8 + step) for step in steps),
        tuple((MID_TICKS + step, 10**8 + step) for step in steps),
    )


def test_the_same_frames_make_the_same_book_after_every_one_of_them(peer: Peer) -> None:
    book = L2Book("binance", "ETHUSDT")
    book.snapshot(100, *start())
    peer.snapshot(100, *start())
    chance = Random(5)
    last = 100

    for bids, asks in changes(chance):
        first, last = last + 1, last + chance.randint(1, 4)
        sent = frame(first, last, bids, asks)
        peer.take(sent)
        assert take(book, sent) is BookOutcome.APPLIED

        assert book.rows(10**6) == peer.rows()
        assert book.sequence == peer.exchange.orderbooks[SYMBOL]["nonce"]

    assert not peer.client.rejected


def test_a_missing_frame_is_noticed_by_both(peer: Peer) -> None:
    book = L2Book("binance", "ETHUSDT")
    book.snapshot(100, *start())
    peer.snapshot(100, *start())
    change: Rows = ((MID_TICKS - 3, 5),)
    for number in (101, 102):
        take(book, frame(number, number, change, ()))
        peer.take(frame(number, number, change, ()))

    outcome = take(book, frame(104, 104, change, ()))
    peer.take(frame(104, 104, change, ()))

    assert outcome is BookOutcome.GAP
    assert book.view(datetime(2026, 1, 5, tzinfo=UTC)) is None
    assert [type(error) for error in peer.client.rejected] == [ChecksumError]
