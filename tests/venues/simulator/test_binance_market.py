"""Candles, tickers, aggregate trades and limits of the Binance dialect, without a socket."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from matching.model import Side, Traded
from venues.simulator.binance import tickers
from venues.simulator.binance.aggregates import aggregates
from venues.simulator.binance.candles import INTERVALS, candles, next_opening, opening_of
from venues.simulator.binance.rates import BAN_MS, VIOLATIONS_MAX, Limited, Limits
from venues.simulator.market import Market
from venues.simulator.settings import DEFAULT_SYMBOLS

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
NOW_MS = int(datetime(2026, 3, 4, 12, 30, 30, tzinfo=UTC).timestamp()) * 1_000


def market_with(*trades: tuple[int, int, int]) -> Market:
    """A market with trades of (time, ticks, lots), each of a taker of its own who buys."""
    market = Market(DEFAULT_SYMBOLS[0])
    for at_ms, ticks, lots in trades:
        traded = Traded(
            trade_id=market.next_trade_id,
            maker_order_id=1,
            taker_order_id=market.take_order_id(),
            taker_side=Side.BUY,
            price_ticks=ticks,
            quantity_lots=lots,
            maker_remaining_lots=0,
            taker_remaining_lots=0,
        )
        market.trade(traded, at_ms)
    return market


@pytest.mark.parametrize(
    ("interval", "opened"),
    [
        ("1s", "2026-03-04T12:30:30"),
        ("1m", "2026-03-04T12:30:00"),
        ("15m", "2026-03-04T12:30:00"),
        ("4h", "2026-03-04T12:00:00"),
        ("1d", "2026-03-04T00:00:00"),
        ("1w", "2026-03-02T00:00:00"),
        ("1M", "2026-03-01T00:00:00"),
    ],
)
def test_intervals_open_where_the_calendar_says(interval: str, opened: str) -> None:
    expected = datetime.fromisoformat(opened).replace(tzinfo=UTC)

    assert opening_of(interval, NOW_MS) == int(expected.timestamp()) * 1_000


@given(
    at_ms=st.integers(0, 4_000_000_000_000),
    interval=st.sampled_from(INTERVALS),
    hours=st.integers(-12, 14),
)
def test_every_time_lies_in_exactly_one_interval(at_ms: int, interval: str, hours: int) -> None:
    offset_ms = hours * HOUR_MS
    at_ms += DAY_MS

    open_ms = opening_of(interval, at_ms, offset_ms)
    then_ms = next_opening(interval, open_ms, offset_ms)

    assert open_ms <= at_ms < then_ms
    assert opening_of(interval, then_ms, offset_ms) == then_ms
    assert opening_of(interval, then_ms - 1, offset_ms) == open_ms


def test_a_quiet_interval_has_a_flat_candle() -> None:
    market = market_with((NOW_MS - 3 * MINUTE_MS, 100, 5), (NOW_MS, 120, 7))

    found = candles(market, "1m", now_ms=NOW_MS, limit=10)

    assert [(c.open_ticks, c.close_ticks, c.lots, c.count) for c in found] == [
        (100, 100, 5, 1),
        (100, 100, 0, 0),
        (100, 100, 0, 0),
        (120, 120, 7, 1),
    ]
    assert [c.last_id for c in found] == [1, -1, -1, 2]


def test_candles_are_paged_from_a_start_or_back_from_now() -> None:
    market = market_with((NOW_MS - 9 * MINUTE_MS, 100, 5), (NOW_MS, 120, 7))
    start_ms = NOW_MS - 9 * MINUTE_MS

    first = candles(market, "1m", now_ms=NOW_MS, limit=3, start_ms=start_ms - start_ms % MINUTE_MS)
    last = candles(market, "1m", now_ms=NOW_MS, limit=3)
    before = candles(market, "1m", now_ms=NOW_MS, limit=3, end_ms=NOW_MS - 5 * MINUTE_MS)

    assert [c.lots for c in first] == [5, 0, 0]
    assert [c.lots for c in last] == [0, 0, 7]
    assert before[-1].open_ms == opening_of("1m", NOW_MS - 5 * MINUTE_MS)
    assert candles(Market(DEFAULT_SYMBOLS[0]), "1m", now_ms=NOW_MS, limit=3) == []


def test_a_window_sees_only_its_own_trades() -> None:
    market = market_with(
        (NOW_MS - 2 * DAY_MS, 50, 1), (NOW_MS - 2 * HOUR_MS, 100, 5), (NOW_MS, 120, 5)
    )

    day = tickers.ticker(tickers.day_window(market, NOW_MS))
    hour = tickers.ticker(tickers.rolling_window(market, HOUR_MS, NOW_MS))
    row = tickers.day_ticker(tickers.day_window(market, NOW_MS))

    assert (day["count"], day["priceChangePercent"]) == (2, "20.000")
    assert day["weightedAvgPrice"] == "1.10000000"
    assert (hour["count"], hour["firstId"], hour["lastId"]) == (1, 3, 3)
    assert row["prevClosePrice"] == "0.50000000"
    assert set(tickers.mini(day)) < set(day)


def test_a_fall_is_told_with_its_sign() -> None:
    market = market_with((NOW_MS - MINUTE_MS, 100, 1), (NOW_MS, 75, 1))

    day = tickers.ticker(tickers.day_window(market, NOW_MS))

    assert (day["priceChange"], day["priceChangePercent"]) == ("-0.25000000", "-25.000")


def test_fills_of_one_taker_at_one_price_are_one_aggregate() -> None:
    trades = list(market_with((NOW_MS, 100, 5), (NOW_MS, 100, 6), (NOW_MS, 101, 7)).trades)
    same = [replace(trade, taker_order_id=9) for trade in trades]

    assert [(a.first.trade_id, a.last_id, a.quantity_lots) for a in aggregates(same)] == [
        (1, 2, 11),
        (3, 3, 7),
    ]
    assert len(aggregates(trades)) == 3


def refusal(limits: Limits, at_ms: int) -> Limited:
    with pytest.raises(Limited) as refused:
        limits.spend_weight(11, at_ms)
    return refused.value


def test_a_limit_begins_anew_with_the_minute() -> None:
    limits = Limits(weight_1m=10, enforced=True)
    start_ms = NOW_MS - NOW_MS % MINUTE_MS

    assert limits.spend_weight(10, start_ms) == 10
    refused = refusal(limits, start_ms + 1_000)

    assert (refused.status, refused.retry_ms) == (429, start_ms + MINUTE_MS)
    assert limits.spend_weight(1, start_ms + MINUTE_MS) == 1


def test_going_on_despite_the_limit_ends_in_a_ban_that_doubles() -> None:
    limits = Limits(weight_1m=10, enforced=True)
    lengths = []
    for at_ms in (NOW_MS, NOW_MS + 10 * MINUTE_MS):
        refusals = [refusal(limits, at_ms) for _ in range(VIOLATIONS_MAX + 1)]
        assert [refused.status for refused in refusals] == [429] * VIOLATIONS_MAX + [418]
        assert refusal(limits, at_ms + MINUTE_MS).status == 418
        lengths.append(refusals[-1].retry_ms - at_ms)

    assert lengths == [BAN_MS, 2 * BAN_MS]


def test_limits_that_are_not_enforced_are_counted_all_the_same() -> None:
    limits = Limits(weight_1m=1, enforced=False)

    assert limits.spend_weight(5, NOW_MS) == 5
    assert limits.spend_orders("desk", 1, NOW_MS) == (1, 1)
    assert limits.spend_orders("other", 1, NOW_MS) == (1, 1)
    assert limits.order_status("desk", NOW_MS + 10_000)[0]["count"] == 0
    assert limits.order_status("desk", NOW_MS + 10_000)[1]["count"] == 1


@pytest.mark.parametrize(
    ("interval", "start", "opened"),
    [
        ("1M", "2026-02-01T00:00:00", "2026-02-01T00:00:00"),
        ("1M", "2026-02-01T00:00:01", "2026-03-01T00:00:00"),
        ("1w", "2026-02-23T00:00:01", "2026-03-02T00:00:00"),
        ("1h", "2026-03-04T11:00:00", "2026-03-04T11:00:00"),
    ],
)
def test_the_first_candle_opens_at_the_start_or_after_it(
    interval: str, start: str, opened: str
) -> None:
    market = market_with((NOW_MS - 60 * DAY_MS, 100, 5), (NOW_MS, 120, 7))
    start_ms, opened_ms = (
        int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000
        for text in (start, opened)
    )

    found = candles(market, interval, now_ms=NOW_MS, limit=1_000, start_ms=start_ms)

    assert found[0].open_ms == opened_ms
    assert found[-1].close_ticks == 120


@given(
    minutes_ago=st.lists(st.integers(0, 5_000), min_size=1, max_size=30),
    interval=st.sampled_from([name for name in INTERVALS if name != "1s"]),
)
def test_candles_hold_every_trade_once(minutes_ago: list[int], interval: str) -> None:
    times = sorted(NOW_MS - ago * MINUTE_MS for ago in minutes_ago)
    market = market_with(*((at_ms, 100 + at_ms % 7, 1) for at_ms in times))

    found = candles(market, interval, now_ms=NOW_MS, limit=10_000)
    newest = candles(market, interval, now_ms=NOW_MS, limit=3)

    assert sum(candle.count for candle in found) == len(times)
    assert [c.open_ms for c in found] == sorted({c.open_ms for c in found})
    assert found[-3:] == newest[-3:]
    assert found[-1].close_ticks == 100 + times[-1] % 7
