"""A house with a month that is over: two buys and a sale in it, and a price at its very end."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from ledger.posting import open_book
from matching.model import Side
from registry.changes import found
from registry.testing import ENTITY, ETH, USDT, demo_founding
from settlement.runs import pull_obligations
from tests.trading.conftest import BOOK
from tests.trading.pnl.stories import Story
from trading.model import DealSide

MAP: Final = "pattern,asset,account\nclient:**,*,2000\n**,*,1000\n"
"""A map of the general ledger."""


async def a_month(engine: AsyncEngine, start: datetime, end: datetime) -> None:
    """Let a month pass from *start* to *end*; what its deal owes is pulled into settlement."""
    story = Story(engine, now=start + timedelta(days=4, hours=9))

    async def begin(conn: AsyncConnection) -> None:
        await found(conn, demo_founding(), now=start)
        await open_book(conn, BOOK, entity=ENTITY.code, now=start)

    await transact(engine, begin)
    one = ETH.parse("1")
    await story.fill("x", Side.BUY, one, "3000")
    await story.fill("y", Side.BUY, one, "3200")
    await story.deal("otc-1", DealSide.DESK_SELLS, one, "3300", mid="3290", fee=USDT.parse("5"))
    story.now = end - timedelta(minutes=1)
    await story.market(ETH, "3280")
    await transact(engine, lambda conn: pull_obligations(conn, book=BOOK, now=end))
