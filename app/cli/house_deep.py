"""``causeway verify --deep``: every promise of the house asked of its rows, and of the world outside."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from app.cli.common import (
    chain_nodes,
    chain_providers,
    clock,
    emit,
    on_database,
    run,
    settings,
    show,
)

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from sqlalchemy.ext.asyncio import AsyncEngine

    from app.oracles.model import Examined, Report
    from app.oracles.outside import ChainView, Outside, PlaceView
    from app.workers.venue_file import VenueSection
    from registry.model import Chain

FAULTS_EXIT = 1


def verify_deep(*, house: Path | None, at_rest: bool, as_json: bool) -> None:
    """Ask every oracle; end with exit code 1 where a promise is broken."""

    async def work(engine: AsyncEngine) -> tuple[Report, list[str]]:
        from app.oracles.run import examine

        async with _outside(engine, house) as (outside, silent):
            report = await examine(engine, outside=outside, at_rest=at_rest, progress=_tell)
            return report, silent

    report, silent = run(lambda: on_database(work))
    if as_json:
        emit(_json(report, silent))
    else:
        _show(report, silent)
    if not report.held:
        sys.exit(FAULTS_EXIT)


def _tell(name: str) -> None:
    if sys.stderr.isatty():
        typer.echo(f"asking: {name}", err=True)


@contextlib.asynccontextmanager
async def _outside(
    engine: AsyncEngine, house: Path | None
) -> AsyncIterator[tuple[Outside, list[str]]]:
    """Open what is named: nodes by their variables, venues by the house file; banks by statements.

    What cannot be opened keeps nothing else from being asked: it is told with the result.
    """
    from app.oracles.outside import Outside, StatementView, VenueView
    from app.workers.house_file import read_house
    from app.workers.venue_desk import open_desk
    from kernel.db import transact
    from kernel.errors import CausewayError
    from kernel.telemetry import configure_logging
    from registry.queries import list_chains

    # What a connection has to say goes to standard error: standard output is the answer alone.
    configure_logging("error", as_json=settings().log_json)
    venue_sections: tuple[VenueSection, ...] = ()
    if house is not None:
        venue_sections = tuple(read_house(house).venues)
    chains: list[ChainView] = []
    venues: list[PlaceView] = []
    silent: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        for chain in await transact(engine, list_chains):
            try:
                chains.append(await _open_chain(stack, engine, chain))
            except CausewayError as error:
                silent.append(f"{chain.code}: {error}")
        for section in venue_sections:
            desk_at = open_desk(engine, section, book=1, clock=clock(), chance=lambda: 0.0)
            try:
                opened = await stack.enter_async_context(desk_at)
            except CausewayError as error:
                silent.append(f"{section.name}: {error}")
            else:
                venues.append(VenueView(opened.gateway, clock()))
        yield Outside(chains=chains, venues=venues, banks=[StatementView()]), silent


async def _open_chain(stack: AsyncExitStack, engine: AsyncEngine, chain: Chain) -> ChainView:
    from app.oracles.outside import BitcoinView, EvmView
    from kernel.errors import OutsideUnavailable
    from registry.model import BITCOIN

    here = settings()
    if chain.kind == BITCOIN:
        if here.bitcoin_url is None:
            raise OutsideUnavailable("no node is named", remedy="Set CAUSEWAY_BITCOIN_URL")
        node = await stack.enter_async_context(await chain_nodes(engine, chain.code))
        return BitcoinView(chain.code, node)
    if here.evm_url is None:
        raise OutsideUnavailable("no node is named", remedy="Set CAUSEWAY_EVM_URL")
    providers = await chain_providers(engine, chain.code, here.evm_url)
    return EvmView(chain.code, await stack.enter_async_context(providers))


def _json(report: Report, silent: list[str]) -> dict[str, Any]:
    return {
        "held": report.held,
        "oracles": [
            {
                "name": one.oracle.name,
                "promise": one.oracle.promise,
                "examined": one.examined,
                "held": one.held,
                "findings": [{"where": f.where, "what": f.what} for f in one.findings],
                "unknown": list(one.unknown),
            }
            for one in report.examined
        ],
        "silent": silent,
    }


def _show(report: Report, silent: list[str]) -> None:
    rows = [(one.oracle.name, f"{one.examined:,}", _verdict(one)) for one in report.examined]
    show("Promises", ("oracle", "examined", "verdict"), rows, as_json=False, right=("examined",))
    if report.findings:
        found = [(item.oracle, item.where, item.what) for item in report.findings]
        show("Broken promises", ("oracle", "where", "what"), found, as_json=False)
    for line in (*silent, *(text for one in report.examined for text in one.unknown)):
        typer.echo(f"not known: {line}")
    total = sum(one.examined for one in report.examined)
    verdict = f"{len(report.findings)} findings" if report.findings else "every promise holds"
    typer.echo(f"{verdict}: {total:,} facts examined")


def _verdict(one: Examined) -> str:
    if not one.held:
        return f"BROKEN: {len(one.findings)}"
    return f"holds; {len(one.unknown)} not known" if one.unknown else "holds"
