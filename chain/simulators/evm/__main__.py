"""``python -m chain.simulators.evm``: one simulator as a process."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from chain.simulators.evm.model import (
    DEFAULT_CHAIN_ID,
    DEFAULT_MNEMONIC,
    DEFAULT_SLOTS_IN_AN_EPOCH,
    EvmSimulatorSettings,
)
from chain.simulators.evm.server import serve
from chain.simulators.process import announce, read_port, run


def build_parser() -> argparse.ArgumentParser:
    """Return the command line, its options named as anvil names them where anvil has them."""
    parser = argparse.ArgumentParser(
        prog="python -m chain.simulators.evm",
        description="An EVM development node over py-evm. Prints one JSON line when it is ready.",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; whoever reaches the port rules the chain, no key is asked for: "
        "leave loopback only inside a network of your own",
    )
    parser.add_argument("--port", type=read_port, default=8545, help="port; 0 takes any free one")
    parser.add_argument("--chain-id", type=int, default=DEFAULT_CHAIN_ID)
    parser.add_argument("--mnemonic", default=DEFAULT_MNEMONIC, help="BIP-39 words")
    parser.add_argument("--accounts", type=int, default=10, help="number of funded accounts")
    parser.add_argument("--slots-in-an-epoch", type=int, default=DEFAULT_SLOTS_IN_AN_EPOCH)
    parser.add_argument("--no-mining", action="store_true", help="make blocks only when asked")
    parser.add_argument("--block-time", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0, help="randomness of the blocks")
    parser.add_argument(
        "--timestamp",
        type=int,
        default=None,
        help="Unix time of the genesis; every block then adds one second (reproducible hashes)",
    )
    parser.add_argument(
        "--parent-pipe",
        action="store_true",
        help="end when standard input, a pipe held by the parent, is closed",
    )
    return parser


def read_settings(options: argparse.Namespace) -> EvmSimulatorSettings:
    """Return the settings that the options describe."""
    return EvmSimulatorSettings(
        host=options.host,
        port=options.port,
        chain_id=options.chain_id,
        mnemonic=options.mnemonic,
        accounts=options.accounts,
        slots_in_an_epoch=options.slots_in_an_epoch,
        automine=not options.no_mining,
        block_time_s=options.block_time,
        seed=options.seed,
        timestamp=options.timestamp,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop and return the exit code."""
    options = build_parser().parse_args(arguments)
    return run(
        lambda: serve(read_settings(options), ready=announce, parent_pipe=options.parent_pipe)
    )


if __name__ == "__main__":
    sys.exit(main())
