"""`python -m venues.simulator`: a venue simulator as a process.

Prints one JSON line on standard output when it is ready, and ends on SIGTERM, on SIGINT or, with
`--parent-pipe`, when its standard input is closed. Exit codes: 0 stopped, 1 cannot start, 2 usage.
"""

import argparse
import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kernel.parent import wait_for_parent_end
from venues.simulator import schedule
from venues.simulator.decimals import units_from_text
from venues.simulator.errors import SettingsInvalid, SimulatorError, VenueRefusal
from venues.simulator.model import AccountSpec, FeeRates
from venues.simulator.replay import open_recording
from venues.simulator.server import VenueSimulator
from venues.simulator.settings import (
    DEFAULT_ACCOUNT,
    DEFAULTS,
    DialectName,
    VenueSimulatorSettings,
    account_spec,
    symbol_from_text,
    with_assets_of,
)

GC_THRESHOLDS: Final = (50_000, 20, 50)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="venues.simulator", description="A simulated spot venue.")
    line.add_argument(
        "--host",
        default="127.0.0.1",
        help="where to listen; whoever reaches the port can read the API secrets and rule the venue "
        "through /control, which asks for no key: leave loopback only inside a network of your own",
    )
    line.add_argument(
        "--dialect",
        choices=[dialect.value for dialect in DialectName],
        default=DialectName.BINANCE.value,
        help="which venue's language is spoken",
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
        help="instead of the dialect's usual ones",
    )
    line.add_argument("--maker-ppm", type=int, default=None, help="maker fee in millionths")
    line.add_argument("--taker-ppm", type=int, default=None, help="taker fee in millionths")
    line.add_argument("--fee-asset", default=None, help="charge fees in this asset")
    line.add_argument("--step-ms", type=int, default=250, help="0: prices move only when told")
    line.add_argument("--withdrawal-ms", type=int, default=0, help="-1: settled only by hand")
    line.add_argument("--enforce-weight", action="store_true", help="answer 429 over the limit")
    line.add_argument(
        "--trading-key-can-withdraw",
        action="store_true",
        help="let the first account's trading key withdraw, as no careful house lets it",
    )
    line.add_argument(
        "--faults",
        metavar="FILE|SEED:RATE",
        default=None,
        help="a random schedule of faults: a JSON file, or every kind at a rate, like 7:0.05",
    )
    line.add_argument(
        "--record", type=Path, default=None, metavar="FILE", help="write what everybody sees"
    )
    line.add_argument(
        "--replay",
        type=Path,
        default=None,
        metavar="FILE",
        help="show a recording instead of the synthetic market; its symbols unless --symbol",
    )
    line.add_argument("--replay-speed", type=float, default=1.0, help="times the recorded pace")
    line.add_argument("--parent-pipe", action="store_true", help="end when stdin is closed")
    return line


def settings_from(arguments: argparse.Namespace) -> VenueSimulatorSettings:
    """Settings from a parsed command line.

    Raises:
        SettingsInvalid, RecordingInvalid: a text or file cannot be read.
    """
    symbols = tuple(symbol_from_text(text) for text in arguments.symbol)
    if arguments.replay is not None:
        symbols = symbols or open_recording(arguments.replay).symbols
    delay_ms = None if arguments.withdrawal_ms < 0 else arguments.withdrawal_ms
    return VenueSimulatorSettings(
        data_dir=arguments.data_dir,
        dialect=DialectName(arguments.dialect),
        host=arguments.host,
        port=arguments.port,
        seed=arguments.seed,
        symbols=symbols,
        assets=with_assets_of(symbols, DialectName(arguments.dialect)) if symbols else (),
        accounts=_accounts(arguments),
        withdrawal_delay_ms=delay_ms,
        step_interval_ms=arguments.step_ms,
        enforce_weight=arguments.enforce_weight,
        record_to=arguments.record,
        replay_from=arguments.replay,
        replay_speed=arguments.replay_speed,
        faults=None if arguments.faults is None else schedule.from_text(arguments.faults),
    )


async def run(settings: VenueSimulatorSettings, *, parent_pipe: bool) -> None:
    """Run until told to stop.

    Raises:
        SimulatorError: the simulator cannot start.
        Exception: what broke while it ran.
    """
    simulator = VenueSimulator(settings)
    await simulator.start()
    _spare_the_collector()
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


def _spare_the_collector() -> None:
    """Let garbage be looked for rarely: records are kept, and what is dropped is in no cycle.

    With Python's own thresholds an eighth of an order's time went into looking through the records.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


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
        "withdraw_api_key": accounts[0].keys[0].api_key if accounts[0].keys else "",
        "withdraw_secret": accounts[0].keys[0].secret if accounts[0].keys else "",
        "dialect": simulator.core.state.genesis.dialect,
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
    defaults = DEFAULTS[DialectName(arguments.dialect)]
    balances = dict(defaults.balances) if not arguments.balance else {}
    for text in arguments.balance:
        asset, _, amount = text.partition("=")
        try:
            balances[asset] = units_from_text("amount", amount)
        except VenueRefusal as error:
            raise SettingsInvalid(f"balance {text!r}: write it like ETH=12.5") from error
    usual = defaults.fees
    fees = FeeRates(
        usual.maker_ppm if arguments.maker_ppm is None else arguments.maker_ppm,
        usual.taker_ppm if arguments.taker_ppm is None else arguments.taker_ppm,
        arguments.fee_asset,
    )
    first = account_spec(
        arguments.seed,
        arguments.account,
        balances=balances,
        api_key=arguments.api_key,
        secret=arguments.secret,
        fees=fees,
        dialect=DialectName(arguments.dialect),
        trading_key_can_withdraw=arguments.trading_key_can_withdraw,
    )
    others = (
        account_spec(
            arguments.seed,
            name,
            balances=balances,
            fees=fees,
            dialect=DialectName(arguments.dialect),
        )
        for name in arguments.more_accounts
    )
    return (first, *others)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
