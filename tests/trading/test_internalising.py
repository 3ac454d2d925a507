"""Young flow waits for flow the other way, and what meets is netted to the unit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from trading.internalising import Flow, ripe

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
WINDOW = 10 * SECOND
BAND = 1_000


def flow(units: int, age: int) -> Flow:
    return Flow(units, NOW - age * SECOND)


@pytest.mark.parametrize(
    ("need", "young", "expected"),
    [
        # Old need with nothing young.
        (50, [], 50),
        (-50, [], -50),
        # All of it is young.
        (50, [flow(50, 3)], 0),
        (50, [flow(30, 8), flow(20, 3)], 0),
        # Some is old.
        (50, [flow(20, 3)], 30),
        (-50, [flow(-20, 3)], -30),
        # It meets flow the other way.
        (0, [flow(50, 8), flow(-50, 3)], 0),
        (20, [flow(50, 8), flow(-30, 3)], 0),
        (-10, [flow(50, 8), flow(-60, 3)], 0),
        # New flow takes the oldest away: the old forty, and ten of the twenty.
        (10, [flow(20, 8), flow(-50, 3)], 0),
        # The old forty lose thirty; what is young waits.
        (30, [flow(20, 8), flow(-30, 3)], 10),
        (20, [flow(-20, 3)], 20),
        # What was young has been hedged by a fill, which is no flow.
        (0, [flow(50, 3)], 0),
        (-20, [flow(50, 3), flow(-20, 2)], 0),
        # At the age of the window it is ripe; a clock ahead of ours makes it young.
        (50, [flow(50, 10)], 50),
        (50, [flow(50, 9)], 0),
        (50, [flow(50, -5)], 0),
        # The order in which they are given does not matter.
        (-10, [flow(-60, 3), flow(50, 12)], 0),
        (10, [flow(-40, 3), flow(50, 12)], 10),
        # Beyond the band everything is urgent.
        (1_000, [flow(1_000, 3)], 0),
        (1_001, [flow(1_001, 3)], 1_001),
        (-1_001, [flow(-1_001, 3)], -1_001),
    ],
)
def test_what_is_ripe(need: int, young: list[Flow], expected: int) -> None:
    assert ripe(need, young, WINDOW, BAND, NOW) == expected


def test_without_a_window_nothing_waits() -> None:
    assert ripe(50, [flow(50, 0)], timedelta(0), BAND, NOW) == 50


@pytest.mark.parametrize(("window", "band"), [(-SECOND, 0), (SECOND, -1)])
def test_windows_and_bands_below_zero_are_refused(window: timedelta, band: int) -> None:
    with pytest.raises(BadInput):
        ripe(1, [], window, band, NOW)


flows = st.lists(st.tuples(st.integers(-60, 60), st.integers(0, 20)), max_size=12)


def by_units(old: int, young: list[Flow]) -> int:
    """The same in a plain model: every unit is a coin of its own, in a queue."""
    long_ago = NOW - timedelta(days=1)
    queue = [(1 if old > 0 else -1, long_ago)] * abs(old)
    for one in sorted(young, key=lambda item: item.at):
        for _ in range(abs(one.units)):
            sign = 1 if one.units > 0 else -1
            if queue and queue[0][0] != sign:
                queue.pop(0)
            else:
                queue.append((sign, one.at))
    return sum(sign for sign, at in queue if NOW - at >= WINDOW)


@given(old=st.integers(-100, 100), parts=flows)
def test_netting_is_exact_to_the_unit(old: int, parts: list[tuple[int, int]]) -> None:
    young = [flow(units, age) for units, age in parts]
    need = old + sum(one.units for one in young)

    found = ripe(need, young, WINDOW, 10**6, NOW)

    assert found == by_units(old, young)
    assert abs(found) <= abs(need)
    assert found * need >= 0


@given(parts=flows)
def test_clients_who_meet_within_the_window_are_never_traded(parts: list[tuple[int, int]]) -> None:
    """Pass by pass with perfect fills: what is traded is only what found no partner in time."""
    position, traded, booked = 0, 0, []
    when = sorted((20 - age, units) for units, age in parts)
    for second in range(40):
        now = NOW + second * SECOND
        for at, units in when:
            if at == second:
                position += units
                booked.append(Flow(units, now))
        young = [one for one in booked if now - one.at <= WINDOW]
        order = ripe(position, young, WINDOW, 10**6, now)
        position -= order
        traded += abs(order)
    assert position == 0
    bought = sum(units for units, _ in parts if units > 0)
    sold = -sum(units for units, _ in parts if units < 0)
    assert abs(bought - sold) <= traded <= bought + sold
    if all(20 - age >= 12 for _, age in parts):
        assert traded == abs(bought - sold)
