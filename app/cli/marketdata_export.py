"""``causeway marketdata export``: what was recorded as CSV, in the layout that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.common import AsJson, one_of, parse_time, show_one
from app.cli.marketdata_places import HouseFile, Recordings, VenueName, recordings_folder
from app.cli.marketdata_plot import Since, Until


def register(app: typer.Typer) -> None:
    """Add this command to its group."""
    app.command()(export)


def export(
    symbol: Annotated[str, typer.Argument(help="As the venue spells it.")],
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="A .csv, or a .csv.gz, which is packed.")
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--type",
            help="trades, incremental_book_L2, book_ticker, quotes, book_snapshot_5 or _25.",
        ),
    ] = "trades",
    venue: VenueName = "binance",
    house: HouseFile = None,
    recordings: Recordings = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Write trades or a book as CSV in the columns of Tardis: exact decimals, microseconds.

    It is made from the Parquet files that are there. A trade that several recordings or a backfill
    have is written once. The file appears when it is whole.

    Example: `causeway marketdata export ETHUSDT --type trades --recordings ./recordings --out trades.csv.gz`
    """
    from app.cli.progress import progress_bar
    from kernel.clock import to_unix_ns
    from marketdata.recording import tardis

    folder = recordings_folder(house, recordings)
    begin, end = parse_time(since), parse_time(until)
    bar = progress_bar("written", "rows")
    rows = tardis.export(
        folder,
        one_of(tardis.TardisType, kind, "type"),
        out,
        venue=venue,
        symbol=symbol,
        since_ns=0 if begin is None else to_unix_ns(begin),
        until_ns=None if end is None else to_unix_ns(end),
        progress=lambda count: bar(count, count + 1),
    )
    facts = {"file": str(out), "type": kind, "venue": venue, "symbol": symbol, "rows": str(rows)}
    show_one("Written", facts, as_json=as_json)
