"""A quote is taken once, in time, by whoever was first; every attempt can be asked about again."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from app.local.databases import Database
from kernel.db import APP_ROLE, create_engine, transact
from kernel.errors import BadInput
from marketdata.prices import record_price
from registry.testing import ETH, USDT
from risk.controls import set_control
from risk.model import ControlState
from tests.risk.conftest import eth_at, limit_party
from tests.trading.conftest import BOOK, balances, booked, request, wait_or_are_done
from tests.trading.quotes.conftest import Desk, later
from tests.trading.quotes.market import NOW, asked, moved
from trading.model import DealOrigin, DealSide
from trading.quotes.accepting import accept_quote, require_won
from trading.quotes.booking import deal_ref
from trading.quotes.ending import withdraw_quote
from trading.quotes.errors import (
    NoAcceptance,
    NotOffered,
    QuoteConflict,
    QuoteDeclined,
    QuoteExpired,
    QuoteTaken,
    QuoteWithdrawn,
)
from trading.quotes.model import QuoteSides, QuoteState, Verdict
from trading.quotes.queries import get_acceptance, list_acceptances
from trading.terms.testing import give_terms

QUOTE_MS = 10_000


async def test_taking_an_offer_books_its_deal_in_the_same_transaction(desk: Desk) -> None:
    made = await desk.quote()
    done = await desk.accept(made)

    assert done.verdict is Verdict.WON
    assert done.quote.state is QuoteState.BOOKED
    assert done.quote.deal_id is not None
    deal = await desk.deal(done.quote)
    assert made.offer is not None
    assert made.offer.ask is not None
    assert (deal.request.side, deal.request.price) == (DealSide.DESK_SELLS, made.offer.ask.price)
    assert deal.request.origin is DealOrigin.QUOTE
    assert deal.request.quote_id == made.id
    assert deal.mid_price_id == made.offer.mid_price_id
    assert (await balances(desk.engine))["payable:acme:open ETH"] == "10"
    assert await desk.story(made) == [
        "QuoteRequested",
        "QuoteMade",
        "QuoteAccepted",
        "QuoteBooked",
    ]


async def test_what_is_exchanged_is_what_was_told(desk: Desk) -> None:
    made = await desk.quote(asked(units=ETH.parse("1.000000000000000007")))
    done = await desk.accept(made, DealSide.DESK_BUYS)

    assert made.offer is not None
    assert made.offer.bid is not None
    deal = await desk.deal(done.quote)
    assert deal.quote_units == made.offer.bid.quote_units
    assert deal.request.fee_units == made.offer.bid.fee_units


async def test_a_deal_is_measured_by_the_newest_mid_when_it_was_taken(desk: Desk) -> None:
    first = await desk.quote()
    desk.books = [moved("3", at=later(1_000))]
    second = await desk.quote(asked("rfq-2"), at=later(1_000))
    done = await desk.accept(first, at=later(2_000))

    deal = await desk.deal(done.quote)
    assert first.offer is not None
    assert second.offer is not None
    assert deal.mid_price_id == second.offer.mid_price_id != first.offer.mid_price_id


@pytest.mark.parametrize(
    ("at_ms", "verdict"), [(QUOTE_MS - 1, Verdict.WON), (QUOTE_MS, Verdict.EXPIRED)]
)
async def test_at_the_very_moment_that_a_quote_is_valid_until_it_is_over(
    desk: Desk, at_ms: int, verdict: Verdict
) -> None:
    made = await desk.quote()

    done = await desk.accept(made, at=later(at_ms))

    assert done.verdict is verdict
    state = QuoteState.BOOKED if verdict is Verdict.WON else QuoteState.EXPIRED
    assert (await desk.get(made)).state is state


async def test_a_clock_that_went_back_behind_the_offer_keeps_it_from_being_taken(
    desk: Desk,
) -> None:
    """Else an offer of ten seconds could be taken for an hour, at the price of an hour ago."""
    made = await desk.quote()

    done = await desk.accept(made, at=later(-1))

    assert done.verdict is Verdict.EXPIRED
    assert "clock" in done.detail
    assert (await desk.get(made)).state is QuoteState.EXPIRED


async def test_an_offer_that_nobody_takes_ends_also_where_the_clock_went_back_behind_it(
    desk: Desk,
) -> None:
    made = await desk.quote()

    assert await desk.expire(later(0)) == 0
    assert await desk.expire(later(-1)) == 1
    assert (await desk.get(made)).state is QuoteState.EXPIRED


async def test_the_last_microsecond_is_in_time(desk: Desk) -> None:
    made = await desk.quote()
    assert made.offer is not None
    last = made.offer.valid_until - timedelta(microseconds=1)

    assert (await desk.accept(made, at=last)).verdict is Verdict.WON


async def test_the_database_itself_takes_no_acceptance_at_or_after_that_moment(desk: Desk) -> None:
    made = await desk.quote()
    statement = text(
        "UPDATE trading.quote SET state = 'accepted', taken_side = 'desk_sells', accept_ref = 'x',"
        " taken_by = 'dora', taken_at = valid_until WHERE id = :id"
    )

    with pytest.raises(IntegrityError, match="taken_in_time"):
        await desk.do(lambda c: c.execute(statement, {"id": made.id}))


async def test_time_is_postgresql_s_and_is_read_after_the_row_was_waited_for(
    desk: Desk, database: Database
) -> None:
    """On the machine's own clock the caller's `now` counts for nothing."""
    real = create_engine(database.app_url, role=APP_ROLE)
    try:
        # With the injected clock the quote was made in the past: by PostgreSQL's it is long over.
        made = await desk.quote()
        async with asyncio.TaskGroup() as group, desk.engine.begin() as other:
            await other.execute(
                text("SELECT 1 FROM trading.quote WHERE id = :id FOR UPDATE"), {"id": made.id}
            )
            accepting = group.create_task(
                transact(
                    real,
                    lambda c: accept_quote(
                        c, made.id, DealSide.DESK_SELLS, accept_ref="a", by="dora", now=NOW
                    ),
                )
            )
            await wait_or_are_done(real, accepting)
            let_go = await other.scalar(text("SELECT clock_timestamp()"))
    finally:
        await real.dispose()

    late = accepting.result()
    assert late.verdict is Verdict.EXPIRED
    assert late.at > let_go > NOW + timedelta(days=1)


async def test_the_same_reference_again_is_the_same_attempt(desk: Desk) -> None:
    made = await desk.quote()
    first = await desk.accept(made)
    again = await desk.accept(made, at=later(QUOTE_MS * 2))

    assert again == replace(first, quote=again.quote)
    assert again.quote.deal_id == first.quote.deal_id
    assert await desk.count("deal") == 1
    assert await desk.count("quote_acceptance") == 1


async def test_an_attempt_that_failed_is_the_same_failure_again(desk: Desk) -> None:
    made = await desk.quote()
    await desk.accept(made)
    second = await desk.accept(made, ref="acc-2")
    again = await desk.accept(made, ref="acc-2")
    other = await desk.quote(asked("rfq-2"))
    late = await desk.accept(other, ref="acc-3", at=later(QUOTE_MS))

    assert second.verdict is again.verdict is Verdict.TAKEN
    assert (await desk.accept(other, ref="acc-3")).verdict is late.verdict is Verdict.EXPIRED


async def test_a_reference_of_another_quote_or_side_is_refused(desk: Desk) -> None:
    first, second = await desk.quote(), await desk.quote(asked("rfq-2"))
    await desk.accept(first)

    with pytest.raises(QuoteConflict):
        await desk.accept(second)
    with pytest.raises(QuoteConflict):
        await desk.accept(first, DealSide.DESK_BUYS)
    assert (await desk.get(second)).state is QuoteState.QUOTED


async def test_one_reference_used_for_two_quotes_at_once_takes_one_of_them(desk: Desk) -> None:
    quotes = [await desk.quote(asked(f"rfq-{n}")) for n in range(2)]

    async def one(number: int) -> Verdict | None:
        try:
            return (await desk.accept(quotes[number])).verdict
        except QuoteConflict:
            return None

    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(one(number)) for number in range(2)]

    assert sorted(str(task.result()) for task in tries) == ["None", "won"]
    assert await desk.count("deal") == 1


async def test_of_a_hundred_at_once_one_wins_and_each_has_its_outcome(desk: Desk) -> None:
    made = await desk.quote()

    async def one(number: int) -> Verdict:
        side = DealSide.DESK_SELLS if number % 2 else DealSide.DESK_BUYS
        return (await desk.accept(made, side, ref=f"acc-{number}")).verdict

    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(one(number)) for number in range(100)]

    assert Counter(task.result() for task in tries) == {Verdict.WON: 1, Verdict.TAKEN: 99}
    assert await desk.count("deal") == 1
    attempts = await desk.do(lambda c: list_acceptances(c, made))
    assert len(attempts) == 100
    (winner,) = [item for item in attempts if item.verdict is Verdict.WON]
    taken = (await desk.get(made)).taken
    assert taken is not None
    assert (taken.accept_ref, taken.side) == (winner.accept_ref, winner.side)


async def test_the_database_itself_lets_one_attempt_win(desk: Desk) -> None:
    made = await desk.quote()
    await desk.accept(made)
    statement = text(
        "INSERT INTO trading.quote_acceptance VALUES"
        " (:book, 'other', :id, 'desk_sells', 'dora', now(), 'won', '')"
    )

    with pytest.raises(IntegrityError, match="uq_quote_acceptance_won"):
        await desk.do(lambda c: c.execute(statement, {"id": made.id, "book": BOOK}))


async def test_several_live_quotes_stand_beside_each_other(desk: Desk) -> None:
    first, second = await desk.quote(), await desk.quote(asked("rfq-2"))
    await desk.accept(first)

    assert (await desk.accept(second, ref="acc-2")).verdict is Verdict.WON


async def test_what_has_no_offer_or_not_on_this_side_cannot_be_taken(desk: Desk) -> None:
    requested = await desk.request()
    with pytest.raises(NotOffered, match="requested"):
        await desk.accept(requested)
    one_way = await desk.quote(asked("rfq-2", sides=QuoteSides.BUY))
    with pytest.raises(NotOffered, match="desk_sells"):
        await desk.accept(one_way)
    desk.books = []
    none = await desk.quote(asked("rfq-3"))
    with pytest.raises(NotOffered, match="book_missing"):
        await desk.accept(none)
    assert await desk.count("quote_acceptance") == 0


async def test_a_reference_that_is_no_token_is_refused(desk: Desk) -> None:
    made = await desk.quote()

    with pytest.raises(BadInput):
        await desk.accept(made, ref="John Smith, please")


async def test_the_outcome_of_an_attempt_can_be_asked_for_by_its_reference(desk: Desk) -> None:
    made = await desk.quote()
    await desk.accept(made)

    found = await desk.do(lambda c: get_acceptance(c, BOOK, "acc-1"))
    assert found.quote.state is QuoteState.BOOKED
    with pytest.raises(NoAcceptance):
        await desk.do(lambda c: get_acceptance(c, BOOK, "acc-2"))


async def test_a_halted_desk_deals_on_nothing_that_it_offered_before(desk: Desk) -> None:
    made = await desk.quote()
    await _control(desk, ControlState.HALTED)

    done = await desk.accept(made)

    assert (done.verdict, done.detail) == (Verdict.REFUSED, "the desk is halted")
    assert (await desk.get(made)).state is QuoteState.QUOTED
    assert await desk.count("deal") == 0


async def test_a_reducing_desk_deals_on_what_brings_it_nearer_zero(desk: Desk) -> None:
    short = await desk.quote(asked("rfq-0"))
    await desk.accept(short, ref="acc-0")
    buys, sells = await desk.quote(asked("rfq-1")), await desk.quote(asked("rfq-2"))
    await _control(desk, ControlState.REDUCING)

    refused = await desk.accept(sells, DealSide.DESK_SELLS, ref="acc-1")
    done = await desk.accept(buys, DealSide.DESK_BUYS, ref="acc-2")

    assert (refused.verdict, done.verdict) == (Verdict.REFUSED, Verdict.WON)


async def test_what_a_deal_is_refused_for_leaves_the_quote_as_it_was(desk: Desk) -> None:
    """Its reference is taken, say; a limit of the party is refused in the same place."""
    made = await desk.quote()
    await booked(desk.engine, request(client_ref=deal_ref(made.id)))

    refused = await desk.accept(made)

    assert refused.verdict is Verdict.REFUSED
    assert "on record with another" in refused.detail
    assert (await desk.get(made)).state is QuoteState.QUOTED
    assert await desk.count("deal") == 1
    assert await desk.story(made) == ["QuoteRequested", "QuoteMade"]


async def test_a_limit_of_the_party_is_judged_when_a_quote_is_taken(desk: Desk) -> None:
    made = await desk.quote()
    await desk.do(lambda c: record_price(c, eth_at("3000"), now=NOW))
    await limit_party(desk.engine, exposure_units=USDT.parse("1000"))
    done = await desk.accept(made)

    assert done.verdict is Verdict.REFUSED
    assert "acme" in done.detail
    assert (await desk.get(made)).state is QuoteState.QUOTED
    assert await desk.count("deal") == 0


@pytest.mark.parametrize(
    ("agreed", "up"),
    [
        pytest.param({"off_market_ppm": 0}, "0", id="its own spread"),
        pytest.param({"quote_seconds": 60}, "90", id="the market has moved since"),
    ],
)
async def test_a_firm_quote_is_firm_however_far_the_market_is_from_it(
    desk: Desk, agreed: dict[str, Any], up: str
) -> None:
    """What looks at the market again before it deals is a last look, which these terms have not."""
    await desk.do(lambda c: give_terms(c, "acme", now=NOW, **agreed))
    made = await desk.quote()
    await desk.do(lambda c: record_price(c, desk.mid(up, later(1_000)), now=later(1_000)))
    done = await desk.accept(made, at=later(2_000))

    assert (done.verdict, done.detail) == (Verdict.WON, "")
    deal = await desk.deal(done.quote)
    assert deal.off_market_ppm is not None
    assert deal.request.off_market_reason == f"quote {made.id}"


async def test_outcomes_are_errors_for_those_who_want_them_so(desk: Desk) -> None:
    made = await desk.quote()
    assert require_won(await desk.accept(made)).deal_id is not None
    with pytest.raises(QuoteTaken):
        require_won(await desk.accept(made, ref="acc-2"))
    other = await desk.quote(asked("rfq-2"))
    with pytest.raises(QuoteExpired):
        require_won(await desk.accept(other, ref="acc-3", at=later(QUOTE_MS)))
    third = await desk.quote(asked("rfq-3"))
    await desk.do(lambda c: withdraw_quote(c, third.id, by="dora", reason="news", now=NOW))
    with pytest.raises(QuoteWithdrawn):
        require_won(await desk.accept(third, ref="acc-4"))
    fourth = await desk.quote(asked("rfq-4"))
    await _control(desk, ControlState.HALTED)
    with pytest.raises(QuoteDeclined, match="halted"):
        require_won(await desk.accept(fourth, ref="acc-5"))


async def _control(desk: Desk, state: ControlState) -> None:
    await desk.do(
        lambda c: set_control(c, "otc", state, by="system:drill", reason="drill", now=NOW)
    )
