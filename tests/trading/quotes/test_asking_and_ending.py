"""A quote is asked for once, answered or refused with a reason, and ends by itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import TextClause, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.local.databases import Database
from kernel.clock import SystemClock
from kernel.db import APP_ROLE, create_engine
from kernel.errors import BadInput, Refused
from marketdata.model import Quality
from marketdata.price_model import PriceKind
from marketdata.prices import get_price
from registry.errors import UnknownRecord
from registry.testing import ETH, USDT
from risk.controls import set_control
from risk.model import ControlState
from tests.trading.conftest import BOOK
from tests.trading.quotes.conftest import Desk, later
from tests.trading.quotes.market import NOW, asked, shown, silent
from trading.quotes import store
from trading.quotes.ending import expire_quotes, withdraw_all, withdraw_quote
from trading.quotes.errors import NoQuote, QuoteConflict, QuotesTooMany
from trading.quotes.model import (
    Quote,
    QuoteSides,
    QuoteState,
    RefusalReason,
    SizedIn,
)
from trading.quotes.queries import find_quote, list_quotes
from trading.quotes.requesting import ANSWER_WITHIN, OPEN_MAX

AFTER = later(60_000)


async def test_the_same_reference_is_the_same_request(desk: Desk) -> None:
    first = await desk.request()
    again = await desk.request(at=later(5))
    await desk.make(first)
    later_still = await desk.request(at=later(9))

    assert again == first
    assert (later_still.id, later_still.state) == (first.id, QuoteState.QUOTED)
    assert await desk.count("quote") == 1


async def test_the_same_reference_for_something_else_is_refused(desk: Desk) -> None:
    await desk.request()

    for changes in (
        {"units": ETH.parse("11")},
        {"sized_in": SizedIn.QUOTE},
        {"sides": QuoteSides.BUY},
        {"desk": "prop"},
        {"party": "borealis"},
        {"base": USDT, "quote": ETH},
    ):
        with pytest.raises(QuoteConflict, match=next(iter(changes)).replace("_", " ")):
            await desk.request(asked(**changes))


async def test_ten_at_once_with_one_reference_are_one_request(desk: Desk) -> None:
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(desk.request()) for _ in range(10)]

    assert len({task.result().id for task in tries}) == 1
    assert await desk.story(tries[0].result()) == ["QuoteRequested"]


async def test_whom_or_what_nobody_knows_is_not_quoted(desk: Desk) -> None:
    with pytest.raises(UnknownRecord):
        await desk.request(asked(party="nobody"))
    with pytest.raises(BadInput, match="decimal places"):
        await desk.request(asked(base=replace(ETH, scale=8)))
    with pytest.raises(BadInput):
        asked(units=0)
    with pytest.raises(BadInput):
        asked(quote=ETH)
    with pytest.raises(BadInput):
        asked("not a token, really")
    with pytest.raises(BadInput):
        asked(desk="two words")


async def test_a_party_has_so_many_open_quotes_and_no_more(desk: Desk) -> None:
    await desk.request_many(OPEN_MAX)
    with pytest.raises(QuotesTooMany, match=str(OPEN_MAX)):
        await desk.request(asked("rfq-more"))
    await desk.expire(AFTER)

    assert (await desk.request(asked("rfq-more"), at=AFTER)).state is QuoteState.REQUESTED


async def test_an_offer_says_what_it_was_made_of(desk: Desk) -> None:
    desk.books = [shown(), silent("kraken")]
    made = await desk.quote()

    offer = made.offer
    assert offer is not None
    assert (offer.valid_until, offer.terms_version) == (later(10_000), 0)
    assert offer.look_ms is None
    assert offer.why.half_spread_ppm == 1_000
    assert offer.why.left_out == {"kraken:ETHUSDT": "missing"}
    assert offer.bid is not None
    assert offer.bid.cost.format(2) == "2,998.5 USDT/ETH"
    mid = await desk.do(lambda c: get_price(c, offer.mid_price_id))
    assert (mid.record.kind, mid.record.quality) == (PriceKind.JOINT_MID, Quality.GOOD)
    assert mid.record.constituents[0]["bid"] == "2999"
    assert await desk.get(made) == made


async def test_what_is_answered_stays_as_it_is(desk: Desk) -> None:
    made = await desk.quote()
    desk.books = []

    assert await desk.make(made, at=later(1)) == made


async def test_two_that_price_one_request_make_one_offer(desk: Desk) -> None:
    item = await desk.request()
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(desk.make(item, at=later(n))) for n in range(5)]

    assert len({str(task.result().offer) for task in tries}) == 1
    assert await desk.story(item) == ["QuoteRequested", "QuoteMade"]


async def test_without_a_market_the_request_is_refused_with_the_reason(desk: Desk) -> None:
    desk.books = [silent()]
    item = await desk.quote()

    assert (item.state, item.why_not) == (QuoteState.REFUSED, RefusalReason.BOOK_MISSING)
    assert item.detail == "kraken:ETHUSDT is missing"
    assert await desk.story(item) == ["QuoteRequested", "QuoteRefused"]


async def test_a_halted_desk_makes_no_price(desk: Desk) -> None:
    await desk.do(
        lambda c: set_control(
            c, "otc", ControlState.HALTED, by="system:drill", reason="drill", now=NOW
        )
    )

    assert (await desk.quote()).why_not is RefusalReason.DESK_HALTED


@pytest.mark.parametrize(
    ("short", "state"),
    [(timedelta(microseconds=1), QuoteState.QUOTED), (timedelta(0), QuoteState.REFUSED)],
)
async def test_what_nobody_priced_in_time_is_not_priced_any_more(
    desk: Desk, short: timedelta, state: QuoteState
) -> None:
    item = await desk.request()
    at = NOW + ANSWER_WITHIN - short
    desk.books = [shown(at=at)]

    found = await desk.make(item, at=at)

    assert found.state is state
    assert found.why_not in {None, RefusalReason.NOT_ANSWERED}


async def test_a_book_of_another_pair_is_a_fault_of_whoever_gave_it(desk: Desk) -> None:
    item = await desk.request(asked(base=USDT, quote=ETH))

    with pytest.raises(BadInput, match="ETH/USDT"):
        await desk.make(item)


@pytest.mark.parametrize(
    ("at_ms", "ended", "state"), [(9_999, 0, QuoteState.QUOTED), (10_000, 1, QuoteState.EXPIRED)]
)
async def test_an_offer_expires_at_its_moment_and_not_before(
    desk: Desk, at_ms: int, ended: int, state: QuoteState
) -> None:
    made = await desk.quote()

    assert await desk.expire(later(at_ms)) == ended
    assert (await desk.get(made)).state is state


async def test_expiring_goes_by_batches_and_leaves_alone_what_somebody_is_at(desk: Desk) -> None:
    quotes = [await desk.quote(asked(f"rfq-{n}")) for n in range(5)]

    async with desk.engine.begin() as other:
        await other.execute(
            text("SELECT 1 FROM trading.quote WHERE id = :id FOR UPDATE"), {"id": quotes[0].id}
        )
        first = await desk.do(lambda c: expire_quotes(c, BOOK, now=AFTER, limit=2))
        second = await desk.expire(AFTER)
    third = await desk.expire(AFTER)

    assert (first, second, third) == (2, 2, 1)
    states = {(await desk.get(item)).state for item in quotes}
    assert states == {QuoteState.EXPIRED}
    assert (await desk.story(quotes[0]))[-1] == "QuoteExpired"


async def test_an_offer_made_while_overdue_ones_are_looked_for_is_of_no_time_to_come(
    desk: Desk, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that runs: the look at it comes before the look at the quotes."""
    real = create_engine(database.app_url, role=APP_ROLE)
    fresh, made, lock_overdue = Desk(real), [], store.lock_overdue

    async def a_little_later(*arguments: Any, **named: Any) -> list[Quote]:
        at = SystemClock().now()
        fresh.books = [shown(at=at)]
        made.append(await fresh.quote(at=at))
        return await lock_overdue(*arguments, **named)

    monkeypatch.setattr(store, "lock_overdue", a_little_later)
    try:
        overdue = await desk.quote(asked("long-over"))
        ended = await fresh.expire(NOW)
        states = [(await fresh.get(item)).state for item in (overdue, *made)]
    finally:
        await real.dispose()

    assert (ended, states) == (1, [QuoteState.EXPIRED, QuoteState.QUOTED])


async def test_a_request_that_nobody_answers_ends_as_refused(desk: Desk) -> None:
    item = await desk.request()
    await desk.expire(NOW + ANSWER_WITHIN)

    found = await desk.get(item)
    assert (found.state, found.why_not) == (QuoteState.REFUSED, RefusalReason.NOT_ANSWERED)


async def test_a_quote_is_taken_back_before_it_is_dealt_on(desk: Desk) -> None:
    async def withdraw(item: Quote) -> Quote:
        found: Quote = await desk.do(
            lambda c: withdraw_quote(c, item.id, by="dora", reason="news", now=NOW)
        )
        return found

    made, requested = await desk.quote(), await desk.request(asked("rfq-2"))
    booked = await desk.quote(asked("rfq-3"))
    await desk.accept(booked)

    assert (await withdraw(made)).state is QuoteState.WITHDRAWN
    assert (await withdraw(made)).state is QuoteState.WITHDRAWN
    assert (await withdraw(requested)).why_not is RefusalReason.WITHDRAWN
    with pytest.raises(Refused, match="booked"):
        await withdraw(booked)
    assert await desk.story(made) == ["QuoteRequested", "QuoteMade", "QuoteWithdrawn"]


async def test_all_open_quotes_of_a_desk_are_taken_back_at_once(desk: Desk) -> None:
    mine, asked_for = await desk.quote(), await desk.request(asked("rfq-2"))
    other = await desk.quote(asked("rfq-3", desk="prop"))
    old = await desk.quote(asked("rfq-4"), at=NOW)

    async def withdraw(name: str | None, at_ms: int) -> int:
        count: int = await desk.do(
            lambda c: withdraw_all(c, desk=name, by="dora", reason="kill", now=later(at_ms))
        )
        return count

    assert await withdraw("otc", 1) == 3
    assert await withdraw("otc", 1) == 0
    assert (await desk.get(other)).state is QuoteState.QUOTED
    assert await withdraw(None, 10_000) == 1
    found = [await desk.get(item) for item in (mine, asked_for, other, old)]
    assert [item.state for item in found] == [
        QuoteState.WITHDRAWN,
        QuoteState.REFUSED,
        QuoteState.EXPIRED,
        QuoteState.WITHDRAWN,
    ]


async def test_an_offer_never_changes_whoever_tries(desk: Desk) -> None:
    made = await desk.quote()
    for change in ("ask_numerator = ask_numerator + 1", "valid_until = now()", "units = 1"):
        statement = text(f"UPDATE trading.quote SET {change} WHERE id = :id")  # noqa: S608  of this list
        with pytest.raises(IntegrityError, match="never changes"):
            await desk.do(partial(_execute, statement=statement, quote_id=made.id))


async def test_quotes_are_found_by_reference_party_desk_and_state(desk: Desk) -> None:
    first = await desk.quote()
    second = await desk.request(asked("rfq-2", desk="prop"), at=later(1))

    async def found(**filters: Any) -> list[str]:
        rows = await desk.do(lambda c: list_quotes(c, BOOK, **filters))
        return [item.request.client_ref for item in rows]

    assert await found() == ["rfq-2", "rfq-1"]
    assert await found(desk="prop") == ["rfq-2"]
    assert await found(party="borealis") == []
    assert await found(states=(QuoteState.QUOTED,)) == ["rfq-1"]
    assert await found(limit=1) == ["rfq-2"]
    assert await desk.do(lambda c: find_quote(c, BOOK, "rfq-2")) == second
    assert await desk.do(lambda c: find_quote(c, BOOK, "rfq-9")) is None
    missing = replace(first, id=UUID(int=1))
    with pytest.raises(NoQuote):
        await desk.get(missing)


async def _execute(conn: AsyncConnection, *, statement: TextClause, quote_id: UUID) -> None:
    await conn.execute(statement, {"id": quote_id})
