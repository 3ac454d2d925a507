"""``causeway bank``: our accounts at banks, what is paid through them, and what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from app.cli import bank_files, bank_statements
from app.cli.common import BOOK_DEFAULT, AsJson, Book, Money, read, show

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

app = typer.Typer(help="Accounts at banks: payment files and statements.", no_args_is_help=True)
app.add_typer(bank_files.app, name="files")
bank_statements.register(app)


@app.command()
def accounts(*, book: Book = BOOK_DEFAULT, as_json: AsJson = False) -> None:
    """List our accounts at banks: what is booked on each, and what no payment file has promised yet.

    Accounts are registered by two people: `causeway registry propose bank_account`.

    Example: `causeway bank accounts`
    """

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from custody.banks.payment_files import count_available
        from custody.model import bank_account_path
        from ledger.queries import get_balances
        from registry.queries import list_bank_accounts

        money = await Money.load(conn)
        found = await list_bank_accounts(conn)
        keys = {(bank_account_path(item.code), item.asset) for item in found}
        booked = await get_balances(conn, book, keys)
        free = await count_available(conn, book, found)
        return [
            (
                *(item.code, item.bank, item.iban, item.bic, item.owner, item.entity),
                money.text(balance.posted if balance is not None else 0, item.asset),
                money.text(free[item.code], item.asset),
                "yes" if item.active else "no",
            )
            for item in found
            for balance in (booked.get((bank_account_path(item.code), item.asset)),)
        ]

    columns = ("code", "bank", "iban", "bic", "owner", "entity", "booked", "free", "active")
    show("Bank accounts", columns, read(work), as_json=as_json, right=("booked", "free"))
