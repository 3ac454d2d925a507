"""``causeway desk kill, resume, switches, exposure``: what stops a desk, and what is at risk."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli import desk_limits
from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    Money,
    Reason,
    clock,
    emit,
    on_database,
    one_of,
    read,
    run,
    settings,
    show,
    show_one,
    write,
)
from app.cli.operators import Approver, ApproverKey, As, Credentials, Key, credentials
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from app.workers.venue_file import VenueSection
    from risk.breaker import Breaker
    from risk.counterparty import PartyExposure
    from risk.model import Control
    from trading.kill import KillReport
    from venues.ports import VenueGateway

NOT_CLEAR: Final = 3
WAIT_S_MAX: Final = 600
EXPOSURE_COLUMNS: Final = ("party", "kind", "amounts", "worth")

Desk = Annotated[str | None, typer.Option(help="The desk; else name --all.")]
All = Annotated[bool, typer.Option("--all", help="The house's switch, which holds for every desk.")]
House = Annotated[
    Path | None,
    typer.Option("--house", help="The house file, which says how its venues are reached."),
]


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    desk_limits.register(app)
    for command in (kill, resume, switches, exposure):
        app.command()(command)


def kill(
    *,
    desk: Desk = None,
    all_: All = False,
    house: House = None,
    wait: Annotated[
        int, typer.Option(min=1, max=WAIT_S_MAX, help="Seconds that accounts are cleared for.")
    ] = 30,
    reason: Reason,
    as_: As,
    key: Key,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Halt a desk at once, withdraw its quotes, and cancel all orders at its accounts. One person does.

    With --house this command asks the venues itself, and other people's orders at the accounts go too.
    Without it the cancels are put on record: the house that runs carries them out, and this command
    waits until it has. What is not clear at the end makes the exit code 3; give the command again, it
    goes on where it stopped.

    Example: `causeway desk kill --desk otc --house house.toml --reason "a bad feed" --as dan --key dan.key`
    """
    name, who = _switch_of(desk, all_=all_), credentials(as_, key)
    sections = _sections(house)

    async def work(engine: AsyncEngine) -> KillReport:
        from trading.kill import KillPolicy
        from trading.kill import kill as clear

        # Before anything is connected: a venue that hangs delays no halt.
        me = await _halt(engine, who, name, reason)
        policy = KillPolicy(patience=timedelta(seconds=wait))
        async with _gateways(engine, sections, desk, book) as gateways:
            return await clear(
                engine, gateways, desk=desk, by=me, reason=reason, clock=clock(), policy=policy
            )

    report = run(lambda: on_database(work))
    if not report.accounts:
        typer.echo(
            f"{desk or 'the house'} hedges nowhere, so there was no account to clear. If that cannot be,"
            " look at the desk's name: `causeway desk lines`",
            err=True,
        )
    _show_kill(report, as_json=as_json)


def resume(
    *,
    desk: Desk = None,
    all_: All = False,
    to: Annotated[str, typer.Option(help="active, or reducing: only less risk.")] = "active",
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    as_json: AsJson = False,
) -> None:
    """Loosen a switch: two people sign. Quotes and orders that were taken back do not come back.

    Example: `causeway desk resume --desk otc --reason "the feed is mended" --as ada --key ada.key
    --approver ben --approver-key ben.key`
    """
    from risk.model import ControlState

    name, state = _switch_of(desk, all_=all_), one_of(ControlState, to, "state of a desk")
    first, second = credentials(as_, key), credentials(approver, approver_key)

    async def work(conn: AsyncConnection) -> Control:
        from risk.controls import loosen, loosen_bytes, own_control

        people = [await item.person(conn) for item in (first, second)]
        version = (await own_control(conn, name)).version
        payload = loosen_bytes(name, state, reason, version=version)
        return await loosen(
            conn,
            name,
            state,
            signatures={item.code: item.sign(payload) for item in people},
            reason=reason,
            now=clock().now(),
        )

    show_one("Switch", _control_facts(write(work)), as_json=as_json)


def switches(*, as_json: AsJson = False) -> None:
    """List the switches of desks and the breakers of venue accounts that were ever turned.

    Example: `causeway desk switches`
    """

    async def work(
        conn: AsyncConnection,
    ) -> tuple[list[Control], list[tuple[str, str, Breaker]]]:
        from risk.controls import list_controls
        from risk.venue_health import list_breakers

        return await list_controls(conn), await list_breakers(conn)

    controls, breakers = read(work)
    rows = [tuple(_control_facts(item).values()) for item in controls]
    rows += [
        (f"{venue}/{account}", str(item.state), iso(item.since), "system:breaker", item.reason)
        for venue, account, item in breakers
    ]
    show("Switches", ("of", "state", "since", "by", "reason"), rows, as_json=as_json)


def exposure(
    *,
    party: Annotated[str | None, typer.Option(help="Only this counterparty.")] = None,
    currency: Annotated[str, typer.Option(help="In which amounts are valued.")] = "USDT",
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show what is at risk with each counterparty now: deals, settlement, venues. Nothing is netted.

    Example: `causeway desk exposure --party acme --currency USDT`
    """

    async def work(conn: AsyncConnection) -> tuple[list[PartyExposure], Money]:
        from risk.counterparty import exposures

        money = await Money.load(conn)
        money.asset(currency)
        now = clock().now()
        return await exposures(conn, book, currency, now=now, party=party), money

    found, money = read(work, book=book)
    if as_json:
        emit([_exposure_json(item, money) for item in found])
        return
    rows = [row for item in found for row in _exposure_rows(item, money)]
    show("At risk", EXPOSURE_COLUMNS, rows, as_json=False, right=("amounts", "worth"))


def _switch_of(desk: str | None, *, all_: bool) -> str:
    from risk.model import EVERY

    if (desk is None) == (not all_):
        raise BadInput("a desk, or the house", remedy="Give one of --desk and --all")
    return EVERY if desk is None else desk


def _sections(house: Path | None) -> tuple[VenueSection, ...]:
    if house is None:
        return ()
    from app.workers.house_file import read_house

    return read_house(house).venues


async def _halt(engine: AsyncEngine, who: Credentials, name: str, reason: str) -> str:
    """Halt first; return the operator's code."""
    from kernel.db import transact
    from risk.controls import MAY_TIGHTEN, set_control
    from risk.model import ControlState

    async def work(conn: AsyncConnection) -> str:
        me, now = await who.person(conn, *MAY_TIGHTEN), clock().now()
        await set_control(conn, name, ControlState.HALTED, by=me.code, reason=reason, now=now)
        return me.code

    return await transact(engine, work)


@contextlib.asynccontextmanager
async def _gateways(
    engine: AsyncEngine, sections: Sequence[VenueSection], desk: str | None, book: int
) -> AsyncIterator[list[VenueGateway]]:
    """Open what can be opened of the desk's accounts; one that cannot keeps no other from it."""
    from app.workers.venue_desk import open_desk
    from kernel.db import transact
    from kernel.errors import CausewayError
    from kernel.telemetry import configure_logging
    from trading.kill import places_of

    # What a connection has to say goes to standard error: standard output is the answer alone.
    configure_logging("error", as_json=settings().log_json)
    wanted = await transact(engine, lambda conn: places_of(conn, desk))
    found: list[VenueGateway] = []
    async with contextlib.AsyncExitStack() as stack:

        async def reach(section: VenueSection) -> None:
            desk_at = open_desk(engine, section, book=book, clock=clock(), chance=lambda: 0.0)
            try:
                opened = await stack.enter_async_context(desk_at)
            except CausewayError as error:
                typer.echo(f"{section.name} cannot be opened: {error}", err=True)
            else:
                found.append(opened.gateway)

        # Side by side: one that takes its time keeps the others waiting for no longer than that.
        async with asyncio.TaskGroup() as group:
            for section in sections:
                if desk is None or (section.venue, section.account) in wanted:
                    group.create_task(reach(section))
        yield found


def _show_kill(report: KillReport, *, as_json: bool) -> None:
    accounts = [
        {
            "account": f"{item.venue}/{item.account}",
            "clear": "yes" if item.is_clear else "NO",
            "rounds": str(item.rounds),
            "left": " ".join(item.left),
            "reason": item.reason,
        }
        for item in report.accounts
    ]
    facts = {**_control_facts(report.control), "quotes_withdrawn": str(report.quotes)}
    if report.quotes_reason:
        facts["quotes_left"] = report.quotes_reason
    if as_json:
        emit({**facts, "clear": report.is_clear, "accounts": accounts})
    else:
        show_one("Switch", facts, as_json=False)
        columns = ("account", "clear", "rounds", "left", "reason")
        show("Accounts", columns, [tuple(i.values()) for i in accounts], as_json=False)
    if not report.is_clear:
        typer.echo(
            "Not all is taken back: orders may still trade at accounts that are not clear. Give the"
            " command again, with --house; or cancel them at the venue",
            err=True,
        )
        raise typer.Exit(NOT_CLEAR)


def _control_facts(item: Control) -> dict[str, str]:
    return {
        "of": item.desk,
        "state": str(item.state),
        "since": "" if item.since is None else iso(item.since),
        "by": item.by,
        "reason": item.reason,
    }


def _exposure_rows(item: PartyExposure, money: Money) -> list[tuple[str, str, str, str]]:
    kinds = sorted({kind for kind, _ in item.amounts})
    rows = [
        (
            item.party,
            str(kind),
            ", ".join(
                money.text(units, asset)
                for (of_kind, asset), units in sorted(item.amounts.items())
                if of_kind is kind
            ),
            _worth(item.value(kind), item, money),
        )
        for kind in kinds
    ]
    limit = "no limit" if item.limits is None else _limit(item, money)
    return [*rows, (item.party, "all", f"limit: {limit}", _worth(item.value(), item, money))]


def _exposure_json(item: PartyExposure, money: Money) -> dict[str, object]:
    return {
        "party": item.party,
        "worth": _worth(item.value(), item, money),
        "limit": "no limit" if item.limits is None else _limit(item, money),
        "parts": [
            {
                "kind": str(kind),
                "asset": asset,
                "amount": money.text(units, asset),
            }
            for (kind, asset), units in sorted(item.amounts.items())
        ],
    }


def _limit(item: PartyExposure, money: Money) -> str:
    assert item.limits is not None
    units = item.limits.exposure_units
    return "no limit" if units is None else money.text(units, item.limits.currency)


def _worth(value: int | None, item: PartyExposure, money: Money) -> str:
    return "no price" if value is None else money.text(value, item.worth.currency)
