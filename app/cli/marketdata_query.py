"""``causeway marketdata query``: SQL over what was recorded, read-only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import AsJson, show
from app.cli.marketdata_places import HouseFile, Recordings, recordings_folder

if TYPE_CHECKING:
    from marketdata.recording.views import Answer

ROWS = 1_000


def register(app: typer.Typer) -> None:
    """Add this command to its group."""
    app.command()(query)


def query(
    sql: Annotated[str, typer.Argument(help="One SELECT.")],
    *,
    house: HouseFile = None,
    recordings: Recordings = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Show at most so many.")] = ROWS,
    live: Annotated[
        bool,
        typer.Option("--live/--no-live", help="Whether with the hour that is being recorded."),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Ask the recordings in SQL: trades, book_updates, best, tickers, candles, gaps (DuckDB).

    Nothing can be written, and no other file can be read. `DESCRIBE trades` names the columns. No
    database is asked: the answer is made from the Parquet files of hours that are over and, of what
    is being recorded, from the raw frames, as far as they are on disk: some seconds ago.

    Example: `causeway marketdata query "SELECT symbol, count(*) FROM trades GROUP BY symbol" --recordings ./recordings`
    """
    from marketdata.recording import views

    folder = recordings_folder(house, recordings)
    views.require_look(sql)
    with _running(folder) if live else nullcontext() as beside:
        answer = views.query(folder, sql, rows_max=rows, beside=beside)
    _print(answer, as_json=as_json)


@contextmanager
def _running(folder: Path) -> Iterator[Path]:
    """Derive what is being recorded into a folder that is there for the question."""
    from app.cli.progress import progress_bar
    from marketdata.recording.running import derive_running
    from venues.feeds.factory import machine_of

    with TemporaryDirectory(prefix="causeway-running-") as name:
        running = derive_running(
            folder, Path(name), machine_of, progress=progress_bar("read again", "bytes")
        )
        for sentence in running.left_out:
            typer.echo(sentence, err=True)
        yield Path(name)


def _print(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        from app.cli.common import emit

        emit([dict(zip(answer.columns, map(_plain, row), strict=True)) for row in answer.rows])
    else:
        numbers = [
            name
            for at, name in enumerate(answer.columns)
            if answer.rows and isinstance(answer.rows[0][at], int | Decimal | float)
        ]
        texts = [tuple(_text(cell) for cell in row) for row in answer.rows]
        show("", answer.columns, texts, as_json=False, right=numbers)
    if answer.is_cut:
        typer.echo(f"only the first {len(answer.rows)} rows; ask for more with --rows", err=True)


def _plain(cell: Any) -> Any:
    """Return what JSON can say; decimals stay texts, so that no digit is lost."""
    if isinstance(cell, bool | int | str | float) or cell is None:
        return cell
    return _text(cell)


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, Decimal):
        text = format(cell, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(cell, datetime | date):
        return cell.isoformat()
    return str(cell)
