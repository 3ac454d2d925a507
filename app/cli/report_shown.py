"""How reports are printed: as a table by pages, as JSON, or whole as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from app.cli.common import Money, show
from kernel.errors import BadInput

PAGE_ROWS: Final = 500
"""Rows of one page of a table or of JSON; CSV is always whole."""

AsCsv = Annotated[bool, typer.Option("--csv", help="Print the whole report as CSV.")]
Page = Annotated[int, typer.Option("--page", min=1, help=f"Pages of {PAGE_ROWS} rows.")]
In = Annotated[str, typer.Option("--in", metavar="ASSET", help="The functional currency.")]


@dataclass(frozen=True, slots=True)
class Units:
    """A cell of smallest units: with its asset for people, as a plain decimal in CSV."""

    units: int
    asset: str


Cell = str | int | Units


def show_report(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    money: Money,
    *,
    as_json: bool,
    as_csv: bool,
    page: int = 1,
    right: Sequence[str] = (),
) -> None:
    """Print a report in the form that was asked for.

    Raises:
        BadInput: CSV and JSON at once.
    """
    if as_json and as_csv:
        raise BadInput("a report is printed as JSON or as CSV, not both")
    if as_csv:
        _print_csv(columns, rows, money)
        return
    start = (page - 1) * PAGE_ROWS
    shown = [[_text(cell, money) for cell in row] for row in rows[start : start + PAGE_ROWS]]
    show(title, columns, shown, as_json=as_json, right=right)
    if start + PAGE_ROWS < len(rows):
        typer.echo(f"{len(rows)} rows; go on with --page {page + 1}", err=True)


def _print_csv(columns: Sequence[str], rows: Sequence[Sequence[Cell]], money: Money) -> None:
    from ledger.export.columns import csv_line

    typer.echo(csv_line(columns), nl=False)
    for row in rows:
        typer.echo(csv_line([_plain(cell, money) for cell in row]), nl=False)


def _text(cell: Cell, money: Money) -> str:
    return money.text(cell.units, cell.asset) if isinstance(cell, Units) else str(cell)


def _plain(cell: Cell, money: Money) -> str:
    from ledger.export.model import exact

    if not isinstance(cell, Units):
        return str(cell)
    known = money.assets.get(cell.asset)
    return exact(cell.units, known.scale) if known else str(cell.units)


def per_cent(ppm: int) -> str:
    """Return millionths as per cent with two places, rounded down: ``84.53 %``."""
    hundredths = ppm // 100
    return f"{hundredths // 100}.{hundredths % 100:02} %"
