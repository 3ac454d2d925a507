"""A venue's past by REST, page by page, against the venue's own list; three venues, one of them a record only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kernel.clock import SystemClock, from_unix_ns
from kernel.errors import BadInput
from marketdata.errors import NoInstrument
from marketdata.events import CandleSeen, TradeSeen
from marketdata.model import Instrument, Page
from marketdata.ports import History
from tests.conformance.connectors.bench import ASSETS
from tests.venues.in_thread import SimulatorThread
from venues.ccxt.endpoint import Endpoint
from venues.errors import VenueUnavailable
from venues.history import open_history, open_public
from venues.history_pages import Span, kraken_candles, kraken_trades, unified_trades
from venues.instruments import read_instruments
from venues.records import RECORDS
from venues.simulator.testing import SimulatorProcess

CLOCK = SystemClock()
EVER = CLOCK.now() - timedelta(hours=2)
DIALECTS = {"binance": "binance", "binanceus": "binance", "kraken": "kraken"}
STEPS = 120


@pytest.fixture(scope="module", params=list(DIALECTS))
def record(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def sims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, SimulatorProcess]]:
    """One venue of each dialect, with trades in it."""
    with ExitStack() as stack:
        found: dict[str, SimulatorProcess] = {}
        for dialect in sorted(set(DIALECTS.values())):
            folder: Path = tmp_path_factory.mktemp(dialect) / "venue"
            process = SimulatorThread(folder, "--step-ms", "0", "--dialect", dialect)
            found[dialect] = stack.enter_context(process)
            process.control("POST", "step", {"count": STEPS})
        yield found


@pytest.fixture
def sim(sims: dict[str, SimulatorProcess], record: str) -> SimulatorProcess:
    return sims[DIALECTS[record]]


@pytest.fixture
async def item(sim: SimulatorProcess, record: str) -> Instrument:
    wire = open_public(RECORDS[record], where(sim), CLOCK, venue="sim", rate_limit=False)
    try:
        listing = await read_instruments(wire, RECORDS[record], ASSETS, venue="sim")
    finally:
        await wire.close()
    return next(one for one in listing.found if one.base.code == "ETH" and one.quote.code == "USDT")


@pytest.fixture
async def history(sim: SimulatorProcess, record: str, item: Instrument) -> AsyncIterator[History]:
    async with open_history(
        RECORDS[record], where(sim), [item], CLOCK, venue="sim", rate_limit=False, page_max=50
    ) as opened:
        yield opened


def where(sim: SimulatorProcess) -> Endpoint:
    return Endpoint(http_url=sim.url, ws_url=sim.ws_url)


async def every_trade(history: History, item: Instrument, since: datetime) -> list[TradeSeen]:
    found: dict[str, TradeSeen] = {}
    cursor, pages = "", 0
    while True:
        page = await history.trades(item.symbol, since=since, until=CLOCK.now(), cursor=cursor)
        found |= {trade.trade_id: trade for trade in page.items}
        pages += 1
        assert pages < 100
        if not page.cursor:
            return list(found.values())
        cursor = page.cursor


async def test_every_trade_is_listed_once_and_exactly(
    sim: SimulatorProcess, history: History, item: Instrument, record: str
) -> None:
    found = await every_trade(history, item, EVER)

    ids = [int(trade.trade_id) for trade in found]
    assert len(ids) > 50  # several pages
    if record == "binanceus":  # ccxt lists aggregates of that venue
        assert ids == sorted(set(ids))
        async with open_history(
            RECORDS["binance"], where(sim), [item], CLOCK, venue="sim", rate_limit=False
        ) as single:
            every = await every_trade(single, item, EVER)
        assert sum(t.units for t in found) == sum(t.units for t in every)
    else:
        assert ids == list(range(1, ids[-1] + 1))
    assert all(trade.ticks > 0 and trade.units > 0 for trade in found)
    assert {trade.venue for trade in found} == {"sim"}


async def test_a_span_is_half_open(history: History, item: Instrument) -> None:
    every = await every_trade(history, item, EVER)
    moments = sorted({trade.exchange_ns for trade in every})
    since, until = from_unix_ns(moments[0]), from_unix_ns(moments[-1])
    page = await history.trades(item.symbol, since=since, until=until)
    found = {trade.exchange_ns for trade in page.items}

    assert all(moments[0] <= at < moments[-1] for at in found)
    nothing = await history.trades(item.symbol, since=since, until=since)
    assert nothing.items == ()


async def test_the_open_candle_is_left_out_and_closed_ones_are_of_the_trades(
    history: History, item: Instrument
) -> None:
    page = await history.candles(item.symbol, 60, since=EVER, until=CLOCK.now())

    now_ns = CLOCK.now_ns()
    assert all(candle.open_ns + 60 * 10**9 <= now_ns for candle in page.items)
    later: History = history
    later._clock = _Later()  # type: ignore[attr-defined]
    page = await later.candles(
        item.symbol, 60, since=EVER, until=CLOCK.now() + timedelta(minutes=5)
    )
    trades = await every_trade(history, item, EVER)
    candle = page.items[0]
    end_ns = candle.open_ns + 60 * 10**9
    first = [trade for trade in trades if candle.open_ns <= trade.exchange_ns < end_ns]
    assert isinstance(candle, CandleSeen)
    assert candle.open_ticks == first[0].ticks
    assert candle.high_ticks == max(trade.ticks for trade in first)
    assert candle.low_ticks == min(trade.ticks for trade in first)
    assert candle.close_ticks == first[-1].ticks
    assert candle.base_units == sum(trade.units for trade in first)


class _Later(SystemClock):
    """Minutes after everything was traded: all candles are over."""

    def now_ns(self) -> int:
        return super().now_ns() + 3 * 60 * 10**9


async def test_a_venue_in_trouble_is_unavailable_and_the_same_cursor_is_asked_again(
    sim: SimulatorProcess, history: History, item: Instrument
) -> None:
    sim.fault("status_503", "/")
    with pytest.raises(VenueUnavailable):
        await history.trades(item.symbol, since=EVER, until=CLOCK.now())
    sim.control("DELETE", "faults")

    assert await every_trade(history, item, EVER)


async def test_an_instrument_that_was_not_named_has_no_past(history: History) -> None:
    with pytest.raises(NoInstrument):
        await history.trades("NOSUCH", since=EVER, until=CLOCK.now())


async def test_a_cursor_of_somebody_else_is_refused(history: History, item: Instrument) -> None:
    with pytest.raises(BadInput):
        await history.trades(item.symbol, since=EVER, until=CLOCK.now(), cursor="x'--")


def span_of(item: Instrument) -> Span:
    return Span(item=item, since_ns=0, until_ns=10**19, received_ns=10**19)


def test_a_page_full_of_one_moment_does_not_begin_again_for_ever(item: Instrument) -> None:
    row = {"id": None, "timestamp": 5, "price": "3000.01", "amount": "1", "side": "buy"}
    page = unified_trades([row, row], span_of(item), from_ms=3)
    again = unified_trades([row, row], span_of(item), from_ms=int(page.cursor))

    assert [trade.trade_id for trade in page.items] == ["5:3000.01:1:1", "5:3000.01:1:2"]
    assert (page.cursor, again.cursor) == ("5", "6")


def test_an_hour_without_trades_is_not_the_end(item: Instrument) -> None:
    span = replace(span_of(item), until_ns=2 * 3_600 * 10**9)
    page = unified_trades([], span, from_ms=0)
    end = unified_trades([], span, from_ms=int(page.cursor))

    assert (page.cursor, end.cursor) == ("3600000", "")


@pytest.mark.parametrize(
    "row",
    [
        ["3000.01", "1", "1.5", "x", "l", "", 7],
        ["3000.01", "1", "1.5", "b"],
        ["3000.015", "1", "1.5", "b", "l", "", 7],
        [3000.01, "1", "1.5", "b", "l", "", "seven"],
        5,
    ],
    ids=str,
)
def test_a_list_that_cannot_be_read_is_no_answer(item: Instrument, row: Any) -> None:
    grid = replace(item, tick=1, price_scale=2)
    with pytest.raises((BadInput, ValueError)):
        kraken_trades({"result": {"X": [row], "last": "1"}}, span_of(grid), page_max=1, cursor="0")


@pytest.mark.parametrize(
    ("since", "count", "untold"),
    [(0, 720, 600), (0, 719, 0), (600, 720, 0), (50_000, 720, 0)],
)
def test_candles_that_kraken_does_not_tell_any_more_are_named(
    item: Instrument, since: int, count: int, untold: int
) -> None:
    rows = [[600 + 60 * n, "3", "3", "3", "3", "3", "1", 1] for n in range(count)]
    span = replace(span_of(replace(item, tick=1, price_scale=0)), since_ns=since * 10**9)

    page = kraken_candles({"result": {"X": rows, "last": 1}}, span, 60)

    assert page.untold_until_ns == untold * 10**9


def test_nothing_listed_is_the_end(item: Instrument) -> None:
    empty: Page[TradeSeen] = Page(())

    assert (
        kraken_trades({"result": {"X": [], "last": "1"}}, span_of(item), page_max=1, cursor="0")
        == empty
    )


def test_a_page_shorter_than_asked_for_is_not_the_end_of_an_hour(item: Instrument) -> None:
    """Many venues give a hundred rows at most, whatever they are asked for."""
    trades = [
        {"id": str(n), "timestamp": n, "price": "3000.01", "amount": "1", "side": "buy"}
        for n in range(1, 251)
    ]
    span, seen, cursor = span_of(item), set[str](), 0
    for _ in range(10):
        answer = [one for one in trades if one["timestamp"] >= cursor][:100]  # type: ignore[operator]
        page = unified_trades(answer, span, from_ms=cursor)
        seen |= {trade.trade_id for trade in page.items}
        cursor = int(page.cursor)

    assert len(seen) == 250
    assert cursor > 3_600_000


def test_trades_of_one_nanosecond_on_both_sides_of_a_page_all_come(item: Instrument) -> None:
    """Also of a venue that answers only with what came after the time that it is asked with."""
    trades = [(n, 10**18 + (0 if n < 3 else 1 if n < 6 else 2)) for n in range(9)]
    span, seen, cursor = span_of(item), set[str](), str(10**18 - 1)
    for _ in range(20):
        rows = [row for row in trades if row[1] > int(cursor)][:4]
        listed = [
            ["3000.01", "1", f"{at // 10**9}.{at % 10**9:09}", "b", "l", "", number]
            for number, at in rows
        ]
        last = str(rows[-1][1]) if rows else cursor
        page = kraken_trades(
            {"result": {"X": listed, "last": last}}, span, page_max=4, cursor=cursor
        )
        seen |= {trade.trade_id for trade in page.items}
        if not page.cursor:
            break
        assert page.cursor != cursor
        cursor = page.cursor

    assert seen == {str(number) for number, _ in trades}


def test_a_page_full_of_one_nanosecond_does_not_begin_again_for_ever(item: Instrument) -> None:
    row = ["3000.01", "1", "5.000000001", "b", "l", "", 7]
    page = kraken_trades(
        {"result": {"X": [row], "last": "5000000001"}},
        span_of(item),
        page_max=1,
        cursor="5000000000",
    )
    assert page.cursor == "5000000001"
