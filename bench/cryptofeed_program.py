"""cryptofeed's Binance feed, in a process of its own, doing what it is told over a pipe.

cryptofeed keeps its books in `order_book`, which is under the GPL: nothing of ours imports either.
This program is run as one (`python bench/cryptofeed_program.py FRAMES`), with a file of frames, one
a line, the first of which is the body of a snapshot. It answers lines with lines: ``prepare`` loads
the snapshot, ``go`` handles all frames, ``top N`` tells the best levels as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

from cryptofeed.defines import L2_BOOK  # type: ignore[import-untyped]  # has no types
from cryptofeed.exchanges import Binance  # type: ignore[import-untyped]  # has no types
from cryptofeed.symbols import Symbols  # type: ignore[import-untyped]  # has no types
from cryptofeed.types import OrderBook  # type: ignore[import-untyped]  # has no types

PAIR = "BTC-USDT"
SYMBOL = "BTCUSDT"


class Program:
    """The feed, its frames, and how many books its callback was given."""

    def __init__(self, lines: list[str]) -> None:
        # So that it does not ask the venue what it trades.
        Symbols.set(Binance.id, {PAIR: SYMBOL}, {})
        self.snapshot = json.loads(lines[0])
        self.frames = lines[1:]
        self.called = 0
        self.feed: Any = Binance(
            symbols=[PAIR], channels=[L2_BOOK], callbacks={L2_BOOK: self._called}
        )

    def prepare(self) -> str:
        """Load the snapshot, as the feed does when it has asked for it."""
        sides = {
            side: {Decimal(price): Decimal(size) for price, size in self.snapshot[side]}
            for side in ("bids", "asks")
        }
        self.feed._l2_book[PAIR] = OrderBook(  # noqa: SLF001  where the feed keeps its books
            Binance.id, PAIR, max_depth=0, **sides
        )
        self.feed.last_update_id[PAIR] = self.snapshot["lastUpdateId"]
        self.called = 0
        gc.collect()
        gc.freeze()
        return "ready"

    async def go(self) -> str:
        """Handle every frame; return how often the callback was called."""
        for frame in self.frames:
            await self.feed.message_handler(frame, None, 0.0)
        return str(self.called)

    def top(self, levels: int) -> str:
        """Return the best levels of bids and asks as decimal texts."""
        book = self.feed._l2_book[PAIR].book  # noqa: SLF001  where the feed keeps its books
        return json.dumps(
            [
                [
                    [str(price), str(side[price])]
                    for price in sorted(side.keys(), reverse=is_bid)[:levels]
                ]
                for side, is_bid in ((book.bids, True), (book.asks, False))
            ]
        )

    async def _called(self, book: object, receipt_timestamp: float) -> None:
        del book, receipt_timestamp
        self.called += 1


def main() -> None:
    """Do what the lines of the standard input say until they end."""
    program = Program(Path(sys.argv[1]).read_text().splitlines())
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            match line.split():
                case ["prepare"]:
                    answer = program.prepare()
                case ["go"]:
                    answer = runner.run(program.go())
                case ["top", levels]:
                    answer = program.top(int(levels))
                case _:
                    answer = "unknown"
            print(answer, flush=True)


if __name__ == "__main__":
    main()
