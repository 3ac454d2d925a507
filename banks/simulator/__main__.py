"""`python -m banks.simulator`: a simulated bank as a process.

Prints one JSON line on standard output when it is ready, and ends on SIGTERM, on SIGINT or, with
`--parent-pipe`, when its standard input is closed. Exit codes: 0 stopped, 1 cannot start, 2 usage.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Final

from banks.simulator.model import COINS, SimulatorError
from banks.simulator.server import BankServer
from banks.statement_model import FileFormat
from kernel.parent import wait_for_parent_end

FIRST_DAY: Final = "2026-01-05"
FORMATS: Final = [str(form) for form in FileFormat if form is not FileFormat.CAMT_054_08]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="banks.simulator", description="A simulated bank.")
    line.add_argument(
        "--host",
        default="127.0.0.1",
        help="where to listen; whoever reaches the port rules the bank, no key is asked for: leave "
        "loopback only inside a network of your own",
    )
    line.add_argument("--port", type=int, default=0, help="0 takes any free one")
    line.add_argument("--data-dir", type=Path, required=True, help="journal, orders, files")
    line.add_argument(
        "--account",
        nargs="*",
        default=[],
        metavar="IBAN:CURRENCY:BALANCE",
        help="balance in whole units; an account that exists is left as it is",
    )
    line.add_argument("--format", choices=FORMATS, default=FORMATS[1], help="of statements")
    line.add_argument("--today", type=date.fromisoformat, default=date.fromisoformat(FIRST_DAY))
    line.add_argument("--no-fsync", action="store_true", help="faster, for tests")
    line.add_argument("--parent-pipe", action="store_true", help="end when stdin is closed")
    return line


def server_from(arguments: argparse.Namespace) -> BankServer:
    """Return the bank of a parsed command line."""
    return BankServer(
        arguments.data_dir,
        host=arguments.host,
        port=arguments.port,
        today=arguments.today,
        fsync=not arguments.no_fsync,
    )


def open_accounts(server: BankServer, texts: Sequence[str], form: str) -> None:
    """Open the accounts of the command line that are not there yet.

    Raises:
        SimulatorError: a text is none of IBAN:CURRENCY:BALANCE.
    """
    for text in texts:
        iban, _, rest = text.partition(":")
        currency, _, balance = rest.partition(":")
        if not currency or not (balance or "0").isdecimal():
            raise SimulatorError(f"{text!r} is not IBAN:CURRENCY:BALANCE")
        if iban not in server.bank.accounts:
            units = int(balance or "0") * COINS
            command = {"verb": "account", "iban": iban, "currency": currency, "balance": units}
            server.execute({**command, "format": form})


async def run(arguments: argparse.Namespace) -> None:
    """Run until told to stop.

    Raises:
        SimulatorError: the bank cannot start.
    """
    server = server_from(arguments)
    await server.start()
    try:
        open_accounts(server, arguments.account, arguments.format)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.stopping.set)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.follow_folder())
            watching = None
            if arguments.parent_pipe:
                watching = tasks.create_task(_stop_with_parent(server))
            sys.stdout.write(json.dumps(ready_line(server)) + "\n")
            sys.stdout.flush()
            await server.stopping.wait()
            if watching is not None:
                watching.cancel()
    finally:
        await server.stop()


async def _stop_with_parent(server: BankServer) -> None:
    await wait_for_parent_end()
    server.stopping.set()


def ready_line(server: BankServer) -> dict[str, object]:
    """What a parent process needs to know."""
    return {
        "event": "ready",
        "component": "bank",
        "url": server.url,
        "accounts": sorted(server.bank.accounts),
        "today": server.bank.today.isoformat(),
        "replayed": server.replayed,
        "pid": os.getpid(),
    }


def main(line: Sequence[str]) -> int:
    """Run the command line; answers the exit code."""
    arguments = parser().parse_args(line)
    try:
        asyncio.run(run(arguments))
    except SimulatorError as error:
        sys.stderr.write(f"bank simulator: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
