"""A recorder to be killed: told what to do by a line of JSON, it says which frames are flushed.

Frames are numbers, counted from 0 in each life. It lives until it is killed or its input ends.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final

from kernel.clock import SystemClock
from marketdata.raw import RawItem, RawKind
from marketdata.recording.model import WritePolicy
from marketdata.recording.raw_writer import RawWriter

BATCH: Final = 40
BATCHES_PER_FLUSH: Final = 5


def say(line: str) -> None:
    """Say it to whoever started us, at once, by a call that no failing disk of a test stops."""
    os.writev(sys.stdout.fileno(), [f"{line}\n".encode()])


def main() -> None:
    """Record until killed."""
    told = json.loads(sys.stdin.readline())
    clock = SystemClock()
    policy = WritePolicy(
        free_bytes_min=0,
        block_bytes=told["block_bytes"],
        segment_bytes=told["segment_bytes"],
        retry_every=timedelta(0),
    )
    writer = RawWriter(Path(told["directory"]), "sim", clock, feed="tiny", policy=policy)
    say(writer.session)
    number = 0
    while True:
        for _ in range(BATCHES_PER_FLUSH):
            batch = [
                RawItem(RawKind.FRAME, clock.now_ns(), 1, "", b"%d" % one)
                for one in range(number, number + BATCH)
            ]
            writer.write(batch)
            number += BATCH
        writer.flush()
        if not writer.is_blocked:
            say(str(number))


if __name__ == "__main__":
    main()
