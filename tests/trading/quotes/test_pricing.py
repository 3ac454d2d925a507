"""A price is what the size costs, the spread, the skew, and a tick; or there is none, and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from kernel.money import Price, Rounding
from marketdata.consolidated import VenueBook
from marketdata.price_model import PPM
from registry.testing import ETH, USDT
from risk.model import ControlState
from tests.trading.quotes.market import (
    NOW,
    POLICY,
    asked,
    instrument,
    merged,
    shown,
    silent,
    terms,
)
from trading.model import DealRequest, DealSide
from trading.quotes.model import (
    SKEW_PPM_BELOW,
    OfferSide,
    QuotePolicy,
    QuoteRequest,
    QuoteSides,
    RefusalReason,
    SizedIn,
    SizeLimits,
    SkewPolicy,
)
from trading.quotes.pricing import QuotePrice, QuoteRefused, lean, price_quote
from trading.terms.model import HALF_SPREAD_PPM_MAX, ClientTerms, SpreadRule

PLAIN = terms()
DEEP = shown(bids=(("2999", "100"),), asks=(("3001", "100"),))


def priced(
    request: QuoteRequest | None = None,
    *books: VenueBook,
    agreed: ClientTerms = PLAIN,
    policy: QuotePolicy = POLICY,
    position: int = 0,
    control: ControlState = ControlState.ACTIVE,
) -> QuotePrice:
    found = price_quote(
        request or asked(),
        merged(*(books or (shown(),))),
        agreed,
        policy,
        position=position,
        control=control,
    )
    assert isinstance(found, QuotePrice), found
    return found


def refused(
    request: QuoteRequest,
    *books: VenueBook,
    policy: QuotePolicy = POLICY,
    position: int = 0,
    control: ControlState = ControlState.ACTIVE,
) -> RefusalReason:
    found = price_quote(request, merged(*books), PLAIN, policy, position=position, control=control)
    assert isinstance(found, QuoteRefused), found
    assert found.detail
    return found.reason


def both(found: QuotePrice) -> tuple[str, str]:
    assert found.bid is not None
    assert found.ask is not None
    return text(found.bid.price), text(found.ask.price)


def text(price: Price) -> str:
    return price.format(4).partition(" ")[0].replace(",", "")


def spread(half_ppm: int) -> ClientTerms:
    return terms(spreads=(SpreadRule(base="*", quote="*", half_spread_ppm=half_ppm),))


def test_a_size_costs_the_average_of_the_levels_that_it_reaches() -> None:
    found = priced()

    assert both(found) == ("2998.5", "3001.5")
    assert found.mid == Price.parse("3000", ETH, USDT)


@pytest.mark.parametrize(
    ("size", "bid", "ask"), [("5", "2999", "3001"), ("10", "2998.5", "3001.5")]
)
def test_a_larger_size_has_a_worse_price(size: str, bid: str, ask: str) -> None:
    assert both(priced(asked(units=ETH.parse(size)))) == (bid, ask)


def test_what_the_venues_charge_decides_which_is_best_and_is_in_the_price() -> None:
    dear = shown("dear", asks=(("3000", "10"),), bids=(("3000", "10"),), fee_ppm=10_000)
    cheap = shown("cheap", asks=(("3010", "10"),), bids=(("2990", "10"),))

    found = priced(None, dear, cheap)

    assert both(found) == ("2990", "3010")
    charged = priced(None, replace(DEEP, fee=shown(fee_ppm=1_000).fee))
    assert both(charged) == ("2996", "3004.01")  # 2996.001 and 3004.001, each to the desk's side


def test_the_spread_is_added_to_the_ask_and_taken_off_the_bid() -> None:
    found = priced(None, DEEP, agreed=spread(1_000))

    assert both(found) == ("2996", "3004.01")
    assert found.why.half_spread_ppm == 1_000
    assert found.ask is not None
    assert text(found.ask.cost) == "3001"


def test_the_spread_is_the_one_for_the_size() -> None:
    stepped = terms(
        spreads=(
            SpreadRule(base="*", quote="*", half_spread_ppm=0),
            SpreadRule(base="ETH", quote="USDT", from_units=ETH.parse("8"), half_spread_ppm=1_000),
        )
    )

    assert priced(asked(units=ETH.parse("7")), agreed=stepped).why.half_spread_ppm == 0
    assert priced(asked(units=ETH.parse("8")), agreed=stepped).why.half_spread_ppm == 1_000
    in_quote = asked(units=USDT.parse("24000"), sized_in=SizedIn.QUOTE)
    assert priced(in_quote, agreed=stepped).why.half_spread_ppm == 1_000


@pytest.mark.parametrize(
    ("position", "ppm"),
    [
        ("0", 0),
        ("50", -500),
        ("-50", 500),
        ("100", -1_000),
        ("1000", -1_000),
        ("-1000", 1_000),
        ("0.099", 0),
        ("-0.099", 0),
    ],
)
def test_the_desk_leans_against_its_position_and_never_further_than_the_whole_skew(
    position: str, ppm: int
) -> None:
    policy = SkewPolicy(full_units=ETH.parse("100"), ppm_max=1_000)

    assert lean(policy, ETH.parse(position)) == ppm


def test_a_long_desk_sells_and_buys_lower_and_a_short_one_higher() -> None:
    policy = replace(POLICY, skews={"ETH": SkewPolicy(full_units=10**18, ppm_max=1_000)})

    agreed = spread(2_000)

    assert both(priced(None, DEEP, agreed=agreed)) == ("2993", "3007.01")
    assert both(priced(None, DEEP, agreed=agreed, policy=policy, position=10**18)) == (
        *("2990", "3004.01"),
    )
    assert both(priced(None, DEEP, agreed=agreed, policy=policy, position=-(10**18))) == (
        *("2996", "3010.01"),
    )


def test_however_far_the_desk_leans_nobody_is_quoted_better_than_the_mid() -> None:
    policy = replace(POLICY, skews={"ETH": SkewPolicy(full_units=10**18, ppm_max=1_000)})
    uneven = replace(DEEP, view=shown(bids=(("2999", "100"),), asks=(("3001.01", "100"),)).view)

    assert both(priced(None, DEEP, policy=policy, position=10**18)) == ("2996", "3000")
    assert both(priced(None, DEEP, policy=policy, position=-(10**18))) == ("3000", "3004.01")
    # The mid is 3000.005: half a tick, and to the desk's side.
    assert both(priced(None, uneven, policy=policy, position=10**18)) == ("2996", "3000.01")
    assert both(priced(None, uneven, policy=policy, position=-(10**18))) == ("3000", "3004.02")


def test_the_deepest_lean_on_the_widest_spread_still_has_an_answer() -> None:
    """A millionth of the cost is left for the bid: less than a tick, and no fault."""
    skew = SkewPolicy(full_units=1, ppm_max=SKEW_PPM_BELOW - 1)
    found = price_quote(
        asked(units=USDT.parse("0.01"), sized_in=SizedIn.QUOTE),
        merged(DEEP),
        spread(HALF_SPREAD_PPM_MAX),
        replace(POLICY, skews={"ETH": skew}),
        position=1,
    )

    assert isinstance(found, QuoteRefused)
    assert found.reason is RefusalReason.TOO_SMALL


def test_a_price_is_on_the_finest_tick_of_the_venues_in_the_favour_of_the_desk() -> None:
    one_third = asked(units=ETH.parse("7"))
    coarse = shown("coarse", grid=instrument("coarse", tick=50))
    far = shown("far", bids=(("2990", "9"),), asks=(("3010", "9"),))

    assert both(priced(one_third)) == ("2998.71", "3001.29")  # 2998.714… down, 3001.285… up
    assert both(priced(one_third, coarse)) == ("2998.5", "3001.5")
    assert both(priced(one_third, coarse, far)) == ("2998.71", "3001.29")


def test_where_venues_stand_crossed_the_client_gets_the_mid_at_best() -> None:
    low = shown("low", bids=(("2990", "50"),), asks=(("2995", "50"),))
    high = shown("high", bids=(("3005", "50"),), asks=(("3010", "50"),))

    found = priced(None, low, high)

    assert both(found) == ("3000", "3000")
    assert text(found.mid) == "3000"


def test_an_amount_of_the_quote_asset_is_never_exceeded_nor_fallen_short_of() -> None:
    wanted = USDT.parse("10000")
    found = priced(asked(units=wanted, sized_in=SizedIn.QUOTE), agreed=spread(777))

    assert found.bid is not None
    assert found.ask is not None
    assert found.ask.quote_units <= wanted <= found.bid.quote_units
    for side in (found.bid, found.ask):
        one = side.price.to_quote(1, Rounding.UP)
        assert abs(side.quote_units - wanted) <= one


def test_what_is_told_is_what_a_deal_at_that_price_exchanges() -> None:
    found = priced(asked(units=ETH.parse("1.000000000000000007")), agreed=spread(123))

    for side, offer in ((DealSide.DESK_BUYS, found.bid), (DealSide.DESK_SELLS, found.ask)):
        assert offer is not None
        deal = DealRequest(
            client_ref="x",
            desk="otc",
            party="acme",
            side=side,
            base=ETH,
            quote=USDT,
            base_units=offer.base_units,
            price=offer.price,
            booked_by="dora",
        )
        assert deal.quote_units == offer.quote_units


def test_a_fee_is_on_top_and_its_remainder_stays_with_the_party() -> None:
    found = priced(asked(units=ETH.parse("0.001")), agreed=terms(fee_ppm=333))

    assert found.ask is not None
    assert found.ask.quote_units == USDT.parse("3.001")
    assert found.ask.fee_units == 999  # 0.000999333 USDT


@pytest.mark.parametrize(
    ("sides", "bid", "ask"),
    [
        (QuoteSides.TWO_WAY, True, True),
        (QuoteSides.BUY, True, False),
        (QuoteSides.SELL, False, True),
    ],
)
def test_only_the_sides_that_were_asked_for_are_offered(
    sides: QuoteSides, *, bid: bool, ask: bool
) -> None:
    found = priced(asked(sides=sides))

    assert (found.bid is not None, found.ask is not None) == (bid, ask)


STALE = shown("late", at=NOW - timedelta(seconds=3))
CROSSED = shown("mad", bids=(("3002", "50"),), asks=(("3001", "50"),))
ONLY_BIDS = shown("half", asks=())


@pytest.mark.parametrize(
    ("books", "changes", "reason"),
    [
        ((), {}, RefusalReason.BOOK_MISSING),
        ((silent(),), {}, RefusalReason.BOOK_MISSING),
        ((STALE, silent()), {}, RefusalReason.BOOK_STALE),
        ((CROSSED,), {}, RefusalReason.BOOK_CROSSED),
        ((ONLY_BIDS,), {}, RefusalReason.BOOK_ONE_SIDED),
        ((shown(), silent()), {"venues_min": 2}, RefusalReason.TOO_FEW_VENUES),
        ((shown(),), {"width_ppm_max": 600}, RefusalReason.TOO_WIDE),
        ((shown(bids=(("2999", "9"),)),), {}, RefusalReason.TOO_THIN),
        ((shown(),), {"slippage_ppm_max": 400}, RefusalReason.TOO_THIN),
        (
            (shown(),),
            {"sizes": {"ETH": SizeLimits(units_min=ETH.parse("11"))}},
            RefusalReason.TOO_SMALL,
        ),
        (
            (shown(),),
            {"sizes": {"ETH": SizeLimits(units_max=ETH.parse("9"))}},
            RefusalReason.TOO_LARGE,
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, RefusalReason) else None,
)
def test_without_a_market_that_can_be_relied_on_there_is_no_price_and_it_says_why(
    books: tuple[VenueBook, ...], changes: dict[str, Any], reason: RefusalReason
) -> None:
    policy = replace(POLICY, **changes)

    assert refused(asked(), *books, policy=policy) is reason


def test_bounds_themselves_are_within() -> None:
    policy = replace(
        POLICY,
        width_ppm_max=667,
        slippage_ppm_max=500,
        sizes={"ETH": SizeLimits(units_min=ETH.parse("10"), units_max=ETH.parse("10"))},
    )

    assert both(priced(policy=policy)) == ("2998.5", "3001.5")


def test_venues_that_contradict_each_other_too_far_are_not_quoted_from() -> None:
    low = shown("low", bids=(("2900", "50"),), asks=(("2910", "50"),))

    assert refused(asked(), low, shown()) is RefusalReason.TOO_WIDE


def test_a_venue_that_cannot_be_used_is_left_out_and_named() -> None:
    found = priced(None, shown(), STALE, CROSSED, silent())

    assert found.why.venues == ("binance:ETHUSDT",)
    assert found.why.left_out == {
        "late:ETHUSDT": "stale",
        "mad:ETHUSDT": "crossed",
        "kraken:ETHUSDT": "missing",
    }


def test_an_amount_that_is_worth_nothing_has_no_price() -> None:
    assert refused(asked(units=1), shown()) is RefusalReason.TOO_SMALL


def test_a_halted_desk_offers_nothing() -> None:
    assert refused(asked(), shown(), control=ControlState.HALTED) is RefusalReason.DESK_HALTED


@pytest.mark.parametrize(
    ("position", "bid", "ask"),
    [("10", False, True), ("-10", True, False), ("15", False, True)],
)
def test_a_reducing_desk_offers_the_side_that_brings_it_nearer_zero(
    position: str, *, bid: bool, ask: bool
) -> None:
    found = priced(control=ControlState.REDUCING, position=ETH.parse(position))

    assert (found.bid is not None, found.ask is not None) == (bid, ask)


@pytest.mark.parametrize("position", ["0", "9.9", "-9.9"])
def test_a_reducing_desk_offers_nothing_that_would_pass_zero(position: str) -> None:
    reason = refused(asked(), shown(), control=ControlState.REDUCING, position=ETH.parse(position))

    assert reason is RefusalReason.DESK_REDUCING


def test_a_skew_that_is_none_is_refused() -> None:
    with pytest.raises(BadInput):
        SkewPolicy(full_units=0, ppm_max=1)
    with pytest.raises(BadInput):
        SkewPolicy(full_units=1, ppm_max=SKEW_PPM_BELOW)


LEVELS = st.lists(
    st.tuples(st.integers(1, 400), st.integers(1, 30)),
    min_size=1,
    max_size=12,
    unique_by=lambda x: x[0],
)


def _book(
    venue: str, bids: list[tuple[int, int]], asks: list[tuple[int, int]], fee: int
) -> VenueBook:
    return shown(
        venue,
        bids=tuple((f"{3000 - down}", str(n)) for down, n in sorted(bids)),
        asks=tuple((f"{3000 + up}", str(n)) for up, n in sorted(asks)),
        fee_ppm=fee,
    )


@given(
    books=st.lists(st.tuples(LEVELS, LEVELS, st.integers(-500, 3_000)), min_size=1, max_size=3),
    size=st.integers(1, 60),
    is_in_quote=st.booleans(),
    half=st.integers(0, 5_000),
    position=st.integers(-(10**20), 10**20),
)
def test_a_price_never_undercuts_what_the_size_costs(
    books: list[tuple[list[tuple[int, int]], list[tuple[int, int]], int]],
    size: int,
    half: int,
    position: int,
    *,
    is_in_quote: bool,
) -> None:
    """Recomputed in fractions, level by level, by another way."""
    shows = [_book(f"v{i}", *item) for i, item in enumerate(books)]
    request = asked(
        units=USDT.parse(str(size * 3_000)) if is_in_quote else ETH.parse(str(size)),
        sized_in=SizedIn.QUOTE if is_in_quote else SizedIn.BASE,
    )
    policy = replace(
        POLICY,
        width_ppm_max=10**6,
        slippage_ppm_max=PPM - 1,
        skews={"ETH": SkewPolicy(full_units=10**19, ppm_max=500)},
    )
    found = price_quote(request, merged(*shows), spread(half), policy, position=position)
    if isinstance(found, QuoteRefused):
        assert found.reason is RefusalReason.TOO_THIN
        return
    assert found.bid is not None
    assert found.ask is not None
    tick = Fraction(1, 100)
    for offer, sign in ((found.ask, 1), (found.bid, -1)):
        cost = _cost(shows, offer, sign)
        factor = 1 + Fraction(sign * half + found.why.skew_ppm, PPM)
        mid = Fraction(found.mid.numerator, found.mid.denominator) * 10**12
        worse = max if sign > 0 else min
        floor = worse(cost, mid)
        price = Fraction(offer.price.numerator, offer.price.denominator) * 10**12
        beyond = (price - worse(floor * factor, mid)) * sign
        # Sized in the quote asset, rounding to the tick changes the base by less than a tick's worth.
        assert (-tick if is_in_quote else 0) <= beyond < (2 * tick if is_in_quote else tick)
        assert price % tick == 0
    assert (
        found.bid.price.numerator * found.ask.price.denominator
        <= found.ask.price.numerator * found.bid.price.denominator
    )


def _cost(shows: list[VenueBook], offer: OfferSide, sign: int) -> Fraction:
    """The average over the offer's own size, after fees, in whole units of the quote asset."""
    rows = [
        (Fraction(level.ticks, 100) * (1 + Fraction(sign * item.fee.taker_ppm, PPM)), level.units)
        for item in shows
        if item.view is not None
        for level in (item.view.asks if sign > 0 else item.view.bids)
    ]
    left, spent = offer.base_units, Fraction(0)
    for price, units in sorted(rows, key=lambda row: row[0] * sign):
        part = min(left, units)
        spent += part * price
        left -= part
    # What rounding to the tick may ask for beyond the last level costs as much as that level.
    return (spent + left * max((p * sign for p, _ in rows)) * sign) / offer.base_units
