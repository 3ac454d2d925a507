"""What may stay open of a large hedge falls in a straight line, whatever happens on the way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from trading.pacing import Pace, PacePolicy, due, next_pace

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
POLICY = PacePolicy(paced_from=10, duration=100 * SECOND)
SLICED = PacePolicy(paced_from=10, duration=100 * SECOND, slice_units=8)
PACE = Pace(started_at=NOW, units=100, until=NOW + 100 * SECOND)


@pytest.mark.parametrize(
    ("seconds", "need", "expected"),
    [
        (0, 100, 0),
        (-5, 100, 0),
        (1, 100, 1),
        (40, 100, 40),
        (40, 70, 10),
        (40, 60, 0),
        (40, 20, 0),
        (99, 100, 99),
        (100, 100, 100),
        (500, 3, 3),
    ],
)
def test_what_is_beyond_the_line_is_due(seconds: int, need: int, expected: int) -> None:
    assert due(need, PACE, POLICY, NOW + seconds * SECOND) == expected


def test_a_sale_is_paced_as_a_purchase_is() -> None:
    pace = Pace(started_at=NOW, units=-100, until=NOW + 100 * SECOND)

    assert due(-100, pace, POLICY, NOW + 40 * SECOND) == -40


def test_less_than_a_slice_waits_until_the_end() -> None:
    assert due(100, PACE, SLICED, NOW + 7 * SECOND) == 0
    assert due(100, PACE, SLICED, NOW + 8 * SECOND) == 8
    assert due(3, PACE, SLICED, NOW + 100 * SECOND) == 3


@pytest.mark.parametrize("need", [0, 10, -10])
def test_a_small_need_is_due_at_once(need: int) -> None:
    assert next_pace(need, PACE, POLICY, NOW) is None
    assert due(need, None, POLICY, NOW) == need


def test_a_large_need_begins_a_pace_of_the_whole_duration() -> None:
    assert next_pace(11, None, POLICY, NOW) == Pace(
        started_at=NOW, units=11, until=NOW + 100 * SECOND
    )


def test_a_need_the_other_way_begins_anew() -> None:
    later = NOW + 30 * SECOND

    assert next_pace(-50, PACE, POLICY, later) == Pace(
        started_at=later, units=-50, until=later + 100 * SECOND
    )


def test_what_is_ahead_of_its_line_goes_on_from_here_to_the_same_end() -> None:
    later = NOW + 20 * SECOND

    assert next_pace(50, PACE, POLICY, later) == Pace(started_at=later, units=50, until=PACE.until)


def test_what_is_behind_keeps_its_line_and_the_end_is_a_promise() -> None:
    assert next_pace(100, PACE, POLICY, NOW + 60 * SECOND) == PACE
    over = NOW + 200 * SECOND
    assert due(100, next_pace(100, PACE, POLICY, over), POLICY, over) == 100


def test_a_little_more_is_due_at_once_and_much_more_gets_a_mean_end() -> None:
    later = NOW + 60 * SECOND
    pace = Pace(started_at=later, units=40, until=PACE.until)

    assert next_pace(50, pace, POLICY, later) == pace
    assert due(50, pace, POLICY, later) == 10
    # Forty with forty seconds to go, and sixty with a hundred: 7,600 over 100.
    assert next_pace(100, pace, POLICY, later) == Pace(
        started_at=later, units=100, until=later + 76 * SECOND
    )


def test_a_pace_that_is_over_does_not_hurry_what_comes_later() -> None:
    over = NOW + 200 * SECOND
    found = next_pace(300, PACE, POLICY, over)

    assert found is not None
    # A hundred is late, and two hundred have the whole duration.
    assert found.until - over == 100 * SECOND
    assert due(300, found, POLICY, over) == 100


def test_what_is_overdue_stays_due_when_the_need_grows() -> None:
    later = NOW + 60 * SECOND
    found = next_pace(140, PACE, POLICY, later)

    # Sixty were due and stay so; forty are open for forty seconds more, and forty for a hundred.
    assert due(140, found, POLICY, later) == 60
    assert found is not None
    assert found.until == later + 70 * SECOND
    assert due(140, found, POLICY, found.until) == 140


@pytest.mark.parametrize("flow", [11, 20, 500])
def test_flow_at_every_look_does_not_put_a_hedge_off_for_ever(flow: int) -> None:
    now, need, pace = NOW, 0, None
    for _ in range(1_000):
        now += SECOND
        need += flow
        pace = next_pace(need, pace, POLICY, now)
        need -= due(need, pace, POLICY, now)
        # No more is open than came within the duration.
        assert need <= 100 * flow


@pytest.mark.parametrize(
    "make",
    [
        lambda: PacePolicy(paced_from=-1, duration=SECOND),
        lambda: PacePolicy(paced_from=5, duration=SECOND, slice_units=6),
        lambda: PacePolicy(paced_from=5, duration=SECOND, slice_units=-1),
        lambda: PacePolicy(paced_from=5, duration=timedelta(0)),
    ],
)
def test_policies_that_cannot_work_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(BadInput):
        make()


steps = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.integers(-400, 400) | st.just(0),
        st.sampled_from([0, 50, 100]),
    ),
    max_size=40,
)


@given(steps=steps, slice_units=st.integers(0, 10))
def test_whatever_comes_and_whatever_fills_no_more_is_due_than_is_open(
    steps: list[tuple[int, int, int]], slice_units: int
) -> None:
    """Flow comes, orders fill wholly, half or not at all; in the end all is done in time."""
    policy = PacePolicy(paced_from=10, duration=100 * SECOND, slice_units=slice_units)
    now, need, pace = NOW, 0, None
    for seconds, flow, filled_percent in steps:
        now += seconds * SECOND
        need += flow
        pace = next_pace(need, pace, policy, now)
        order = due(need, pace, policy, now)
        assert abs(order) <= abs(need)
        assert order * need >= 0
        if pace is not None:
            assert pace.until - now <= policy.duration
            assert abs(need - order) <= pace.open_at(now) + max(slice_units - 1, 0)
            if now >= pace.until:
                assert order == need
        need -= order * filled_percent // 100
    now += policy.duration
    pace = next_pace(need, pace, policy, now)
    assert due(need, pace, policy, now) == need


@given(units=st.integers(11, 10**21), looks=st.lists(st.integers(1, 10**7), max_size=50))
def test_a_need_that_fills_as_it_falls_due_follows_its_line(units: int, looks: list[int]) -> None:
    now, need, pace = NOW, units, next_pace(units, None, POLICY, NOW)
    for micros in looks:
        now += timedelta(microseconds=micros)
        pace = next_pace(need, pace, POLICY, now)
        if pace is None:
            break
        need -= due(need, pace, POLICY, now)
        line = Pace(started_at=NOW, units=units, until=NOW + POLICY.duration).open_at(now)
        # Every time the line is drawn anew it may lose less than a unit.
        assert line - len(looks) <= need <= line
