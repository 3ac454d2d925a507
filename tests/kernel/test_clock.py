"""Clocks tell one time, to the microsecond as a value and in nanoseconds as a number."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.clock import ManualClock, SystemClock, from_unix_ns, to_unix_ns
from kernel.errors import BadInput


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_is_the_same_after_it_was_counted_in_nanoseconds(at: datetime) -> None:
    assert from_unix_ns(to_unix_ns(at)) == at


def test_nanoseconds_are_cut_to_microseconds() -> None:
    assert from_unix_ns(1_999) == datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(BadInput):
        to_unix_ns(datetime(2026, 1, 5))  # noqa: DTZ001  this is what is refused


def test_a_clock_that_is_moved_tells_the_same_both_ways() -> None:
    clock = ManualClock()
    began_ns = clock.now_ns()
    clock.advance(timedelta(microseconds=5))

    assert clock.now_ns() - began_ns == 5_000
    assert from_unix_ns(clock.now_ns()) == clock.now()


def test_the_machines_clock_is_one_clock() -> None:
    clock = SystemClock()
    before, between, after = clock.now(), clock.now_ns(), clock.now()

    assert before - timedelta(microseconds=1) <= from_unix_ns(between) <= after
