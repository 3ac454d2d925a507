"""``causeway marketdata plot``: mid, spread, depth, trades and gaps of a recording as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import AsJson, run, show_one
from app.cli.marketdata_places import HouseFile, Recordings, recordings_folder
from kernel.errors import BadInput, Refused

if TYPE_CHECKING:
    from app.cli.marketdata_series import Series

Since = Annotated[str | None, typer.Option("--since", help="ISO 8601; without: the beginning.")]
Until = Annotated[str | None, typer.Option("--until", help="ISO 8601; without: the end.")]


def register(app: typer.Typer) -> None:
    """Add this command to its group."""
    app.command()(plot)


def plot(
    symbol: Annotated[str, typer.Argument(help="As the venue spells it, or BASE/QUOTE.")],
    *,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="A .png, or an .html that fetches nothing."),
    ],
    venue: Annotated[
        str | None, typer.Option("--venue", help="Where several are recorded.")
    ] = None,
    house: HouseFile = None,
    recordings: Recordings = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Draw mid, spread, depth near the mid, trades and gaps of a symbol from its recording.

    The recording goes through the code that read the live feed. Where there was no book the line is
    broken and the gap is shaded, with its reason.

    Example: `causeway marketdata plot ETHUSDT --venue binance --recordings ./recordings --out eth.png`
    """
    if out.suffix not in {".png", ".html"}:
        raise BadInput(f"{out} is no picture that can be drawn", remedy="Name a .png or an .html")
    folder = recordings_folder(house, recordings)
    series = _series(folder, symbol, venue, since, until)
    from app.cli import marketdata_charts

    try:
        if out.suffix == ".png":
            marketdata_charts.write_png(series, out)
        else:
            marketdata_charts.write_html(series, out)
    except OSError as error:
        raise BadInput(f"it cannot be written: {error.strerror}", where=str(out)) from error
    facts = {
        "file": str(out),
        "of": marketdata_charts.title_of(series),
        "samples": str(sum(item.is_book for item in series.samples)),
        "trades": str(series.trades_seen),
        "gaps": str(len(series.gaps)),
    }
    show_one("Drawn", facts, as_json=as_json)


def _series(
    folder: Path, symbol: str, venue: str | None, since: str | None, until: str | None
) -> Series:
    from app.cli.marketdata_series import Series
    from app.cli.marketdata_tape import Player, find_tape
    from app.cli.progress import progress_bar

    tape = find_tape(folder, venue, since, until)
    grid = tape.instrument(symbol)
    series, player = Series(grid), Player(tape)
    bar = progress_bar("read", "seconds")
    run(
        lambda: player.play(
            lambda event: series.take(event, player.book(grid.symbol)), progress=bar
        )
    )
    if not series.last_ns:
        raise Refused(f"nothing of {symbol} was recorded in that time", where=str(folder))
    return series
