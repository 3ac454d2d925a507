"""``causeway simulate wire``: one fault proxy before a server, as a process."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson

from app.faults.proxy import FaultProxy, read_target
from app.faults.wire_rules import Rule, read_rules, storm
from chain.simulators.process import announce, read_port, run, serve_until_told
from kernel.errors import BadInput

PROGRAM: Final = "causeway simulate wire"


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="A TCP proxy that fails on order: late, slow, cut, reset, half-open, corrupted "
        "or refused connections. Prints one JSON line when it is ready; PUT a JSON list of rules "
        "to its control address meanwhile.",
    )
    parser.add_argument(
        "--to", required=True, help="the server: HOST:PORT, or unix:/path of its socket"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=read_port, default=0, help="port; 0 takes any free one")
    parser.add_argument("--control-port", type=read_port, default=0, help="port of /faults")
    parser.add_argument("--rules", type=Path, help="JSON file with a list of rules to begin with")
    parser.add_argument("--seed", type=int, help="draw a storm of faults from this seed")
    parser.add_argument(
        "--storm-seconds", type=float, default=60.0, help="how long the storm lasts; then calm"
    )
    parser.add_argument(
        "--parent-pipe",
        action="store_true",
        help="end when standard input, a pipe held by the parent, is closed",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop and return the exit code."""
    options = build_parser().parse_args(arguments)
    return run(lambda: _run(options))


async def _run(options: argparse.Namespace) -> None:
    proxy = FaultProxy(
        read_target(options.to),
        host=options.host,
        port=options.port,
        control_port=options.control_port,
        rules=() if options.rules is None else _read_file(options.rules),
    )
    await proxy.start()
    async with asyncio.TaskGroup() as group:
        playing = None
        if options.seed is not None:
            steps = storm(options.seed, seconds=options.storm_seconds)
            playing = group.create_task(proxy.play(steps))
        try:
            await serve_until_told(
                asyncio.Event(),
                ready=lambda: announce(
                    {
                        "host": proxy.host,
                        "port": proxy.port,
                        "control": proxy.control_url,
                        "seed": options.seed,
                    }
                ),
                stop=proxy.stop,
                parent_pipe=options.parent_pipe,
            )
        finally:
            if playing is not None:
                playing.cancel()


def _read_file(path: Path) -> tuple[Rule, ...]:
    try:
        return read_rules(orjson.loads(path.read_bytes()))
    except (OSError, orjson.JSONDecodeError) as error:
        raise BadInput(f"{path} is no file of rules: {error}") from error
