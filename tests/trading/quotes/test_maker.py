"""The process with the books serves what waits, each quote by itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from kernel.clock import ManualClock
from kernel.errors import Refused
from kernel.money import Asset
from marketdata.consolidated import VenueBook
from registry.testing import ETH, USDT
from tests.trading.conftest import BOOK
from tests.trading.quotes.conftest import Desk, later
from tests.trading.quotes.market import NOW, POLICY, Books, asked, moved, shown
from trading.quotes.maker import ASKED_AT_ONCE, serve_quotes
from trading.quotes.model import DeclineReason, QuoteState, RefusalReason
from trading.terms.model import LastLook
from trading.terms.testing import give_terms


async def turn(desk: Desk, source: Books, at_ms: int = 0, **policy: Any) -> int:
    used = replace(POLICY, **policy)
    return await serve_quotes(desk.engine, source, ManualClock(later(at_ms)), used, BOOK)


async def test_a_turn_prices_what_is_asked_and_then_there_is_nothing_to_do(desk: Desk) -> None:
    items = [await desk.request(asked(f"rfq-{n}")) for n in range(3)]
    source = Books([shown()])

    assert await turn(desk, source) == 3
    assert await turn(desk, source) == 0
    assert {(await desk.get(item)).state for item in items} == {QuoteState.QUOTED}


async def test_a_pair_that_nobody_watches_is_refused_at_once(desk: Desk) -> None:
    item = await desk.request(asked(base=USDT, quote=ETH))
    await turn(desk, Books([shown()]))

    found = await desk.get(item)
    assert (found.state, found.why_not) == (QuoteState.REFUSED, RefusalReason.BOOK_MISSING)


async def test_what_is_wrong_with_one_quote_does_not_stop_the_others(desk: Desk) -> None:
    class Broken(Books):
        def books(self, base: Asset, quote: Asset) -> list[VenueBook]:
            if base == USDT:
                raise Refused("the feeds of this pair are being changed")
            return super().books(base, quote)

    bad = await desk.request(asked("rfq-1", base=USDT, quote=ETH))
    good = await desk.request(asked("rfq-2"))

    assert await turn(desk, Broken([shown()])) == 1
    assert (await desk.get(bad)).state is QuoteState.REQUESTED
    assert (await desk.get(good)).state is QuoteState.QUOTED


async def test_a_turn_looks_at_what_was_taken_when_there_is_a_book_and_else_waits(
    desk: Desk,
) -> None:
    allowed = LastLook(window_ms=500, tolerance_ppm=1_000)
    await desk.do(lambda c: give_terms(c, "acme", now=NOW, last_look=allowed))
    first, second = await desk.quote(), await desk.quote(asked("rfq-2"))
    await desk.accept(first)

    assert await turn(desk, Books([]), 100) == 0
    assert await turn(desk, Books([moved("1", at=later(200))]), 200, venues_min=2) == 0
    assert (await desk.get(first)).state is QuoteState.ACCEPTED
    assert await turn(desk, Books([moved("1", at=later(200))]), 200) == 1
    assert (await desk.get(first)).state is QuoteState.BOOKED

    await desk.accept(second, ref="acc-2", at=later(300))
    assert await turn(desk, Books([]), 800) == 1
    assert (await desk.get(second)).why_not is DeclineReason.NOT_LOOKED_AT


async def test_what_is_taken_while_a_flood_is_priced_is_looked_at_within_the_turn(
    desk: Desk,
) -> None:
    """Windows are shorter than a long turn: left to the next one, they would all be over."""
    allowed = LastLook(window_ms=500, tolerance_ppm=1_000)
    await desk.do(lambda c: give_terms(c, "acme", now=NOW, last_look=allowed))
    made = await desk.quote()
    await desk.request_many(4 * ASKED_AT_ONCE)

    async with asyncio.TaskGroup() as group:

        class Taken(Books):
            def books(self, base: Asset, quote: Asset) -> list[VenueBook]:
                self.reads += 1
                if self.reads == 1:
                    group.create_task(desk.accept(made))
                return super().books(base, quote)

            reads = 0

        assert await turn(desk, Taken([shown()])) == 4 * ASKED_AT_ONCE + 1

    assert (await desk.get(made)).state is QuoteState.BOOKED


async def test_a_turn_ends_what_is_over(desk: Desk) -> None:
    made = await desk.quote()

    assert await turn(desk, Books([shown()]), 10_000) == 1
    assert (await desk.get(made)).state is QuoteState.EXPIRED
