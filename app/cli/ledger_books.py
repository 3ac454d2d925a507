"""``causeway ledger``: trial balance, coverage of client money, closed periods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import BOOK_DEFAULT, AsJson, Book, Money, parse_time, read, show
from app.cli.ledger_points import (
    SEQUENCE_MAX,
    AfterSequence,
    AsOf,
    AtSequence,
    Effective,
    Limit,
    number,
    parse_point,
    say_more,
    title_at,
)
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from ledger.coverage import Coverage, CoverageChange
    from ledger.model import TrialBalanceRow
    from ledger.points import Point
    from ledger.views import AssetTotals, PeriodPage

WRONG = 1
PAGES_MAX = 1_000
"""Pages of the history of coverage that one command reads."""


def register(app: typer.Typer) -> None:
    """Add the commands to ``causeway ledger``."""
    app.command("trial-balance")(trial_balance)
    app.command()(coverage)
    app.command()(periods)


def trial_balance(
    *,
    as_of: AsOf = None,
    effective: Effective = None,
    at_sequence: AtSequence = None,
    totals: Annotated[bool, typer.Option("--totals", help="Only the sums of each asset.")] = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show every account with its debits and credits; each asset sums to zero, or the exit code is 1.

    Example: `causeway ledger trial-balance --as-of 2026-01-31`
    """
    point = parse_point(as_of, effective, at_sequence)
    if totals:
        _show_totals(point, book=book, as_json=as_json)
        return

    async def work(conn: AsyncConnection) -> tuple[list[TrialBalanceRow], Money]:
        from ledger.queries import trial_balance as query

        rows = await query(
            conn,
            book,
            at_sequence=point.at_sequence,
            at_time=point.at_time,
            effective_on=point.effective_on,
        )
        return rows, await Money.load(conn)

    rows, money = read(work, book=book)
    show(
        title_at(f"Trial balance of book {book}", point),
        ("asset", "account", "debits", "credits", "balance"),
        [
            (
                row.asset,
                row.path,
                number(money, row.debits, row.asset),
                number(money, row.credits, row.asset),
                money.text(row.balance, row.asset),
            )
            for row in rows
        ],
        as_json=as_json,
        right=("debits", "credits", "balance"),
    )
    sums: dict[str, int] = {}
    for row in rows:
        sums[row.asset] = sums.get(row.asset, 0) + row.debits - row.credits
    if any(sums.values()):
        raise typer.Exit(WRONG)


def _show_totals(point: Point, *, book: int, as_json: bool) -> None:
    async def work(conn: AsyncConnection) -> tuple[list[AssetTotals], Money]:
        from ledger.trial import sum_trial_balance

        return await sum_trial_balance(conn, book, point), await Money.load(conn)

    found, money = read(work, book=book)
    columns = ("asset", "accounts", "debits", "credits", "pending", "zero")
    rows = [
        (
            item.asset,
            str(item.accounts),
            number(money, item.debits, item.asset),
            number(money, item.credits, item.asset),
            number(money, item.debits_pending, item.asset),
            "yes" if item.is_zero else "NO",
        )
        for item in found
    ]
    title = title_at(f"Trial balance of book {book}", point)
    show(title, columns, rows, as_json=as_json, right=columns[1:5])
    if not all(item.is_zero for item in found):
        raise typer.Exit(WRONG)


def coverage(
    *,
    as_of: AsOf = None,
    at_sequence: AtSequence = None,
    block: Annotated[
        int | None, typer.Option(min=0, max=SEQUENCE_MAX, help="At the end of this block.")
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Each block that changed it, from the first on.")
    ] = False,
    short: Annotated[
        bool, typer.Option("--short", help="Of the history only where clients were short.")
    ] = False,
    asset: Annotated[str | None, typer.Option(help="Of the history only this asset.")] = None,
    after: Annotated[
        int,
        typer.Option(min=0, max=SEQUENCE_MAX, help="Of the history only after this block."),
    ] = 0,
    limit: Limit = 1_000,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show whether what is held for clients covers what is owed to them; if not, the exit code is 1.

    Example: `causeway ledger coverage --as-of 2026-01-31`
    """
    if history or short:
        if as_of is not None or at_sequence is not None or block is not None:
            raise BadInput("the history has no point of time", remedy="Give --after a block")
        _show_history(book, asset, after, limit, short=short, as_json=as_json)
        return
    at = parse_time(as_of)

    async def work(conn: AsyncConnection) -> tuple[list[Coverage], Money]:
        from ledger.coverage import coverage as query

        found = await query(conn, book, at_sequence=at_sequence, at_time=at, at_block=block)
        return found, await Money.load(conn)

    found, money = read(work, book=book)
    columns = ("asset", "held", "owed", "spare", "covered")
    rows = [(item.asset, *_cells(item, money)) for item in found]
    show("Client money", columns, rows, as_json=as_json, right=columns[1:4])
    if not all(item.covered for item in found):
        raise typer.Exit(WRONG)


def _cells(item: Coverage, money: Money) -> tuple[str, str, str, str]:
    return (
        money.text(item.holdings, item.asset),
        money.text(item.liabilities, item.asset),
        money.text(item.holdings - item.liabilities, item.asset),
        "yes" if item.covered else "NO",
    )


def _show_history(
    book: int, asset: str | None, after: int, limit: int, *, short: bool, as_json: bool
) -> None:
    async def work(
        conn: AsyncConnection,
    ) -> tuple[list[CoverageChange], int | None, Money]:
        from ledger.coverage import page_coverage

        found: list[CoverageChange] = []
        cursor: int | None = after
        for _ in range(PAGES_MAX):
            if cursor is None or len(found) >= limit:
                break
            page = await page_coverage(conn, book, asset=asset, after=cursor)
            found += [item for item in page.items if not (short and item.coverage.covered)]
            cursor = page.after
        return found, cursor, await Money.load(conn)

    found, cursor, money = read(work, book=book)
    if len(found) > limit:
        # Whole blocks, so that none is told in part: its height is the cursor.
        last = found[limit - 1].height
        found, cursor = [item for item in found if item.height <= last], last
    columns = ("block", "sequence", "recorded", "asset", "held", "owed", "spare", "covered")
    rows = [
        (
            str(item.height),
            str(item.sequence),
            iso(item.recorded_at),
            item.coverage.asset,
            *_cells(item.coverage, money),
        )
        for item in found
    ]
    show("Client money", columns, rows, as_json=as_json, right=columns[4:7])
    say_more(cursor)
    if not all(item.coverage.covered for item in found):
        raise typer.Exit(WRONG)


def periods(
    *,
    after: AfterSequence = 0,
    limit: Limit = 1_000,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List when periods were closed and reopened, by whom and why.

    Example: `causeway ledger periods`
    """

    async def work(conn: AsyncConnection) -> PeriodPage:
        from ledger.queries import page_periods

        return await page_periods(conn, book, after=after, limit=limit)

    page = read(work, book=book)
    columns = ("sequence", "recorded", "what", "through", "reason", "proposed_by", "approved_by")
    rows = [
        (
            str(item.sequence),
            iso(item.recorded_at),
            item.kind,
            item.through.isoformat(),
            item.reason,
            item.proposed_by,
            item.approved_by,
        )
        for item in page.items
    ]
    show("Periods", columns, rows, as_json=as_json)
    say_more(page.after)
