"""What a result is made of: scenarios by hand, and what holds of any flows whatever."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from fractions import Fraction
from math import floor
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from kernel.money import Asset, Price
from trading.pnl.allocation import allocate, prefix
from trading.pnl.model import Allocation, Cause, Component, Flow, FlowKind, Line, Marks, Result
from trading.pnl.result import held, lines_of, movement, worth
from trading.pnl.result import measure as measure_movement

USDT = Asset("USDT", 2)
BTC, ETH, USD = Asset("BTC", 3), Asset("ETH", 3), Asset("USD", 2)
START, END = datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 1, 6, tzinfo=UTC)
NOTHING = allocate(())


def ident(number: int) -> UUID:
    return UUID(int=number)


def flow(number: int, kind: FlowKind, units: int, value: int, **more: Any) -> Flow:
    fields: dict[str, Any] = {"base": "BTC", "quote": "USDT", **more}
    return Flow(
        id=ident(number),
        kind=kind,
        sequence=number,
        base_units=units,
        quote_units=value,
        **fields,
    )


def client(number: int, units: int, value: int, mid: int | None, **more: Any) -> Flow:
    return flow(number, FlowKind.CLIENT, units, value, mid_units=mid, **more)


def fill(number: int, units: int, value: int, **more: Any) -> Flow:
    return flow(number, FlowKind.FILL, units, value, **more)


def marks(at: datetime = END, **texts: str) -> Marks:
    """Marks in whole USDT for one whole unit."""
    assets = {item.code: item for item in (BTC, ETH, USD)}
    prices = {code: Price.parse(text, assets[code], USDT) for code, text in texts.items()}
    return Marks(currency=USDT, at=at, prices=prices)


def measure(before: Allocation, after: Allocation, start: Marks, end: Marks) -> Result:
    return measure_movement(movement(before, after, end.currency.code), start, end)


def result(*flows: Flow, btc: str = "100") -> Result:
    return measure(NOTHING, allocate(flows), marks(START), marks(BTC=btc))


def of(found: Result, component: Component) -> int:
    return found.by_component.get(component, 0)


def test_a_deal_without_a_hedge_has_its_spread_and_is_open_at_its_mid() -> None:
    # 1 BTC sold at 101 with the mid at 100; the mark is 104.
    found = result(client(1, -1000, 101_00, 100_00), btc="104")

    assert found.by_component == {Component.CLIENT_SPREAD: 1_00, Component.INVENTORY: -4_00}
    assert found.trading == found.net == -3_00


def test_a_hedge_costs_what_it_lies_beside_the_mid() -> None:
    found = result(client(1, -1000, 101_00, 100_00), fill(2, 1000, -100_50), btc="500")

    assert found.by_component == {Component.CLIENT_SPREAD: 1_00, Component.HEDGE_SLIPPAGE: -50}


def test_a_hedge_that_came_before_its_deal_counts_the_same() -> None:
    found = result(fill(1, 1000, -100_50), client(2, -1000, 101_00, 100_00), btc="500")

    assert found.by_component == {Component.CLIENT_SPREAD: 1_00, Component.HEDGE_SLIPPAGE: -50}
    assert found.by_deal[ident(2)][Component.HEDGE_SLIPPAGE] == -50


def test_two_deals_against_each_other_are_internalised_from_mid_to_mid() -> None:
    found = result(client(1, -1000, 101_00, 100_00), client(2, 1000, -99_00, -100_20))

    assert found.by_component == {Component.CLIENT_SPREAD: 2_20, Component.INTERNALISED: -20}
    assert Component.INTERNALISED in found.by_deal[ident(1)], "the older deal carried the risk"


def test_hedges_without_a_client_are_unwound() -> None:
    found = result(fill(1, 1000, -100_00), fill(2, -1000, 99_00))

    assert found.by_component == {Component.UNWIND: -1_00}
    assert set(found.by_deal) == {None}


def test_a_deal_without_a_mid_has_no_spread_and_is_listed() -> None:
    found = result(client(1, -1000, 101_00, None), fill(2, 1000, -100_00))

    assert found.by_component == {Component.HEDGE_SLIPPAGE: 1_00}
    assert found.without_mid == (ident(1),)


def test_a_deal_with_a_mid_of_nothing_is_one_with_a_mid() -> None:
    assert result(client(1, -1, 1, 0), btc="1").without_mid == ()


def test_the_oldest_deal_is_hedged_first() -> None:
    flows = (
        client(1, -1000, 101_00, 100_00),
        client(2, -1000, 103_00, 102_00),
        fill(3, 1500, -150_00),
    )

    first, second = allocate(flows).matches

    assert (first.older.flow.id, first.older.units, first.newer.units) == (ident(1), -1000, 1000)
    assert (second.older.flow.id, second.older.units, second.newer.units) == (ident(2), -500, 500)
    assert [(part.flow.id, part.units) for part in allocate(flows).open] == [(ident(2), -500)]


def test_a_flow_larger_than_what_is_open_turns_the_position() -> None:
    found = allocate((client(1, -400, 40_40, 40_00), fill(2, 1000, -100_00)))

    assert [(part.flow.id, part.units, part.value) for part in found.open] == [
        (ident(2), 600, -60_00)
    ]


def test_parts_of_a_flow_add_up_and_stay_as_they_are() -> None:
    # A hundred and one cents over three parts, and then over more.
    deals = [client(number, -1, 1, 1) for number in range(1, 4)]
    hedge = fill(9, 3, -101)

    two = allocate((*deals[:2], hedge))
    three = allocate((hedge, *deals))

    assert [match.newer.value for match in two.matches] == [-34, -34]
    assert [match.older.value for match in three.matches] == [-34, -34, -33]
    assert two.open[0].value == -33


def test_assets_do_not_meet_each_other() -> None:
    found = allocate((client(1, -1000, 101_00, 100_00), fill(2, 1000, -100_00, base="ETH")))

    assert found.matches == ()
    assert len(found.open) == 2


def test_a_deal_in_one_currency_may_be_hedged_in_another() -> None:
    flows = (client(1, -1000, 91_00, 90_00, quote="USD"), fill(2, 1000, -99_00))

    lines = lines_of(allocate(flows))

    slippage = Cause(Component.HEDGE_SLIPPAGE, ident(1), ident(2), "BTC")
    assert Line(slippage, "USD", 90_00) in lines
    assert Line(slippage, "USDT", -99_00) in lines
    found = measure(NOTHING, allocate(flows), marks(START), marks(USD="1.1"))
    assert of(found, Component.HEDGE_SLIPPAGE) == 0
    assert of(found, Component.CLIENT_SPREAD) == 1_10


def test_a_venues_fee_goes_with_the_units_and_a_deals_fee_is_whole() -> None:
    found = result(
        client(1, -400, 40_40, 40_00, charges=(("USDT", 5_00),)),
        fill(2, 1000, -100_00, charges=(("USDT", -99),)),
    )

    assert found.by_deal[ident(1)][Component.DEAL_FEE] == 5_00
    assert found.by_deal[ident(1)][Component.VENUE_FEE] == -40
    assert found.by_deal[None][Component.VENUE_FEE] == -59
    assert found.net == found.trading + 5_00 - 99


def test_a_fill_that_its_fee_has_eaten_up_still_costs() -> None:
    found = result(fill(1, 0, -3, charges=(("USDT", -2),)))

    assert found.by_component == {Component.UNWIND: -3, Component.VENUE_FEE: -2}


def test_other_postings_are_told_apart_and_never_matched() -> None:
    other = Flow(id=ident(1), kind=FlowKind.OTHER, sequence=1, base="BTC", base_units=1000)

    found = result(other, client(2, -1000, 101_00, 100_00), btc="100")

    assert found.by_component == {
        Component.CLIENT_SPREAD: 1_00,
        Component.OTHER: 100_00,
        Component.INVENTORY: 0,
    }


def test_the_day_of_the_hedge_takes_the_inventory_of_the_day_before_back() -> None:
    deal = client(1, -1000, 101_00, 100_00)
    first = allocate((deal,))
    second = allocate((deal, fill(2, 1000, -103_00)))

    found = measure(first, second, marks(START, BTC="102"), marks(BTC="110"))

    assert found.by_component == {Component.HEDGE_SLIPPAGE: -3_00, Component.INVENTORY: 2_00}
    assert found.trading == -1_00


def test_a_cancelled_deal_gives_its_hedge_to_the_next() -> None:
    first = allocate((client(1, -1000, 101_00, 100_00), fill(2, 1000, -100_50)))
    second = allocate((fill(2, 1000, -100_50), client(3, -1000, 102_00, 100_80)))

    found = measure(first, second, marks(START, BTC="100"), marks(BTC="100"))

    assert found.by_deal[ident(1)] == {Component.CLIENT_SPREAD: -1_00, Component.HEDGE_SLIPPAGE: 50}
    assert found.by_deal[ident(3)] == {Component.CLIENT_SPREAD: 1_20, Component.HEDGE_SLIPPAGE: 30}


def test_what_was_earned_in_another_currency_is_revalued() -> None:
    done = allocate(
        (client(1, -1000, 91_00, 90_00, quote="USD"), fill(2, 1000, -90_00, quote="USD"))
    )

    found = measure(done, done, marks(START, USD="1.1"), marks(USD="1.3"))

    assert found.by_component == {Component.REVALUATION: 20}


def test_an_asset_without_a_mark_has_no_result() -> None:
    with pytest.raises(BadInput, match="no mark of BTC"):
        measure(NOTHING, allocate((fill(1, 1, -1),)), marks(START), marks())


def test_marks_are_prices_of_their_asset_in_the_one_currency() -> None:
    with pytest.raises(BadInput, match="not a price"):
        Marks(currency=USDT, at=END, prices={"ETH": Price.parse("1", BTC, USDT)})


AMOUNTS = st.integers(min_value=1, max_value=10**6)
KINDS = (FlowKind.FILL, FlowKind.HEDGE, FlowKind.TRANSFER, FlowKind.FEE)


@st.composite
def any_flow(draw: st.DrawFn, number: int) -> Flow:
    units, value, sign = draw(AMOUNTS), draw(AMOUNTS), draw(st.sampled_from((1, -1)))
    pair = draw(st.sampled_from((("BTC", "USDT"), ("BTC", "USD"), ("ETH", "USDT"), ("ETH", "BTC"))))
    charges = tuple(
        draw(
            st.lists(st.tuples(st.sampled_from(("USDT", "ETH")), st.integers(-99, 99)), max_size=2)
        )
    )
    fields = {"base": pair[0], "quote": pair[1], "charges": charges}
    if draw(st.booleans()):
        mid = draw(st.none() | AMOUNTS)
        return client(number, sign * units, -sign * value, mid and -sign * mid, **fields)
    return flow(number, draw(st.sampled_from(KINDS)), sign * units, -sign * value, **fields)


@st.composite
def histories(draw: st.DrawFn) -> list[Flow]:
    count = draw(st.integers(min_value=0, max_value=12))
    return [draw(any_flow(number)) for number in range(1, count + 1)]


RATES = st.decimals(min_value="0.01", max_value="999", places=5).map(str)


@st.composite
def any_marks(draw: st.DrawFn, at: datetime) -> Marks:
    return marks(at, BTC=draw(RATES), ETH=draw(RATES), USD=draw(RATES))


@given(histories())
def test_matches_and_open_parts_are_the_whole_of_every_flow(flows: list[Flow]) -> None:
    found = allocate(flows)

    units: Counter[UUID] = Counter()
    value: Counter[UUID] = Counter()
    parts = [part for match in found.matches for part in (match.older, match.newer)]
    for part in (*parts, *found.open):
        units[part.flow.id] += part.units
        value[part.flow.id] += part.value
    assert units == {item.id: item.base_units for item in flows}
    assert value == {item.id: item.reference_units for item in flows}
    for match in found.matches:
        assert match.older.units == -match.newer.units != 0
        assert match.older.flow.base == match.newer.flow.base
        assert match.older.flow.sequence < match.newer.flow.sequence
    for asset in {part.flow.base for part in found.open}:
        signs = {part.units > 0 for part in found.open if part.flow.base == asset}
        assert len(signs) == 1, "what is open of one asset is on one side"


@given(histories())
def test_charges_arrive_whole(flows: list[Flow]) -> None:
    lines = lines_of(allocate(flows))

    total: Counter[str] = Counter()
    for item in flows:
        for asset, units in item.charges:
            total[asset] += units
    for line in lines:
        if line.cause.component.is_charge:
            total[line.asset] -= line.units
    assert not any(total.values())


@given(histories(), st.data(), any_marks(START), any_marks(END))
def test_an_interval_is_the_change_of_the_account_to_the_unit(
    flows: list[Flow], data: st.DataObject, start: Marks, end: Marks
) -> None:
    cut = data.draw(st.integers(min_value=0, max_value=len(flows)))
    gone = data.draw(st.sets(st.integers(min_value=1, max_value=max(1, cut))))
    before, after = flows[:cut], [item for item in flows if item.sequence not in gone]

    found = measure(allocate(before), allocate(after), start, end)

    exact = worth(held(after), end) - worth(held(before), start)
    assert found.account_value == exact
    assert found.trading == floor(exact)
    for line in found.lines:
        weight = (end if line.at_end else start).of(line.asset)
        assert abs(line.value - line.units * weight) < 1


@given(histories(), st.data())
def test_days_add_up_to_their_range(flows: list[Flow], data: st.DataObject) -> None:
    cut = data.draw(st.integers(min_value=0, max_value=len(flows)))
    first, middle, last = (data.draw(any_marks(at)) for at in (START, START, END))
    early, late = allocate(flows[:cut]), allocate(flows)

    days = (
        measure(NOTHING, early, first, middle).account_value,
        measure(early, late, middle, last).account_value,
    )

    assert sum(days, start=Fraction(0)) == measure(NOTHING, late, first, last).account_value


@given(st.integers(-(10**9), 10**9), st.lists(st.integers(1, 50), min_size=1, max_size=6))
def test_a_total_is_cut_without_a_rest(total: int, sizes: list[int]) -> None:
    whole, done, parts = sum(sizes), 0, []
    for size in sizes:
        parts.append(prefix(total, done + size, whole) - prefix(total, done, whole))
        done += size
        assert abs(parts[-1] - Fraction(total * size, whole)) < 1
    assert sum(parts) == total
