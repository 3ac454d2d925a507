"""Backfills: page by page, cut off anywhere, run twice or by two, and never a row more or less."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import ManualClock, from_unix_ns, iso, to_unix_ns
from kernel.db import transact
from kernel.errors import BadInput, OutsideUnavailable
from marketdata.backfill import (
    ask_backfill,
    ask_for_gaps,
    get_backfill,
    list_backfills,
    list_past,
    run_backfill,
)
from marketdata.backfill_model import GAP_MARGIN, Wanted, begun, gap_wanted, turned, within
from marketdata.errors import NoBackfill
from marketdata.events import CandleSeen, Channel, GapReason, GapSeen, TradeSeen
from marketdata.gaps import GapState, end_gap, list_gaps, open_gap
from marketdata.model import Page
from marketdata.testing import eth_usdt

CLOCK = ManualClock()
START = CLOCK.now()
START_NS = to_unix_ns(START)
SECOND = timedelta(seconds=1)
SECOND_NS = 1_000_000_000
LATER = START + timedelta(days=1)
GRID = eth_usdt("binance")
ONE = 10**18


def trade(number: int, **changes: Any) -> TradeSeen:
    usual: dict[str, Any] = {
        "venue": "binance",
        "symbol": "ETHUSDT",
        "trade_id": str(number),
        "ticks": 300_000 + number,
        "units": ONE,
        "buyer_is_maker": bool(number % 2),
        "exchange_ns": START_NS + number * SECOND_NS,
        "received_ns": START_NS + 10**12,
    }
    return TradeSeen(**(usual | changes))


def candle(minute: int, **changes: Any) -> CandleSeen:
    usual: dict[str, Any] = {
        "venue": "binance",
        "symbol": "ETHUSDT",
        "interval_s": 60,
        "open_ns": START_NS + minute * 60 * SECOND_NS,
        "open_ticks": 100,
        "high_ticks": 120,
        "low_ticks": 90,
        "close_ticks": 110,
        "base_units": ONE,
        "trades": 5,
        "is_closed": True,
        "exchange_ns": 0,
        "received_ns": START_NS,
    }
    return CandleSeen(**(usual | changes))


class Shelf:
    """A venue that has some trades and gives them three at a time; its cursor is a position."""

    def __init__(
        self, trades: Sequence[TradeSeen], candles: Sequence[CandleSeen] = (), size: int = 3
    ) -> None:
        self.venue = "binance"
        self.all = list(trades)
        self.bars = list(candles)
        self.size = size
        self.asked: list[str] = []
        self.fail_after = 10**9

    async def trades(
        self, symbol: str, *, since: Any, until: Any, cursor: str = ""
    ) -> Page[TradeSeen]:
        self._count(cursor)
        start = int(cursor or 0)
        within_time = [
            item for item in self.all if to_unix_ns(since) <= item.exchange_ns < to_unix_ns(until)
        ]
        page = tuple(within_time[start : start + self.size])
        end = start + self.size
        return Page(page, str(end) if end < len(within_time) else "")

    async def candles(
        self, symbol: str, interval_s: int, *, since: Any, until: Any, cursor: str = ""
    ) -> Page[CandleSeen]:
        self._count(cursor)
        start = int(cursor or 0)
        end = start + self.size
        return Page(tuple(self.bars[start:end]), str(end) if end < len(self.bars) else "")

    def _count(self, cursor: str) -> None:
        if len(self.asked) >= self.fail_after:
            raise OutsideUnavailable("the venue does not answer")
        self.asked.append(cursor)


def wanted(**changes: Any) -> Wanted:
    usual: dict[str, Any] = {
        "venue": "binance",
        "symbol": "ETHUSDT",
        "channel": Channel.TRADES,
        "since": START,
        "until": START + 100 * SECOND,
    }
    return Wanted(**(usual | changes))


async def asked(engine: AsyncEngine, what: Wanted) -> UUID:
    item = await transact(engine, lambda conn: ask_backfill(conn, what, now=LATER))
    return item.id


async def on_record(engine: AsyncEngine, channel: Channel = Channel.TRADES) -> list[Any]:
    return list(
        await transact(
            engine,
            lambda conn: list_past(
                conn,
                channel,
                venue="binance",
                symbol="ETHUSDT",
                since_ns=0,
                until_ns=START_NS + 10**15,
            ),
        )
    )


async def test_all_pages_come_once_and_the_progress_ends_at_the_end(engine: AsyncEngine) -> None:
    shelf = Shelf([trade(n) for n in range(10)])
    told: list[tuple[int, int]] = []

    done = await run_backfill(
        engine,
        shelf,
        GRID,
        await asked(engine, wanted()),
        clock=CLOCK,
        progress=lambda *figures: told.append(figures),
    )

    assert (done.pages, done.seen, done.new, done.differing) == (4, 10, 10, 0)
    assert done.done_at == CLOCK.now()
    assert await on_record(engine) == shelf.all
    assert told == [(2, 100), (5, 100), (8, 100), (100, 100)]


async def test_one_that_was_cut_off_goes_on_where_its_last_page_ended(engine: AsyncEngine) -> None:
    shelf = Shelf([trade(n) for n in range(10)])
    backfill_id = await asked(engine, wanted())
    shelf.fail_after = 2
    with pytest.raises(OutsideUnavailable):
        await run_backfill(engine, shelf, GRID, backfill_id, clock=CLOCK)
    half = await transact(engine, lambda conn: get_backfill(conn, backfill_id))
    shelf.fail_after = 10**9

    done = await run_backfill(engine, shelf, GRID, backfill_id, clock=CLOCK)

    assert (half.pages, half.seen, half.done_at) == (2, 6, None)
    assert shelf.asked == ["", "3", "6", "9"], "no page was asked for twice"
    assert done.seen == done.new == 10
    assert await on_record(engine) == shelf.all


async def test_the_same_question_is_the_same_backfill_and_is_not_asked_again(
    engine: AsyncEngine,
) -> None:
    shelf = Shelf([trade(n) for n in range(4)])
    first = await asked(engine, wanted())
    await run_backfill(engine, shelf, GRID, first, clock=CLOCK)
    before = len(shelf.asked)

    second = await asked(engine, wanted())
    await run_backfill(engine, shelf, GRID, second, clock=CLOCK)

    assert first == second
    assert len(shelf.asked) == before


async def test_what_another_backfill_has_brought_is_not_new(engine: AsyncEngine) -> None:
    shelf = Shelf([trade(n) for n in range(10)], size=100)
    await run_backfill(engine, shelf, GRID, await asked(engine, wanted()), clock=CLOCK)

    wider = await asked(engine, wanted(until=START + 200 * SECOND))
    done = await run_backfill(engine, shelf, GRID, wider, clock=CLOCK)

    assert (done.seen, done.new, done.differing) == (10, 0, 0)
    assert len(await on_record(engine)) == 10


async def test_a_venue_that_tells_a_trade_otherwise_is_found_out_and_not_believed(
    engine: AsyncEngine,
) -> None:
    told = Shelf([trade(1), trade(2)], size=100)
    retold = Shelf([trade(1, ticks=1), trade(2)], size=100)
    await run_backfill(engine, told, GRID, await asked(engine, wanted()), clock=CLOCK)

    again = await asked(engine, wanted(until=START + 99 * SECOND))
    done = await run_backfill(engine, retold, GRID, again, clock=CLOCK)

    assert (done.new, done.differing) == (0, 1)
    assert await on_record(engine) == told.all


class _Rival(Shelf):
    """While its page is on the way, somebody else runs the same backfill to its end."""

    def __init__(self, trades: Sequence[TradeSeen], engine: AsyncEngine, backfill_id: UUID) -> None:
        super().__init__(trades)
        self.engine = engine
        self.backfill_id = backfill_id

    async def trades(
        self, symbol: str, *, since: Any, until: Any, cursor: str = ""
    ) -> Page[TradeSeen]:
        page = await super().trades(symbol, since=since, until=until, cursor=cursor)
        if cursor == "3":
            await run_backfill(self.engine, Shelf(self.all), GRID, self.backfill_id, clock=CLOCK)
        return page


async def test_two_that_run_one_backfill_at_once_count_every_page_once(
    engine: AsyncEngine,
) -> None:
    backfill_id = await asked(engine, wanted())
    rival = _Rival([trade(n) for n in range(10)], engine, backfill_id)

    done = await run_backfill(engine, rival, GRID, backfill_id, clock=CLOCK)

    assert (done.pages, done.seen, done.new) == (4, 10, 10)
    assert len(await on_record(engine)) == 10


async def test_it_stops_after_so_many_pages_and_the_rest_is_for_later(engine: AsyncEngine) -> None:
    shelf = Shelf([trade(n) for n in range(10)])
    backfill_id = await asked(engine, wanted())

    some = await run_backfill(engine, shelf, GRID, backfill_id, clock=CLOCK, pages_max=2)
    still_open = await transact(engine, lambda conn: list_backfills(conn, is_open=True))
    done = await run_backfill(engine, shelf, GRID, backfill_id, clock=CLOCK)

    assert (some.pages, some.done_at) == (2, None)
    assert [item.id for item in still_open] == [backfill_id]
    assert done.done_at is not None


async def test_a_venue_that_repeats_its_cursor_is_given_up_and_what_came_is_kept(
    engine: AsyncEngine,
) -> None:
    class Stuck(Shelf):
        async def trades(
            self, symbol: str, *, since: Any, until: Any, cursor: str = ""
        ) -> Page[TradeSeen]:
            page = await super().trades(symbol, since=since, until=until, cursor=cursor)
            return Page(page.items, "3")

    backfill_id = await asked(engine, wanted())

    with pytest.raises(OutsideUnavailable, match="same page"):
        await run_backfill(
            engine, Stuck([trade(n) for n in range(9)]), GRID, backfill_id, clock=CLOCK
        )

    assert len(await on_record(engine)) == 3


@pytest.mark.parametrize(
    "wrong", [trade(1, symbol="BTCUSDT"), trade(1, venue="kraken"), candle(0)], ids=str
)
async def test_what_was_not_asked_for_is_not_kept(engine: AsyncEngine, wrong: Any) -> None:
    class Wrong(Shelf):
        async def trades(
            self, symbol: str, *, since: Any, until: Any, cursor: str = ""
        ) -> Page[TradeSeen]:
            return Page((trade(0), wrong))

    backfill_id = await asked(engine, wanted())

    with pytest.raises(OutsideUnavailable, match="cannot be used"):
        await run_backfill(engine, Wrong([]), GRID, backfill_id, clock=CLOCK)

    assert await on_record(engine) == []


async def test_an_unknown_backfill_and_a_wrong_grid_are_refused(engine: AsyncEngine) -> None:
    with pytest.raises(NoBackfill):
        await run_backfill(engine, Shelf([]), GRID, wanted().id, clock=CLOCK)
    backfill_id = await asked(engine, wanted())
    with pytest.raises(BadInput):
        await run_backfill(engine, Shelf([]), eth_usdt("kraken"), backfill_id, clock=CLOCK)


async def test_candles_that_are_not_closed_yet_are_left(engine: AsyncEngine) -> None:
    shelf = Shelf([], [candle(0), candle(1, is_closed=False)])
    what = wanted(channel=Channel.CANDLES, interval_s=60, until=START + 120 * SECOND)

    done = await run_backfill(engine, shelf, GRID, await asked(engine, what), clock=CLOCK)

    assert (done.seen, done.new) == (1, 1)
    assert await on_record(engine, Channel.CANDLES) == [candle(0)]


# Gaps.


def gap(channel: Channel, since_s: int = 10) -> GapSeen:
    return GapSeen(
        venue="binance",
        symbol="ETHUSDT",
        channel=channel,
        reason=GapReason.CLOSED,
        since_ns=START_NS + since_s * SECOND_NS,
        until_ns=0,
        detail="",
        received_ns=START_NS + since_s * SECOND_NS,
    )


async def _all_gaps(conn: AsyncConnection, *, unfilled: bool = False) -> list[Any]:
    gaps = []
    for channel in Channel:
        gaps += await list_gaps(
            conn,
            "binance",
            "ETHUSDT",
            channel,
            START - timedelta(days=1),
            START + timedelta(days=1),
            unfilled=unfilled,
        )
    return gaps


async def test_an_ended_gap_of_trades_is_filled_and_marked_and_others_are_left(
    engine: AsyncEngine,
) -> None:
    async def before(conn: AsyncConnection) -> None:
        ended = await open_gap(conn, gap(Channel.TRADES))
        await end_gap(conn, ended, from_unix_ns(START_NS + 20 * SECOND_NS))
        book = await open_gap(conn, gap(Channel.BOOK))
        await end_gap(conn, book, from_unix_ns(START_NS + 20 * SECOND_NS))
        await open_gap(conn, gap(Channel.TRADES, 50))

    await transact(engine, before)
    shelf = Shelf([trade(n) for n in range(60)], size=1_000)

    async def ask(conn: AsyncConnection) -> list[Any]:
        gaps = await _all_gaps(conn, unfilled=True)
        return await ask_for_gaps(conn, gaps, interval_s=60, now=LATER)

    (item,) = await transact(engine, ask)
    done = await run_backfill(engine, shelf, GRID, item.id, clock=CLOCK)
    left = await transact(engine, lambda conn: _all_gaps(conn, unfilled=True))

    seconds = GAP_MARGIN // SECOND
    assert done.seen == 10 + 2 * seconds
    assert [(row.channel, row.until is None) for row in left] == [(Channel.TRADES, True)]
    (filled,) = [row for row in await transact(engine, _all_gaps) if row.filled_at is not None]
    assert (filled.filled_by, filled.rows) == (f"backfill {done.id}", done.seen)


async def test_a_gap_whose_backfill_was_cut_off_stays_unfilled(engine: AsyncEngine) -> None:
    async def before(conn: AsyncConnection) -> list[Any]:
        ended = await open_gap(conn, gap(Channel.TRADES))
        await end_gap(conn, ended, from_unix_ns(START_NS + 20 * SECOND_NS))
        return await ask_for_gaps(
            conn, await _all_gaps(conn, unfilled=True), interval_s=60, now=LATER
        )

    (item,) = await transact(engine, before)
    await run_backfill(
        engine, Shelf([trade(n) for n in range(60)]), GRID, item.id, clock=CLOCK, pages_max=2
    )

    assert len(await transact(engine, lambda conn: _all_gaps(conn, unfilled=True))) == 1


async def _ended(conn: AsyncConnection, channel: Channel, until_s: int = 3_600) -> UUID:
    found = await open_gap(conn, gap(channel, 0))
    await end_gap(conn, found, START + until_s * SECOND)
    return found


class Forgetful(Shelf):
    """A venue that tells no candle that is older than its first bar."""

    async def candles(
        self, symbol: str, interval_s: int, *, since: Any, until: Any, cursor: str = ""
    ) -> Page[CandleSeen]:
        page = await super().candles(symbol, interval_s, since=since, until=until, cursor=cursor)
        return Page(page.items, page.cursor, untold_until_ns=self.bars[0].open_ns)


async def _candle_gap_asked(engine: AsyncEngine) -> UUID:
    async def work(conn: AsyncConnection) -> UUID:
        await _ended(conn, Channel.CANDLES)
        gaps = await _all_gaps(conn, unfilled=True)
        (item,) = await ask_for_gaps(conn, gaps, interval_s=60, now=LATER)
        return item.id

    return await transact(engine, work)


async def test_a_gap_of_which_the_venue_tells_only_the_end_is_not_filled_and_says_what_is_missing(
    engine: AsyncEngine,
) -> None:
    backfill_id = await _candle_gap_asked(engine)
    shelf = Forgetful([], [candle(n) for n in range(40, 60)], size=7)

    done = await run_backfill(engine, shelf, GRID, backfill_id, clock=CLOCK)

    (row,) = await transact(engine, _all_gaps)
    assert (done.seen, done.untold_until) == (20, START + 40 * 60 * SECOND)
    assert (row.filled_at, row.rows, row.state) == (None, 20, GapState.LOST)
    assert row.missing.startswith(f"before {iso(START + 40 * 60 * SECOND)}")
    assert await transact(engine, lambda conn: _all_gaps(conn, unfilled=True)) == []


async def test_a_gap_that_the_venue_tells_whole_is_filled_whatever_it_leaves_out_before(
    engine: AsyncEngine,
) -> None:
    backfill_id = await _candle_gap_asked(engine)
    # Asked for is a little more than the gap: what is missing of that is missing of nothing.
    shelf = Forgetful([], [candle(n) for n in range(60)])

    await run_backfill(engine, shelf, GRID, backfill_id, clock=CLOCK)

    (row,) = await transact(engine, _all_gaps)
    assert (row.state, row.rows, row.missing) == (GapState.FILLED, 60, "")


@pytest.mark.parametrize("channel", [Channel.BOOK, Channel.BEST, Channel.TICKER])
async def test_a_gap_that_nothing_can_fill_is_lost_and_not_among_the_unfilled(
    channel: Channel, engine: AsyncEngine
) -> None:
    await transact(engine, lambda conn: _ended(conn, channel))

    (row,) = await transact(engine, _all_gaps)
    assert row.state is GapState.LOST
    assert await transact(engine, lambda conn: _all_gaps(conn, unfilled=True)) == []


@pytest.mark.parametrize(
    ("channel", "until_s", "ago_s", "is_asked"),
    [
        (Channel.TRADES, 100, 101, False),
        (Channel.TRADES, 100, 105, True),
        (Channel.CANDLES, 100, 119, False),
        (Channel.CANDLES, 100, 120, True),
    ],
)
async def test_a_gap_is_asked_for_when_all_of_it_can_be_told(
    channel: Channel, until_s: int, ago_s: int, *, is_asked: bool, engine: AsyncEngine
) -> None:
    async def work(conn: AsyncConnection) -> list[Any]:
        await _ended(conn, channel, until_s)
        gaps = await _all_gaps(conn, unfilled=True)
        return await ask_for_gaps(conn, gaps, interval_s=60, now=START + ago_s * SECOND)

    assert bool(await transact(engine, work)) is is_asked


async def test_the_past_is_listed_of_one_interval_and_one_grid(engine: AsyncEngine) -> None:
    span = {"channel": Channel.CANDLES, "until": START + 600 * SECOND}
    for interval_s in (60, 300):
        shelf = Shelf([], [candle(0, interval_s=interval_s)])
        what = await asked(engine, wanted(**span, interval_s=interval_s))
        await run_backfill(engine, shelf, GRID, what, clock=CLOCK)

    async def listed(**only: Any) -> list[Any]:
        place: dict[str, Any] = {"venue": "binance", "symbol": "ETHUSDT"}
        time: dict[str, Any] = {"since_ns": 0, "until_ns": START_NS + 10**15}
        return list(
            await transact(
                engine, lambda conn: list_past(conn, Channel.CANDLES, **place, **time, **only)
            )
        )

    assert len(await listed()) == 2
    assert [row.interval_s for row in await listed(interval_s=300)] == [300]
    assert len(await listed(version=GRID.version)) == 2
    assert await listed(version=GRID.version + 1) == []


async def test_what_a_person_asked_for_fills_the_gaps_that_lie_within(engine: AsyncEngine) -> None:
    async def before(conn: AsyncConnection) -> None:
        await _ended(conn, Channel.TRADES, 50)
        wider = await open_gap(conn, gap(Channel.TRADES, 60))
        await end_gap(conn, wider, START + 200 * SECOND)
        await _ended(conn, Channel.CANDLES, 50)

    await transact(engine, before)
    shelf = Shelf([trade(n) for n in range(100)], size=1_000)

    done = await run_backfill(engine, shelf, GRID, await asked(engine, wanted()), clock=CLOCK)

    states = [(row.channel, row.state, row.rows) for row in await transact(engine, _all_gaps)]
    assert done.seen == 100
    assert sorted(states) == [
        (Channel.CANDLES, GapState.UNFILLED, 0),
        (Channel.TRADES, GapState.FILLED, 50),
        (Channel.TRADES, GapState.UNFILLED, 0),
    ]


# What is pure.


def test_a_gap_of_candles_is_asked_for_in_whole_candles() -> None:
    what = gap_wanted(
        venue="binance",
        symbol="ETHUSDT",
        channel=Channel.CANDLES,
        since=START + 90 * SECOND,
        until=START + 100 * SECOND,
        gap_id=UUID(int=1),
        interval_s=60,
    )

    assert (what.since, what.until) == (START + 60 * SECOND, START + 120 * SECOND)


@pytest.mark.parametrize(
    "changes",
    [
        {"channel": Channel.BOOK},
        {"channel": Channel.TICKER},
        {"interval_s": 60},
        {"channel": Channel.CANDLES},
        {"until": START},
    ],
)
def test_what_no_venue_can_answer_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        wanted(**changes)


@given(st.lists(st.integers(-20, 120), max_size=30))
def test_a_page_is_cut_to_what_was_asked_for_and_every_id_counts_once(numbers: list[int]) -> None:
    rows = within(wanted(), tuple(trade(n) for n in numbers))

    assert [int(row.trade_id) for row in rows if isinstance(row, TradeSeen)] == list(
        dict.fromkeys(n for n in numbers if 0 <= n < 100)
    )


@given(st.lists(st.integers(0, 99), max_size=5), st.text(min_size=1, max_size=3))
def test_a_backfill_never_goes_back(numbers: list[int], cursor: str) -> None:
    item = begun(wanted(), now=START)

    turn = turned(
        item,
        cursor=cursor,
        rows=tuple(trade(n) for n in numbers),
        new=0,
        differing=0,
        now=START,
    )

    assert turn.reached >= item.reached
    assert turn.done_s <= turn.total_s
    with pytest.raises(BadInput):
        turned(turn, cursor=cursor, rows=(), new=0, differing=0, now=START)
