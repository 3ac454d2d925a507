"""`python -m venues.simulator`: a venue simulator as a process.

Prints one JSON line on standard output when it is ready, and ends on SIGTERM, on SIGINT or, with
`--parent-pipe`, when its standard input is closed. Exit codes: 0 stopped, 1 cannot start, 2 usage.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from kernel.parent import wait_for_parent_end
from venues.simulator.decimals import units_from_text
from venues.simulator.errors import SettingsInvalid, SimulatorError, VenueRefusal
from venues.simulator.model import AccountSpec, FeeRates
from venues.simulator.server import VenueSimulator
from venues.simulator.settings import (
    DEFAULT_ACCOUNT,
    DEFAULT_BALANCES,
    DEFAULT_SYMBOLS,
    VenueSimulatorSettings,
    account_spec,
    symbol_from_text,
    with_assets_of,
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="venues.simulator", description="A simulated spot venue.")
    line.add_argument(
        "--host",
        default="127.0.0.1",
        help="where to listen; whoever reaches the port can read the API secrets and rule the venue "
        "through /control, which asks for no key: leave loopback only inside a network of your own",
    )
    line.add_argument("--port", type=int, default=0, help="0 takes any free one")
    line.add_argument("--seed", type=int, default=1, help="of prices and of default API keys")
    line.add_argument("--data-dir", type=Path, required=True, help="where the journal is")
    line.add_argument("--account", default=DEFAULT_ACCOUNT, help="name of the first account")
    line.add_argument("--api-key", default="", help="of the first account; default: from the seed")
    line.add_argument("--secret", default="", help="of the first account; default: from the seed")
    line.add_argument("--more-accounts", nargs="*", default=[], help="names, keys from the seed")
    line.add_argument(
        "--balance", nargs="*", default=[], metavar="ASSET=AMOUNT", help="of every account"
    )
    line.add_argument(
        "--symbol",
        nargs="*",
        default=[],
        metavar="BASE/QUOTE:tick=..:lot=..:min=..:mid=..",
        help="instead of the default ETHUSDT and BTCUSDT",
    )
    line.add_argument("--maker-ppm", type=int, default=1_000, help="maker fee in millionths")
    line.add_argument("--taker-ppm", type=int, default=1_000, help="taker fee in millionths")
    line.add_argument("--fee-asset", default=None, help="charge fees in this asset")
    line.add_argument("--step-ms", type=int, default=250, help="0: prices move only when told")
    line.add_argument("--withdrawal-ms", type=int, default=0, help="-1: settled only by hand")
    line.add_argument("--enforce-weight", action="store_true", help="answer 429 over the limit")
    line.add_argument("--parent-pipe", action="store_true", help="end when stdin is closed")
    return line


def settings_from(arguments: argparse.Namespace) -> VenueSimulatorSettings:
    """Settings from a parsed command line.

    Raises:
        SettingsInvalid: a text cannot be read.
    """
    symbols = tuple(symbol_from_text(text) for text in arguments.symbol)
    delay_ms = None if arguments.withdrawal_ms < 0 else arguments.withdrawal_ms
    return VenueSimulatorSettings(
        data_dir=arguments.data_dir,
        host=arguments.host,
        port=arguments.port,
        seed=arguments.seed,
        symbols=symbols or DEFAULT_SYMBOLS,
        assets=with_assets_of(symbols),
        accounts=_accounts(arguments),
        withdrawal_delay_ms=delay_ms,
        step_interval_ms=arguments.step_ms,
        enforce_weight=arguments.enforce_weight,
    )


async def run(settings: VenueSimulatorSettings, *, parent_pipe: bool) -> None:
    """Run until told to stop.

    Raises:
        SimulatorError: the simulator cannot start.
        Exception: what broke while it ran.
    """
    simulator = VenueSimulator(settings)
    await simulator.start()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, simulator.stopping.set)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(_stop_with_parent(simulator)) if parent_pipe else None
        sys.stdout.write(json.dumps(ready_line(simulator)) + "\n")
        sys.stdout.flush()
        await simulator.stopping.wait()
        if watching is not None:
            watching.cancel()
    await simulator.stop()


async def _stop_with_parent(simulator: VenueSimulator) -> None:
    await wait_for_parent_end()
    simulator.stopping.set()


def ready_line(simulator: VenueSimulator) -> dict[str, object]:
    """What a parent process needs to know."""
    accounts = simulator.accounts
    return {
        "event": "ready",
        "component": "venue",
        "url": simulator.url,
        "ws_url": simulator.ws_url,
        "api_key": accounts[0].api_key,
        "secret": accounts[0].secret,
        "accounts": [
            {"name": spec.name, "api_key": spec.api_key, "secret": spec.secret} for spec in accounts
        ],
        "symbols": list(simulator.core.state.markets),
        "replayed": simulator.core.replayed,
        "pid": os.getpid(),
    }


def main(line: Sequence[str]) -> int:
    """Run the command line; answers the exit code."""
    arguments = parser().parse_args(line)
    try:
        asyncio.run(run(settings_from(arguments), parent_pipe=arguments.parent_pipe))
    except SimulatorError as error:
        sys.stderr.write(f"venue simulator: {error}\n")
        return 1
    return 0


def _accounts(arguments: argparse.Namespace) -> tuple[AccountSpec, ...]:
    balances = dict(DEFAULT_BALANCES) if not arguments.balance else {}
    for text in arguments.balance:
        asset, _, amount = text.partition("=")
        try:
            balances[asset] = units_from_text("amount", amount)
        except VenueRefusal as error:
            raise SettingsInvalid(f"balance {text!r}: write it like ETH=12.5") from error
    fees = FeeRates(arguments.maker_ppm, arguments.taker_ppm, arguments.fee_asset)
    first = account_spec(
        arguments.seed,
        arguments.account,
        balances=balances,
        api_key=arguments.api_key,
        secret=arguments.secret,
        fees=fees,
    )
    others = (
        account_spec(arguments.seed, name, balances=balances, fees=fees)
        for name in arguments.more_accounts
    )
    return (first, *others)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
