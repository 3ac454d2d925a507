"""``causeway obligations``: what each side owes, from deals, from a file or entered by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    Amount,
    AsJson,
    Book,
    DryRun,
    Money,
    Reason,
    clock,
    one_of,
    parse_date,
    read,
    show,
    show_one,
    write,
)
from app.cli.evidence_files import read_bytes
from app.cli.ledger_points import Limit
from app.cli.operators import As, Key, credentials
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from settlement.model import Obligation

app = typer.Typer(help="What each side owes.", no_args_is_help=True)


@app.command("list")
def list_(
    *,
    party: Annotated[str | None, typer.Option(help="Only those of this party.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="Only those in this state.")] = None,
    due: Annotated[
        bool, typer.Option("--due", help="Only what is open, and due today (UTC) or before.")
    ] = False,
    by_day: Annotated[
        str | None, typer.Option("--by", help="With --due: due on that day or before.")
    ] = None,
    after: Annotated[
        UUID | None,
        typer.Option("--after", metavar="OBLIGATION", help="Those that follow this one."),
    ] = None,
    limit: Limit = 1_000,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List obligations by value date, a page at a time; `pay` is what the desk owes.

    Deals become obligations when a settlement run is opened.

    Example: `causeway obligations list --state open`
    """
    from settlement.model import ObligationState

    states = (
        (tuple(ObligationState) if not due else (ObligationState.OPEN, ObligationState.DISPUTED))
        if state is None
        else (one_of(ObligationState, state, "state of an obligation"),)
    )
    last = parse_date(by_day, clock().now()) if due or by_day else None

    async def work(conn: AsyncConnection) -> tuple[list[Obligation], Money]:
        from settlement.queries import find_obligation, list_obligations

        point = None
        if after is not None:
            known = await find_obligation(conn, after)
            if known is None:
                raise BadInput(f"there is no obligation {after}")
            point = (known[0].value_date, after)
        found = await list_obligations(
            conn, book, states, party=party, due_by=last, after=point, limit=limit
        )
        return found, await Money.load(conn)

    found, money = read(work)
    columns = ("id", "state", "value_date", "party", "direction", "amount", "leg", "deal")
    rows = [
        (
            str(item.id),
            str(item.state),
            item.value_date.isoformat(),
            item.party,
            str(item.direction),
            money.text(item.amount, item.asset),
            item.leg,
            str(item.deal_id),
        )
        for item in found
    ]
    show("Obligations", columns, rows, as_json=as_json, right=("amount",))
    if len(found) == limit:
        typer.echo(f"there may be more: --after {found[-1].id}", err=True)


@app.command("add")
def add(
    party: str,
    direction: Annotated[
        str, typer.Argument(help="pay: the desk owes it; receive: the party does.")
    ],
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help='"300 USDT"')],
    *,
    reference: Annotated[str, typer.Option("--ref", help="Your own; one obligation for each.")],
    value_date: Annotated[
        str | None, typer.Option("--value-date", help="When it is due; else today in UTC.")
    ] = None,
    reason: Reason,
    as_: As,
    key: Key,
    book: Book = BOOK_DEFAULT,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Enter an obligation that no deal stands behind; its claim is in the books already.

    Post the claim first, with a journal: `payable:<party>:open` or `receivable:<party>:open`.

    Example: `causeway obligations add acme receive "300 USDT" --ref inv-1 --reason "custody fee of March" --as ada --key ada.key`
    """
    from settlement.model import Direction

    quantity, who = Amount.parse(amount), credentials(as_, key)
    way = one_of(Direction, direction, "direction")
    now = clock().now()
    day = parse_date(value_date, now)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from settlement.import_model import ImportedObligation
        from settlement.imports import import_obligations
        from settlement.obligation_file import key_of

        money = await Money.load(conn)
        me = await who.person(conn)
        row = ImportedObligation(
            key=key_of(reference),
            party=party,
            direction=way,
            asset=quantity.asset,
            amount=money.units(quantity),
            value_date=day,
        )
        new = await import_obligations(conn, [row], book=book, by=me.code, reason=reason, now=now)
        return {
            "reference": reference,
            "party": party,
            "direction": str(way),
            "amount": money.text(row.amount, row.asset),
            "value_date": day.isoformat(),
            "is_new": str(bool(new)).lower(),
        }

    found = write(work, dry_run=dry_run)
    show_one("Obligation", found, as_json=as_json, dry_run=dry_run)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV with a header line.")],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    book: Book = BOOK_DEFAULT,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Enter a file of obligations that no deals stand behind: all of them, or none.

    Columns: ref, party, direction (pay or receive), asset, amount, value_date. A reference that is
    known is entered once; their claims are in the books already.

    Example: `causeway obligations import owed.csv --reason "fees of March" --as ada --key ada.key --dry-run`
    """
    who = credentials(as_, key)
    data = read_bytes(file)
    now = clock().now()

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from settlement.imports import import_obligations
        from settlement.obligation_file import read_obligations

        money = await Money.load(conn)
        me = await who.person(conn)
        rows = read_obligations(file.name, data, money.assets)
        new = await import_obligations(conn, rows, book=book, by=me.code, reason=reason, now=now)
        return {"file": file.name, "rows": str(len(rows)), "new": str(len(new))}

    found = write(work, dry_run=dry_run)
    show_one("Obligations", found, as_json=as_json, dry_run=dry_run)
