"""A provider is asked no faster than its contract allows, and nobody is forgotten meanwhile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.rate_limit import RateLimit, TokenBucket
from kernel.errors import BadInput


def test_a_burst_is_free_and_then_every_request_waits_its_turn() -> None:
    bucket = TokenBucket(RateLimit(per_second=10, burst=2))

    assert [bucket.take(1, 5.0) for _ in range(4)] == [0, 0, 100, 200]
    assert bucket.take(1, 5.3) == 0


def test_a_batch_counts_as_many_requests_as_it_has_members() -> None:
    bucket = TokenBucket(RateLimit(per_second=10, burst=2))

    assert bucket.take(12, 0.0) == 1_000


def test_a_long_pause_saves_up_no_more_than_a_burst() -> None:
    bucket = TokenBucket(RateLimit(per_second=10, burst=2))
    bucket.take(2, 0.0)

    assert [bucket.take(1, 3_600.0) for _ in range(3)] == [0, 0, 100]


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    bucket = TokenBucket(RateLimit(per_second=10, burst=1))
    bucket.take(1, 10.0)

    assert bucket.take(1, 1.0) == 100
    assert bucket.take(1, 10.0) == 200


@pytest.mark.parametrize(("per_second", "burst"), [(0, 1), (1, 0), (-1, 1), (10_001, 1)])
def test_a_limit_out_of_range_is_refused(per_second: int, burst: int) -> None:
    with pytest.raises(BadInput):
        RateLimit(per_second, burst)


@given(st.lists(st.integers(0, 500), max_size=60), st.integers(1, 50), st.integers(1, 20))
def test_no_span_of_time_sees_more_requests_than_burst_and_rate_allow(
    gaps_ms: list[int], per_second: int, burst: int
) -> None:
    bucket = TokenBucket(RateLimit(per_second, burst))
    at_ms, sent_ms = 0, []
    for gap in gaps_ms:
        at_ms += gap
        sent_ms.append(at_ms + bucket.take(1, at_ms / 1_000))

    for first, start in enumerate(sent_ms):
        for last in range(first, len(sent_ms)):
            allowed = burst * 1_000 + (sent_ms[last] - start + 1) * per_second
            assert (last - first + 1) * 1_000 <= allowed + 1_000
