"""``causeway obligations``: what booked deals make each side owe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import BOOK_DEFAULT, AsJson, Book, Money, one_of, read, show

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from settlement.model import Obligation

app = typer.Typer(help="What each side owes.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep the group a group while it has one command."""


@app.command("list")
def list_(
    *,
    party: Annotated[str | None, typer.Option(help="Only those of this party.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="Only those in this state.")] = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List obligations by value date; `pay` is what the desk owes, `receive` what it is owed.

    Deals become obligations when a settlement run is opened.

    Example: `causeway obligations list --state open`
    """
    from settlement.model import ObligationState

    states = (
        tuple(ObligationState)
        if state is None
        else (one_of(ObligationState, state, "state of an obligation"),)
    )

    async def work(conn: AsyncConnection) -> tuple[list[Obligation], Money]:
        from settlement.queries import list_obligations

        found = await list_obligations(conn, book, states)
        return [item for item in found if party in {None, item.party}], await Money.load(conn)

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
