"""What keeps keys in memory from being read or written to disk by others; best effort."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from typing import Final

import structlog

PR_SET_DUMPABLE: Final = 4
MCL_CURRENT: Final = 1
MCL_FUTURE: Final = 2

log: Final = structlog.get_logger()


def harden() -> None:
    """Forbid core dumps and attaching debuggers, and keep memory out of swap where we may.

    Sources: prctl(2) PR_SET_DUMPABLE, mlockall(2). Elsewhere than on Linux only core dumps end.
    """
    # A core dump would write the keys to disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        log.warning("signer_dumpable", error=os.strerror(ctypes.get_errno()))
    if not _may_lock() or libc.mlockall(MCL_CURRENT | MCL_FUTURE) != 0:
        log.info("signer_memory_may_be_swapped")


def _may_lock() -> bool:
    # Under a limit, memory that is needed later could not be had at all any more.
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return soft == resource.RLIM_INFINITY
