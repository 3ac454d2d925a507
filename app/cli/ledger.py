"""``causeway ledger``: what finance asks the books."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import BOOK_DEFAULT, AsJson, Book, parse_time, read, show
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from kernel.money import Asset
    from ledger.model import Balance, JournalTransfer, Statement, TrialBalanceRow

app = typer.Typer(help="Accounts, balances, statements, transfers.", no_args_is_help=True)

AsOf = Annotated[
    str | None, typer.Option("--as-of", help="ISO 8601, UTC; a date means the end of that day.")
]


async def _assets(conn: AsyncConnection) -> dict[str, Asset]:
    from registry.queries import list_assets

    return {asset.code: asset for asset in await list_assets(conn)}


@app.command("trial-balance")
def trial_balance(
    *, as_of: AsOf = None, book: Book = BOOK_DEFAULT, as_json: AsJson = False
) -> None:
    """Show every account with its debits and credits; each asset sums to zero.

    Example: `causeway ledger trial-balance --as-of 2026-01-31`
    """
    at = parse_time(as_of)

    async def work(conn: AsyncConnection) -> tuple[list[TrialBalanceRow], dict[str, Asset]]:
        from ledger.queries import trial_balance as query

        return await query(conn, book, at_time=at), await _assets(conn)

    rows, assets = read(work)
    show(
        f"Trial balance of book {book}" + (f" as of {iso(at)}" if at else ""),
        ("asset", "account", "debits", "credits", "balance"),
        [
            (
                row.asset,
                row.path,
                assets[row.asset].format(row.debits, code=False),
                assets[row.asset].format(row.credits, code=False),
                assets[row.asset].format(row.balance),
            )
            for row in rows
        ],
        as_json=as_json,
        right=("debits", "credits", "balance"),
    )


@app.command()
def accounts(
    prefix: Annotated[str, typer.Argument(help="A path; without it, every account.")] = "",
    *,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List accounts at or below a path.

    Example: `causeway ledger accounts client:acme`
    """

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from ledger.queries import list_accounts

        assets = await _assets(conn)
        return [
            (
                account.path,
                account.spec.owner,
                str(account.spec.side),
                assets[account.asset].format(account.balance.posted),
                assets[account.asset].format(account.balance.available),
                assets[account.asset].format(account.balance.incoming),
            )
            for account in await list_accounts(conn, book, prefix)
        ]

    columns = ("account", "owner", "side", "balance", "available", "incoming")
    show("Accounts", columns, read(work), as_json=as_json, right=columns[3:])


@app.command()
def balance(
    path: str,
    asset: str,
    *,
    as_of: AsOf = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show one account: its four columns, and the sequence number at which they are true.

    Example: `causeway ledger balance client:acme ETH`
    """
    at = parse_time(as_of)

    async def work(conn: AsyncConnection) -> tuple[Balance, Asset]:
        from ledger.queries import get_balance
        from registry.queries import get_asset

        return await get_balance(conn, book, path, asset, at_time=at), await get_asset(conn, asset)

    found, unit = read(work)
    columns = ("balance", "available", "incoming", "sequence")
    amounts = (unit.format(found.posted), unit.format(found.available), unit.format(found.incoming))
    show(f"{path} in {asset}", columns, [(*amounts, str(found.sequence))], as_json=as_json)


@app.command()
def statement(
    path: str,
    asset: str,
    *,
    since: Annotated[str, typer.Option("--from", help="ISO 8601, UTC.")] = "1970-01-02",
    until: Annotated[str, typer.Option("--to", help="ISO 8601, UTC; exclusive.")] = "2999-01-01",
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show every posting of an account, between its opening and its closing balance.

    Example: `causeway ledger statement client:acme USDT --from 2026-01-01`
    """
    start, end = parse_time(since), parse_time(until)
    if start is None or end is None or end <= start:
        raise BadInput(
            "the statement ends before it starts", remedy="Give --from and --to in order"
        )

    async def work(conn: AsyncConnection) -> tuple[Statement, Asset]:
        from ledger.queries import statement as query
        from registry.queries import get_asset

        return await query(conn, book, path, asset, start, end), await get_asset(conn, asset)

    found, unit = read(work)
    lines = [("", "opening", "", "", unit.format(found.opening))]
    lines += [
        (
            iso(line.recorded_at),
            line.code,
            line.counterpart,
            unit.format(line.change),
            unit.format(line.balance),
        )
        for line in found.lines
    ]
    lines.append(("", "closing", "", "", unit.format(found.closing)))
    columns = ("recorded", "posting", "counterpart", "change", "balance")
    show(f"{path} in {asset}", columns, lines, as_json=as_json, right=columns[3:])


@app.command()
def transfers(
    *,
    path: Annotated[str | None, typer.Option(help="Only those that touch this account.")] = None,
    code: Annotated[str | None, typer.Option(help="Only this kind of posting.")] = None,
    after: Annotated[int, typer.Option(help="Only after this sequence number.")] = 0,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List transfers in journal order, a page at a time.

    Example: `causeway ledger transfers --code deposit.credited`
    """

    async def work(conn: AsyncConnection) -> tuple[list[JournalTransfer], dict[str, Asset]]:
        from ledger.queries import list_transfers

        page = await list_transfers(conn, book, path=path, code=code, after=after)
        return page, await _assets(conn)

    page, assets = read(work)
    columns = ("sequence", "recorded", "kind", "posting", "debit", "credit", "amount")
    rows = [
        (
            str(item.sequence),
            iso(item.recorded_at),
            item.kind.name.lower(),
            item.code,
            item.debit,
            item.credit,
            assets[item.asset].format(item.amount),
        )
        for item in page
    ]
    show("Transfers", columns, rows, as_json=as_json, right=("amount",))
