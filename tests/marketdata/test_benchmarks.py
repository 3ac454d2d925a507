"""VWAP, TWAP and the reference rate: worked examples, faults, and plain models in fractions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from statistics import median

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.clock import to_unix_ns
from kernel.errors import BadInput, Refused
from kernel.money import Asset, Price
from marketdata.benchmarks import (
    HOUR,
    PARTITIONS,
    Tape,
    Window,
    recompute,
    reference_rate,
    twap,
    vwap,
)
from marketdata.events import Channel, GapReason, GapSeen, TradeSeen
from marketdata.model import Instrument, PriceRecord, Quality
from marketdata.testing import ETH, USDT, eth_usdt

START = datetime(2026, 1, 5, 15, 0, tzinfo=UTC)
END = START + HOUR
START_NS = to_unix_ns(START)
SECOND_NS = 10**9
WINDOW = Window(base=ETH, quote=USDT, start=START, end=END)
A = eth_usdt("a")
B = replace(eth_usdt("b"), price_scale=1, tick=5, base=Asset("ETH", 8), lot=1)


def trade(
    grid: Instrument, second: int, price: str, size: str, trade_id: str = "", *, ns: int = 0
) -> TradeSeen:
    at_ns = START_NS + second * SECOND_NS + ns
    return TradeSeen(
        venue=grid.venue,
        symbol=grid.symbol,
        trade_id=trade_id or f"{at_ns}",
        ticks=grid.ticks(price),
        units=grid.base.parse(size),
        buyer_is_maker=False,
        exchange_ns=at_ns,
        received_ns=at_ns + SECOND_NS // 100,
    )


def told(found: PriceRecord | Refused) -> str:
    assert isinstance(found, PriceRecord), found
    return found.price.format().split()[0]


def test_vwap_weighs_every_price_by_what_was_traded_at_it() -> None:
    tapes = (
        Tape(A, [trade(A, 1, "100", "1"), trade(A, 2, "101", "2")]),
        Tape(B, [trade(B, 3, "102.5", "1")]),
    )

    found = vwap(WINDOW, tapes)

    assert told(found) == "101.125"
    assert isinstance(found, PriceRecord)
    assert [(x["venue"], x["trades"], x["volume"]) for x in found.constituents] == [
        ("a", 2, "3 ETH"),
        ("b", 1, "1 ETH"),
    ]
    assert found.constituents[0]["received_at"] == "2026-01-05T15:00:01.010000+00:00"
    assert found.observed_at == END


def test_a_trade_that_came_twice_counts_once_and_the_window_is_half_open() -> None:
    one = trade(A, 1, "100", "1", "7")
    outside = [trade(A, -1, "500", "9"), trade(A, 3_600, "500", "9")]

    assert told(vwap(WINDOW, [Tape(A, [one, one, trade(A, 0, "102", "1"), *outside])])) == "101"


def test_where_a_venue_does_not_say_when_our_own_time_counts() -> None:
    late = replace_time(trade(A, 3_599, "100", "1"), 0)

    assert told(vwap(WINDOW, [Tape(A, [late])])) == "100"


def replace_time(item: TradeSeen, exchange_ns: int) -> TradeSeen:
    return TradeSeen(
        venue=item.venue,
        symbol=item.symbol,
        trade_id=item.trade_id,
        ticks=item.ticks,
        units=item.units,
        buyer_is_maker=item.buyer_is_maker,
        exchange_ns=exchange_ns,
        received_ns=item.received_ns,
    )


def test_twap_weighs_every_price_by_how_long_it_stood() -> None:
    tape = Tape(A, [trade(A, 900, "104", "50"), trade(A, 2_700, "100", "1")])

    assert told(twap(WINDOW, [tape], before=[trade(A, -60, "100", "1")])) == "102"
    assert told(twap(WINDOW, [tape])) == "102.66666666"


def test_a_twap_of_less_than_its_window_is_degraded() -> None:
    late = Tape(A, [trade(A, 3_599, "100", "1")])

    qualities = [
        found.quality
        for found in (twap(WINDOW, [late]), twap(WINDOW, [late], before=[trade(A, -1, "1", "1")]))
        if isinstance(found, PriceRecord)
    ]

    assert qualities == [Quality.DEGRADED, Quality.GOOD]


def test_the_time_of_receipt_is_of_all_trades_however_late_they_came() -> None:
    first, last = trade(A, 1, "100", "1"), trade(A, 3, "100", "1")
    filled = replace_received(trade(A, 2, "100", "1"), START_NS + 7_200 * SECOND_NS)

    found = vwap(WINDOW, [Tape(A, [first, filled, last])])

    assert isinstance(found, PriceRecord)
    assert found.constituents[0]["received_at"] == "2026-01-05T15:00:01.010000+00:00"
    assert found.constituents[0]["received_until"] == "2026-01-05T17:00:00+00:00"


def replace_received(item: TradeSeen, received_ns: int) -> TradeSeen:
    return msgspec.structs.replace(item, received_ns=received_ns)


def test_of_trades_in_one_moment_the_last_stands() -> None:
    trades = [trade(A, 0, "100", "1", "9"), trade(A, 0, "200", "1", "10")]

    assert told(twap(WINDOW, [Tape(A, trades)])) == "200"


def test_a_twap_of_nothing_but_the_price_before_is_that_price() -> None:
    before = [trade(A, -60, "100", "1"), trade(A, -50, "101", "1"), trade(A, 10, "999", "1")]

    assert told(twap(WINDOW, [Tape(A, [])], before=before)) == "101"


def test_without_trades_there_is_no_benchmark() -> None:
    empty = [Tape(A, [trade(A, -5, "100", "1")])]

    assert isinstance(vwap(WINDOW, empty), Refused)
    assert isinstance(twap(WINDOW, empty), Refused)
    assert isinstance(reference_rate(END, ETH, USDT, empty), Refused)


def hourly(grid: Instrument, prices: list[str], size: str = "1") -> list[TradeSeen]:
    return [trade(grid, 300 * n + 10, price, size) for n, price in enumerate(prices)]


def test_the_reference_rate_is_the_mean_of_the_partitions_medians() -> None:
    """Twelve partitions; in the first one a huge trade at 130 outweighs 100 and 101, in no other."""
    prices = ["100"] * 11 + ["124"]
    extra = [trade(A, 20, "130", "10"), trade(A, 30, "101", "1")]

    found = reference_rate(END, ETH, USDT, [Tape(A, hourly(A, prices) + extra)])

    assert told(found) == "104.5"
    assert isinstance(found, PriceRecord)
    assert found.quality is Quality.GOOD
    assert recompute(found) == found.price
    assert found.method["partitions"][0]["median"] == "130 USDT/ETH"
    assert found.method["partitions"][0]["trades"] == 3
    assert len(found.method["partitions"]) == PARTITIONS


def test_a_partition_without_trades_is_left_out_and_the_rate_degraded() -> None:
    found = reference_rate(END, ETH, USDT, [Tape(A, hourly(A, ["100", "106"]))])

    assert told(found) == "103"
    assert isinstance(found, PriceRecord)
    assert found.quality is Quality.DEGRADED


def test_a_venue_more_than_ten_per_cent_away_is_left_out_whole() -> None:
    good, odd = ["100"] * 12, ["112"] * 12
    c = eth_usdt("c")

    found = reference_rate(
        END,
        ETH,
        USDT,
        [Tape(A, hourly(A, good)), Tape(B, hourly(B, good)), Tape(c, hourly(c, odd, "999"))],
    )

    assert told(found) == "100"
    assert isinstance(found, PriceRecord)
    assert found.method["erroneous"] == ["c:ETHUSDT"]
    assert found.quality is Quality.DEGRADED


def test_too_few_venues_or_a_gap_degrade_what_is_published() -> None:
    gap = GapSeen(
        venue="a",
        symbol="ETHUSDT",
        channel=Channel.TRADES,
        reason=GapReason.CLOSED,
        since_ns=START_NS,
        until_ns=START_NS + SECOND_NS,
        detail="",
        received_ns=START_NS,
    )
    trades = hourly(A, ["100"] * 12)

    whole = reference_rate(END, ETH, USDT, [Tape(A, trades)])
    alone = reference_rate(END, ETH, USDT, [Tape(A, trades)], venues_min=2)
    gappy = reference_rate(END, ETH, USDT, [Tape(A, trades, [gap])])

    qualities = [found.quality for found in (whole, alone, gappy) if isinstance(found, PriceRecord)]
    assert qualities == [Quality.GOOD, Quality.DEGRADED, Quality.DEGRADED]
    assert isinstance(gappy, PriceRecord)
    assert gappy.constituents[0]["gaps"][0]["reason"] == "closed"


@pytest.mark.parametrize(
    "tapes",
    [
        [Tape(A, []), Tape(A, [])],
        [Tape(A, [trade(B, 1, "100", "1")])],
        [Tape(replace(A, quote=Asset("USD", 2)), [])],
    ],
)
def test_tapes_that_do_not_belong_together_are_refused(tapes: list[Tape]) -> None:
    with pytest.raises(BadInput):
        vwap(WINDOW, tapes)


def test_a_window_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(BadInput):
        replace(WINDOW, end=START)


prints = st.lists(
    st.tuples(st.booleans(), st.integers(-60, 3_660), st.integers(190, 210), st.integers(1, 9)),
    max_size=40,
)


@given(prints)
def test_any_trades_come_to_what_plain_models_say(
    prints: list[tuple[bool, int, int, int]],
) -> None:
    tapes: dict[str, list[TradeSeen]] = {"a": [], "b": []}
    rows: list[tuple[int, Fraction, int]] = []
    for number, (is_a, second, half, size) in enumerate(prints):
        grid = A if is_a else B
        text = f"{half // 2}.{half % 2 * 5}"
        tapes[grid.venue].append(trade(grid, second, text, str(size), str(number), ns=number))
        if 0 <= second < 3_600:
            rows.append((second, Fraction(text), size))
    given = [Tape(A, tapes["a"]), Tape(B, tapes["b"])]

    averaged = vwap(WINDOW, given)
    rate = reference_rate(END, ETH, USDT, given)

    if not rows:
        assert isinstance(averaged, Refused)
        assert isinstance(rate, Refused)
        return
    parts = [[x for x in rows if x[0] // 300 == n] for n in range(12)]
    medians = [median([p for _, p, size in part for _ in range(size)]) for part in parts if part]
    size = sum(row[2] for row in rows)
    assert _whole(averaged) == sum(price * units for _, price, units in rows) / size
    assert _whole(rate) == Fraction(sum(medians)) / len(medians)


@given(st.lists(st.tuples(st.integers(0, 3_599), st.integers(1, 500)), min_size=1, max_size=30))
def test_the_twap_is_the_mean_of_the_price_of_every_second(rows: list[tuple[int, int]]) -> None:
    """With trades on whole seconds the average over seconds is the average over time."""
    trades = [trade(A, at, str(price), "1", f"{n:03}") for n, (at, price) in enumerate(rows)]
    ordered = sorted(range(len(rows)), key=lambda n: (rows[n][0], n))
    first = rows[ordered[0]][0]
    standing, seconds = 0, []
    by_second: dict[int, int] = {rows[n][0]: rows[n][1] for n in ordered}
    for second in range(first, 3_600):
        standing = by_second.get(second, standing)
        seconds.append(standing)

    assert _whole(twap(WINDOW, [Tape(A, trades)])) == Fraction(sum(seconds), len(seconds))


def _whole(found: PriceRecord | Refused) -> Fraction:
    assert isinstance(found, PriceRecord)
    price: Price = found.price
    return Fraction(price.numerator * 10**18, price.denominator * 10**6)
