"""Disks that fail while a program runs: libfiu, told through a named pipe.

A program that is started with `FailingDisk.environment` opens a pair of pipes named after its process
id (libfiu's remote control), and so does all that it forks: one session of PostgreSQL can be told
alone. What is forked inherits what is enabled at that moment.

Wire format: one command a line (``enable_random name=…,probability=…,failnum=…,failinfo=…``), answered
by one line, 0 for success (libfiu's fiu-rc.c). `failinfo` is the errno.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from app.faults import preloads
from kernel.errors import OutsideUnavailable

LOOK_S: Final = 0.1
LOOKS_MAX: Final = 100
"""An answer is waited for ten seconds, and its process looked at ten times a second."""
_PIPE: Final = "disk"


class DiskFault(StrEnum):
    """What a disk does not do."""

    FULL = "full"
    """Writes at a place (pwrite, pwritev) find no space: ENOSPC."""
    FULL_STREAM = "full-stream"
    """Writes at the end of a stream (write) find no space: ENOSPC."""
    NO_SYNC = "no-sync"
    """fsync and fdatasync fail: EIO."""


CALLS: Final[Mapping[DiskFault, tuple[tuple[str, ...], int]]] = {
    DiskFault.FULL: (("posix/io/rw/pwrite", "posix/io/rw/pwritev"), errno.ENOSPC),
    DiskFault.FULL_STREAM: (("posix/io/rw/write",), errno.ENOSPC),
    DiskFault.NO_SYNC: (("posix/io/sync/fsync", "posix/io/sync/fdatasync"), errno.EIO),
}
"""The failure points of libfiu's POSIX library, and the error that they give."""


@dataclass(frozen=True, slots=True)
class FailingDisk:
    """The disk of the programs that are started with `environment`."""

    libraries: tuple[Path, ...]
    folder: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the variables of a program whose disk this is."""
        return {
            "LD_PRELOAD": " ".join(str(library) for library in self.libraries),
            "LD_LIBRARY_PATH": str(self.folder),
            "FIU_CTRL_FIFO": str(self.folder / _PIPE),
        }

    def fail(self, pid: int, fault: DiskFault, *, probability: float = 1.0) -> None:
        """Let the calls of a fault fail in process *pid*, and in what it forks from now on.

        Raises:
            OutsideUnavailable: the process does not listen.
        """
        points, number = CALLS[fault]
        for point in points:
            self._tell(
                pid,
                f"enable_random name={point},failnum=1,failinfo={number},"
                f"probability={probability:.6f}",
            )

    def mend(self, pid: int, fault: DiskFault) -> None:
        """Let the calls succeed again; what was forked meanwhile keeps its fault."""
        for point in CALLS[fault][0]:
            self._tell(pid, f"disable name={point}")

    def _tell(self, pid: int, command: str) -> None:
        asking = self.folder / f"{_PIPE}-{pid}.in"
        answering = self.folder / f"{_PIPE}-{pid}.out"
        with ExitStack() as stack:
            try:
                # libfiu closes its pipes after each conversation and opens them anew. Whoever holds
                # both ends may come in between: the line waits in the pipe for whoever reads next.
                target = os.open(asking, os.O_RDWR)
                stack.callback(os.close, target)
                source = os.open(answering, os.O_RDWR)
                stack.callback(os.close, source)
            except OSError as error:
                raise _no_failing_disk(pid, asking, str(error.strerror)) from error
            os.write(target, f"{command}\n".encode())
            for _ in range(LOOKS_MAX):
                ready, _, _ = select.select([source], [], [], LOOK_S)
                if ready:
                    answer = os.read(source, 64)
                    break
                if not Path(f"/proc/{pid}").exists():
                    raise _no_failing_disk(pid, asking, "it has ended")
            else:
                answer = b"nothing"
        if answer.strip() != b"0":
            raise OutsideUnavailable(f"process {pid} answered {answer!r} to {command!r}")


def _no_failing_disk(pid: int, pipe: Path, why: str) -> OutsideUnavailable:
    return OutsideUnavailable(
        f"process {pid} has no failing disk: {why}",
        where=str(pipe),
        remedy="Start it with FailingDisk.environment",
    )


def failing_disk(folder: Path) -> FailingDisk:
    """Return a disk that works; its files lie in *folder*, which the programs must be able to write.

    Raises:
        OutsideUnavailable: libfiu was not fetched.
    """
    return FailingDisk(tuple(preloads.copied_disk_libraries(folder)), folder)
