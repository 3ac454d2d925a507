"""A recorder on a disk that is full or does not sync now and then: what is missing is said, where it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final

import pytest

from app.faults.disks import DiskFault, FailingDisk, failing_disk
from kernel.clock import SystemClock
from marketdata.raw import RawItem, RawKind
from marketdata.recording.layout import list_open, list_segments
from marketdata.recording.model import LossReason
from marketdata.recording.raw_reader import describe, read
from marketdata.recording.raw_writer import RawWriter
from tests.faults.seeds import fresh_seed
from tests.faults.servers import FAULTS_ARE_THERE, faults_folder

pytestmark = [FAULTS_ARE_THERE, pytest.mark.timeout(120)]

REPOSITORY: Final = Path(__file__).absolute().parents[2]
FAULTS: Final = (DiskFault.FULL_STREAM, DiskFault.NO_SYNC) * 3
BLOCKS: Final = {"block_bytes": 300, "segment_bytes": 20_000}
STRUCK_S: Final = 0.1
PATIENCE_S: Final = 15.0


@pytest.fixture
def disk() -> Iterator[FailingDisk]:
    with faults_folder() as folder:
        yield failing_disk(folder)


class Recorder:
    """A recorder in a process of its own, and what it has said is on the disk."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.pid = process.pid
        self._said = process.stdout
        self.session = self._said.readline().strip()
        self.flushed = 0

    def goes_on(self) -> None:
        """Read on until more is flushed than was said before."""
        before, until = self.flushed, time.monotonic() + PATIENCE_S
        while self.flushed <= before:
            assert time.monotonic() < until, f"nothing behind frame {before} was flushed"
            self.flushed = int(self._said.readline())

    def last_words(self) -> None:
        """Read what it said before it was killed."""
        for line in self._said:
            if line.endswith("\n"):
                self.flushed = int(line)


@contextmanager
def recorder(directory: Path, disk: FailingDisk) -> Iterator[Recorder]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.crash.recorder"],
        cwd=REPOSITORY,
        env={**os.environ, **disk.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps({"directory": str(directory), **BLOCKS}) + "\n")
        process.stdin.flush()
        found = Recorder(process)
        try:
            yield found
        finally:
            process.send_signal(signal.SIGKILL)
        found.last_words()


def recorded(directory: Path, session: str) -> list[RawItem]:
    """Return all that is in the finished files of a session; each is as its checksum says."""
    paths = [path for path in list_segments(directory) if path.name.startswith(session)]
    assert [describe(directory, path).session for path in paths] == [session] * len(paths)
    return [item for path in paths for item in read(path)]


def numbers_and_gaps(items: list[RawItem]) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the frames that are there, and between which of them something is said to be missing."""
    numbers: list[int] = []
    gaps: list[tuple[int, int]] = []
    said = False
    for item in items:
        if item.kind is RawKind.FRAME:
            number = int(item.data)
            if said:
                gaps.append((numbers[-1] if numbers else -1, number))
            numbers.append(number)
            said = False
        elif item.kind is RawKind.LOST:
            said = True
    return numbers, gaps


def test_a_recorder_on_a_failing_disk_says_all_that_is_missing_and_keeps_all_that_it_said_it_had(
    tmp_path: Path, disk: FailingDisk, record_property: Callable[[str, object], None]
) -> None:
    seed = fresh_seed()
    random = Random(seed)
    with recorder(tmp_path, disk) as running:
        for fault in FAULTS:
            running.goes_on()
            disk.fail(running.pid, fault, probability=random.uniform(0.2, 1.0))
            time.sleep(random.uniform(0, STRUCK_S))
            disk.mend(running.pid, fault)
        running.goes_on()
        running.goes_on()
    with RawWriter(tmp_path, "sim", SystemClock()) as after:
        assert after.recovery.files

    assert list_open(tmp_path) == []
    items = recorded(tmp_path, running.session)
    numbers, gaps = numbers_and_gaps(items)
    assert numbers == sorted(set(numbers))
    missing = [(before, after) for before, after in pairwise([-1, *numbers]) if after != before + 1]
    assert set(missing) <= set(gaps)
    assert numbers[-1] >= running.flushed - 1
    losses = [loss for path in list_segments(tmp_path) for loss in describe(tmp_path, path).losses]
    assert LossReason.DISK in {loss.reason for loss in losses}
    record_property(
        "counts",
        f"a recorder's disk full or not synced {len(FAULTS)} times, seed {seed}: "
        f"{len(numbers)} frames kept, {len(missing)} gaps, each said",
    )
