"""``python -m chain.simulators.faults``: one fault proxy as a process."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson

from chain.simulators.faults.model import Rule, read_rules
from chain.simulators.faults.proxy import FaultProxySettings, serve
from chain.simulators.process import announce, read_port, run
from kernel.errors import BadInput
from kernel.parent import wait_for_parent_end


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m chain.simulators.faults",
        description="A JSON-RPC proxy before an EVM node that fails as its rules say. "
        "Prints one JSON line when it is ready; PUT a JSON list of rules to /faults meanwhile.",
    )
    parser.add_argument("--upstream", required=True, help="HTTP address of the node")
    parser.add_argument("--upstream-ws", default="", help="its WebSocket, if it is another address")
    parser.add_argument("--other", default="", help="HTTP address of a second node (other-node)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=read_port, default=0, help="port; 0 takes any free one")
    parser.add_argument("--rules", type=Path, help="JSON file with a list of rules to begin with")
    parser.add_argument(
        "--parent-pipe",
        action="store_true",
        help="end when standard input, a pipe held by the parent, is closed",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop and return the exit code."""
    options = build_parser().parse_args(arguments)
    return run(lambda: _run(_read_settings(options), parent_pipe=options.parent_pipe))


def _read_settings(options: argparse.Namespace) -> FaultProxySettings:
    return FaultProxySettings(
        upstream=options.upstream,
        upstream_ws=options.upstream_ws,
        other=options.other,
        host=options.host,
        port=options.port,
        rules=() if options.rules is None else _read_file(options.rules),
    )


async def _run(settings: FaultProxySettings, *, parent_pipe: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(_set_at_parent_end(stop)) if parent_pipe else None
        await serve(settings, ready=announce, stop=stop)
        if watch is not None:
            watch.cancel()


async def _set_at_parent_end(stop: asyncio.Event) -> None:
    await wait_for_parent_end()
    stop.set()


def _read_file(path: Path) -> tuple[Rule, ...]:
    try:
        return read_rules(orjson.loads(path.read_bytes()))
    except (OSError, orjson.JSONDecodeError) as error:
        raise BadInput(f"{path} is no file of rules: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
