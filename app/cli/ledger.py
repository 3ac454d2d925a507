"""``causeway ledger``: what finance asks the books."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import ledger_books, ledger_transfers
from app.cli.common import BOOK_DEFAULT, AsJson, Book, Money, emit, read, show
from app.cli.ledger_points import (
    AsOf,
    AtSequence,
    Effective,
    Limit,
    number,
    parse_day,
    parse_point,
    parse_start,
    parse_stop,
    say_more,
    title_at,
)
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from ledger.model import Balance, OpenHold, StatementLine
    from ledger.points import Point
    from ledger.views import AccountPage, TreeNode

app = typer.Typer(help="Accounts, balances, statements, transfers.", no_args_is_help=True)
ledger_transfers.register(app)
ledger_books.register(app)

FIRST_DAY = "1970-01-01"
LAST_DAY = "2999-01-01"
DEPTH_DEFAULT = 16


@app.command()
def accounts(
    prefix: Annotated[str, typer.Argument(help="A path; without it, every account.")] = "",
    *,
    tree: Annotated[bool, typer.Option("--tree", help="With subtotals for each segment.")] = False,
    depth: Annotated[
        int, typer.Option(help="Segments of the tree's longest path.")
    ] = DEPTH_DEFAULT,
    as_of: AsOf = None,
    effective: Effective = None,
    at_sequence: AtSequence = None,
    after: Annotated[
        str | None, typer.Option(help='Only after this account: "client:acme ETH".')
    ] = None,
    limit: Limit = 1_000,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List accounts at or below a path, or their tree with subtotals.

    Example: `causeway ledger accounts client:acme`
    """
    point = parse_point(as_of, effective, at_sequence)
    if tree:
        _show_tree(prefix, point, depth, book=book, as_json=as_json)
        return
    path, _, asset = (after or "").partition(" ")

    async def work(conn: AsyncConnection) -> tuple[AccountPage, Money]:
        from ledger.queries import page_accounts

        page = await page_accounts(
            conn,
            book,
            prefix,
            at_sequence=point.at_sequence,
            at_time=point.at_time,
            effective_on=point.effective_on,
            after=(path, asset) if path else None,
            limit=limit,
        )
        return page, await Money.load(conn)

    page, money = read(work, book=book)
    rows = [
        (
            account.path,
            account.spec.owner,
            str(account.spec.side),
            money.text(account.balance.posted, account.asset),
            money.text(account.balance.available, account.asset),
            money.text(account.balance.incoming, account.asset),
        )
        for account in page.items
    ]
    columns = ("account", "owner", "side", "balance", "available", "incoming")
    show(title_at("Accounts", point), columns, rows, as_json=as_json, right=columns[3:])
    say_more(page.after and f'"{page.after[0]} {page.after[1]}"')


def _show_tree(prefix: str, point: Point, depth: int, *, book: int, as_json: bool) -> None:
    async def work(conn: AsyncConnection) -> tuple[list[TreeNode], Money]:
        from ledger.tree import account_tree

        return await account_tree(conn, book, prefix, point, depth=depth), await Money.load(conn)

    nodes, money = read(work, book=book)
    rows = [
        (
            node.path if as_json else "  " * (node.depth - 1) + node.path.rpartition(":")[2],
            node.asset,
            str(node.accounts),
            str(node.side or "both"),
            number(money, node.debits, node.asset),
            number(money, node.credits, node.asset),
            money.text(node.balance, node.asset),
        )
        for node in nodes
    ]
    columns = ("account", "asset", "accounts", "side", "debits", "credits", "balance")
    show(title_at("Account tree", point), columns, rows, as_json=as_json, right=columns[4:])


@app.command()
def balance(
    path: str,
    asset: str,
    *,
    as_of: AsOf = None,
    effective: Effective = None,
    at_sequence: AtSequence = None,
    holds: Annotated[
        bool, typer.Option("--holds", help="With the open holds of the same instant.")
    ] = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show one account, and the sequence number at which that is true; --json has the four columns.

    Example: `causeway ledger balance client:acme ETH`
    """
    point = parse_point(as_of, effective, at_sequence)
    if holds and point.effective_on is not None:
        raise BadInput(
            "holds have no effective date", remedy="Ask for them with --as-of or --at-sequence"
        )

    async def work(conn: AsyncConnection) -> tuple[Balance, list[OpenHold], int | None, Money]:
        from ledger.holds import get_position
        from ledger.queries import get_balance, sequence_at

        money = await Money.load(conn)
        money.asset(asset)
        if holds:
            known = point.at_sequence
            if point.at_time is not None:
                known = await sequence_at(conn, book, point.at_time)
            position = await get_position(conn, book, path, asset, at_sequence=known)
            return position.balance, list(position.holds), position.after, money
        found = await get_balance(
            conn,
            book,
            path,
            asset,
            at_sequence=point.at_sequence,
            at_time=point.at_time,
            effective_on=point.effective_on,
        )
        return found, [], None, money

    found, behind, after, money = read(work, book=book)
    facts = {
        "balance": money.text(found.posted, asset),
        "available": money.text(found.available, asset),
        "incoming": money.text(found.incoming, asset),
        "sequence": str(found.sequence),
    }
    held = ledger_transfers.hold_rows(behind, money)
    if as_json:
        four = ("debits_pending", "debits_posted", "credits_pending", "credits_posted")
        columns = {name: money.text(getattr(found, name), asset) for name in four}
        listed = [dict(zip(ledger_transfers.HOLD_COLUMNS, row, strict=True)) for row in held]
        emit([{**facts, **columns, **({"holds": listed} if holds else {})}])
    else:
        title = title_at(f"{path} in {asset}", point)
        show(title, tuple(facts), [tuple(facts.values())], as_json=False)
        if holds:
            show("Open holds", ledger_transfers.HOLD_COLUMNS, held, as_json=False)
    say_more(after)


@app.command()
def statement(
    path: str,
    asset: str,
    *,
    since: Annotated[
        str, typer.Option("--from", help="ISO 8601, UTC; a date means its beginning.")
    ] = FIRST_DAY,
    until: Annotated[
        str, typer.Option("--to", help="ISO 8601, UTC, exclusive; a date means its end.")
    ] = LAST_DAY,
    by_effective: Annotated[
        bool, typer.Option("--effective", help="By effective date, not by recorded time.")
    ] = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show every posting of an account, between its opening and its closing balance.

    Example: `causeway ledger statement client:acme USDT --from 2026-01-01`
    """
    if by_effective:
        _show_effective(path, asset, since, until, book=book, as_json=as_json)
        return
    start, end = parse_start(since), parse_stop(until)
    if end <= start:
        raise BadInput(
            "the statement ends before it starts", remedy="Give --from and --to in order"
        )

    async def work(conn: AsyncConnection) -> tuple[int, list[StatementLine], int, Money]:
        from ledger.queries import statement as query

        money = await Money.load(conn)
        money.asset(asset)
        told = await query(conn, book, path, asset, start, end)
        return told.opening, list(told.lines), told.closing, money

    opening, lines, closing, money = read(work, book=book)
    rows = [("", "opening", "", "", money.text(opening, asset))]
    rows += [_cells(iso(line.recorded_at), line, money, asset) for line in lines]
    rows.append(("", "closing", "", "", money.text(closing, asset)))
    columns = ("recorded", "posting", "counterpart", "change", "balance")
    show(f"{path} in {asset}", columns, rows, as_json=as_json, right=columns[3:])


def _show_effective(
    path: str, asset: str, since: str, until: str, *, book: int, as_json: bool
) -> None:
    first, last = parse_day(since), parse_day(until)

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from ledger.account_statement import page_effective_statement
        from ledger.queries import STATEMENT_LINES_MAX

        money = await Money.load(conn)
        money.asset(asset)
        page = await page_effective_statement(conn, book, path, asset, first, last)
        rows: list[tuple[str, ...]] = [("", "", "opening", "", "", money.text(page.opening, asset))]
        while True:
            rows += [
                (
                    item.effective_on.isoformat(),
                    *_cells(iso(item.line.recorded_at), item.line, money, asset),
                )
                for item in page.lines
            ]
            if page.after is None:
                break
            if len(rows) > STATEMENT_LINES_MAX:
                raise BadInput("the statement is too long", remedy="Ask for fewer days")
            page = await page_effective_statement(
                conn, book, path, asset, first, last, after=page.after
            )
        rows.append(("", "", "closing", "", "", money.text(page.closing, asset)))
        return rows

    rows = read(work, book=book)
    columns = ("effective", "recorded", "posting", "counterpart", "change", "balance")
    title = f"{path} in {asset} by effective date"
    show(title, columns, rows, as_json=as_json, right=columns[4:])


def _cells(
    at: str, line: StatementLine, money: Money, asset: str
) -> tuple[str, str, str, str, str]:
    return (
        at,
        line.code,
        line.counterpart,
        money.text(line.change, asset),
        money.text(line.balance, asset),
    )
