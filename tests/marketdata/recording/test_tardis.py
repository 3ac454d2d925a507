"""CSV in the layout of Tardis: the columns and units that other tools expect, exact decimals."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import pytest

from kernel.errors import BadInput
from marketdata.raw import RawItem, RawKind
from marketdata.recording.derive import Deriver
from marketdata.recording.tardis import TardisType, export
from marketdata.recording.testing import SYMBOL, TinyMachine, best_frame, book_frame, trade_frame
from marketdata.testing import eth_usdt

AT_NS = 1_767_603_600_000_001_999
ETH = 10**18


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    frames = [
        book_frame(1, bids=[[299_990, ETH], [299_980, 2 * ETH]], asks=[[300_010, ETH // 2]]),
        book_frame(2, bids=[[299_990, 0]], asks=[], exchange_ns=AT_NS - 5_000),
        # Below the second level: the best ones stay as they are.
        book_frame(3, bids=[[100_000, ETH]], asks=[]),
        trade_frame(7, ticks=300_010, units=ETH // 4, buyer_is_maker=False, exchange_ns=AT_NS),
        trade_frame(8, ticks=299_980, units=ETH + 1, buyer_is_maker=True),
        best_frame(9, bid_ticks=299_980, bid_units=2 * ETH, ask_ticks=0, ask_units=0),
    ]
    machine = TinyMachine("binance")
    with Deriver(tmp_path, "binance", "s", [eth_usdt("binance")]) as deriver:
        for number, data in enumerate(frames):
            item = RawItem(RawKind.FRAME, AT_NS + 1_000 * number, 1, "", data)
            deriver.write(machine.take(item))  # type: ignore[arg-type]
    return tmp_path


def lines(
    recordings: Path, kind: TardisType, *, since_ns: int = 0, until_ns: int | None = None
) -> Sequence[str]:
    path = recordings / "out.csv"
    count = export(
        recordings,
        kind,
        path,
        venue="binance",
        symbol=SYMBOL,
        since_ns=since_ns,
        until_ns=until_ns,
    )
    found = path.read_text().splitlines()
    assert count == len(found) - 1
    return found


def test_trades_name_the_side_that_took(recordings: Path) -> None:
    assert lines(recordings, TardisType.TRADES) == [
        "exchange,symbol,timestamp,local_timestamp,id,side,price,amount",
        "binance,ETHUSDT,1767603600000001,1767603600000004,7,buy,3000.1,0.25",
        "binance,ETHUSDT,1767603600000005,1767603600000005,8,sell,2999.8,1.000000000000000001",
    ]


def test_a_trade_that_a_backfill_brought_too_is_written_once(recordings: Path) -> None:
    data = trade_frame(7, ticks=300_010, units=ETH // 4, buyer_is_maker=False, exchange_ns=AT_NS)
    with Deriver(recordings, "binance", "backfill-1", [eth_usdt("binance")]) as deriver:
        item = RawItem(RawKind.FRAME, AT_NS + 10**12, 1, "", data)
        deriver.write(TinyMachine("binance").take(item))  # type: ignore[arg-type]

    ids = [line.split(",")[4] for line in lines(recordings, TardisType.TRADES)]
    assert ids == ["id", "7", "8"]


def test_changes_of_a_book_are_absolute_and_a_frame_has_one_time(recordings: Path) -> None:
    assert lines(recordings, TardisType.INCREMENTAL_BOOK) == [
        "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount",
        "binance,ETHUSDT,1767603600000001,1767603600000001,true,bid,2999.9,1",
        "binance,ETHUSDT,1767603600000001,1767603600000001,true,bid,2999.8,2",
        "binance,ETHUSDT,1767603600000001,1767603600000001,true,ask,3000.1,0.5",
        "binance,ETHUSDT,1767603599999996,1767603600000002,false,bid,2999.9,0",
        "binance,ETHUSDT,1767603600000003,1767603600000003,false,bid,1000,1",
    ]


def test_quotes_are_the_best_levels_whenever_they_change(recordings: Path) -> None:
    assert lines(recordings, TardisType.QUOTES) == [
        "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount",
        "binance,ETHUSDT,1767603600000001,1767603600000001,0.5,3000.1,2999.9,1",
        "binance,ETHUSDT,1767603599999996,1767603600000002,0.5,3000.1,2999.8,2",
    ]


def test_the_venues_own_best_levels_leave_an_empty_side_empty(recordings: Path) -> None:
    assert lines(recordings, TardisType.BOOK_TICKER) == [
        "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount",
        "binance,ETHUSDT,1767603600000006,1767603600000006,,,2999.8,2",
    ]


@pytest.mark.parametrize(("kind", "depth"), [(TardisType.BOOK_5, 5), (TardisType.BOOK_25, 25)])
def test_a_book_has_as_many_levels_as_its_name_says(
    recordings: Path, kind: TardisType, depth: int
) -> None:
    header, first, *others = lines(recordings, kind)
    columns = header.split(",")

    assert columns[4:8] == ["asks[0].price", "asks[0].amount", "bids[0].price", "bids[0].amount"]
    assert columns[-1] == f"bids[{depth - 1}].amount"
    assert len(columns) == 4 + 4 * depth == first.count(",") + 1
    assert first.split(",")[4:12] == ["3000.1", "0.5", "2999.9", "1", "", "", "2999.8", "2"]
    assert len(others) == 2


def test_only_what_was_received_in_a_stretch_of_time_is_written(recordings: Path) -> None:
    found = lines(recordings, TardisType.TRADES, since_ns=AT_NS + 4_000)
    assert [line.split(",")[4] for line in found[1:]] == ["8"]
    assert lines(recordings, TardisType.TRADES, until_ns=AT_NS)[1:] == []


def test_a_name_with_gz_is_gzipped(recordings: Path) -> None:
    path = recordings / "trades.csv.gz"
    export(recordings, TardisType.TRADES, path, venue="binance", symbol=SYMBOL)

    with gzip.open(path, "rt") as stream:
        assert stream.readline().startswith("exchange,symbol,")


def test_what_is_not_derived_or_cannot_be_written_is_told(recordings: Path) -> None:
    with pytest.raises(BadInput, match="nothing is derived of trades of NONE"):
        export(recordings, TardisType.TRADES, recordings / "x", venue="binance", symbol="NONE")
    with pytest.raises(BadInput, match="No such file or directory"):
        export(recordings, TardisType.TRADES, recordings / "no/x", venue="binance", symbol=SYMBOL)
    assert not (recordings / "x").exists()
