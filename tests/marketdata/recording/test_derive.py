"""Parquet: the same bytes from a live feed and from its recording; every number as it was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kernel.clock import ManualClock
from kernel.money import Asset
from marketdata.consumers import Overflow
from marketdata.events import MarketEvent
from marketdata.model import Instrument
from marketdata.raw import RawItem, RawKind
from marketdata.recording.derive import (
    Deriver,
    derive,
    derive_recovered,
    describe_parquet,
)
from marketdata.recording.errors import QueryRefused, RecordingDamaged
from marketdata.recording.layout import list_parquet, list_segments
from marketdata.recording.model import NS_PER_HOUR, RecordedFile, SegmentHeader, WritePolicy
from marketdata.recording.raw_writer import RawWriter
from marketdata.recording.replay import replay
from marketdata.recording.testing import (
    SYMBOL,
    TinyMachine,
    book_frame,
    session_items,
    trade_frame,
)
from marketdata.recording.views import connect, query
from marketdata.testing import ETH, USDT, eth_usdt

START_NS = ManualClock().now_ns()
POLICY = WritePolicy(free_bytes_min=0, block_bytes=2_000, segment_bytes=20_000)


def machine(header: SegmentHeader) -> TinyMachine:
    return TinyMachine(header.venue)


def live(directory: Path, items: Iterable[RawItem]) -> tuple[list[RecordedFile], str]:
    """Do as a live feed with a recorder and a deriver does; return what was derived."""
    instruments = [eth_usdt()]
    player = TinyMachine()
    with RawWriter(
        directory, "sim", ManualClock(), feed="tiny", instruments=instruments, policy=POLICY
    ) as writer:
        deriver = Deriver(directory, "sim", writer.session, instruments)
        with deriver:
            for item in items:
                events: Sequence[MarketEvent] = player.take(item)  # type: ignore[assignment]
                writer.write([item])
                deriver.write(events)
    return deriver.finished, writer.session


def frame(number: int, data: bytes, *, hours: int = 0) -> RawItem:
    return RawItem(RawKind.FRAME, START_NS + hours * NS_PER_HOUR + number, 1, "", data)


@pytest.mark.parametrize("held", [500_000, 50])
def test_live_and_replayed_files_are_the_same_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr("marketdata.recording.derive.HELD_ROWS_MAX", held)
    monkeypatch.setattr("marketdata.recording.derive.GROUP_ROWS", 64)
    # Four and a half hours, so that files end and begin in between.
    items = list(session_items(900, start_ns=START_NS, step_ns=NS_PER_HOUR // 200))
    finished, _ = live(tmp_path / "live", items)

    again = derive(list_segments(tmp_path / "live"), tmp_path / "again", machine)

    contents = [
        {path.relative_to(root).as_posix(): path.read_bytes() for path in list_parquet(root)}
        for root in (tmp_path / "live", tmp_path / "again")
    ]
    assert contents[0] == contents[1]
    assert finished == again
    assert len(finished) > 20
    assert {file.channel for file in finished} == {
        "book_updates",
        "trades",
        "best",
        "candles",
        "tickers",
        "gaps",
    }


def test_a_file_says_what_is_in_it(tmp_path: Path) -> None:
    finished, session = live(tmp_path, session_items(100, start_ns=START_NS))
    (trades,) = [file for file in finished if file.channel == "trades"]
    path = tmp_path / trades.path

    assert trades == describe_parquet(tmp_path, path)
    assert trades.path == (
        f"parquet/trades/venue=sim/symbol=ETHUSDT/2026-01-05T09-{session}.parquet"
    )
    assert (trades.venue, trades.symbol, trades.rows) == (
        "sim",
        SYMBOL,
        pq.read_table(path).num_rows,
    )
    assert (trades.first_sequence, trades.last_sequence) == ("1", "99")
    assert START_NS < trades.first_ns < trades.last_ns
    facts = pq.read_schema(path).metadata
    assert facts[b"causeway.tick_size"] == b"0.01"
    assert facts[b"causeway.unit_scale"] == b"8"
    assert facts[b"causeway.base_scale"] == b"18"
    (gaps,) = [file for file in finished if file.channel == "gaps"]
    assert gaps.gaps == gaps.rows == 3


def test_prices_and_quantities_are_exact_however_large_or_fine(tmp_path: Path) -> None:
    """Beyond 64 bits and below the unit of a column, each number is still the one that was."""
    units = [1, 10**10, 10**10 + 1, 123 * 10**18, 10**30 + 7, 0]
    items = [frame(n, trade_frame(n, units=one)) for n, one in enumerate(units)]
    items += [frame(99, trade_frame(99, ticks=2**63))]
    live(tmp_path, items)

    found = query(tmp_path, "SELECT quantity, price FROM trades ORDER BY received_ns").rows

    assert [row[0] for row in found][:6] == [Decimal(f"{one}e-18") for one in units]
    assert found[-1][1] == Decimal(2**63) / 100
    assert query(tmp_path, "SELECT count(*) FROM trades WHERE exact IS NOT NULL").rows == ((4,),)


def test_a_step_with_more_places_than_a_column_leaves_the_count_exact(tmp_path: Path) -> None:
    fine = Instrument(
        venue="sim",
        symbol=SYMBOL,
        base=Asset("SHIB", 2),
        quote=USDT,
        price_scale=20,
        tick=1,
        lot=1,
        lots_min=1,
        lots_max=10,
        min_notional=0,
    )
    deriver = Deriver(tmp_path, "sim", "s", [fine])
    with deriver:
        deriver.write(TinyMachine().take(frame(1, trade_frame(1, units=5))))  # type: ignore[arg-type]

    found = query(tmp_path, "SELECT price, ticks, quantity, units FROM trades").rows
    assert found == ((None, 300_001, Decimal("0.05"), 5),)


def test_an_hour_never_goes_back_with_the_clock(tmp_path: Path) -> None:
    items = [
        frame(1, trade_frame(1)),
        frame(2, trade_frame(2), hours=1),
        frame(3, trade_frame(3)),
        frame(4, trade_frame(4), hours=2),
    ]
    finished, _ = live(tmp_path, items)

    assert [file.rows for file in finished] == [1, 2, 1]
    assert query(tmp_path, "SELECT count(*) FROM trades").rows == ((4,),)


def test_what_the_queue_dropped_is_a_gap(tmp_path: Path) -> None:
    deriver = Deriver(tmp_path, "sim", "s", [])
    with deriver:
        deriver.write([Overflow(START_NS, START_NS + 5, 3)])

    found = query(tmp_path, "SELECT reason, since_ns, until_ns, detail FROM gaps").rows
    assert found == (("overflow", START_NS, START_NS + 5, "3 events of all channels"),)


def test_a_gap_is_shown_once_with_its_end(tmp_path: Path) -> None:
    live(tmp_path, session_items(50, start_ns=START_NS))

    found = query(tmp_path, "SELECT reason, until_ns > since_ns FROM gaps WHERE since_ns > 0").rows
    assert found == (("closed", True),)


def test_a_trade_that_two_recordings_have_is_shown_once(tmp_path: Path) -> None:
    for session in ("1", "2"):
        deriver = Deriver(tmp_path, "sim", session, [eth_usdt()])
        with deriver:
            for number in range(5):
                item = frame(number, trade_frame(number))
                deriver.write(TinyMachine().take(item))  # type: ignore[arg-type]

    assert query(tmp_path, "SELECT count(*) FROM trades").rows == ((5,),)
    assert query(tmp_path, "SELECT count(*) FROM trades_raw").rows == ((10,),)


def test_a_candle_is_shown_as_it_was_said_last(tmp_path: Path) -> None:
    live(tmp_path, session_items(60, start_ns=START_NS))

    found = query(tmp_path, "SELECT count(*), count(DISTINCT open_ns) FROM candles").rows
    assert found[0][0] == found[0][1] > 3


def test_symbols_may_have_any_characters(tmp_path: Path) -> None:
    deriver = Deriver(tmp_path, "kraken's", "s", [])
    symbols = ["BTC/USD", "123", "a'b%20"]
    with deriver:
        for number, symbol in enumerate(symbols):
            item = frame(number, trade_frame(number, symbol=symbol))
            deriver.write(TinyMachine("kraken's").take(item))  # type: ignore[arg-type]

    found = query(tmp_path, "SELECT venue, symbol FROM trades ORDER BY received_ns").rows
    assert found == tuple(("kraken's", symbol) for symbol in symbols)


def test_without_anything_derived_the_tables_are_there_and_empty(tmp_path: Path) -> None:
    for name in ("trades", "book_updates", "best", "tickers", "candles", "gaps"):
        assert query(tmp_path, f"TABLE {name}").rows == ()


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO '{folder}/parquet/x.csv'",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/parquet/x.csv'",
        "EXPLAIN COPY (SELECT 1) TO '{folder}/parquet/x.csv'",
        "EXPLAIN ANALYZE DROP VIEW trades",
        "WITH x AS (INSERT INTO y VALUES (1) RETURNING 1) SELECT * FROM x",
        "SELECT * FROM read_text('{folder}/secret')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "ATTACH '{folder}/parquet/x.db'",
        "CREATE TABLE x AS SELECT 1",
        "DROP VIEW trades",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "SELECT 1; SELECT 2",
        "SELECT nothing FROM nowhere",
        "SELEKT",
        "",
    ],
)
def test_a_query_only_looks_and_only_at_recordings(tmp_path: Path, statement: str) -> None:
    (tmp_path / "secret").write_text("x")
    live(tmp_path, session_items(10, start_ns=START_NS))
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(QueryRefused):
        query(tmp_path, statement.format(folder=tmp_path))

    assert sorted(tmp_path.rglob("*")) == before


def test_prices_times_quantities_are_exact_as_far_as_18_places_go(tmp_path: Path) -> None:
    """What everybody asks first: a VWAP, and what was traded in a day, however much that is."""
    units = [10**10, 123_456_789 * 10**10, 10**10 + 1, 10**27]
    live(
        tmp_path,
        [frame(n, trade_frame(n, units=one, ticks=12_345_678)) for n, one in enumerate(units)],
    )

    found = query(tmp_path, "SELECT notional FROM trades ORDER BY received_ns").rows
    assert [row[0] for row in found] == [
        Decimal("0.0012345678"),
        Decimal("123456.78") * Decimal("1.23456789"),
        Decimal("0.001234567800123457"),
        Decimal(123_456_780_000_000),
    ]
    (row,) = query(tmp_path, "SELECT sum(notional) / sum(quantity) FROM trades").rows
    assert float(row[0]) == pytest.approx(123_456.78)


def test_a_tick_of_many_places_times_a_quantity_is_not_rounded_away(tmp_path: Path) -> None:
    fine = replace(eth_usdt(), price_scale=12, tick=1)
    with Deriver(tmp_path, "sim", "s", [fine]) as deriver:
        item = frame(1, trade_frame(1, ticks=7, units=3 * 10**30))
        deriver.write(TinyMachine().take(item))  # type: ignore[arg-type]

    assert query(tmp_path, "SELECT notional FROM trades").rows == ((Decimal(21),),)


def test_a_query_that_needs_too_much_memory_is_refused_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marketdata.recording.views.MEMORY_LIMIT", "32MB")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(QueryRefused, match=r"(?i)memory"):
        query(tmp_path, "SELECT n, random() AS r FROM range(20_000_000) t(n) ORDER BY r")

    assert list(tmp_path.iterdir()) == []


def test_a_query_that_takes_too_long_is_refused(tmp_path: Path) -> None:
    endless = (
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n % 7 + 1 FROM t) SELECT count(*) FROM t"
    )

    with pytest.raises(QueryRefused, match="takes longer"):
        query(tmp_path, endless, time_max=timedelta(milliseconds=200))


def test_an_answer_that_is_too_long_is_cut_and_says_so(tmp_path: Path) -> None:
    answer = query(tmp_path, "SELECT * FROM range(10) t(n) ORDER BY n", rows_max=4)

    assert (answer.columns, answer.is_cut) == (("n",), True)
    assert answer.rows == ((0,), (1,), (2,), (3,))


def test_what_is_not_finished_has_no_name_and_the_next_recorder_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marketdata.recording.derive.GROUP_ROWS", 2)
    derivers = [
        Deriver(tmp_path, venue, session, [eth_usdt()])
        for venue, session in (("sim", "0017"), ("sim", "backfill-1"), ("other", "0018"))
    ]
    for deriver in derivers:
        for number in range(5):
            deriver.write(TinyMachine().take(frame(number, trade_frame(number))))  # type: ignore[arg-type]
    assert list_parquet(tmp_path) == []

    # The first process ends here; the others go on.
    RawWriter(tmp_path, "sim", ManualClock(), policy=POLICY).close()

    left = [path.name for path in tmp_path.rglob("*.unfinished")]
    assert sorted(left) == [
        "2026-01-05T09-0018.parquet.unfinished",
        "2026-01-05T09-backfill-1.parquet.unfinished",
    ]
    for deriver in derivers:
        deriver.abandon()


def test_what_a_killed_recorder_had_not_derived_is_derived_and_the_rest_left_as_it_is(
    tmp_path: Path,
) -> None:
    items = list(session_items(400, start_ns=START_NS, step_ns=NS_PER_HOUR // 150))
    finished, _ = live(tmp_path, items)
    last = max(Path(file.path).name for file in finished)
    gone = [path for path in list_parquet(tmp_path) if path.name == last]
    for path in gone:
        path.unlink()
    kept = list_parquet(tmp_path)[0]
    kept.write_bytes(list_parquet(tmp_path)[1].read_bytes())
    before = kept.read_bytes()
    segment = list_segments(tmp_path)[-1]
    segment.rename(segment.with_name(segment.name + ".open"))
    with RawWriter(tmp_path, "sim", ManualClock(), policy=POLICY) as writer:
        recovered = writer.recovery.files

    derive_recovered(tmp_path, recovered, machine)

    assert len(recovered) == 1
    assert 0 < len(gone) < len(finished)
    assert {path.relative_to(tmp_path).as_posix() for path in list_parquet(tmp_path)} == {
        file.path for file in finished
    }
    assert kept.read_bytes() == before


def test_nothing_is_derived_of_a_damaged_recording_as_if_it_were_whole(tmp_path: Path) -> None:
    live(tmp_path / "live", session_items(50, start_ns=START_NS))
    (path,) = list_segments(tmp_path / "live")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(RecordingDamaged):
        derive([path], tmp_path / "again", machine)
    assert list_parquet(tmp_path / "again") == []


def test_a_segment_that_is_missing_is_a_gap(tmp_path: Path) -> None:
    live(tmp_path, session_items(900, start_ns=START_NS))
    paths = list_segments(tmp_path)
    assert len(paths) > 2
    derive([paths[0], *paths[2:]], tmp_path / "again", machine)

    found = query(tmp_path / "again", "SELECT detail FROM gaps WHERE reason = 'overflow'").rows
    assert "segments 2 to 2" in found[0][0]


@pytest.mark.parametrize("speed", [0, 50.0, 1_000.0])
async def test_a_replay_says_the_same_at_any_speed(tmp_path: Path, speed: float) -> None:
    items = list(session_items(200, start_ns=START_NS))
    live(tmp_path, items)
    player = TinyMachine()
    expected = [event for item in items for event in player.take(item)]
    found: list[MarketEvent] = []

    count = await replay(list_segments(tmp_path), machine, speed=speed, sink=found.extend)

    assert found == expected
    assert count == len(items)


def test_book_updates_are_levels_in_the_order_of_the_frame(tmp_path: Path) -> None:
    data = book_frame(1, bids=[[10, 10**18], [9, 2 * 10**18]], asks=[[11, 10**17]])
    live(tmp_path, [frame(1, data), frame(2, book_frame(2, bids=[], asks=[]))])

    found = query(
        tmp_path, "SELECT last, is_snapshot, is_bid, price, quantity FROM book_updates"
    ).rows
    assert found == (
        (1, True, True, Decimal("0.10"), Decimal(1)),
        (1, True, True, Decimal("0.09"), Decimal(2)),
        (1, True, False, Decimal("0.11"), Decimal("0.1")),
        (2, False, None, None, None),
    )


def test_a_connection_cannot_be_talked_into_other_files(tmp_path: Path) -> None:
    connection = connect(tmp_path)
    with pytest.raises(Exception, match=r"disabled|locked"):
        connection.execute("SELECT * FROM read_text('/etc/passwd')")
    connection.close()
    assert ETH.scale == 18


def test_nothing_of_a_session_in_pieces_takes_the_place_of_what_is_there(tmp_path: Path) -> None:
    """Frames that retention has removed cannot be derived again; what was derived of them stays."""
    items = list(session_items(900, start_ns=START_NS, step_ns=NS_PER_HOUR // 400))
    live(tmp_path, items)
    before = {path: path.read_bytes() for path in list_parquet(tmp_path)}
    segments = list_segments(tmp_path)
    assert len(segments) > 2

    for part in (segments[1:], segments[::2], segments[:-1]):
        derive(part, tmp_path, machine)
        assert {path: path.read_bytes() for path in list_parquet(tmp_path)} == before


def test_an_hour_that_is_still_being_recorded_is_not_derived_as_if_it_were_over(
    tmp_path: Path,
) -> None:
    items = list(session_items(900, start_ns=START_NS, step_ns=NS_PER_HOUR // 400))
    finished, _ = live(tmp_path, items)
    for path in list_parquet(tmp_path):
        path.unlink()
    *segments, last = list_segments(tmp_path)
    last.rename(last.with_name(last.name + ".open"))

    made = derive(segments, tmp_path, machine)

    hours = {Path(file.path).name for file in made}
    assert 0 < len(hours) < len({Path(file.path).name for file in finished})
    assert {file.path: file.sha256 for file in made}.items() <= {
        file.path: file.sha256 for file in finished
    }.items()


def test_deriving_ends_when_nobody_wants_it_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    live(tmp_path / "live", session_items(900, start_ns=START_NS))

    made = derive(
        list_segments(tmp_path / "live"), tmp_path / "again", machine, is_wanted=lambda: False
    )

    assert made == []
    assert [path for path in (tmp_path / "again").rglob("*") if path.is_file()] == []
