"""``causeway report pnl``: what the book earned in its functional currency, by lots."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    DryRun,
    Money,
    clock,
    emit,
    on_database,
    one_of,
    read,
    run,
    show,
    show_one,
    write,
)
from app.cli.desk_board import glance
from app.cli.desk_pnl import Day, From, To, interval
from app.cli.operators import As, Key, credentials
from app.cli.report_shown import AsCsv, In, Units, show_report
from kernel.clock import iso

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from reporting.valuation.model import Valuation, ValuationRecord

FIFO: Final = "fifo"
MethodName = Annotated[
    str, typer.Option("--method", help="Which cost leaves first: fifo or average.")
]
RunId = Annotated[UUID, typer.Argument(metavar="RUN", help="Id of a recorded valuation.")]
LINE_COLUMNS: Final = ("kind", "account", "asset", "amount", "cost", "value")
RECORD_COLUMNS: Final = (
    *("id", "since", "until", "method", "currency", "realised", "unrealised", "net"),
    *("inputs_hash", "lines_hash", "run_by", "run_at"),
)


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    app.command()(pnl)
    app.command("pnl-record")(pnl_record)
    app.command("pnl-runs")(pnl_runs)
    app.command("pnl-verify")(pnl_verify)


def pnl(
    *,
    currency: In,
    method: MethodName = FIFO,
    day: Day = None,
    start: From = None,
    end: To = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show realised and unrealised gains, income and expenses of a book; it ties to the ledger or is refused.

    Lots are kept at average or FIFO cost, as a layer over the journal. What is held at the end stands
    below, with its cost and what it is worth.

    Example: `causeway report pnl --in USDT --method average --from 2026-01-01 --to 2026-01-31`
    """
    since, until = interval(day, start, end)

    async def work(conn: AsyncConnection) -> tuple[Valuation, Money]:
        money = await Money.load(conn)
        return await _value(conn, money, book, since, until, currency, method), money

    found, money = run(lambda: on_database(lambda engine: glance(engine, work)))
    if as_json:
        emit(_document(found, money))
        return
    title = (
        f"Profit and loss of book {book}, {iso(found.interval.since)} to "
        f"{iso(found.interval.until)}, {found.method} cost"
    )
    show_report(
        title,
        LINE_COLUMNS,
        _rows(found),
        money,
        as_json=False,
        as_csv=as_csv,
        right=LINE_COLUMNS[3:],
    )


def pnl_record(
    *,
    currency: In,
    method: MethodName = FIFO,
    day: Day = None,
    start: From = None,
    end: To = None,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Keep a result with the ids of its prices and the hashes of what went in and came out.

    The same inputs are the same valuation: recording it again changes nothing.

    Example: `causeway report pnl-record --in USDT --from 2026-01-01 --to 2026-01-31 --as cleo --key cleo.key`
    """
    who = credentials(as_, key)
    since, until = interval(day, start, end)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from registry.model import Role
        from reporting.valuation.runs import get_valuation, record_valuation

        me = await who.person(conn, Role.FINANCE, Role.TREASURER)
        money, now = await Money.load(conn), clock().now()
        found = await _value(conn, money, book, since, until, currency, method)
        is_new = await record_valuation(conn, found, by=me.code, now=now)
        facts = _record_facts(await get_valuation(conn, found.id), money)
        return {**facts, "new": "yes" if is_new else "no"}

    facts = write(work, dry_run=dry_run)
    show_one(f"Valuation {facts['id']}", facts, as_json=as_json, dry_run=dry_run)


def pnl_runs(*, book: Book = BOOK_DEFAULT, as_json: AsJson = False) -> None:
    """List the recorded valuations of a book, those of the latest intervals first.

    Example: `causeway report pnl-runs`
    """

    async def work(conn: AsyncConnection) -> tuple[list[ValuationRecord], Money]:
        from reporting.valuation.runs import list_valuations

        return await list_valuations(conn, book), await Money.load(conn)

    found, money = read(work, book=book)
    rows = [tuple(_record_facts(item, money).values()) for item in found]
    show("Valuations", RECORD_COLUMNS, rows, as_json=as_json)


def pnl_verify(run_id: RunId, *, as_json: AsJson = False) -> None:
    """Compute a recorded valuation again from the journal and its prices; exit code 1 if it differs.

    Example: `causeway report pnl-verify 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """

    async def work(conn: AsyncConnection) -> tuple[str, ...]:
        from reporting.valuation.runs import verify_valuation

        return (await verify_valuation(conn, run_id)).differences

    differences = read(work)
    facts = {
        "id": str(run_id),
        "computed_again": "; ".join(differences) or "the same",
    }
    show_one(f"Valuation {run_id}", facts, as_json=as_json)
    if differences:
        raise typer.Exit(1)


async def _value(
    conn: AsyncConnection,
    money: Money,
    book: int,
    since: datetime,
    until: datetime,
    currency: str,
    method: str,
) -> Valuation:
    from reporting.valuation.model import Method
    from reporting.valuation.runs import value_book

    return await value_book(
        conn,
        book,
        since=since,
        until=until,
        currency=money.asset(currency),
        method=one_of(Method, method, "method"),
        now=clock().now(),
    )


def _rows(found: Valuation) -> list[tuple[str | Units, ...]]:
    code = found.currency.code
    rows: list[tuple[str | Units, ...]] = [
        (
            *(str(line.kind), line.account, line.asset, Units(line.units, line.asset)),
            *("", Units(line.value, code)),
        )
        for line in found.lines
    ]
    rows.append(("net", "", "", "", "", Units(found.net, code)))
    rows += [
        (
            *("holding", "", item.asset, Units(item.units, item.asset)),
            *(Units(item.cost, code), Units(item.value, code)),
        )
        for item in found.holdings
    ]
    return rows


def _document(found: Valuation, money: Money) -> dict[str, Any]:
    from reporting.valuation.model import LineKind

    code = found.currency.code
    return {
        "id": str(found.id),
        "book": found.interval.book,
        "since": iso(found.interval.since),
        "until": iso(found.interval.until),
        "after": found.interval.after,
        "through": found.interval.through,
        "currency": code,
        "method": str(found.method),
        **{str(kind): money.text(found.total(kind), code) for kind in LineKind},
        "net": money.text(found.net, code),
        "lines": [
            {
                "kind": str(line.kind),
                "account": line.account,
                "asset": line.asset,
                "amount": money.text(line.units, line.asset),
                "value": money.text(line.value, code),
            }
            for line in found.lines
        ],
        "holdings": [
            {
                "asset": item.asset,
                "amount": money.text(item.units, item.asset),
                "cost": money.text(item.cost, code),
                "value": money.text(item.value, code),
            }
            for item in found.holdings
        ],
        "inputs_hash": found.inputs_hash,
        "lines_hash": found.lines_hash,
    }


def _record_facts(item: ValuationRecord, money: Money) -> dict[str, str]:
    code = item.currency.code
    amounts = (item.realised, item.unrealised, item.net)
    return dict(
        zip(
            RECORD_COLUMNS,
            (
                *(str(item.id), iso(item.interval.since), iso(item.interval.until)),
                *(str(item.method), code, *(money.text(units, code) for units in amounts)),
                *(item.inputs_hash, item.lines_hash, item.run_by, iso(item.run_at)),
            ),
            strict=True,
        )
    )
