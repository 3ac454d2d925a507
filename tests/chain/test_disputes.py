"""When providers are at odds, when that is news, and when it is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from chain.disputes import DETAIL_LENGTH_MAX, Agreement, News, Survey, find_dispute, weigh
from chain.model import Block, Head

NOW = datetime(2026, 1, 5, tzinfo=UTC)
PATIENCE = timedelta(seconds=60)


def block(height: int, branch: str = "a") -> Block:
    return Block("evm", height, "0x" + branch * 64, "0x" + "0" * 64, NOW)


CURSOR = block(10)


def survey(*heights: int | None, holders: int, tip: int | None) -> Survey:
    heads = [
        Head(f"p{place}", None if height is None else block(height), "down" * (height is None))
        for place, height in enumerate(heights)
    ]
    return Survey(CURSOR, heads, holders, None if tip is None else block(tip))


@pytest.mark.parametrize(
    ("seen", "before", "dispute"),
    [
        pytest.param(survey(10, 10, 10, holders=3, tip=10), None, "", id="all agree"),
        pytest.param(survey(10, 11, 12, holders=3, tip=10), 9, "", id="ahead of the books"),
        pytest.param(survey(10, 10, 10, holders=2, tip=10), 9, "1 of 3", id="one has another"),
        pytest.param(survey(12, 10, 9, holders=1, tip=9), 8, "1 of 2", id="one has, one lags"),
        pytest.param(survey(10, 9, 9, holders=1, tip=9), 8, "", id="two lag, but come on"),
        pytest.param(survey(10, 9, 9, holders=1, tip=9), None, "", id="two lag, never seen before"),
        pytest.param(survey(10, 9, 9, holders=1, tip=9), 9, "up to height 9", id="two stand still"),
        pytest.param(survey(10, None, 10, holders=2, tip=10), 10, "", id="one is silent"),
        pytest.param(survey(10, None, None, holders=1, tip=None), 9, "no quorum", id="two are"),
    ],
)
def test_a_dispute_is_another_block_or_a_quorum_that_stands_still(
    seen: Survey, before: int | None, dispute: str
) -> None:
    found = find_dispute(seen, Agreement(before))

    assert dispute in found
    assert bool(found) is bool(dispute)


def test_a_dispute_is_news_once_when_it_has_lasted_and_its_end_once() -> None:
    odds, peace = survey(10, 10, 10, holders=2, tip=10), survey(10, 10, 10, holders=3, tip=10)
    story = [(0, odds), (59, odds), (60, odds), (61, odds), (90, peace), (91, peace), (92, odds)]
    state, told = Agreement(), []

    for second, seen in story:
        state, news = weigh(seen, state, now=NOW + timedelta(seconds=second), patience=PATIENCE)
        told.append(news)

    assert told == [None, None, News.BEGUN, None, News.ENDED, None, None]
    assert state.disputed_since == NOW + timedelta(seconds=92)


def test_a_short_dispute_is_no_news_at_all() -> None:
    odds, peace = survey(10, 10, holders=1, tip=10), survey(10, 10, holders=2, tip=10)
    state, first = weigh(odds, Agreement(), now=NOW, patience=PATIENCE)
    state, second = weigh(peace, state, now=NOW + timedelta(hours=1), patience=PATIENCE)

    assert (first, second, state) == (None, None, Agreement(10))


def test_what_each_provider_says_is_in_the_detail_within_bounds() -> None:
    odds = survey(10, None, *[11] * 40, holders=1, tip=10)

    state, _ = weigh(odds, Agreement(), now=NOW, patience=PATIENCE)

    assert "p0 is at 10 (0xaaaaaaaa), p1 is silent, p2 is at 11" in state.detail
    assert len(state.detail) == DETAIL_LENGTH_MAX
