"""``causeway settle preview``: what a cycle would come to before anything moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    Money,
    clock,
    emit,
    parse_date,
    show,
    write,
)
from app.cli.settle_explain import ITEM_COLUMNS, item_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from settlement.places import Need
    from settlement.preview import Preview, Saving

SAVING_COLUMNS: Final = (
    *("asset", "gross", "moves", "saved", "carried", "bilateral", "multilateral", "cycles", "note"),
)
NEED_COLUMNS: Final = ("asset", "rail", "from", "need", "available", "short")
AMOUNTS: Final = (
    *("amount", "gross", "moves", "saved", "carried", "bilateral", "multilateral", "cycles"),
    *("gross_pay", "gross_receive", "obligations", "need", "available", "short"),
)


def register(app: typer.Typer) -> None:
    """Add this command to a group."""
    app.command()(preview)


def preview(
    *,
    value_date: Annotated[
        str | None, typer.Option("--value-date", help="Everything due by then; else today in UTC.")
    ] = None,
    window: Annotated[str, typer.Option(help="Whose thresholds count.")] = "preview",
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Calculate what a cycle would come to: net, saved, and what each place needs. Nothing is kept.

    Below the agreements in force, it compares the forms of netting as if all netted with all.

    Example: `causeway settle preview --value-date 2026-01-31 --window afternoon`
    """
    now = clock().now()
    due = parse_date(value_date, now)

    async def work(conn: AsyncConnection) -> tuple[Preview, Money]:
        from settlement.preview import preview_cycle
        from settlement.solvers.loading import load_solvers

        found = await preview_cycle(
            conn,
            book=book,
            business_date=due,
            window=window,
            now=now,
            solvers=load_solvers(),
        )
        return found, await Money.load(conn)

    found, money = write(work, dry_run=True)
    tables = {
        "items": (ITEM_COLUMNS, item_rows(found.items, money)),
        "carried": (ITEM_COLUMNS, item_rows(found.carried, money)),
        "savings": (SAVING_COLUMNS, _saving_rows(found.savings, money)),
        "needs": (NEED_COLUMNS, _need_rows(found.needs, money)),
    }
    if as_json:
        told = {
            name: [dict(zip(columns, row, strict=True)) for row in rows]
            for name, (columns, rows) in tables.items()
        }
        counts = {"runs": str(len(found.runs)), "left": str(found.left)}
        emit({"value_date": due.isoformat(), **counts, **told})
        return
    titles = {
        "items": f"Net, due by {due}",
        "carried": "Too small to move",
        "savings": "Netting",
        "needs": "Needed",
    }
    for name, (columns, rows) in tables.items():
        right = tuple(column for column in columns if column in AMOUNTS)
        show(titles[name], columns, rows, as_json=False, right=right)
    if found.left:
        typer.echo(f"{found.left} obligations more are due than one cycle takes", err=True)


def _saving_rows(savings: Sequence[Saving], money: Money) -> list[tuple[str, ...]]:
    return [
        (
            one.asset,
            money.text(one.gross, one.asset),
            money.text(one.moves, one.asset),
            money.text(one.saved, one.asset),
            money.text(one.carried, one.asset),
            money.text(one.forms.bilateral, one.asset),
            money.text(one.forms.multilateral, one.asset),
            money.text(one.forms.gross - one.forms.cleared, one.asset),
            one.forms.note,
        )
        for one in savings
    ]


def _need_rows(needs: Sequence[Need], money: Money) -> list[tuple[str, ...]]:
    return [
        (
            one.asset,
            str(one.rail),
            one.location,
            money.text(one.need, one.asset),
            money.text(one.available, one.asset),
            money.text(one.short, one.asset),
        )
        for one in needs
    ]
