"""Pauses, silence, and what a list of trades shows of a stream: decisions over values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching.model import Side
from venues.model import VenueFill
from venues.streams.liveness import first_missed, is_silent, pause_before
from venues.streams.model import StreamPolicy

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
POLICY = StreamPolicy(backoff_min=timedelta(milliseconds=200), backoff_max=timedelta(seconds=20))
FILL = VenueFill(
    venue="sim",
    account="desk",
    symbol="ETHUSDT",
    trade_id="1",
    venue_order_id="7",
    side=Side.BUY,
    price="3000",
    base="ETH",
    base_units=10**18,
    quote="USDT",
    quote_units=3_000_000_000,
    quote_dust=0,
    fee_asset="ETH",
    fee_units=10**15,
    fee_dust=0,
    is_maker=False,
    executed_at=NOW,
)


@pytest.mark.parametrize(
    ("attempt", "chance", "seconds"),
    [
        (0, 0.0, 0.2),
        (1, 0.0, 0.4),
        (3, 0.0, 1.6),
        (3, 0.5, 1.2),
        (3, 0.999_999, 0.8),
        (7, 0.0, 20.0),
        (1_000_000, 0.0, 20.0),
    ],
)
def test_pauses_double_up_to_a_cap_and_chance_takes_off_up_to_half(
    attempt: int, chance: float, seconds: float
) -> None:
    pause = pause_before(attempt, POLICY, chance)

    assert pause / timedelta(seconds=1) == pytest.approx(seconds, abs=1e-4)


@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_never_above_the_cap_nor_below_half_of_the_smallest(
    attempt: int, chance: float
) -> None:
    pause = pause_before(attempt, POLICY, chance)

    assert POLICY.backoff_min / 2 <= pause <= POLICY.backoff_max


@pytest.mark.parametrize(
    ("silent_s", "limit_s", "expected"), [(4, 5, False), (6, 5, True), (10_000, None, False)]
)
def test_only_a_venue_that_speaks_by_itself_can_be_too_silent(
    silent_s: int,
    limit_s: int | None,
    expected: bool,  # noqa: FBT001  a row of the table
) -> None:
    limit = None if limit_s is None else timedelta(seconds=limit_s)

    assert is_silent(NOW - timedelta(seconds=silent_s), NOW, limit) is expected


def test_the_oldest_trade_that_was_not_streamed_is_named() -> None:
    older = replace(FILL, trade_id="0", executed_at=NOW - timedelta(seconds=5))
    other_symbol = replace(FILL, symbol="BTCUSDT")

    assert first_missed([FILL, older, other_symbol], {("ETHUSDT", "1")}) == older
    assert first_missed([FILL], {("ETHUSDT", "1")}) is None
    assert first_missed([other_symbol], {("ETHUSDT", "1")}) == other_symbol
