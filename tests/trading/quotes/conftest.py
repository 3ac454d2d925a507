"""A founded house, and steps in the life of a quote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest
from sqlalchemy import func, select
from sqlalchemy import table as sql_table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.events import list_history
from marketdata.consolidated import VenueBook
from marketdata.model import PriceRecord
from tests.trading.conftest import BOOK
from tests.trading.quotes.market import NOW, POLICY, asked, merged, moved, shown
from trading.deals import get_deal
from trading.model import Deal, DealSide
from trading.quotes.accepting import accept_quote
from trading.quotes.ending import expire_quotes
from trading.quotes.evidence import mid_record
from trading.quotes.looking import look
from trading.quotes.making import make_quote
from trading.quotes.model import Acceptance, Quote, QuotePolicy, QuoteRequest
from trading.quotes.queries import get_quote
from trading.quotes.requesting import request_quote

T = TypeVar("T")


@dataclass
class Desk:
    """The desk's verbs on quotes, each in a transaction of its own."""

    engine: AsyncEngine
    policy: QuotePolicy = POLICY
    books: list[VenueBook] = field(default_factory=lambda: [shown()])

    async def do(self, work: Callable[[AsyncConnection], Any]) -> Any:
        return await transact(self.engine, work)

    async def request(self, request: QuoteRequest | None = None, *, at: datetime = NOW) -> Quote:
        wanted = request or asked()
        found: Quote = await self.do(lambda c: request_quote(c, wanted, book=BOOK, now=at))
        return found

    async def request_many(self, count: int) -> None:
        """Ask for so many quotes, in one transaction."""

        async def work(conn: AsyncConnection) -> None:
            for number in range(count):
                await request_quote(conn, asked(f"many-{number}"), book=BOOK, now=NOW)

        await self.do(work)

    async def make(self, item: Quote, *, at: datetime = NOW) -> Quote:
        found: Quote = await self.do(
            lambda c: make_quote(c, item.id, self.books, policy=self.policy, now=at)
        )
        return found

    async def quote(self, request: QuoteRequest | None = None, *, at: datetime = NOW) -> Quote:
        return await self.make(await self.request(request, at=at), at=at)

    async def accept(
        self,
        item: Quote,
        side: DealSide = DealSide.DESK_SELLS,
        *,
        ref: str = "acc-1",
        at: datetime = NOW,
    ) -> Acceptance:
        found: Acceptance = await self.do(
            lambda c: accept_quote(c, item.id, side, accept_ref=ref, by="dora", now=at)
        )
        return found

    async def look(self, item: Quote, up: str = "0", *, at: datetime = NOW) -> Quote:
        found: Quote = await self.do(lambda c: look(c, item.id, self.mid(up, at), now=at))
        return found

    async def expire(self, at: datetime) -> int:
        count: int = await self.do(lambda c: expire_quotes(c, BOOK, now=at))
        return count

    async def get(self, item: Quote) -> Quote:
        found: Quote = await self.do(lambda c: get_quote(c, item.id))
        return found

    async def deal(self, item: Quote) -> Deal:
        assert item.deal_id is not None
        deal_id = item.deal_id
        found: Deal = await self.do(lambda c: get_deal(c, deal_id))
        return found

    async def story(self, item: Quote) -> list[str]:
        return [e.name for e in await self.do(lambda c: list_history(c, "quote", item.id))]

    async def count(self, table: str) -> int:
        counted = select(func.count()).select_from(sql_table(table, schema="trading"))
        rows: int = await self.do(lambda c: c.scalar(counted))
        return rows

    @staticmethod
    def mid(up: str = "0", at: datetime = NOW) -> PriceRecord:
        books = merged(moved(up, at=at), now=at)
        found = books.mid_price()
        assert found is not None
        return mid_record(books, found)


def later(milliseconds: int) -> datetime:
    return NOW + timedelta(milliseconds=milliseconds)


@pytest.fixture
def desk(house: AsyncEngine) -> Desk:
    """A desk with one venue to quote from."""
    return Desk(house)
