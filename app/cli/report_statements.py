"""``causeway report statement``: what a client is told, looked at, issued once, checked again."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    Money,
    clock,
    on_database,
    read,
    run,
    show,
    show_one,
)
from app.cli.operators import As, Key, credentials
from app.cli.prices_snapshot import parse_month
from app.cli.report_shown import Cell, Page, Units, show_report
from kernel.clock import iso
from kernel.errors import BadInput, Refused

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from reporting.statements.model import (
        ClientStatement,
        IssuedStatement,
        Period,
        StatementFile,
    )

Party = Annotated[str, typer.Argument(metavar="PARTY", help="The client's code.")]
OfMonth = Annotated[
    str | None, typer.Option("--month", metavar="MONTH", help="A whole month: 2026-10.")
]
From = Annotated[str | None, typer.Option("--from", metavar="DATE", help="First day in UTC.")]
To = Annotated[str | None, typer.Option("--to", metavar="DATE", help="Last day in UTC.")]
ToFile = Path | None
COLUMNS: Final = (
    *("account", "asset", "recorded", "trade date", "value date"),
    *("posting", "reference", "change", "balance"),
)
ISSUED_COLUMNS: Final = (
    *("id", "party", "from", "to", "lines", "sequence", "csv_sha256", "pdf_sha256"),
    *("issued_by", "issued_at"),
)


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    app.command()(statement)
    app.command("issue-statement")(issue_statement)
    app.command("statements")(statements)
    app.command("check-statement")(check_statement)


def statement(
    party: Party,
    *,
    month: OfMonth = None,
    start: From = None,
    end: To = None,
    page: Page = 1,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print the CSV that would be issued, byte for byte.")
    ] = False,
) -> None:
    """Show a client's opening, every posting with trade and value date, and closing; keep nothing.

    By recorded time, in the client's own view: above zero is owed to the client.

    Example: `causeway report statement acme --month 2026-01`
    """
    period = _period(month, start, end)

    async def work(conn: AsyncConnection) -> tuple[ClientStatement, Money]:
        from reporting.statements.gathering import gather_statement

        return await gather_statement(conn, book, party, period), await Money.load(conn)

    found, money = read(work, book=book)
    if as_csv:
        from reporting.statements.document import statement_csv

        typer.echo(statement_csv(found), nl=False)
        return
    title = f"{party}, {period.first} to {period.last}, book {book}, record {found.sequence}"
    rows = _rows(found)
    show_report(
        title, COLUMNS, rows, money, as_json=as_json, as_csv=False, page=page, right=COLUMNS[7:]
    )


def issue_statement(
    party: Party,
    *,
    month: OfMonth = None,
    start: From = None,
    end: To = None,
    csv_file: Annotated[
        ToFile, typer.Option("--csv", metavar="FILE", help="Write the CSV there.")
    ] = None,
    pdf_file: Annotated[
        ToFile, typer.Option("--pdf", metavar="FILE", help="Write the PDF there.")
    ] = None,
    as_: As,
    key: Key,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Keep a statement of days that are over, with its hash, and write its files.

    Of one client and period there is one statement: issuing it again gives the same bytes.

    Example: `causeway report issue-statement acme --month 2026-01 --pdf acme-01.pdf --as cleo --key cleo.key`
    """
    who = credentials(as_, key)
    period = _period(month, start, end)

    async def work(engine: AsyncEngine) -> tuple[StatementFile, bytes | None]:
        from app.documents import find_statement_draw
        from kernel.db import transact
        from registry.model import Role
        from reporting.statements import issuing

        draw = find_statement_draw()
        if pdf_file is not None and draw is None:
            raise Refused("a PDF needs reportlab", remedy="Install causeway[documents]")

        async def issue(conn: AsyncConnection) -> StatementFile:
            me = await who.person(conn, Role.FINANCE, Role.TREASURER)
            return await issuing.issue_statement(
                conn, book, party, period, by=me.code, now=clock().now()
            )

        issued = await transact(engine, issue)
        if pdf_file is None or draw is None:
            return issued, None
        pdf = await issuing.get_statement_pdf(engine, issued.id, draw)
        again = await transact(engine, lambda conn: issuing.get_statement(conn, issued.id))
        return again, pdf

    issued, pdf = run(lambda: on_database(work))
    for target, content in ((csv_file, issued.csv), (pdf_file, pdf)):
        if target is not None and content is not None:
            _write(target, content)
    show_one(f"Statement {issued.id}", _facts(issued), as_json=as_json)


def statements(
    *,
    party: Annotated[
        str | None, typer.Option("--party", metavar="CODE", help="Only this client's.")
    ] = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List issued statements, those of the latest periods first.

    Example: `causeway report statements --party acme`
    """

    async def work(conn: AsyncConnection) -> list[IssuedStatement]:
        from reporting.statements.issuing import list_statements

        return await list_statements(conn, book, party=party)

    rows = [tuple(_facts(item).values()) for item in read(work, book=book)]
    show("Issued statements", ISSUED_COLUMNS, rows, as_json=as_json)


def check_statement(
    statement_id: Annotated[UUID, typer.Argument(metavar="ID", help="Of an issued statement.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Write an issued statement again from the journal and compare the bytes; exit code 1 if they differ.

    Example: `causeway report check-statement 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """

    async def work(conn: AsyncConnection) -> tuple[str, tuple[str, ...]]:
        from reporting.statements.issuing import verify_statement

        found = await verify_statement(conn, statement_id)
        return found.statement.csv_sha256, found.differences

    digest, differences = read(work)
    facts = {
        "id": str(statement_id),
        "csv_sha256": digest,
        "written_again": "; ".join(differences) or "the same",
    }
    show_one(f"Statement {statement_id}", facts, as_json=as_json)
    if differences:
        raise typer.Exit(1)


def _period(month: str | None, start: str | None, end: str | None) -> Period:
    from marketdata.price_snapshots import month_end
    from reporting.statements.model import Period

    if (month is None) is (start is None and end is None):
        raise BadInput("say which days", remedy="Give --month, or --from and --to")
    if month is not None:
        first = parse_month(month)
        return Period(first=first, last=month_end(first).date() - timedelta(days=1))
    if start is None or end is None:
        raise BadInput("a range has two ends", remedy="Give --from and --to")
    return Period(first=_day(start), last=_day(end))


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"{text!r} is not a date", remedy="Write 2026-01-31") from error


def _rows(found: ClientStatement) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    for account in found.accounts:
        code = account.asset.code
        head = (account.path, code)
        empty = ("", "", "")
        rows.append((*head, *empty, "opening", "", "", Units(account.opening, code)))
        rows += [
            (
                *(*head, iso(item.recorded_at)),
                *(item.trade_date.isoformat(), item.value_date.isoformat()),
                *(item.what, item.reference),
                *(Units(item.change, code), Units(item.balance, code)),
            )
            for item in account.postings
        ]
        rows.append((*head, *empty, "closing", "", "", Units(account.closing, code)))
    return rows


def _write(target: Path, content: bytes) -> None:
    from ledger.export.files import whole

    with whole(target) as part:
        part.write_bytes(content)


def _facts(item: IssuedStatement) -> dict[str, str]:
    return dict(
        zip(
            ISSUED_COLUMNS,
            (
                *(str(item.id), item.party, f"{item.period.first}", f"{item.period.last}"),
                *(str(item.lines), str(item.sequence), item.csv_sha256, item.pdf_sha256 or ""),
                *(item.issued_by, iso(item.issued_at)),
            ),
            strict=True,
        )
    )
