"""A child process ends itself when its parent is gone, however the parent died.

The parent keeps the write end of the child's standard input open and never writes to it. The
operating system closes that end when the parent exits, a ``kill -9`` included, and the child then
reads end-of-file. No polling, no process ids that may be reused.
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from typing import IO

from kernel.errors import BadInput

READ_CHUNK_BYTES = 4096


async def wait_for_parent_end(stream: IO[bytes] | None = None) -> None:
    """Return when the other end of *stream* (default: standard input) is closed.

    Bytes that arrive are discarded: the pipe carries nothing but the fact that it is open.

    Raises:
        BadInput: the stream is neither a pipe nor a socket, so it cannot tell us anything.
    """
    source = sys.stdin.buffer if stream is None else stream
    mode = os.fstat(source.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        raise BadInput(
            "standard input is not a pipe, so the end of the parent cannot be noticed",
            remedy="Start this process with stdin=PIPE, or leave --parent-pipe out",
        )
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), source
    )
    try:
        while await reader.read(READ_CHUNK_BYTES):
            pass
    finally:
        transport.close()
