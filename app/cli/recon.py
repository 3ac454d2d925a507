"""``causeway recon``: the books against chains, venues and banks, and the breaks that are found."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    DryRun,
    Money,
    Reason,
    clock,
    emit,
    one_of,
    read,
    show,
    show_one,
    write,
)
from app.cli.operators import As, Key, credentials
from kernel.clock import iso

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from kernel.events import DomainEvent
    from reporting.recon.model import Break, Line, Run

app = typer.Typer(help="The books against chains, venues and banks.", no_args_is_help=True)

BreakId = Annotated[UUID, typer.Argument(metavar="BREAK", help="Id of the break.")]
LINE_COLUMNS: Final = (
    "kind",
    "place",
    "asset",
    "books",
    "moved_since",
    "outside",
    "explained",
    "difference",
    "as_of",
    "evidence",
)
BREAK_COLUMNS: Final = (
    "id",
    "state",
    "kind",
    "place",
    "asset",
    "amount",
    "days",
    "assigned",
    "text",
)
FOUND_WRONG: Final = 1


@app.command("run")
def run_(*, book: Book = BOOK_DEFAULT, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Compare everything that is held with the newest word from outside, and record it.

    The running house reads chains, venues and banks; this asks none of them again. Exit code 1: it
    differs, or something is not known.

    Example: `causeway recon run`
    """
    now = clock().now()

    async def work(conn: AsyncConnection) -> tuple[Run, Money]:
        from reporting.recon.runs import reconcile_house

        return await reconcile_house(conn, book, now=now), await Money.load(conn)

    _show_run(*write(work, dry_run=dry_run), as_json=as_json)


@app.command()
def runs(*, book: Book = BOOK_DEFAULT, as_json: AsJson = False) -> None:
    """List reconciliations, newest first.

    Example: `causeway recon runs`
    """

    async def work(conn: AsyncConnection) -> list[Run]:
        from reporting.recon.runs import list_runs

        return list(await list_runs(conn, book))

    columns = ("id", "at", "result", "places", "found", "sequence", "sha256")
    rows = [
        (
            str(item.id),
            iso(item.at),
            str(item.result),
            str(len(item.lines)),
            str(len(item.found)),
            str(item.sequence),
            item.sha256,
        )
        for item in read(work)
    ]
    show("Reconciliations", columns, rows, as_json=as_json)


@app.command()
def explain(
    thing: Annotated[UUID, typer.Argument(metavar="ID", help="Id of a run, or of a break.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show a run with every place as it was, or the life of a break.

    Example: `causeway recon explain 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """

    async def work(
        conn: AsyncConnection,
    ) -> tuple[Run | None, Break | None, list[DomainEvent], Money]:
        from kernel.events import list_history
        from reporting.recon.breaks import ENTITY, get_break
        from reporting.recon.runs import find_run

        run = await find_run(conn, thing)
        item = None if run is not None else await get_break(conn, thing)
        history = [] if item is None else await list_history(conn, ENTITY, thing)
        return run, item, history, await Money.load(conn)

    run, item, history, money = read(work)
    if run is not None:
        _show_run(run, money, as_json=as_json)
    if item is not None:
        _show_break(item, history, money, as_json=as_json)


@app.command()
def breaks(
    *,
    state: Annotated[
        str | None, typer.Option(help="Only those in this state; else open and assigned.")
    ] = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List breaks, oldest first, aged in business days; a page of 500.

    Example: `causeway recon breaks --state resolved`
    """
    from reporting.recon.model import STANDING, BreakState

    states = STANDING if state is None else (one_of(BreakState, state, "state of a break"),)
    now = clock().now()

    async def work(conn: AsyncConnection) -> tuple[list[Break], Money]:
        from reporting.recon.breaks import list_breaks

        return await list_breaks(conn, book, states=states), await Money.load(conn)

    found, money = read(work)
    rows = [_break_row(item, money, now) for item in found]
    show("Breaks", BREAK_COLUMNS, rows, as_json=as_json, right=("amount", "days"))


@app.command()
def assign(
    break_id: BreakId,
    *,
    to: Annotated[str, typer.Option(metavar="CODE", help="Who looks after it.")],
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Say who looks after a break.

    Example: `causeway recon assign 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --to cleo --as ada --key ada.key`
    """
    who = credentials(as_, key)
    now = clock().now()

    async def work(conn: AsyncConnection) -> tuple[Break, Money]:
        from reporting.recon.breaks import assign as assign_

        me = await who.person(conn)
        item = await assign_(conn, break_id, to=to, by=me.operator, now=now)
        return item, await Money.load(conn)

    item, money = write(work)
    _show_break(item, [], money, as_json=as_json)


@app.command()
def resolve(
    break_id: BreakId,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    second: Annotated[str, typer.Option(metavar="CODE", help="Another operator, who signs it.")],
    second_key: Annotated[
        Path, typer.Option("--second-key", metavar="FILE", help="The other operator's key.")
    ],
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Resolve a break at its present figure, with a reason that two people sign.

    Example: `causeway recon resolve 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "the bank corrects it tomorrow" --as cleo --key
    cleo.key --second ada --second-key ada.key`
    """
    first, other = credentials(as_, key), credentials(second, second_key)
    now = clock().now()

    async def work(conn: AsyncConnection) -> tuple[Break, Money]:
        from reporting.recon.breaks import get_break, resolution_bytes
        from reporting.recon.breaks import resolve as resolve_

        me, them = await first.person(conn), await other.person(conn)
        payload = resolution_bytes(await get_break(conn, break_id), reason)
        item = await resolve_(
            conn,
            break_id,
            reason=reason,
            by=me.operator,
            second=them.operator,
            signature=them.sign(payload),
            now=now,
        )
        return item, await Money.load(conn)

    item, money = write(work, dry_run=dry_run)
    _show_break(item, [], money, as_json=as_json)


def _show_run(run: Run, money: Money, *, as_json: bool) -> None:
    from reporting.recon.model import Result

    lines = [_line_row(line, money) for line in run.lines]
    if as_json:
        emit(
            {
                "id": str(run.id),
                "at": iso(run.at),
                "result": str(run.result),
                "sequence": run.sequence,
                "sha256": run.sha256,
                "lines": [dict(zip(LINE_COLUMNS, row, strict=True)) for row in lines],
                "found": [
                    {
                        "key": f.key,
                        "kind": str(f.kind),
                        "amount": _amount(f.amount, f.asset, money),
                        "text": f.text,
                    }
                    for f in run.found
                ],
            }
        )
    else:
        title = f"Reconciliation {run.id} at {iso(run.at)}: {run.result}"
        show(title, LINE_COLUMNS, lines, as_json=False, right=LINE_COLUMNS[3:8])
        found = [(f.key, str(f.kind), _amount(f.amount, f.asset, money), f.text) for f in run.found]
        if found:
            show("Found", ("key", "kind", "amount", "text"), found, as_json=False)
    if run.result is not Result.CLEAN:
        raise typer.Exit(FOUND_WRONG)


def _show_break(item: Break, history: list[DomainEvent], money: Money, *, as_json: bool) -> None:
    facts = dict(zip(BREAK_COLUMNS, _break_row(item, money, clock().now()), strict=True))
    facts["resolution"] = item.resolution
    facts["signed_by"] = ", ".join(item.resolved_by or ())
    told = [
        {"at": iso(event.at), "event": event.name, "by": event.actor, "reason": event.reason}
        for event in history
    ]
    if as_json:
        emit({**facts, "history": told})
        return
    show_one("Break", facts, as_json=False)
    if told:
        columns = ("at", "event", "by", "reason")
        show("Its life", columns, [tuple(line.values()) for line in told], as_json=False)


def _line_row(line: Line, money: Money) -> tuple[str, ...]:
    return (
        str(line.kind),
        line.place,
        line.asset,
        _amount(line.books, line.asset, money),
        _amount(line.moved, line.asset, money),
        _amount(line.outside, line.asset, money),
        _amount(line.explained, line.asset, money),
        _amount(line.difference, line.asset, money),
        "" if line.as_of is None else iso(line.as_of),
        line.evidence or line.note,
    )


def _break_row(item: Break, money: Money, now: datetime) -> tuple[str, ...]:
    from reporting.recon.breaks import age_days

    found = item.found
    return (
        str(item.id),
        str(item.state),
        str(found.kind),
        f"{found.place_kind} {found.place}",
        found.asset,
        _amount(found.amount, found.asset, money),
        str(age_days(item, now.date())),
        item.assigned_to or "",
        found.text,
    )


def _amount(units: int | None, asset: str, money: Money) -> str:
    return "?" if units is None else money.text(units, asset)
