"""Sessions: their names only grow, an hour of silence is no loss, a loss alone keeps its time."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from kernel.clock import ManualClock
from marketdata.consumers import Overflow
from marketdata.raw import RawItem, RawKind
from marketdata.recording.layout import list_open, list_segments
from marketdata.recording.model import LossReason, WritePolicy
from marketdata.recording.raw_reader import describe
from marketdata.recording.raw_writer import RawWriter
from marketdata.recording.replay import items_of

POLICY = WritePolicy(free_bytes_min=0)
HOUR = timedelta(hours=1)


def opened(directory: Path, clock: ManualClock) -> RawWriter:
    return RawWriter(directory, "sim", clock, feed="tiny", policy=POLICY)


def frame(clock: ManualClock, number: int) -> RawItem:
    return RawItem(RawKind.FRAME, clock.now_ns(), 1, "", b"%d" % number)


def test_hours_in_which_nothing_came_are_no_missing_segments(tmp_path: Path) -> None:
    clock = ManualClock()
    with opened(tmp_path, clock) as writer:
        writer.flush()
        for number in range(3):
            clock.advance(HOUR)
            writer.flush()
            writer.write([frame(clock, number)])
            writer.flush()
            for _ in range(2):
                clock.advance(HOUR)
                writer.flush()

    found = list(items_of(list_segments(tmp_path)))
    assert [item.kind for item in found] == [RawKind.FRAME] * 3


def test_a_clock_that_is_set_back_over_an_hour_costs_nothing(tmp_path: Path) -> None:
    clock = ManualClock()
    with opened(tmp_path, clock) as writer:
        for number, step in enumerate((0, 1, -1, -1, 2)):
            clock.advance(HOUR * step)
            writer.write([frame(clock, number)])
            writer.flush()

    assert [int(item.data) for item in items_of(list_segments(tmp_path))] == list(range(5))


@pytest.mark.parametrize("back", [timedelta(0), HOUR])
def test_a_later_session_has_a_later_name_and_overwrites_nothing(
    tmp_path: Path, back: timedelta
) -> None:
    clock = ManualClock()
    sessions = []
    for number in range(3):
        with opened(tmp_path, clock) as writer:
            sessions.append(writer.session)
            writer.write([frame(clock, number)])
        clock.advance(-back)

    assert sessions == sorted(set(sessions))
    found = [item for path in list_segments(tmp_path) for item in items_of([path])]
    assert [int(item.data) for item in found] == [0, 1, 2]


def test_a_segment_with_nothing_but_a_loss_is_of_the_time_at_which_it_was_written(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    killed = opened(tmp_path, clock)
    # What the system does when a process ends.
    os.close(killed._lock)
    clock.advance(HOUR)
    with opened(tmp_path, clock) as writer:
        (file,) = writer.recovery.files

    assert [loss.reason for loss in file.losses] == [LossReason.KILLED]
    start_ns = ManualClock().now_ns()
    assert (file.rows, file.first_ns, file.last_ns) == (0, start_ns, start_ns)
    assert describe(tmp_path, tmp_path / file.path) == file


def test_a_loss_never_ends_before_it_begins(tmp_path: Path) -> None:
    """A clock that was set back within it: the manifest takes no such thing."""
    clock = ManualClock()
    with opened(tmp_path, clock) as writer:
        writer.write([Overflow(clock.now_ns(), clock.now_ns() - 5, 2)])

    (file,) = writer.finished
    (loss,) = file.losses
    assert (loss.until_ns - loss.since_ns, loss.items) == (5, 2)


def test_what_is_lost_while_the_disk_has_only_its_reserve_is_said_at_the_end(
    tmp_path: Path,
) -> None:
    """The last words fit into the room that is kept for others."""
    clock = ManualClock()
    with opened(tmp_path, clock) as writer:
        writer.write([frame(clock, 0)])
        writer.flush()
        writer._policy = WritePolicy(free_bytes_min=1 << 60)
        writer.write([frame(clock, 1), frame(clock, 2)])

    assert writer.lost == 2
    assert list_open(tmp_path) == []
    losses = [loss for file in writer.finished for loss in file.losses]
    assert [(loss.reason, loss.items) for loss in losses] == [(LossReason.DISK, 2)]
    kinds = [item.kind for item in items_of(list_segments(tmp_path))]
    assert kinds == [RawKind.FRAME, RawKind.LOST]
