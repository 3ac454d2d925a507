"""How many deals are booked in a second, beside the bare posting of their chains?

Ours is `trading.deals.book_deals`: the parties and assets looked up, terms and settlement resolved,
the market's mid found and the price held against it, limits locked and judged, the agreed price
recorded as evidence, the deal inserted, its chain posted, its event written; in batches, one commit
each. The limit is `ledger.posting.post` of the very same chains in the same batches and as many
commits: what no booking can be faster than. Beside it stands one deal to a transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from itertools import count
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from bench.ledger_book import BOOK, Book, books, used
from bench.measure import Measured, Result, Shared, Turn, alternate
from kernel.clock import SystemClock
from kernel.db import transact
from kernel.money import Price
from ledger.accounts import ensure_accounts
from ledger.model import Transfer
from ledger.posting import post, require_applied
from marketdata.model import PriceRecord, Quality
from marketdata.price_model import PriceKind
from marketdata.prices import record_price
from registry.changes import found
from registry.testing import ETH, USDT, demo_founding
from trading.capture import draft_deals
from trading.deals import book_deals
from trading.drafting import Draft
from trading.model import Deal, DealRequest, DealSide
from trading.postings import account_keys, deal_chain

DEALS: Final = 1_000
BATCH: Final = 250
ONE_BY_ONE: Final = 50
ROUNDS: Final = 3
AT_LEAST: Final = 0.3
PARTIES: Final = ("acme", "birch")
CLOCK: Final = SystemClock()

Chains = list[tuple[Transfer, ...]]
Work = Callable[[AsyncConnection], Awaitable[object]]


def measure(shared: Shared) -> Measured:
    """Measure batches, and one deal at a time."""
    servers = shared.once(books)
    with servers.book("desk_deals") as book:
        desk = _Desk(book)
        book.runner.run(desk.found())
        rates = alternate(
            {
                "booked": lambda: desk.booking(DEALS, BATCH),
                "posted": lambda: desk.posting(DEALS, BATCH),
                "booked one by one": lambda: desk.booking(ONE_BY_ONE, 1),
                "posted one by one": lambda: desk.posting(ONE_BY_ONE, 1),
            },
            ROUNDS,
        )
    return Measured(
        [
            Result(
                name=name,
                value=rates[ours],
                unit="deals/s",
                baseline=words,
                baseline_value=rates[theirs],
                at_least=goal,
            )
            for name, ours, theirs, words, goal in (
                ("desk_deals", "booked", "posted", "post() of the same chains (limit)", AT_LEAST),
                (
                    "desk_deals.one_by_one",
                    "booked one by one",
                    "posted one by one",
                    "post() of one chain in a transaction (limit)",
                    None,
                ),
            )
        ],
        servers.conditions(
            f"{DEALS:,} deals a turn in batches of {BATCH}, one commit each, every second with a "
            f"fee; two parties, one pair with a recorded mid; {ROUNDS} turns"
        ),
        used(),
    )


class _Desk:
    """A desk with two parties and a market, and the turns of the contestants."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self._numbers = count()

    async def found(self) -> None:
        """Make the registry, and the accounts that deals move."""
        now = CLOCK.now()

        async def work(conn: AsyncConnection) -> None:
            await found(conn, demo_founding(), now=now)

        await transact(self.book.engine, work)
        chains = await self._chains(self._requests(12), now)
        keys = account_keys(line for chain in chains for line in chain)
        await transact(self.book.engine, lambda conn: ensure_accounts(conn, BOOK, keys))

    def booking(self, deals: int, size: int) -> Turn:
        """Return a turn of ours."""
        batches = [self._requests(size) for _ in range(deals // size)]
        self.book.runner.run(self._observe())
        works = [self._book(batch) for batch in batches]
        return lambda: self.book.runner.run(self._run(works, deals))

    def posting(self, deals: int, size: int) -> Turn:
        """Return a turn of the limit: the chains of deals that were never booked."""
        now = CLOCK.now()
        works = [
            self._post(self.book.runner.run(self._chains(self._requests(size), now)))
            for _ in range(deals // size)
        ]
        return lambda: self.book.runner.run(self._run(works, deals))

    async def _run(self, works: Sequence[Work], deals: int) -> int:
        for work in works:
            await transact(self.book.engine, work)
        return deals

    def _book(self, batch: Sequence[DealRequest]) -> Work:
        async def work(conn: AsyncConnection) -> None:
            done = await book_deals(conn, batch, book=BOOK, now=CLOCK.now())
            assert all(isinstance(item, Deal) for item in done)

        return work

    def _post(self, chains: Chains) -> Work:
        lines = [line for chain in chains for line in chain]

        async def work(conn: AsyncConnection) -> None:
            require_applied(await post(conn, BOOK, lines))

        return work

    async def _chains(self, requests: Sequence[DealRequest], now: datetime) -> Chains:
        async def work(conn: AsyncConnection) -> Chains:
            drafts = await draft_deals(conn, requests, book=BOOK, now=now)
            return [deal_chain(item.deal) for item in drafts if isinstance(item, Draft)]

        return await transact(self.book.engine, work)

    async def _observe(self) -> None:
        """Record what the market is, so that every deal of the turn is held against it."""
        now = CLOCK.now()
        mid = PriceRecord(
            price=Price.parse("3000", ETH, USDT),
            kind=PriceKind.VENUE_MID,
            quality=Quality.GOOD,
            observed_at=now,
        )
        await transact(self.book.engine, lambda conn: record_price(conn, mid, now=now))

    def _requests(self, size: int) -> list[DealRequest]:
        return [self._request(next(self._numbers)) for _ in range(size)]

    def _request(self, number: int) -> DealRequest:
        return DealRequest(
            client_ref=f"bench-{number}",
            desk="otc",
            party=PARTIES[number % len(PARTIES)],
            side=DealSide.DESK_SELLS if number % 3 else DealSide.DESK_BUYS,
            base=ETH,
            quote=USDT,
            base_units=ETH.parse("2") + number,
            price=Price.parse(f"300{number % 10}", ETH, USDT),
            fee_units=number % 2 * USDT.parse("5"),
            booked_by="system:bench",
        )
