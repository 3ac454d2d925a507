"""Funding, efficiency and ageing over plain values: scenario tables."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from registry.calendars import Calendar
from reporting.treasury.ageing import age_items, bucket_of, sum_ages
from reporting.treasury.efficiency import measure_efficiency
from reporting.treasury.forecast import forecast_funding
from reporting.treasury.model import BUCKETS, AgedTotal, Due, Expected, FlowSource, Settled

MONDAY = date(2026, 1, 5)
DAY = timedelta(days=1)


def expected(day: int, units: int, asset: str = "USD") -> Expected:
    return Expected(
        source=FlowSource.OBLIGATION,
        reference=f"{asset}{day}{units}",
        party="acme",
        asset=asset,
        units=units,
        value_date=MONDAY + day * DAY,
    )


FORECASTS = {
    "what comes pays for what goes on the same day": (
        100,
        ((0, 500), (0, -550)),
        [(50, 0, 450), (50, 0, 450), (50, 0, 450)],
    ),
    "a day is short though the week is not": (
        100,
        ((0, -150), (2, 200)),
        [(-50, 50, 50), (-50, 50, 50), (150, 0, 50)],
    ),
    "what was due earlier still leaves, on the first day": (
        0,
        ((-3, -40), (-2, 10)),
        [(-30, 30, 40), (-30, 30, 40), (-30, 30, 40)],
    ),
    "what is due behind the horizon does not count": (
        7,
        ((3, -1_000),),
        [(7, 0, 0), (7, 0, 0), (7, 0, 0)],
    ),
}


@pytest.mark.parametrize("name", FORECASTS)
def test_closing_and_what_is_missing_by_day(name: str) -> None:
    opening, moves, told = FORECASTS[name]

    found = forecast_funding(
        [expected(day, units) for day, units in moves], {"USD": opening}, first=MONDAY, days=3
    )

    assert [(item.closing, item.short, item.short_without) for item in found.days] == told


def test_what_is_overdue_and_what_comes_later_is_named() -> None:
    moves = [expected(-2, 10), expected(9, 5), expected(9, -8), expected(0, -1, "BTC")]

    found = forecast_funding(moves, {"USD": 1}, first=MONDAY, days=2)

    assert [(item.asset, item.overdue) for item in found.days] == [
        *(("BTC", 0), ("BTC", 0)),
        *(("USD", 10), ("USD", 0)),
    ]
    assert found.later == {"USD": (5, 8)}


@pytest.mark.parametrize("days", [0, 367])
def test_a_forecast_has_a_length(days: int) -> None:
    with pytest.raises(BadInput, match="1 to 366 days"):
        forecast_funding([], {}, first=MONDAY, days=days)


@given(st.lists(st.tuples(st.integers(-3, 12), st.integers(-(10**24), 10**24)), max_size=30))
def test_every_expected_movement_is_in_exactly_one_place(moves: list[tuple[int, int]]) -> None:
    found = forecast_funding(
        [expected(day, units) for day, units in moves], {"USD": 10**6}, first=MONDAY, days=7
    )

    later_in, later_out = found.later.get("USD", (0, 0))
    ending = found.days[-1].closing
    assert ending + later_in - later_out == 10**6 + sum(units for _, units in moves)
    for before, after in zip(found.days, found.days[1:], strict=False):
        assert after.opening == before.closing


def settled(net: int, day: int, final: int | None, *, gross: tuple[int, int]) -> Settled:
    return Settled(
        party="acme",
        asset="USD",
        value_date=MONDAY + day * DAY,
        gross_pay=gross[0],
        gross_receive=gross[1],
        net=net,
        paid=net if final is not None else 0,
        final_on=None if final is None else MONDAY + final * DAY,
    )


def test_efficiency_counts_what_was_saved_and_what_was_on_time() -> None:
    items = [
        settled(200, 0, 0, gross=(400, 600)),
        settled(100, 0, 2, gross=(0, 100)),
        settled(300, 0, None, gross=(300, 0)),
        settled(0, 0, None, gross=(50, 50)),
        settled(10, 5, None, gross=(10, 0)),
    ]

    (found,) = measure_efficiency(items, today=MONDAY + DAY)

    assert (found.gross, found.net, found.paid) == (1_510, 610, 300)
    assert found.saved_ppm == 596_026
    assert (found.items, found.on_time, found.late, found.open) == (4, 1, 1, 1)
    assert found.on_time_ppm == 333_333


def test_nothing_settled_is_nothing_saved() -> None:
    assert measure_efficiency([], today=MONDAY) == ()
    (found,) = measure_efficiency([settled(10, 5, None, gross=(10, 0))], today=MONDAY)
    assert (found.saved_ppm, found.on_time_ppm) == (0, 0)


@pytest.mark.parametrize(
    ("due", "today", "days"),
    [
        (date(2026, 1, 9), date(2026, 1, 9), 0),
        (date(2026, 1, 9), date(2026, 1, 11), 0),
        (date(2026, 1, 9), date(2026, 1, 12), 1),
        (date(2026, 4, 2), date(2026, 4, 7), 1),
        (date(2026, 1, 12), date(2026, 1, 9), -1),
        (date(2020, 1, 1), date(2026, 1, 12), 255),
    ],
)
def test_days_late_are_business_days(due: date, today: date, days: int) -> None:
    """Easter 2026: TARGET is closed from Friday 3 to Monday 6 April."""
    item = Due(reference="a", party="acme", asset="EUR", units=1, value_date=due, state="x")

    (found,) = age_items([item], today=today, calendars=lambda _: {Calendar.TARGET})

    assert found.days == days


def test_every_age_has_one_bucket() -> None:
    names = [bucket_of(days) for days in range(-1, 400)]

    assert [names.count(bucket.name) for bucket in BUCKETS] == [1, 1, 1, 4, 15, 379]


def test_items_are_aged_by_the_days_of_their_asset_and_summed() -> None:
    items = [
        Due(
            reference="a",
            party="acme",
            asset="EUR",
            units=5,
            value_date=date(2026, 1, 9),
            state="x",
        ),
        Due(
            reference="b",
            party="acme",
            asset="EUR",
            units=7,
            value_date=date(2026, 1, 9),
            state="x",
        ),
        Due(
            reference="c",
            party="acme",
            asset="BTC",
            units=-3,
            value_date=date(2026, 1, 9),
            state="x",
        ),
    ]

    aged = age_items(
        items,
        today=date(2026, 1, 12),
        calendars=lambda asset: {Calendar.ALWAYS if asset == "BTC" else Calendar.TARGET},
    )

    assert [(item.due.reference, item.days, item.bucket) for item in aged] == [
        *(("c", 3, "2-5"), ("a", 1, "1"), ("b", 1, "1")),
    ]
    assert sum_ages(aged) == (
        AgedTotal(party="acme", asset="BTC", to_us=False, bucket="2-5", items=1, units=3),
        AgedTotal(party="acme", asset="EUR", to_us=True, bucket="1", items=2, units=12),
    )
