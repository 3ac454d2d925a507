"""The breaker of a venue's account, as a machine of its own: no database, no clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk.breaker import (
    BREAKER_STATES,
    SAMPLES_MAX,
    Breaker,
    BreakerPolicy,
    BreakerState,
    Sample,
    after,
    may_pass,
    pass_one,
    rest_until,
)
from risk.model import Outcome

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
POLICY = BreakerPolicy()
WELL = Breaker(state=BreakerState.CLOSED, since=NOW)


def second(n: int) -> datetime:
    return NOW + timedelta(seconds=n)


def told(text: str, breaker: Breaker = WELL, policy: BreakerPolicy = POLICY) -> Breaker:
    """One outcome a second: ``.`` answered, ``s`` slow, ``x`` failed, ``?`` unknown."""
    outcomes = {".": Outcome.ANSWERED, "s": Outcome.ANSWERED, "x": Outcome.FAILED}
    for index, letter in enumerate(text):
        outcome = outcomes.get(letter, Outcome.UNKNOWN)
        latency = policy.slow_ms + 1 if letter == "s" else 10
        breaker = after(breaker, Sample(second(index), outcome, latency), policy)
    return breaker


@pytest.mark.parametrize(
    ("outcomes", "state", "reason"),
    [
        ("......", BreakerState.CLOSED, ""),
        ("xxxx", BreakerState.CLOSED, ""),
        ("xxxxx", BreakerState.OPEN, "5 of 5 failed or unknown"),
        ("..xx", BreakerState.CLOSED, ""),
        ("...xxx", BreakerState.OPEN, "3 of 6 failed or unknown"),
        (".......xx", BreakerState.CLOSED, ""),
        ("??", BreakerState.CLOSED, ""),
        ("???", BreakerState.OPEN, "3 unknown outcomes"),
        ("..........???", BreakerState.OPEN, "3 unknown outcomes"),
        ("sssss", BreakerState.OPEN, "5 of 5 slower than 2000 ms"),
        ("s.s.s..", BreakerState.OPEN, "3 of 5 slower than 2000 ms"),
        ("s..s.", BreakerState.CLOSED, ""),
    ],
)
def test_it_trips_on_a_share_of_failures_on_unknown_outcomes_and_on_slowness(
    outcomes: str, state: BreakerState, reason: str
) -> None:
    found = told(outcomes)

    assert (found.state, found.reason) == (state, reason)


def test_what_is_older_than_the_window_does_not_count() -> None:
    found = told("??")

    later = after(found, Sample(second(62), Outcome.UNKNOWN, 10), POLICY)

    assert later.state is BreakerState.CLOSED
    assert len(later.samples) == 1


def test_it_rests_then_one_order_tries_and_an_answer_closes_it() -> None:
    tripped = told("???")
    rested = rest_until(tripped, POLICY)

    assert pass_one(tripped, POLICY, now=rested - timedelta(microseconds=1)) is None
    trying = pass_one(tripped, POLICY, now=rested)
    assert trying is not None
    assert trying.state is BreakerState.HALF_OPEN
    assert pass_one(trying, POLICY, now=rested) is None
    well = after(trying, Sample(rested, Outcome.ANSWERED, 10), POLICY)
    assert (well.state, well.trips) == (BreakerState.CLOSED, 0)
    assert pass_one(well, POLICY, now=rested) == well


@pytest.mark.parametrize(
    "sample",
    [
        Sample(second(20), Outcome.FAILED, 10),
        Sample(second(20), Outcome.UNKNOWN, 10),
        Sample(second(20), Outcome.ANSWERED, POLICY.slow_ms + 1),
    ],
)
def test_a_trial_that_fails_or_is_slow_makes_it_rest_for_twice_as_long(sample: Sample) -> None:
    tripped = told("???")
    trying = pass_one(tripped, POLICY, now=second(19))
    assert trying is not None

    again = after(trying, sample, POLICY)

    assert (again.state, again.trips) == (BreakerState.OPEN, 2)
    assert rest_until(again, POLICY) == second(20) + 2 * POLICY.rest


def test_a_trial_whose_outcome_never_comes_gives_way_to_another() -> None:
    trying = pass_one(told("???"), POLICY, now=second(60))
    assert trying is not None

    assert pass_one(trying, POLICY, now=second(60) + POLICY.trial - timedelta(seconds=1)) is None
    assert pass_one(trying, POLICY, now=second(60) + POLICY.trial) is not None


def test_rest_is_doubled_a_bounded_number_of_times() -> None:
    long_ill = Breaker(state=BreakerState.OPEN, since=NOW, trips=1_000)

    assert rest_until(long_ill, POLICY) == NOW + 64 * POLICY.rest


STEPS = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.sampled_from([*Outcome, None]),
        st.integers(0, 4_000),
    ),
    max_size=150,
)


@given(STEPS)
def test_whatever_happens_it_keeps_to_its_edges_and_its_memory_is_bounded(
    steps: list[tuple[int, Outcome | None, int]],
) -> None:
    breaker, now, last_trial = WELL, NOW, None
    for pause, outcome, latency in steps:
        now += timedelta(seconds=pause)
        if outcome is None:
            passed = pass_one(breaker, POLICY, now=now)
            assert (passed is not None) == may_pass(breaker, POLICY, now=now)
            then = passed or breaker
            if passed is not None and breaker.state is BreakerState.HALF_OPEN:
                assert last_trial is None or now - last_trial >= POLICY.trial
            last_trial = then.trial_at
        else:
            then = after(breaker, Sample(now, outcome, latency), POLICY)
            last_trial = then.trial_at
        assert BREAKER_STATES.allows(breaker.state, then.state)
        assert (then.trial_at is not None) == (then.state is BreakerState.HALF_OPEN)
        assert len(then.samples) <= SAMPLES_MAX
        breaker = then
