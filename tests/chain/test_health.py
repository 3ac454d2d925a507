"""Who is asked first: judged by deeds, and nobody is forgotten for good but a liar about the chain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.health import (
    REST_MAX_S,
    Health,
    Standing,
    answered,
    awake,
    cost,
    failed,
    order,
    proven,
    refused,
    serves_another_chain,
    stands_at,
)


def provider(name: str, *, ms: int = 10, height: int = 100) -> Health:
    return stands_at(answered(proven(Health(name)), ms), height)


FAST, SLOW, BEHIND = provider("fast"), provider("slow", ms=900), provider("behind", height=80)


@pytest.mark.parametrize(
    ("healths", "expected"),
    [
        ((SLOW, FAST), (1, 0)),
        ((BEHIND, FAST), (1, 0)),
        ((BEHIND, SLOW), (1, 0)),
        ((failed(FAST, "time-out", 5.0), SLOW), (1, 0)),
        ((failed(FAST, "time-out", 0.0), SLOW), (0, 1)),
        ((refused(FAST, "limit"), provider("other")), (1, 0)),
        ((serves_another_chain(FAST, "chain 5"), SLOW), (1,)),
        ((serves_another_chain(FAST, "chain 5"),), ()),
        ((provider("one", ms=10), provider("two", ms=24)), (0, 1)),
        ((provider("one", ms=24), provider("two", ms=10)), (0, 1)),
        ((provider("one", height=98), provider("two", height=100)), (0, 1)),
    ],
)
def test_the_best_provider_is_asked_first(
    healths: tuple[Health, ...], expected: tuple[int, ...]
) -> None:
    assert order(healths, now_s=5.1) == expected


def test_who_is_on_our_branch_comes_before_who_is_faster_but_not_if_it_rests() -> None:
    assert order((FAST, SLOW), 0.0, preferred=frozenset({1})) == (1, 0)
    assert order((FAST, failed(SLOW, "down", 0.0)), 0.1, preferred=frozenset({1})) == (0, 1)


def test_rests_grow_with_failures_in_a_row_and_end_with_an_answer() -> None:
    rests, health = [], FAST
    for _ in range(9):
        health = failed(health, "down", 100.0)
        rests.append(health.rests_until_s - 100.0)

    assert rests == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    again = answered(health, 10)
    assert (again.failures, again.rests_until_s, again.troubles) == (0, 0.0, 9)


def test_a_provider_that_says_when_to_come_again_rests_so_long_but_not_for_ever() -> None:
    assert failed(FAST, "429", 10.0, rest_s=7.0).rests_until_s == 17.0
    assert failed(FAST, "429", 10.0, rest_s=9_999.0).rests_until_s == 10.0 + REST_MAX_S


def test_going_backwards_is_noted_each_time() -> None:
    health = stands_at(stands_at(stands_at(FAST, 90), 110), 105)

    assert (health.height, health.backwards) == (105, 2)
    assert "from height 110 to 105" in health.last_trouble


def test_another_chain_is_for_good() -> None:
    out = answered(serves_another_chain(FAST, "chain 5"), 1)

    assert out.standing is Standing.OUT
    assert order((out,), 1e9) == ()


def test_when_too_few_are_awake_those_who_rest_are_asked_as_well() -> None:
    tired = failed(FAST, "down", 0.0)
    exhausted = failed(tired, "down", 0.0)

    assert awake((exhausted, tired, SLOW), 0.1, 1) == (2,)
    assert awake((exhausted, tired, SLOW), 0.1, 2) == (2, 1)
    assert awake((exhausted, tired, SLOW), 0.1, 3) == (2, 1, 0)
    assert set(awake((exhausted, tired, SLOW), 9.0, 1)) == {0, 1, 2}


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60_000)), max_size=40))
def test_a_good_stretch_makes_up_for_any_past(past: list[tuple[bool, int]]) -> None:
    health = provider("any")
    for fine, ms in past:
        health = answered(health, ms) if fine else failed(health, "down", 0.0)
    for _ in range(100):
        health = answered(health, 10)

    assert cost(health, 100) <= 1
