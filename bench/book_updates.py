"""How many depth updates a second does one book take, beside the books that others would use?

Every contestant gets the same updates, already decoded into the types it wants, and reads the best
bid and ask after each. Ours works on integers and refuses gaps, malformed levels and crossed books;
ccxt's book and the one on sortedcontainers take floats and check nothing. The limit is two plain
dicts that know no order and no best price: what is left when a book does nothing but remember.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from ccxt.async_support.base.ws.order_book import OrderBook as CcxtBook
from sortedcontainers import SortedDict  # type: ignore[import-untyped]  # has no stubs

from bench import feed_load
from bench.feed_load import Update
from bench.measure import Measured, Result, Shared, Turn, alternate, versions
from marketdata.book import BookOutcome, L2Book
from marketdata.events import Row

UPDATES: Final = 10_000
TICK: Final = 0.01
UNIT: Final = 1e-8
AT_LEAST: Final = 2.0
"""Of ccxt's book: exact arithmetic and its checks are to cost less than floats without them."""


def measure(shared: Shared) -> Measured:
    """Let four books apply the same updates in turn."""
    del shared
    start, updates = feed_load.start(), list(feed_load.updates(UPDATES))
    contestants: dict[str, Callable[[], Turn]] = {
        "ours": lambda: _ours(start, updates),
        "ccxt": lambda: _ccxt(start, updates),
        "sorted": lambda: _sorted(start, updates),
        "dicts": lambda: _dicts(start, updates),
    }
    rates = alternate(contestants)
    against = (
        ("ccxt", "ccxt's OrderBook (peer)", AT_LEAST),
        ("sorted", "two SortedDict of sortedcontainers (peer)", None),
        ("dicts", "two dicts without order (limit)", None),
    )
    return Measured(
        [
            Result(
                name=f"book_updates.{short}",
                value=rates["ours"],
                unit="updates/s",
                baseline=words,
                baseline_value=rates[short],
                at_least=goal,
            )
            for short, words, goal in against
        ],
        {
            "input": f"{UPDATES:,} {feed_load.SHAPE}",
            "timed": "applying, and reading best bid and ask after each; decoding is not",
        },
        versions("ccxt", "sortedcontainers"),
    )


def _ours(start: Update, updates: Sequence[Update]) -> Turn:
    book = L2Book("bench", feed_load.SYMBOL)
    book.snapshot(1, start.bids, start.asks)

    def turn() -> int:
        for number, update in enumerate(updates, 2):
            # It looks at the best bid and ask itself: a crossed book is not applied.
            if book.apply(number, number, update.bids, update.asks) is not BookOutcome.APPLIED:
                raise AssertionError("an update was not applied")
        return len(updates)

    return turn


def _floats(rows: Sequence[Row]) -> list[list[float]]:
    return [[ticks * TICK, units * UNIT] for ticks, units in rows]


def _ccxt(start: Update, updates: Sequence[Update]) -> Turn:
    book: Any = CcxtBook({"bids": _floats(start.bids), "asks": _floats(start.asks)})
    # It keeps the rows it is given and changes them, so each turn needs rows of its own.
    decoded = [(_floats(update.bids), _floats(update.asks)) for update in updates]

    def turn() -> int:
        bids, asks = book["bids"], book["asks"]
        for bid_rows, ask_rows in decoded:
            for row in bid_rows:
                bids.storeArray(row)
            for row in ask_rows:
                asks.storeArray(row)
            if bids[0][0] >= asks[0][0]:
                raise AssertionError("the book is crossed")
        return len(decoded)

    return turn


def _sorted(start: Update, updates: Sequence[Update]) -> Turn:
    return _mappings(SortedDict, start, updates, best=lambda side: side.peekitem(0)[0])


def _dicts(start: Update, updates: Sequence[Update]) -> Turn:
    return _mappings(lambda rows: {row[0]: row[1] for row in rows}, start, updates, best=None)


def _mappings(
    kind: Callable[[list[list[float]]], Any],
    start: Update,
    updates: Sequence[Update],
    best: Callable[[Any], float] | None,
) -> Turn:
    """Return a turn of two mappings of price to quantity; bids have negated prices."""

    def negated(rows: Sequence[Row]) -> list[list[float]]:
        return [[-price, quantity] for price, quantity in _floats(rows)]

    bids, asks = kind(negated(start.bids)), kind(_floats(start.asks))
    decoded = [(negated(update.bids), _floats(update.asks)) for update in updates]

    def turn() -> int:
        for sides in decoded:
            for side, rows in zip((bids, asks), sides, strict=True):
                for price, quantity in rows:
                    if quantity:
                        side[price] = quantity
                    else:
                        side.pop(price, None)
            if best is not None and -best(bids) >= best(asks):
                raise AssertionError("the book is crossed")
        return len(decoded)

    return turn
