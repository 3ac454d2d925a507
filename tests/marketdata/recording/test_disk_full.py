"""A disk that refuses: the kernel says so at every byte, what was written stays, what was lost is said."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from kernel.clock import ManualClock
from marketdata.consumers import Overflow
from marketdata.raw import RawItem, RawKind
from marketdata.recording.derive import Deriver
from marketdata.recording.layout import list_open, list_parquet, list_segments
from marketdata.recording.model import NS_PER_HOUR, LossReason, WritePolicy
from marketdata.recording.raw_reader import read
from marketdata.recording.raw_writer import LOSSES_MAX, RawWriter
from marketdata.recording.testing import TinyMachine, trade_frame
from marketdata.testing import eth_usdt

START_NS = ManualClock().now_ns()
POLICY = WritePolicy(free_bytes_min=0, retry_every=timedelta(seconds=5))


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Let the kernel refuse every byte of a file behind the first *size*."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def frames(start: int, count: int = 5) -> list[RawItem]:
    return [
        RawItem(RawKind.FRAME, START_NS + number, 1, "", os.urandom(20))
        for number in range(start, start + count)
    ]


def test_a_disk_that_is_full_at_any_byte_costs_only_what_came_meanwhile(tmp_path: Path) -> None:
    before, during, after = frames(0), frames(5), frames(10)
    probe = RawWriter(tmp_path / "probe", "sim", ManualClock(), policy=POLICY)
    probe.write(before)
    probe.flush()
    (path,) = list_open(tmp_path / "probe")
    size = path.stat().st_size
    probe.write(during)
    probe.flush()
    length = path.stat().st_size - size
    probe.close()
    for cut in range(0, length, 7):
        directory, clock = tmp_path / str(cut), ManualClock()
        writer = RawWriter(directory, "sim", clock, policy=POLICY)
        writer.write(before)
        writer.flush()
        with no_file_above(size + cut):
            writer.write(during)
            writer.flush()
            assert writer.is_blocked
            (path,) = list_open(directory)
            assert list(read(path, unfinished=True)) == before
            assert path.stat().st_size == size
        clock.advance(timedelta(seconds=5))
        writer.write(after)
        writer.flush()
        assert not writer.is_blocked
        writer.close()

        (file,) = writer.finished
        found = list(read(directory / file.path))
        assert found[:5] + found[6:] == before + after
        (loss,) = file.losses
        assert (loss.reason, loss.items, loss.detail) == (LossReason.DISK, 5, os.strerror(27))
        assert (loss.since_ns, loss.until_ns) == (START_NS + 5, START_NS + 9)
        assert (writer.items, writer.lost) == (10, 5)


def test_while_the_disk_refuses_it_is_tried_again_only_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    room = os.statvfs(tmp_path)

    def told(path: Path) -> os.statvfs_result:
        tried.append(path)
        return room

    monkeypatch.setattr("marketdata.recording.raw_writer.os.statvfs", told)
    clock = ManualClock()
    policy = replace(POLICY, free_bytes_min=2**62)
    with RawWriter(tmp_path, "sim", clock, policy=policy) as writer:
        for number in range(0, 50, 5):
            writer.write(frames(number))
            writer.flush()
        assert len(tried) == 1
        clock.advance(timedelta(seconds=5))
        writer.write(frames(50))
        writer.flush()
        assert len(tried) == 2
        assert (writer.lost, writer.items) == (55, 0)
        assert writer.pending == 0


def test_a_room_that_is_kept_for_others_is_not_used(tmp_path: Path) -> None:
    policy = replace(POLICY, free_bytes_min=2**62)
    with RawWriter(tmp_path, "sim", ManualClock(), policy=policy) as writer:
        writer.write(frames(0))
        writer.flush()

        assert writer.is_blocked


def test_losses_of_many_kinds_while_the_disk_refuses_take_bounded_room(tmp_path: Path) -> None:
    clock = ManualClock()
    writer = RawWriter(tmp_path, "sim", clock, policy=POLICY)
    size = list_open(tmp_path)[0].stat().st_size
    with no_file_above(size):
        for number in range(3 * LOSSES_MAX):
            writer.write(frames(number, 1))
            writer.write([Overflow(START_NS, START_NS + 1, 2)])
    clock.advance(timedelta(seconds=5))
    writer.close()

    (file,) = writer.finished
    assert len(file.losses) == LOSSES_MAX
    assert sum(loss.items or 0 for loss in file.losses) == 3 * 3 * LOSSES_MAX == writer.lost


def test_a_recorder_killed_while_the_disk_refused_is_recovered(tmp_path: Path) -> None:
    writer = RawWriter(tmp_path, "sim", ManualClock(), policy=POLICY)
    writer.write(frames(0))
    writer.flush()
    size = list_open(tmp_path)[0].stat().st_size
    with no_file_above(size):
        writer.write(frames(5))
        writer.close()
        assert list_segments(tmp_path) == []
    with RawWriter(tmp_path, "sim", ManualClock(), policy=POLICY) as again:
        pass

    (file,) = again.recovery.files
    assert file.rows == 5
    assert [loss.reason for loss in file.losses] == [LossReason.KILLED]


def test_after_a_failed_sync_the_file_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    writer = RawWriter(tmp_path, "sim", clock, policy=POLICY)
    writer.write(frames(0))
    with monkeypatch.context() as patch:

        def broken(fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(fd))

        patch.setattr("marketdata.recording.segment_file.os.fdatasync", broken)
        writer.flush()
    clock.advance(timedelta(seconds=5))
    writer.write(frames(5))
    writer.close()

    (file,) = writer.finished
    assert [(loss.reason, loss.items) for loss in file.losses] == [(LossReason.DISK, None)]
    assert len(list_open(tmp_path)) == 1
    with RawWriter(tmp_path, "sim", clock, policy=POLICY) as again:
        pass
    assert [one.rows for one in again.recovery.files] == [5]


def test_an_error_that_no_disk_makes_is_raised_and_what_it_cost_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RawWriter(tmp_path, "sim", ManualClock(), policy=POLICY)
    writer.write(frames(0))

    def broken(fd: int, data: bytes) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    with monkeypatch.context() as patch:
        patch.setattr("marketdata.recording.durable.os.write", broken)
        with pytest.raises(OSError, match="Bad file descriptor"):
            writer.flush()
    writer.close()

    (file,) = writer.finished
    assert [(loss.reason, loss.items) for loss in file.losses] == [(LossReason.DISK, 5)]


def test_an_hour_of_which_not_all_can_be_derived_is_given_up_and_the_next_one_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marketdata.recording.derive.GROUP_ROWS", 8)
    deriver, machine = Deriver(tmp_path, "sim", "s", [eth_usdt()]), TinyMachine()

    def trades(hour: int, count: int) -> None:
        for number in range(count):
            at_ns = START_NS + hour * NS_PER_HOUR + number
            item = RawItem(RawKind.FRAME, at_ns, 1, "", trade_frame(number))
            deriver.write(machine.take(item))  # type: ignore[arg-type]

    with no_file_above(600):
        trades(0, 100)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    trades(0, 10)
    trades(1, 10)
    deriver.close()

    assert deriver.given_up == [START_NS]
    assert [file.rows for file in deriver.finished] == [10]
    assert [path.name[:13] for path in list_parquet(tmp_path)] == ["2026-01-05T10"]
