"""``python -m chain.simulators.bitcoin``: one simulator as a process."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from chain.simulators.bitcoin.model import (
    DEFAULT_PORT,
    RELAY_RATE,
    BitcoinSimulatorSettings,
)
from chain.simulators.bitcoin.server import serve
from chain.simulators.process import announce, read_port, run


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="causeway simulate bitcoin",
        description="A Bitcoin node on regtest with Bitcoin Core's consensus code and bitcoind's "
        "JSON-RPC. Prints one JSON line when it is ready.",
        epilog="Example: causeway simulate bitcoin --port 18443 --seed 7 --data-dir ./bitcoin",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument(
        "--port", type=read_port, default=DEFAULT_PORT, help="port; 0 takes any free one"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="0: the very blocks that bitcoind makes"
    )
    parser.add_argument("--data-dir", type=Path, help="keep the chain there; default: in memory")
    parser.add_argument("--rpcuser", default="", help="name that callers show")
    parser.add_argument(
        "--rpcpassword", default="", help="password; without one a cookie file is written"
    )
    parser.add_argument(
        "--timestamp",
        type=int,
        help="Unix time of the first block; every block then adds one second (reproducible hashes)",
    )
    rates = parser.add_argument_group("fee rates, in satoshi for 1,000 virtual bytes")
    rates.add_argument("--relay-rate", type=int, default=RELAY_RATE)
    rates.add_argument("--incremental-rate", type=int, default=RELAY_RATE)
    rates.add_argument(
        "--fee-rate", type=int, help="what is estimated; default: that there is too little data"
    )
    parser.add_argument(
        "--flush-blocks",
        type=int,
        default=1,
        help="blocks written together: a killed node comes back with up to one fewer lost",
    )
    parser.add_argument(
        "--warm-up", type=float, default=0.0, metavar="SECONDS", help="answer -28 for so long"
    )
    parser.add_argument(
        "--parent-pipe",
        action="store_true",
        help="end when standard input, a pipe held by the parent, is closed",
    )
    return parser


def read_settings(options: argparse.Namespace) -> BitcoinSimulatorSettings:
    """Return the settings that the options describe."""
    return BitcoinSimulatorSettings(
        host=options.host,
        port=options.port,
        user=options.rpcuser,
        password=options.rpcpassword,
        data_dir=options.data_dir,
        seed=options.seed,
        timestamp=options.timestamp,
        relay_rate=options.relay_rate,
        incremental_rate=options.incremental_rate,
        fee_rate=options.fee_rate,
        flush_blocks=max(1, options.flush_blocks),
        warm_up_s=options.warm_up,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop and return the exit code."""
    options = build_parser().parse_args(arguments)
    return run(
        lambda: serve(read_settings(options), ready=announce, parent_pipe=options.parent_pipe)
    )


if __name__ == "__main__":
    sys.exit(main())
