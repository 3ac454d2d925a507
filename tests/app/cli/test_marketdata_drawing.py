"""What is drawn of a book: the ladder in a terminal, the series of a plot, the picture, the page."""

from __future__ import annotations

import io
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from app.cli import marketdata_series
from app.cli.marketdata_charts import write_html, write_png
from app.cli.marketdata_joint import Joint, joint_document, joint_ladder
from app.cli.marketdata_ladder import Picture, bar, heading, ladder, mid_text, padded, running
from app.cli.marketdata_series import Series, mid_half_ticks, spread_ppm
from app.cli.marketdata_watch import Watched
from kernel.clock import ManualClock, from_unix_ns
from marketdata.book import L2Book, StitchRule
from marketdata.consumers import LatestSlot, LosslessQueue
from marketdata.events import BookUpdate, Channel, GapReason, GapSeen, MarketEvent, TradeSeen
from marketdata.model import BookView, Level, StreamState, StreamStatus
from marketdata.testing import book_view, eth_usdt

GRID = eth_usdt("binance")
CLOCK = ManualClock()
START_NS = CLOCK.now_ns()
SECOND_NS = 1_000_000_000
ONE = 10**18
BIDS = [("3000.10", "2"), ("3000.00", "1"), ("2990.00", "50")]
ASKS = [("3000.31", "1"), ("3001.00", "4"), ("3010.00", "50")]


def trade(number: int, at_ns: int = START_NS, price: str = "3000.20") -> TradeSeen:
    return TradeSeen(
        venue="binance",
        symbol="ETHUSDT",
        trade_id=str(number),
        ticks=GRID.ticks(price),
        units=ONE // 4,
        buyer_is_maker=bool(number % 2),
        exchange_ns=at_ns,
        received_ns=at_ns,
    )


def update(number: int, at_ns: int) -> BookUpdate:
    return BookUpdate(
        venue="binance",
        symbol="ETHUSDT",
        first=number,
        last=number,
        is_snapshot=False,
        bids=(),
        asks=(),
        exchange_ns=at_ns,
        received_ns=at_ns,
    )


def gap(since_ns: int, until_ns: int = 0, channel: Channel = Channel.BOOK) -> GapSeen:
    return GapSeen(
        venue="binance",
        symbol="ETHUSDT",
        channel=channel,
        reason=GapReason.SEQUENCE,
        since_ns=since_ns,
        until_ns=until_ns,
        detail="12 to 14 are missing",
        received_ns=until_ns or since_ns,
    )


def book(bid: int = 300_000, ask: int = 300_010) -> L2Book:
    found = L2Book("binance", "ETHUSDT", StitchRule.SNAPSHOT_DELTA)
    far = 300_000 * marketdata_series.DEPTH_PPM // 1_000_000 + 20
    found.snapshot(
        1,
        ((bid, 2 * ONE), (bid - 5, 3 * ONE), (bid - far, 100 * ONE)),
        ((ask, ONE), (ask + 5, ONE), (ask + far, 100 * ONE)),
    )
    return found


def picture(**changes: Any) -> Picture:
    usual: dict[str, Any] = {
        "instrument": GRID,
        "view": book_view(BIDS, ASKS, at=CLOCK.now(), instrument=GRID, sequence=41),
        "trades": [trade(2), trade(1)],
        "statuses": [],
        "now": CLOCK.now() + timedelta(milliseconds=120),
        "levels": 2,
    }
    return Picture(**(usual | changes))


def drawn(what: Picture) -> str:
    return text_of(ladder(what))


def text_of(what: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=140, color_system=None)
    console.print(what)
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


def test_a_ladder_has_the_best_prices_in_its_middle_and_no_more_levels_than_asked() -> None:
    lines = drawn(picture()).splitlines()
    prices = [word for line in lines[3:] for word in line.split() if word.startswith("3,0")]

    assert [p for p in prices if p != "3,000.20"] == [
        *("3,001.00", "3,000.31", "3,000.10", "3,000.00")
    ]
    assert "2,990.00" not in "\n".join(lines)


def test_the_heading_says_mid_spread_number_and_age() -> None:
    text = heading(picture()).plain

    assert "mid 3,000.20½" in text
    assert "spread 0.21 (0.69 bp)" in text
    assert "update 41, 120 ms ago" in text


def test_without_a_usable_book_the_ladder_says_so_and_shows_none() -> None:
    text = drawn(picture(view=None, why="(sequence: 12 to 14 are missing)"))

    assert "no usable book (sequence: 12 to 14 are missing)" in text
    assert "3,000.31" not in text


def test_a_one_sided_book_is_not_usable() -> None:
    view = book_view(BIDS, [], at=CLOCK.now(), instrument=GRID)

    assert "no usable book" in heading(picture(view=view)).plain


def test_streams_of_the_symbol_are_told_below() -> None:
    status = StreamStatus(
        venue="binance",
        symbol="ETHUSDT",
        channel=Channel.BOOK,
        state=StreamState.STALE,
        since=CLOCK.now(),
        last_event_at=None,
        sequence=0,
        gaps=2,
        reconnects=1,
        messages=1_234,
    )

    assert "book stale 1,234 messages, 2 gaps, 1 reconnects" in drawn(picture(statuses=[status]))


def test_sums_run_from_the_best_outwards_and_a_mid_between_two_ticks_is_said_exactly() -> None:
    levels = [Level(10, 3), Level(9, 4)]

    assert [total for _, total in running(levels)] == [3, 7]
    assert mid_text(GRID, Level(100, 1), Level(102, 1)) == "1.01"
    assert mid_text(GRID, Level(100, 1), Level(103, 1)) == "1.01½"


@pytest.mark.parametrize(
    ("number", "scale", "places", "text"),
    [
        (300_010, 2, 2, "3,000.10"),
        (1, 18, 4, "0.000000000000000001"),
        (25 * 10**16, 18, 4, "0.2500"),
        (1_234, 0, 0, "1,234"),
        (0, 8, 2, "0.00"),
        (1_000_000, 6, 0, "1"),
    ],
)
def test_numbers_are_exact_and_columns_align(
    number: int, scale: int, places: int, text: str
) -> None:
    assert padded(number, scale, places) == text


@pytest.mark.parametrize(("units", "largest", "length"), [(0, 10, 0), (1, 1_000, 1), (10, 10, 16)])
def test_a_bar_is_as_long_as_its_share_and_never_nothing(
    units: int, largest: int, length: int
) -> None:
    assert len(bar(units, largest)) == length


def test_a_sample_has_the_top_and_only_what_rests_near_the_mid() -> None:
    series = Series(GRID)

    series.take(update(1, START_NS), book())

    (sample,) = series.samples
    assert mid_half_ticks(sample) == 600_010
    assert (sample.bid_units, sample.ask_units) == (5 * ONE, 2 * ONE)
    assert spread_ppm(sample) == 33


def test_an_unusable_book_gives_no_sample_and_other_symbols_are_not_ours() -> None:
    series = Series(GRID)
    empty = L2Book("binance", "ETHUSDT")

    series.take(update(1, START_NS), empty)
    series.take(update(1, START_NS), None)
    series.take(TradeSeen(**{**_fields(trade(1)), "symbol": "BTCUSDT"}), None)

    assert (series.samples, series.trades) == ([], [])


def test_a_gap_breaks_the_line_and_its_end_is_joined_to_its_beginning() -> None:
    series = Series(GRID)
    series.take(update(1, START_NS), book())
    series.take(gap(START_NS + SECOND_NS), None)
    series.take(gap(START_NS + SECOND_NS, START_NS + 3 * SECOND_NS), None)
    series.take(gap(START_NS + SECOND_NS, 0, Channel.TICKER), None)
    series.take(update(9, START_NS + 3 * SECOND_NS), book())

    assert [item.is_book for item in series.samples] == [True, False, True]
    (span,) = series.gaps
    assert (span.since_ns, span.until_ns) == (START_NS + SECOND_NS, START_NS + 3 * SECOND_NS)


def test_a_long_recording_is_thinned_and_its_breaks_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(marketdata_series, "SAMPLES_MAX", 50)
    monkeypatch.setattr(marketdata_series, "TRADES_MAX", 20)
    series = Series(GRID)
    same = book()

    for second in range(400):
        at_ns = START_NS + second * SECOND_NS
        series.take(gap(at_ns) if second == 10 else update(second, at_ns), same)
        series.take(trade(second, at_ns), same)

    assert 20 < len(series.samples) <= 50
    assert sum(not item.is_book for item in series.samples) == 1
    assert series.samples[-1].at_ns > START_NS + 380 * SECOND_NS
    assert (len(series.trades) <= 20, series.trades_seen) == (True, 400)


@pytest.fixture
def series() -> Series:
    found = Series(GRID)
    for second in range(60):
        at_ns = START_NS + second * SECOND_NS
        if second == 30:
            found.take(gap(at_ns), None)
        elif second == 40:
            found.take(gap(START_NS + 30 * SECOND_NS, at_ns), None)
        elif not 30 < second < 40:
            found.take(update(second, at_ns), book(300_000 + second, 300_010 + second))
            found.take(trade(second, at_ns), None)
    return found


def test_a_picture_is_written(series: Series, tmp_path: Path) -> None:
    write_png(series, tmp_path / "eth.png")

    assert (tmp_path / "eth.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (tmp_path / "eth.png").stat().st_size > 20_000


def test_a_page_is_written_that_fetches_nothing_and_names_the_gap(
    series: Series, tmp_path: Path
) -> None:
    write_html(series, tmp_path / "eth.html")

    text = (tmp_path / "eth.html").read_text()
    assert "book: sequence" in text
    assert "ETHUSDT at binance" in text
    assert "<script src=" not in text
    assert f"{from_unix_ns(START_NS):%Y-%m-%dT%H:%M:%S}" in text


def test_an_empty_series_is_drawn_too(tmp_path: Path) -> None:
    write_png(Series(GRID), tmp_path / "none.png")
    write_html(Series(GRID), tmp_path / "none.html")

    assert (tmp_path / "none.png").exists()


def _fields(item: TradeSeen) -> dict[str, Any]:
    return {name: getattr(item, name) for name in item.__struct_fields__}


# Several venues.


class Still:
    """A feed that shows one book for ever."""

    def __init__(self, view: BookView | None) -> None:
        self._slot: LatestSlot[BookView] = LatestSlot()
        self._slot.put(view)

    def latest(self, symbol: str) -> LatestSlot[BookView]:
        return self._slot

    def status(self) -> list[StreamStatus]:
        return []


def shown(venue: str, best: tuple[str, str] | None, age_s: int = 0) -> Watched:
    grid = eth_usdt(venue)
    view = None
    if best is not None:
        at = CLOCK.now() - timedelta(seconds=age_s)
        bids, asks = [(best[0], "2"), ("2999.00", "1")], [(best[1], "3"), ("3002.00", "1")]
        view = book_view(bids, asks, at=at, instrument=grid)
    queue: LosslessQueue[MarketEvent] = LosslessQueue(10)
    feed: Any = Still(view)
    return Watched(feed=feed, instrument=grid, queue=queue, clock=CLOCK, levels=5)


def joint_of(*watched: Watched, **absent: str) -> Joint:
    return Joint(watched=watched, absent=absent, clock=CLOCK, levels=5)


def test_equal_prices_of_venues_are_one_level_that_names_both() -> None:
    joint = joint_of(
        shown("binance", ("3000.10", "3000.31")), shown("kraken", ("3000.10", "3000.20"))
    )

    told = joint_document(joint)

    assert told["bid"] == {
        "price": "3000.10",
        "size": "4",
        "venues": {"binance": "2", "kraken": "2"},
    }
    assert (told["ask"]["price"], told["ask"]["venues"]) == ("3000.20", {"kraken": "3"})
    assert "bid 3,000.10 binance+kraken" in text_of(joint_ladder(joint))


def test_a_stale_or_missing_venue_is_evicted_and_no_level_of_it_lingers() -> None:
    joint = joint_of(
        shown("binance", ("3000.10", "3000.31")),
        shown("kraken", ("3000.20", "3000.25"), age_s=11),
        shown("okx", None),
        coinbase="no answer",
    )

    told, drawn = joint_document(joint), text_of(joint_ladder(joint))

    assert told["evicted"] == {"kraken": "stale", "okx": "missing", "coinbase": "no answer"}
    assert {name for level in told["bids"] for name in level["venues"]} == {"binance"}
    for line in ("kraken evicted: stale", "okx evicted: missing", "coinbase evicted: no answer"):
        assert line in drawn
    assert "3,000.25" not in drawn


def test_a_bid_that_reaches_another_venues_ask_is_said() -> None:
    joint = joint_of(
        shown("binance", ("3000.40", "3000.50")), shown("kraken", ("3000.10", "3000.30"))
    )

    assert joint_document(joint)["crossed"] is True
    assert "crossed by 0.10" in text_of(joint_ladder(joint))


def test_without_any_book_the_joint_ladder_says_so() -> None:
    joint = joint_of(shown("binance", None), shown("kraken", None))

    told = joint_document(joint)

    assert (told["usable"], told["bid"], told["ask"]) == (False, None, None)
    assert "no usable book" in text_of(joint_ladder(joint))
