"""A last look is short, looks both ways, and ends by itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import Refused
from kernel.money import Price
from marketdata.price_model import PPM
from marketdata.prices import get_price
from registry.testing import ETH, USDT
from risk.controls import set_control
from risk.model import ControlState
from tests.trading.conftest import BOOK, booked, request
from tests.trading.quotes.conftest import Desk, later
from tests.trading.quotes.market import NOW, asked
from trading.model import DealSide
from trading.quotes.accepting import require_won
from trading.quotes.booking import deal_ref
from trading.quotes.decisions import judge_look
from trading.quotes.ending import withdraw_all, withdraw_quote
from trading.quotes.errors import QuoteDeclined
from trading.quotes.looking import look
from trading.quotes.model import DeclineReason, Quote, QuoteState, Verdict
from trading.quotes.queries import list_decline_rates
from trading.terms.model import LastLook
from trading.terms.testing import give_terms

WINDOW_MS = 200
TOLERANCE_PPM = 1_000
"""Three units of a mid of 3,000."""


@pytest.fixture
async def looking(desk: Desk) -> Desk:
    """The desk, with acme on terms that allow a last look."""
    allowed = LastLook(window_ms=WINDOW_MS, tolerance_ppm=TOLERANCE_PPM)
    await desk.do(lambda c: give_terms(c, "acme", now=NOW, last_look=allowed))
    return desk


async def taken(desk: Desk, ref: str = "1", side: DealSide = DealSide.DESK_SELLS) -> Quote:
    made = await desk.quote(asked(f"rfq-{ref}"))
    return (await desk.accept(made, side, ref=f"acc-{ref}")).quote


async def test_an_accepted_quote_is_no_deal_before_it_was_looked_at(looking: Desk) -> None:
    item = await taken(looking)

    assert item.state is QuoteState.ACCEPTED
    assert item.taken is not None
    assert item.taken.look_until == later(WINDOW_MS)
    assert await looking.count("deal") == 0


async def test_a_market_that_stands_makes_it_a_deal_at_the_price_that_was_told(
    looking: Desk,
) -> None:
    item = await taken(looking)
    done = await looking.look(item, at=later(50))

    assert done.state is QuoteState.BOOKED
    assert item.offer is not None
    assert item.offer.ask is not None
    deal = await looking.deal(done)
    assert deal.request.price == item.offer.ask.price
    assert (deal.agreed_at, deal.request.booked_by) == (later(50), "dora")
    mid_id = deal.mid_price_id
    assert mid_id is not None
    looked_at = await looking.do(lambda c: get_price(c, mid_id))
    assert looked_at.record.observed_at == later(50)
    assert done.taken is not None
    assert done.taken.look_price_id == mid_id


async def test_the_same_tolerance_counts_either_way(looking: Desk) -> None:
    sells, buys = DealSide.DESK_SELLS, DealSide.DESK_BUYS
    against_desk, against_client = (
        DeclineReason.MOVED_AGAINST_DESK,
        DeclineReason.MOVED_AGAINST_CLIENT,
    )
    cases = [
        ("3", sells, None, 1_000),
        ("-3", sells, None, -1_000),
        ("4", sells, against_desk, 1_333),
        ("-4", sells, against_client, -1_333),
        ("3", buys, None, 1_000),
        ("-3", buys, None, -1_000),
        ("4", buys, against_client, 1_333),
        ("-4", buys, against_desk, -1_333),
    ]
    for number, (up, side, why_not, moved_ppm) in enumerate(cases):
        done = await looking.look(await taken(looking, str(number), side), up)

        assert done.why_not is why_not
        assert done.state is (QuoteState.BOOKED if why_not is None else QuoteState.DECLINED)
        assert done.taken is not None
        assert done.taken.moved_ppm == moved_ppm
    assert await looking.count("deal") == 4


async def test_a_clock_that_is_ahead_of_postgresql_s_makes_no_difference(looking: Desk) -> None:
    """The mid is stamped by the process that has the books, the deal by the database."""
    item = await taken(looking)
    ahead = replace(looking.mid(), observed_at=later(70))
    done = await looking.do(lambda c: look(c, item.id, ahead, now=later(50)))

    assert done.state is QuoteState.BOOKED


@given(
    before=st.integers(1, 10**12),
    after=st.integers(1, 10**12),
    tolerance=st.integers(0, PPM - 1),
    side=st.sampled_from(list(DealSide)),
)
def test_the_look_is_symmetric_and_exact(
    before: int, after: int, tolerance: int, side: DealSide
) -> None:
    def price(ticks: int) -> Price:
        return Price.of(ticks, 10**9, ETH, USDT)

    found = judge_look(side, tolerance, price(before), price(after))
    other = DealSide.DESK_BUYS if side is DealSide.DESK_SELLS else DealSide.DESK_SELLS
    mirrored = judge_look(other, tolerance, price(before), price(after))

    assert (found.decline is None) is (abs(after - before) * PPM <= tolerance * before)
    assert (mirrored.decline is None) is (found.decline is None)
    if found.decline is not None:
        assert {found.decline, mirrored.decline} == {
            DeclineReason.MOVED_AGAINST_DESK,
            DeclineReason.MOVED_AGAINST_CLIENT,
        }


@pytest.mark.parametrize(
    ("short", "state"),
    [(timedelta(microseconds=1), QuoteState.BOOKED), (timedelta(0), QuoteState.DECLINED)],
)
async def test_a_look_after_its_window_declines_whatever_the_market_says(
    looking: Desk, short: timedelta, state: QuoteState
) -> None:
    item = await taken(looking)
    done = await looking.look(item, at=later(WINDOW_MS) - short)

    assert done.state is state
    assert done.why_not in {None, DeclineReason.NOT_LOOKED_AT}


async def test_a_window_that_is_over_without_a_look_declines_by_itself(looking: Desk) -> None:
    item = await taken(looking)

    assert await looking.expire(later(WINDOW_MS - 1)) == 0
    assert await looking.expire(later(WINDOW_MS)) == 1
    found = await looking.get(item)
    assert (found.state, found.why_not) == (QuoteState.DECLINED, DeclineReason.NOT_LOOKED_AT)
    assert (await looking.story(item))[-1] == "QuoteDeclined"


async def test_a_clock_that_went_back_behind_the_acceptance_leaves_nothing_to_look_at(
    looking: Desk,
) -> None:
    item = await taken(looking)

    done = await looking.look(item, at=later(-1))

    assert (done.state, done.why_not) == (QuoteState.DECLINED, DeclineReason.NOT_LOOKED_AT)


async def test_the_acceptance_is_asked_for_again_until_it_is_decided(looking: Desk) -> None:
    made = await looking.quote()
    first = await looking.accept(made)
    assert require_won(first).state is QuoteState.ACCEPTED
    await looking.look(made, "9")
    again = await looking.accept(made, at=later(1_000))

    assert (again.verdict, again.quote.state) == (Verdict.WON, QuoteState.DECLINED)
    with pytest.raises(QuoteDeclined, match="moved_against_desk"):
        require_won(again)


async def test_a_decision_of_the_look_is_made_once(looking: Desk) -> None:
    item = await taken(looking)
    done = await looking.look(item)

    assert await looking.look(item, "9", at=later(1_000)) == done
    assert await looking.count("deal") == 1


async def test_nobody_else_takes_what_is_being_looked_at(looking: Desk) -> None:
    item = await taken(looking)

    assert (await looking.accept(item, ref="late")).verdict is Verdict.TAKEN


async def test_a_halt_during_the_look_declines(looking: Desk) -> None:
    item = await taken(looking)
    await looking.do(
        lambda c: set_control(
            c, "otc", ControlState.HALTED, by="system:drill", reason="drill", now=NOW
        )
    )
    done = await looking.look(item)

    assert (done.state, done.why_not) == (QuoteState.DECLINED, DeclineReason.REFUSED)
    assert done.detail == "the desk is halted"


async def test_what_the_deal_is_refused_for_declines(looking: Desk) -> None:
    item = await taken(looking)
    await booked(looking.engine, request(client_ref=deal_ref(item.id)))
    done = await looking.look(item)

    assert done.why_not is DeclineReason.REFUSED
    assert "on record with another" in done.detail
    assert await looking.count("deal") == 1


async def test_the_desk_does_not_take_back_what_was_taken(looking: Desk) -> None:
    """Else the window were an option of the dealer's, who sees the market move."""
    item = await taken(looking)

    with pytest.raises(Refused, match="its last look decides"):
        await looking.do(lambda c: withdraw_quote(c, item.id, by="dora", reason="moved", now=NOW))
    assert (await looking.get(item)).state is QuoteState.ACCEPTED


async def test_withdrawing_all_declines_what_is_being_looked_at(looking: Desk) -> None:
    item = await taken(looking)
    await looking.do(lambda c: withdraw_all(c, desk="otc", by="dora", reason="kill", now=NOW))
    found = await looking.get(item)

    assert (found.state, found.why_not) == (QuoteState.DECLINED, DeclineReason.WITHDRAWN)


async def test_how_often_it_declines_is_counted_by_party_and_reason(looking: Desk) -> None:
    for ref, up in (("1", "0"), ("2", "9"), ("3", "-9"), ("4", "0"), ("5", "9")):
        await looking.look(await taken(looking, ref), up)
    await taken(looking, "6")  # not decided: not counted

    (rate,) = await looking.do(lambda c: list_decline_rates(c, BOOK, since=NOW))
    assert (rate.party, rate.looked_at, rate.ppm) == ("acme", 5, 600_000)
    assert rate.declined == {
        DeclineReason.MOVED_AGAINST_DESK: 2,
        DeclineReason.MOVED_AGAINST_CLIENT: 1,
    }
    assert await looking.do(lambda c: list_decline_rates(c, BOOK, since=later(1))) == []
    assert await looking.do(lambda c: list_decline_rates(c, BOOK, since=NOW, party="x")) == []
    assert replace(rate, looked_at=0).ppm == 0
