"""The command line ``causeway``.

Exit codes: 0 done, 1 refused or found wrong, 2 usage, 3 an outside component is unavailable,
130 interrupted. An error says what was wrong, where, and what to do; never a traceback for bad
input. Heavy libraries are imported by the command that needs them, so that ``--help`` is instant.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated

import typer
from typer.main import get_command

from app.cli import (
    alerts,
    bank,
    bank_match,
    bench,
    custody,
    desk,
    fails,
    house,
    ledger,
    ledger_export,
    ledger_import,
    ledger_journals,
    ledger_moves,
    ledger_periods,
    ledger_proofs,
    marketdata,
    obligations,
    prices,
    recon,
    registry,
    registry_calendars,
    report,
    restore,
    settle,
    settle_defaults,
    simulate,
    up,
    venues,
)
from kernel.errors import BadInput, CausewayError
from kernel.redaction import redact_text, show_uncaught

INTERRUPTED = 130

app = typer.Typer(
    name="causeway",
    help="Settlement and custody bridge for OTC crypto desks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
house.register(app)
bench.register(app)
app.command()(up.up)
app.add_typer(simulate.app, name="simulate")
ledger_export.register(ledger.app)
ledger_proofs.register(ledger.app)
ledger_periods.register(ledger.app)
ledger_moves.register(ledger.app)
ledger_import.register(ledger.app)
ledger.app.add_typer(ledger_journals.app, name="journal")
app.add_typer(ledger.app, name="ledger")
app.add_typer(custody.app, name="custody")
app.add_typer(bank.app, name="bank")
app.add_typer(desk.app, name="desk")
app.add_typer(venues.app, name="venues")
app.add_typer(marketdata.app, name="marketdata")
app.add_typer(prices.app, name="prices")
app.add_typer(obligations.app, name="obligations")
settle.app.add_typer(bank_match.app, name="match")
settle.app.add_typer(settle_defaults.app, name="default")
app.add_typer(settle.app, name="settle")
app.add_typer(fails.app, name="fails")
registry.app.add_typer(registry_calendars.calendars, name="calendars")
registry.app.add_typer(registry_calendars.cutoffs, name="cutoffs")
app.add_typer(registry.app, name="registry")
app.add_typer(report.app, name="report")
app.add_typer(alerts.app, name="alerts")
app.add_typer(recon.app, name="recon")
app.add_typer(restore.app, name="restore")


@app.command()
def demo(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON only.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running.")] = False,
    guided: Annotated[
        bool, typer.Option("--guided", help="Provoke the house chapter by chapter, and prove each.")
    ] = False,
    auto: Annotated[
        bool, typer.Option("--auto", help="With --guided: ask nobody, pick at random by the seed.")
    ] = False,
    chapter: Annotated[
        list[str] | None,
        typer.Option("--chapter", help="With --guided: only this one, by its name; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same keys and prices.")] = 1,
) -> None:
    """Carry real value through the whole bridge on this machine, and prove the books.

    With --guided the house is provoked: a chain that lies, a silent venue, too little money, a crash at
    a point of your choice, an insider; each chapter ends in proofs. It asks its viewer to go on, unless
    --auto or --json is given.

    Example: `causeway demo --json | jq .proofs`
    """
    if guided:
        from app.demo.guided.run import run_guided

        raise typer.Exit(
            run_guided(as_json=as_json, keep=keep, auto=auto, seed=seed, only=chapter or ())
        )
    if auto or chapter:
        raise BadInput("--auto and --chapter are of the guided demo", remedy="Add --guided")
    from app.demo.run import run_demo

    raise typer.Exit(run_demo(as_json=as_json, keep=keep, seed=seed))


@cache
def _command() -> Callable[..., object]:
    """Return the commands, read from their signatures once in a process."""
    return get_command(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: *arguments*, or those of the process."""
    if not __debug__:
        # Assertions guard against programmer errors near money: they are not optional.
        sys.exit("error: causeway refuses to run under python -O")
    sys.excepthook = show_uncaught
    try:
        _command()(args=arguments)
    except CausewayError as error:
        sys.stderr.write(f"error: {redact_text(str(error))}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)
