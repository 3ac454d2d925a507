"""What is being recorded is seen before its hour is over, once, and nothing of it is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel.clock import ManualClock
from marketdata.ports import FeedMachine
from marketdata.raw import RawItem
from marketdata.recording.derive import derive
from marketdata.recording.layout import list_open, list_segments
from marketdata.recording.model import NS_PER_HOUR, SegmentHeader
from marketdata.recording.raw_writer import RawWriter
from marketdata.recording.running import Running, derive_running
from marketdata.recording.testing import TinyMachine, session_items
from marketdata.recording.views import query

CLOCK = ManualClock()
START_NS = CLOCK.now_ns()
COUNT = 60
TRADES = "SELECT count(*), count(DISTINCT trade_id) FROM trades"


def machine(header: SegmentHeader) -> FeedMachine:
    return TinyMachine(header.venue)


def items(step_ns: int = 1_000_000) -> list[RawItem]:
    return list(session_items(COUNT, start_ns=START_NS, step_ns=step_ns))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tape"


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    return tmp_path / "beside"


def trades(folder: Path, beside: Path | None = None) -> int:
    ((rows, ids),) = query(folder, TRADES, beside=beside).rows
    assert rows == ids
    return int(rows)


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def all_trades(tmp_path: Path, step_ns: int = 1_000_000) -> int:
    """What the same items say, recorded to the end."""
    whole = tmp_path / "whole"
    with RawWriter(whole, "sim", ManualClock()) as writer:
        writer.write(items(step_ns))
    derive(list_segments(whole), whole, machine)
    return trades(whole)


def test_a_running_hour_is_seen_and_the_recording_is_not_touched(
    folder: Path, beside: Path, tmp_path: Path
) -> None:
    with RawWriter(folder, "sim", ManualClock()) as writer:
        writer.write(items())
        writer.flush()
        before = files(folder)

        running = derive_running(folder, beside, machine)

        assert running.left_out == ()
        assert trades(folder) == 0
        assert trades(folder, beside) == all_trades(tmp_path) > 0
        assert files(folder) == before
        assert len(list_open(folder)) == 1


def test_hours_that_have_their_files_are_not_seen_twice(
    folder: Path, beside: Path, tmp_path: Path
) -> None:
    step_ns = NS_PER_HOUR // 21
    with RawWriter(folder, "sim", ManualClock()) as writer:
        writer.write(items(step_ns))
        writer.flush()
        derive_running(folder, tmp_path / "aside", machine)
        (tmp_path / "aside" / "parquet").rename(folder / "parquet")
        newest = max(folder.glob("parquet/trades/*/*/*.parquet"))
        assert newest.name == max(path.name for path in folder.glob("parquet/*/*/*/*.parquet"))
        newest.unlink()
        raw = "SELECT count(*) FROM trades_raw"

        running = derive_running(folder, beside, machine)

        assert running.files == (newest.relative_to(folder).as_posix(),)
        ((rows,),) = query(folder, raw, beside=beside).rows
        assert rows == trades(folder, beside) == all_trades(tmp_path, step_ns)


def test_a_session_that_is_too_long_is_left_out_and_told(folder: Path, beside: Path) -> None:
    with RawWriter(folder, "sim", ManualClock()) as writer:
        writer.write(items())
        writer.flush()

        running = derive_running(folder, beside, machine, bytes_max=10)

    assert running.files == ()
    (sentence,) = running.left_out
    assert sentence.startswith("what sim has recorded since its last finished hour is left out")


def test_a_damaged_session_is_left_out_and_told(folder: Path, beside: Path) -> None:
    with RawWriter(folder, "sim", ManualClock()) as writer:
        writer.write(items())
        writer.flush()
        writer.write(items(2_000_000))
        writer.flush()
        (path,) = list_open(folder)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(bytes(data))

        running = derive_running(folder, beside, machine)

        assert (running.files, len(running.left_out)) == ((), 1)
        assert "left out" in running.left_out[0]


def test_without_a_running_session_nothing_is_made(folder: Path, beside: Path) -> None:
    with RawWriter(folder, "sim", ManualClock()) as writer:
        writer.write(items())

    assert derive_running(folder, beside, machine) == Running((), ())
    assert not beside.exists()
