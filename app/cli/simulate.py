"""``causeway simulate``: local components as processes, for development and for other projects."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Run a local chain, venue or bank; prints one JSON line when it is ready.",
    no_args_is_help=True,
)

#: The simulators have command lines of their own; everything after the name goes there.
FORWARD = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings=FORWARD, add_help_option=False)
def evm(context: typer.Context) -> None:
    """Run an anvil-compatible EVM chain.

    Example: `causeway simulate evm --port 8545 --block-time 1`
    """
    from chain.simulators.evm.__main__ import main

    raise typer.Exit(main(context.args))


@app.command(context_settings=FORWARD, add_help_option=False)
def bitcoin(context: typer.Context) -> None:
    """Run a Bitcoin node on regtest with bitcoind's JSON-RPC and Bitcoin Core's consensus code.

    Example: `causeway simulate bitcoin --port 18443 --seed 7 --data-dir ./bitcoin`
    """
    from chain.simulators.bitcoin.__main__ import main

    raise typer.Exit(main(context.args))


@app.command("evm-faults", context_settings=FORWARD, add_help_option=False)
def evm_faults(context: typer.Context) -> None:
    """Run a proxy before an EVM node that fails as its rules say; PUT rules to /faults.

    Example: `causeway simulate evm-faults --upstream http://127.0.0.1:8545 --port 8546`
    """
    from chain.simulators.faults.__main__ import main

    raise typer.Exit(main(context.args))


@app.command(context_settings=FORWARD, add_help_option=False)
def venue(context: typer.Context) -> None:
    """Run a venue that speaks Binance spot or Kraken, with faults and recordings on order.

    Example: `causeway simulate venue --port 9001 --data-dir ./venue --seed 7 --dialect kraken`
    """
    from venues.simulator.__main__ import main

    raise typer.Exit(main(context.args))


@app.command(context_settings=FORWARD, add_help_option=False)
def bank(context: typer.Context) -> None:
    """Run a bank that takes pain.001 and sends pain.002, camt.053, camt.054 and MT940, with faults on order.

    Example: `causeway simulate bank --port 9101 --data-dir ./bank --account DE89370400440532013000:EUR:1000000`
    """
    from banks.simulator.__main__ import main

    raise typer.Exit(main(context.args))


@app.command(context_settings=FORWARD, add_help_option=False)
def wire(context: typer.Context) -> None:
    """Run a TCP proxy before any server that delays, cuts, swallows or corrupts; PUT rules to /faults.

    Example: `causeway simulate wire --to 127.0.0.1:8545 --port 8547 --seed 7`
    """
    from app.faults.wire_process import main

    raise typer.Exit(main(context.args))
