"""``causeway desk pnl``: what the desk has earned, by part, by deal, kept and computed again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
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
    parse_date,
    run,
    show,
    show_one,
    write,
)
from app.cli.common import read as read_all
from app.cli.desk_board import DESK_DEFAULT, Desk, In, glance
from app.cli.operators import As, Key, credentials
from kernel.clock import iso
from kernel.errors import BadInput, Refused

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from kernel.money import Asset
    from trading.pnl.model import Run, RunRecord, ValuedLine

Day = Annotated[
    str | None, typer.Option("--day", metavar="DATE", help="This day in UTC; else today.")
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="DATE", help="From the beginning of this day in UTC."),
]
To = Annotated[
    str | None, typer.Option("--to", metavar="DATE", help="To the end of this day in UTC.")
]
RunId = Annotated[UUID, typer.Argument(metavar="RUN", help="Id of a recorded run.")]

RECORD_COLUMNS: Final = (
    *("id", "desk", "since", "until", "through", "currency", "trading", "net"),
    *("inputs_hash", "lines_hash", "run_by", "run_at"),
)
LINE_COLUMNS: Final = ("part", "met", "amount", "value")
SUM_COLUMNS: Final = ("part", "value", "what it is")
PART_TEXTS: Final = {
    "client_spread": "clients' prices against the market's mid",
    "internalised": "client against client: from mid to mid",
    "hedge_slippage": "hedges against the mid of the deal they closed",
    "unwind": "hedge against hedge, no client between",
    "inventory": "what is open, at the mark",
    "revaluation": "what earlier results in other assets gained or lost",
    "other": "postings that are no deal and no fill",
    "deal_fee": "fees from clients",
    "venue_fee": "fees to venues",
}


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    app.command()(pnl)
    app.command("pnl-record")(pnl_record)
    app.command("pnl-runs")(pnl_runs)
    app.command("pnl-verify")(pnl_verify)


def pnl(
    *,
    desk: Desk = DESK_DEFAULT,
    day: Day = None,
    start: From = None,
    end: To = None,
    deal: Annotated[
        UUID | None, typer.Option("--deal", metavar="ID", help="Every line of one deal, ever.")
    ] = None,
    currency: In = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show what the desk earned: by part, and by deal; it ties to the ledger or is refused.

    Trading is the change of the desk's account at the marks; net is that with deal fees and what
    venues took. docs/profit-and-loss.md defines each part.

    Example: `causeway desk pnl --desk otc --day 2026-01-05`
    """
    since, until = interval(day, start, end, ever=deal is not None)

    async def work(conn: AsyncConnection) -> tuple[Run, Money, dict[UUID, tuple[str, str]]]:
        from trading.pnl.runs import name_deals

        money = await Money.load(conn)
        found = await _run(conn, money, book, desk, since, until, currency)
        deals = {ident for ident in found.result.by_deal if ident is not None}
        return found, money, await name_deals(conn, deals)

    found, money, names = run(lambda: on_database(lambda engine: glance(engine, work)))
    if deal is not None:
        _show_deal(deal, found, money, as_json=as_json)
    elif as_json:
        emit(document(found, money, names))
    else:
        _show_run(found, names)


def pnl_record(
    *,
    desk: Desk = DESK_DEFAULT,
    day: Day = None,
    start: From = None,
    end: To = None,
    currency: In = None,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Keep a result with the ids of its prices and the hashes of what went in and came out.

    The same inputs are the same run: recording it again changes nothing.

    Example: `causeway desk pnl-record --desk otc --day 2026-01-05 --as dan --key dan.key`
    """
    who = credentials(as_, key)
    since, until = interval(day, start, end)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from registry.model import Role
        from trading.pnl.runs import get_run, record_run

        me = await who.person(conn, Role.DEALER, Role.TREASURER, Role.FINANCE)
        found = await _run(conn, await Money.load(conn), book, desk, since, until, currency)
        await record_run(conn, found, by=me.code, now=clock().now())
        return _record(await get_run(conn, found.id))

    show_one("Run", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


def pnl_runs(
    *, desk: Desk = DESK_DEFAULT, book: Book = BOOK_DEFAULT, as_json: AsJson = False
) -> None:
    """List the recorded runs of a desk, the latest first.

    Example: `causeway desk pnl-runs --desk otc`
    """

    async def work(conn: AsyncConnection) -> list[RunRecord]:
        from trading.pnl.runs import list_runs

        return await list_runs(conn, book, desk)

    rows = [tuple(_record(item).values()) for item in read_all(work)]
    show("Runs", RECORD_COLUMNS, rows, as_json=as_json, right=("trading", "net"))


def pnl_verify(run_id: RunId, *, as_json: AsJson = False) -> None:
    """Compute a recorded run again from the journal and its prices; 1 if anything differs.

    Example: `causeway desk pnl-verify 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """

    async def work(conn: AsyncConnection) -> tuple[RunRecord, tuple[str, ...]]:
        from trading.pnl.runs import verify_run

        verified = await verify_run(conn, run_id)
        return verified.record, verified.differences

    record, differences = read_all(work)
    verdict = "different" if differences else "the same"
    facts: dict[str, Any] = {**_record(record), "verdict": verdict}
    if as_json:
        emit({**facts, "differences": list(differences)})
    else:
        show_one("Run", {**facts, "differences": "; ".join(differences)}, as_json=False)
    if differences:
        raise typer.Exit(1)


def interval(
    day: str | None, start: str | None, end: str | None, *, ever: bool = False
) -> tuple[datetime, datetime]:
    """Return the moments between which a result is asked for; without any, of today.

    Args:
        ever: without any, from the beginning.

    Raises:
        BadInput: both a day and a range, or a range that ends before it begins.
    """
    from trading.pnl.runs import THE_BEGINNING, day_of

    now = clock().now()
    if day is not None and (start is not None or end is not None):
        raise BadInput("--day is one day", remedy="Give --day, or --from and --to")
    if ever and day is None and start is None and end is None:
        return THE_BEGINNING, now
    if start is None and end is None:
        return day_of(parse_date(day, now))
    since = THE_BEGINNING if start is None else day_of(parse_date(start, now))[0]
    until = day_of(parse_date(end, now))[1]
    if until - since < timedelta(days=1):
        raise BadInput(f"{end} is before {start}", remedy="Give the earlier day with --from")
    return since, until


def document(found: Run, money: Money, names: Mapping[UUID, tuple[str, str]]) -> dict[str, Any]:
    """Return a run as an object of texts: its interval, its parts, its deals, its lines."""
    result, span = found.result, found.interval
    return {
        "id": str(found.id),
        "desk": span.desk,
        "since": iso(span.since),
        "until": iso(span.until),
        "after": span.after,
        "through": span.through,
        "currency": result.currency.code,
        "trading": result.currency.format(result.trading),
        "net": result.currency.format(result.net),
        "parts": {
            str(part): result.currency.format(units) for part, units in _parts(found).items()
        },
        "deals": [
            dict(zip(("deal", "reference", "party", "net"), row[:4], strict=True))
            | {"parts": parts}
            for row, parts in _deal_rows(found, names)
        ],
        "without_mid": [str(ident) for ident in result.without_mid],
        "marks": {
            name: {code: price.format() for code, price in sorted(marks.prices.items())}
            for name, marks in (("start", found.start), ("end", found.end))
        },
        "inputs_hash": found.inputs_hash,
        "lines_hash": found.lines_hash,
        "lines": [_line(item, result.currency, money) for item in result.lines],
    }


async def _run(
    conn: AsyncConnection,
    money: Money,
    book: int,
    desk: str,
    since: datetime,
    until: datetime,
    code: str | None,
) -> Run:
    from trading.pnl.currency import find_currency
    from trading.pnl.runs import pnl as verb

    currency = await find_currency(conn, book, desk) if code is None else money.asset(code)
    if currency is None:
        raise BadInput(
            f"nobody has said in which asset desk {desk} counts",
            remedy="Give --in ASSET, or set limits of the desk, which name one",
        )
    return await verb(
        conn, book, desk, since=since, until=until, currency=currency, now=clock().now()
    )


def _show_run(found: Run, names: Mapping[UUID, tuple[str, str]]) -> None:
    result, span = found.result, found.interval
    title = f"{span.desk}, {iso(span.since)} to {iso(span.until)}, in {result.currency.code}"
    show(title, SUM_COLUMNS, _sum_rows(found), as_json=False, right=("value",))
    deals = [row for row, _ in _deal_rows(found, names)]
    if deals:
        columns = ("deal", "reference", "party", "net", "mid")
        show("By deal", columns, deals, as_json=False, right=("net",))


def _sum_rows(found: Run) -> list[tuple[str, str, str]]:
    """Return the parts as a sum is written down: each total stands under what it is of."""
    result = found.result
    account: list[tuple[str, str, str]] = []
    charges: list[tuple[str, str, str]] = []
    for part, units in result.by_component.items():
        row = (str(part), result.currency.format(units), PART_TEXTS[part])
        (charges if part.is_charge else account).append(row)
    return [
        *account,
        ("trading", result.currency.format(result.trading), "what the desk's account moved by"),
        *charges,
        ("net", result.currency.format(result.net), "trading and fees"),
    ]


def _show_deal(deal: UUID, found: Run, money: Money, *, as_json: bool) -> None:
    currency = found.result.currency
    lines = [item for item in found.result.lines if item.cause.deal == deal]
    if not lines:
        raise Refused(
            f"no deal {deal} has a line in the result of desk {found.interval.desk}",
            remedy="Give its desk with --desk; a deal that was cancelled or amended "
            "has none, nor has one that came to nothing",
        )
    rows = [
        tuple(_line(item, currency, money)[name] or "" for name in LINE_COLUMNS) for item in lines
    ]
    net = currency.format(sum(item.value for item in lines))
    if as_json:
        emit(
            {
                "deal": str(deal),
                "net": net,
                "has_mid": deal not in found.result.without_mid,
                "lines": [_line(item, currency, money) for item in lines],
            }
        )
        return
    show(f"Deal {deal}: {net}", LINE_COLUMNS, rows, as_json=False, right=("amount", "value"))


def _parts(found: Run) -> dict[str, int]:
    return {str(part): units for part, units in found.result.by_component.items()}


def _deal_rows(
    found: Run, names: Mapping[UUID, tuple[str, str]]
) -> list[tuple[tuple[str, ...], dict[str, str]]]:
    """Return a row for each deal, what belongs to none last, each with its parts."""
    currency = found.result.currency
    rows: list[tuple[tuple[str, ...], dict[str, str]]] = []
    lacking = set(found.result.without_mid)
    by_deal = found.result.by_deal
    for ident in sorted(by_deal, key=lambda item: (item is None, str(item))):
        reference, party = names.get(ident, ("", "")) if ident else ("", "")
        mid = "no mid: its spread is not known" if ident in lacking else ""
        row = (
            *(str(ident) if ident else "of no deal", reference, party),
            *(currency.format(sum(by_deal[ident].values())), mid),
        )
        parts = {str(part): currency.format(units) for part, units in by_deal[ident].items()}
        rows.append((row, parts))
    return rows


def _line(item: ValuedLine, currency: Asset, money: Money) -> dict[str, str | None]:
    cause = item.cause
    return {
        "part": str(cause.component),
        "deal": str(cause.deal) if cause.deal else None,
        "met": str(cause.flow) if cause.flow else None,
        "base": cause.base,
        "amount": money.text(item.units, item.asset),
        "value": currency.format(item.value),
        "marked_at": "end" if item.at_end else "start",
    }


def _record(item: RunRecord) -> dict[str, str]:
    span = item.interval
    return {
        "id": str(item.id),
        "desk": span.desk,
        "since": iso(span.since),
        "until": iso(span.until),
        "through": str(span.through),
        "currency": item.currency.code,
        "trading": item.currency.format(item.trading),
        "net": item.currency.format(item.net),
        "inputs_hash": item.inputs_hash,
        "lines_hash": item.lines_hash,
        "run_by": item.run_by,
        "run_at": iso(item.run_at),
    }
