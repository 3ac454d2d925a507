"""``causeway report``: what treasury and finance look at; nothing here posts."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import report_month_end, report_pnl, report_statements
from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    Money,
    clock,
    on_database,
    parse_date,
    read,
    run,
)
from app.cli.desk_board import glance
from app.cli.report_shown import AsCsv, Cell, Page, Units, per_cent, show_report
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from ledger.model import TrialBalanceRow
    from registry.calendars import AnyCalendar
    from reporting.positions import Position
    from reporting.treasury.model import AgedItem, Efficiency, Forecast
    from trading.pnl.model import Marks

app = typer.Typer(
    name="report",
    help="Funding, settlement, ageing, positions, profit and loss, statements, the month's end.",
    no_args_is_help=True,
)
report_pnl.register(app)
report_statements.register(app)
report_month_end.register(app)

From = Annotated[
    str | None, typer.Option("--from", metavar="DATE", help="First day in UTC; else today.")
]
On = Annotated[
    str | None,
    typer.Option("--on", metavar="DATE", help="At the end of this effective day; else now."),
]


ValueIn = Annotated[
    str | None, typer.Option("--in", metavar="ASSET", help="Show what it is worth in this asset.")
]


@app.command("funding-forecast")
def funding_forecast(
    *,
    start: From = None,
    days: Annotated[int, typer.Option("--days", min=1, max=366, help="How many days.")] = 7,
    only_short: Annotated[
        bool, typer.Option("--short", help="Only days on which something could be missing.")
    ] = False,
    page: Page = 1,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show by asset and day what is there, what comes and goes, and what would be missing.

    Obligations count in full until their run is sealed, then what is left of its net. *short* is
    missing even if everything comes; *short without* if nothing comes.

    Example: `causeway report funding-forecast --days 5 --short`
    """
    now = clock().now()
    first = parse_date(start, now)

    async def work(conn: AsyncConnection) -> tuple[Forecast, Money]:
        from app.reports.settlement_facts import list_available, list_expected
        from reporting.treasury.forecast import forecast_funding

        expected = await list_expected(conn, book, now=now)
        available = await list_available(conn, book)
        found = forecast_funding(expected, available, first=first, days=days)
        return found, await Money.load(conn)

    found, money = read(work, book=book)
    columns = (
        *("asset", "day", "opening", "incoming", "outgoing", "overdue"),
        *("closing", "short", "short without"),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            *(item.asset, item.day.isoformat()),
            *(
                Units(units, item.asset)
                for units in (
                    *(item.opening, item.incoming, item.outgoing, item.overdue),
                    *(item.closing, item.short, item.short_without),
                )
            ),
        )
        for item in found.days
        if not only_short or item.short_without
    ]
    rows += [
        (
            *(asset, "later", "", Units(incoming, asset), Units(outgoing, asset)),
            *("", "", "", ""),
        )
        for asset, (incoming, outgoing) in found.later.items()
        if not only_short
    ]
    title = f"Funding from {first} on, {days} days"
    options: dict[str, Any] = {"as_json": as_json, "as_csv": as_csv, "page": page}
    show_report(title, columns, rows, money, right=columns[2:], **options)


@app.command("settlement-efficiency")
def settlement_efficiency(
    *,
    start: Annotated[str, typer.Option("--from", metavar="DATE", help="First value date.")],
    end: Annotated[
        str | None, typer.Option("--to", metavar="DATE", help="Last value date; else today.")
    ] = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show by asset gross, net and paid, what netting saved, and how much was final on time.

    Example: `causeway report settlement-efficiency --from 2026-01-01 --to 2026-01-31`
    """
    now = clock().now()
    first, last = parse_date(start, now), parse_date(end, now)
    if last < first:
        raise BadInput("the time ends before it starts", remedy="Give --from and --to in order")

    async def work(conn: AsyncConnection) -> tuple[tuple[Efficiency, ...], Money]:
        from app.reports.settlement_facts import list_settled
        from reporting.treasury.efficiency import measure_efficiency

        items = await list_settled(conn, book, first=first, last=last)
        return measure_efficiency(items, today=now.date()), await Money.load(conn)

    found, money = read(work, book=book)
    columns = (
        *("asset", "gross", "net", "saved", "paid", "items", "on time", "late", "open"),
        "on time of due",
    )
    rows = [
        (
            *(item.asset, Units(item.gross, item.asset), Units(item.net, item.asset)),
            *(per_cent(item.saved_ppm), Units(item.paid, item.asset)),
            *(item.items, item.on_time, item.late, item.open, per_cent(item.on_time_ppm)),
        )
        for item in found
    ]
    title = f"Settlement of {first} to {last}"
    show_report(title, columns, rows, money, as_json=as_json, as_csv=as_csv, right=columns[1:])


@app.command()
def ageing(
    *,
    items: Annotated[bool, typer.Option("--items", help="Every item, not sums.")] = False,
    late: Annotated[bool, typer.Option("--late", help="Only what is past its day.")] = False,
    page: Page = 1,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show what is owed either way by its age in business days of its asset.

    Example: `causeway report ageing --late --items`
    """
    today = clock().now().date()

    async def work(conn: AsyncConnection) -> tuple[tuple[AgedItem, ...], Money]:
        from app.reports.settlement_facts import list_due
        from registry.kept_calendars import find_calendars
        from reporting.treasury.ageing import age_items
        from trading.terms.value_dates import calendars_of, countries_of

        due = await list_due(conn, book)
        kept = await find_calendars(conn, countries_of({item.asset for item in due}))

        def calendars(asset: str) -> Collection[AnyCalendar]:
            return calendars_of(asset, kept=kept)

        return age_items(due, today=today, calendars=calendars), await Money.load(conn)

    found, money = read(work, book=book)
    shown = [item for item in found if item.days > 0] if late else list(found)
    if items:
        _show_items(shown, money, as_json=as_json, as_csv=as_csv, page=page)
    else:
        _show_sums(shown, money, as_json=as_json, as_csv=as_csv, page=page)


def _show_items(found: list[AgedItem], money: Money, **options: Any) -> None:
    columns = ("id", "party", "asset", "owed", "amount", "value date", "state", "days", "bucket")
    rows = [
        (
            *(item.due.reference, item.due.party, item.due.asset, _owed(item.due.units > 0)),
            *(Units(abs(item.due.units), item.due.asset), item.due.value_date.isoformat()),
            *(item.due.state, item.days, item.bucket),
        )
        for item in found
    ]
    show_report(
        "What is owed, the oldest first", columns, rows, money, right=("amount",), **options
    )


def _show_sums(found: list[AgedItem], money: Money, **options: Any) -> None:
    from reporting.treasury.ageing import sum_ages

    columns = ("party", "asset", "owed", "business days late", "items", "amount")
    rows = [
        (
            *(item.party, item.asset, _owed(item.to_us), item.bucket, item.items),
            Units(item.units, item.asset),
        )
        for item in sum_ages(found)
    ]
    show_report("What is owed, by age", columns, rows, money, right=columns[4:], **options)


def _owed(to_us: bool) -> str:  # noqa: FBT001  one word for one fact
    return "to us" if to_us else "by us"


@app.command()
def positions(
    *,
    on: On = None,
    without_clients: Annotated[
        bool,
        typer.Option("--without-clients", help="Leave out what is held for clients and owed them."),
    ] = False,
    currency: ValueIn = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show where every asset is, and what of it is the house's own; exit code 1 if it is not tied.

    *own* is by trade date; *settled* is the same by settlement date. With `--in`, *worth* is what the
    house's own is worth at the marks of that moment.

    Example: `causeway report positions --on 2026-01-31 --without-clients`
    """

    async def work(conn: AsyncConnection) -> tuple[tuple[Position, ...], Money, Marks | None]:
        from ledger.queries import head
        from ledger.queries import trial_balance as query
        from reporting.positions import positions_of

        await head(conn, book)
        money = await Money.load(conn)
        rows = await query(conn, book, effective_on=_day(on))
        found = positions_of(rows, with_clients=not without_clients)
        marks = await _marks(conn, money, {x.asset for x in found if x.own}, currency, on)
        return found, money, marks

    found, money, marks = run(lambda: on_database(lambda engine: glance(engine, work)))
    names = (
        *("custody", "for_clients", "venues", "banks", "transit", "receivable"),
        *("clients", "payable", "in_flight", "suspense", "desks"),
        *("own", "unsettled", "settled", "equity"),
    )
    columns: tuple[str, ...] = ("asset", *(name.replace("_", " ") for name in names))
    rows: list[tuple[Cell, ...]] = [
        (
            item.asset,
            *(Units(getattr(item, name), item.asset) for name in names),
            *_worth(item.own, item.asset, marks),
        )
        for item in found
    ]
    if marks is not None:
        columns = (*columns, "worth")
    title = "Positions now" if on is None else f"Positions at the end of {on}"
    show_report(title, columns, rows, money, as_json=as_json, as_csv=as_csv, right=columns[1:])
    untied = [item.asset for item in found if not item.is_tied]
    if untied:
        typer.echo(f"not tied: {', '.join(untied)}; run `causeway ledger verify`", err=True)
        raise typer.Exit(1)


@app.command("trial-balance")
def trial_balance(
    *,
    on: On = None,
    currency: ValueIn = None,
    page: Page = 1,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show every account's balance in its column; each asset's columns are equal, else exit code 1.

    With `--in`, *worth* is what a balance is worth at the marks of that moment, credits below zero.
    `causeway ledger trial-balance` has holds, trees and other points in time.

    Example: `causeway report trial-balance --on 2026-01-31 --csv`
    """

    async def work(
        conn: AsyncConnection,
    ) -> tuple[list[TrialBalanceRow], Money, Marks | None]:
        from ledger.queries import head
        from ledger.queries import trial_balance as query

        await head(conn, book)
        money = await Money.load(conn)
        found = await query(conn, book, effective_on=_day(on))
        marks = await _marks(conn, money, {x.asset for x in found if x.balance}, currency, on)
        return found, money, marks

    found, money, marks = run(lambda: on_database(lambda engine: glance(engine, work)))
    columns: tuple[str, ...] = ("path", "asset", "owner", "debit", "credit")
    if marks is not None:
        columns = (*columns, "worth")
    sums: dict[str, int] = {}
    rows: list[tuple[Cell, ...]] = []
    for row in found:
        net = row.debits - row.credits
        sums[row.asset] = sums.get(row.asset, 0) + net
        debit, credit = (Units(max(side, 0), row.asset) for side in (net, -net))
        worth = _worth(net, row.asset, marks)
        rows.append((row.path, row.asset, row.owner, debit, credit, *worth))
    title = "Trial balance now" if on is None else f"Trial balance at the end of {on}"
    options: dict[str, Any] = {"as_json": as_json, "as_csv": as_csv, "page": page}
    show_report(title, columns, rows, money, right=columns[3:], **options)
    wrong = [asset for asset, net in sums.items() if net]
    if wrong:
        typer.echo(f"not balanced: {', '.join(wrong)}", err=True)
        raise typer.Exit(1)


async def _marks(
    conn: AsyncConnection,
    money: Money,
    assets: Collection[str],
    currency: str | None,
    on: str | None,
) -> Marks | None:
    """Return what the assets are worth at the end of the day, or now; None: nobody asked."""
    from trading.pnl.marks import find_marks
    from trading.pnl.runs import day_of

    if currency is None:
        return None
    now, day = clock().now(), _day(on)
    at = now if day is None else min(day_of(day)[1], now)
    return await find_marks(conn, assets, money.asset(currency), at=at, now=now)


def _worth(units: int, asset: str, marks: Marks | None) -> tuple[Cell, ...]:
    from kernel.money import Rounding

    if marks is None:
        return ()
    code = marks.currency.code
    if not units or asset == code:
        return (Units(units, code),)
    return (Units(marks.prices[asset].to_quote(units, Rounding.DOWN), code),)


def _day(on: str | None) -> date | None:
    if on is None:
        return None
    day = parse_date(on, clock().now())
    if day > clock().now().date() + timedelta(days=1):
        raise BadInput(f"{day} is still to come")
    return day
