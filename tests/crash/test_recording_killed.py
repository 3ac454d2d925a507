"""Recorders killed by SIGKILL at any moment: what was flushed is there, what is missing is said."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

from kernel.clock import SystemClock
from marketdata.raw import RawItem, RawKind
from marketdata.recording.layout import list_open, list_segments
from marketdata.recording.model import LossReason, RecordedFile
from marketdata.recording.raw_reader import describe, read
from marketdata.recording.raw_writer import RawWriter

REPOSITORY: Final = Path(__file__).absolute().parents[2]
LIVES: Final = 8
SEED: Final = 5


def lived(directory: Path, random: Random) -> tuple[str, int]:
    """Let a recorder live for a while and kill it; return its session and what it had flushed."""
    told = {
        "directory": str(directory),
        "block_bytes": random.choice([300, 3_000, 30_000]),
        "segment_bytes": random.choice([2_000, 20_000, 10_000_000]),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "tests.crash.recorder"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(told) + "\n")
        process.stdin.flush()
        session = process.stdout.readline().strip()
        time.sleep(random.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        flushed = [int(line) for line in process.stdout if line.endswith("\n")]
        assert process.wait() == -signal.SIGKILL
    return session, max(flushed, default=0)


def test_recorders_killed_at_any_moment_lose_only_what_was_not_flushed_and_say_so(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    random = Random(SEED)
    lives = dict(lived(tmp_path, random) for _ in range(LIVES))
    RawWriter(tmp_path, "sim", SystemClock()).close()

    assert list_open(tmp_path) == []
    items: dict[str, list[RawItem]] = {session: [] for session in lives}
    files: dict[str, list[RecordedFile]] = {session: [] for session in lives}
    for path in list_segments(tmp_path):
        file = describe(tmp_path, path)
        files[file.session].append(file)
        items[file.session] += read(path)
    kept = 0
    for session, flushed in lives.items():
        found = [item for item in items[session] if item.kind is RawKind.FRAME]
        assert [int(item.data) for item in found] == list(range(len(found)))
        assert len(found) >= flushed
        kept += len(found)
        losses = [loss for file in files[session] for loss in file.losses]
        assert {loss.reason for loss in losses} == {LossReason.KILLED}
        # The last word of a session is that something may be missing, from its last frame on.
        last = items[session][-1]
        assert last.kind is RawKind.LOST
        if found:
            assert losses[-1].since_ns >= found[-1].received_ns
    record_property("counts", f"recorders killed: {LIVES}, frames kept {kept}")
    assert sum(lives.values()) > 0
