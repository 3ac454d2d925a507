"""A simulator as a process: ready in one line of JSON, ended by a signal or with its parent."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import orjson

from kernel.errors import CausewayError
from kernel.parent import wait_for_parent_end

PORT_MAX: Final = 65_535


def read_port(text: str) -> int:
    """Return a port of the command line; 0 stands for any free one."""
    if not (text.isascii() and text.isdecimal()) or int(text[:6]) > PORT_MAX:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a port from 0 to {PORT_MAX}")
    return int(text)


def ready_line(info: Mapping[str, Any]) -> str:
    """Return the one line (JSON, without a line break) that tells a launcher: ready."""
    return orjson.dumps(dict(info)).decode()


def announce(info: Mapping[str, Any]) -> None:
    """Tell the launcher."""
    sys.stdout.write(ready_line(info) + "\n")
    sys.stdout.flush()


def run(serving: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run until told to stop and return the exit code; what went wrong is said on standard error."""
    exit_code = 0
    try:
        asyncio.run(serving())
    except* CausewayError as group:
        error = _first_of(group)
        sys.stderr.write(f"error: {error}\n")
        exit_code = error.exit_code
    return exit_code


def _first_of(group: BaseExceptionGroup[CausewayError]) -> CausewayError:
    """Return the first error of a group, however deep."""
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


async def serve_until_told(
    stopped: asyncio.Event,
    *,
    ready: Callable[[], None],
    stop: Callable[[], Coroutine[Any, Any, None]],
    parent_pipe: bool,
) -> None:
    """Call *ready*, wait for SIGINT, SIGTERM or *stopped*, then await *stop*.

    Args:
        parent_pipe: end with the parent too, who holds the other end of standard input.

    Raises:
        BadInput: *parent_pipe* is set and standard input is not a pipe.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_set_at_parent_end(stopped)) if parent_pipe else None
            ready()
            await stopped.wait()
            if watch is not None:
                watch.cancel()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        await stop()


async def _set_at_parent_end(stopped: asyncio.Event) -> None:
    await wait_for_parent_end()
    stopped.set()
