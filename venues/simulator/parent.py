"""A child process that ends when its parent does.

The parent keeps the write end of the child's standard input. When the parent ends, by whatever
death, the system closes that pipe and the child reads the end of the file.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Final

_CHUNK_BYTES: Final = 4096


def when_parent_ends(callback: Callable[[], None], *, descriptor: int = 0) -> None:
    """Call back on the running loop once the descriptor is at its end. What it reads is ignored.

    A thread reads, because a loop cannot watch every kind of file; it is a daemon and holds nothing.
    """
    loop = asyncio.get_running_loop()

    def read_to_end() -> None:
        while _read(descriptor):
            pass
        if not loop.is_closed():
            loop.call_soon_threadsafe(callback)

    threading.Thread(target=read_to_end, name="parent-pipe", daemon=True).start()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK_BYTES)
    except OSError:
        return b""
