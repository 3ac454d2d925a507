"""The load that books and feeds are measured with: a busy pair's depth updates.

Every update changes twenty levels, nine of ten of them within the best fifty of a side; fifteen of
a hundred remove a level. The book has a thousand levels a side at the start.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import orjson

from kernel.money import Asset
from marketdata.events import Rows
from marketdata.model import Instrument
from marketdata.testing import eth_usdt

SEED: Final = 20
LEVELS_PER_UPDATE: Final = 20
LEVELS_PER_SIDE: Final = 1_000
NEAR_TOP: Final = 0.9
REMOVALS: Final = 0.15
MID_TICKS: Final = 6_000_000
DECIMALS: Final = 8
"""With which the venue writes prices and quantities."""
TICKS_PER_ONE: Final = 100
PRICE_ZEROS: Final = "0" * (DECIMALS - 2)
SYMBOL: Final = "BTCUSDT"
FIRST_MS: Final = 1_767_600_000_000
SHAPE: Final = (
    f"updates of {LEVELS_PER_UPDATE} levels, {NEAR_TOP:.0%} of them near the top, "
    f"{REMOVALS:.0%} removals, {LEVELS_PER_SIDE:,} levels a side at the start"
)


@dataclass(frozen=True, slots=True)
class Update:
    """Changed levels: ticks of 0.01, and of 10**-8 BTC, 0 of which remove."""

    bids: Rows
    asks: Rows


def instrument(pair: int = 0) -> Instrument:
    """Return a pair of the load: a tick of 0.01, and a base asset of as many decimals."""
    return replace(
        eth_usdt("binance"), symbol=f"{SYMBOL}{pair or ''}", base=Asset("BTC", DECIMALS), lot=1_000
    )


def start() -> Update:
    """Return the book that the updates are to."""
    steps = range(1, LEVELS_PER_SIDE + 1)
    return Update(
        tuple((MID_TICKS - step, 1_000_000 + step) for step in steps),
        tuple((MID_TICKS + step, 1_000_000 + step) for step in steps),
    )


def updates(count: int) -> Iterator[Update]:
    """Yield *count* updates, the same ones in every run."""
    chance = random.Random(SEED)
    for _ in range(count):
        rows: tuple[dict[int, int], dict[int, int]] = ({}, {})
        while len(rows[0]) + len(rows[1]) < LEVELS_PER_UPDATE:
            depth = 50 if chance.random() < NEAR_TOP else LEVELS_PER_SIDE
            step = chance.randint(2, depth)
            units = 0 if chance.random() < REMOVALS else chance.randint(1, 10**9)
            side = chance.randrange(2)
            rows[side][MID_TICKS + (step if side else -step)] = units
        yield Update(tuple(rows[0].items()), tuple(rows[1].items()))


def snapshot_body() -> bytes:
    """Return the start as the body of ``GET /api/v3/depth``; it includes update 1."""
    begin = start()
    return orjson.dumps({"lastUpdateId": 1, "bids": _texts(begin.bids), "asks": _texts(begin.asks)})


def frames(count: int, pair: int = 0) -> list[bytes]:
    """Return updates 2, 3, … of a pair as frames of Binance's combined stream."""
    symbol = instrument(pair).symbol
    return [
        orjson.dumps(
            {
                "stream": f"{symbol.lower()}@depth@100ms",
                "data": {
                    "e": "depthUpdate",
                    "E": FIRST_MS + 100 * number,
                    "s": symbol,
                    "U": number,
                    "u": number,
                    "b": _texts(update.bids),
                    "a": _texts(update.asks),
                },
            }
        )
        for number, update in enumerate(updates(count), 2)
    ]


def _texts(rows: Rows) -> list[tuple[str, str]]:
    unit = 10**DECIMALS
    return [
        (
            f"{ticks // TICKS_PER_ONE}.{ticks % TICKS_PER_ONE:02}{PRICE_ZEROS}",
            f"{units // unit}.{units % unit:0{DECIMALS}}",
        )
        for ticks, units in rows
    ]
