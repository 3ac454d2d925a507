"""``causeway ledger export`` and ``export-gl``: the books for other programs."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    Money,
    emit,
    on_database,
    one_of,
    parse_time,
    run,
    show,
    show_one,
)
from kernel.errors import BadInput
from ledger.export.model import By, Format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy.ext.asyncio import AsyncEngine

    from kernel.money import Asset
    from ledger.export.exporting import OpenSink
    from ledger.export.general_ledger import Batch
    from ledger.export.model import ExportSummary

Output = Annotated[Path, typer.Option("--output", "-o", help="The file to write; replaced whole.")]


def register(app: typer.Typer) -> None:
    """Add these commands to ``causeway ledger``."""
    app.command("export")(export)
    app.command("export-gl")(export_gl)


async def _assets(engine: AsyncEngine) -> Mapping[str, Asset]:
    from kernel.db import transact

    return (await transact(engine, Money.load)).assets


def _open_sink(kind: Format) -> OpenSink | None:
    """Return what opens a sink, of the format that needs a library of its own."""
    if kind is not Format.PARQUET:
        return None
    try:
        from ledger.export.parquet import open_parquet
    except ImportError as error:
        raise BadInput(
            f"Parquet needs pyarrow: {error}", remedy="Install causeway[exports]"
        ) from error
    return open_parquet


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on the terminal, if there is one; print nothing into a pipe."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def export(
    *,
    kind: Annotated[str, typer.Option("--format", help="beancount, hledger, csv or parquet.")],
    output: Output,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", help="What was recorded by then; a date means its end. ISO 8601."),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", help="The day of each transfer: effective or recorded.")
    ] = By.EFFECTIVE,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Write a book's transfers for beancount, hledger or whatever reads CSV or Parquet.

    The file holds the journal up to one record; the same record gives the same bytes. It is written
    only if its transfers come to the trial balance. What a format cannot express: docs/exports.md.

    Example: `causeway ledger export --format beancount --output book.beancount`
    """
    format_ = one_of(Format, kind, "format")
    day = one_of(By, by, "day of a transfer")
    at = parse_time(as_of)
    open_sink = _open_sink(format_)

    async def work(engine: AsyncEngine) -> ExportSummary:
        from ledger.export.exporting import export_journal

        with _progress(f"Writing {output.name}") as progress:
            return await export_journal(
                engine,
                book,
                output,
                format_,
                assets=await _assets(engine),
                by=day,
                as_of=at,
                open_sink=open_sink,
                progress=progress,
            )

    made = run(lambda: on_database(work))
    facts = {
        "book": made.book,
        "entity": made.entity,
        "format": str(made.format),
        "by": str(made.by),
        "output": str(output),
        "sequence": made.sequence,
        "root": made.root,
        "transfers": made.transfers,
        "accounts": made.accounts,
        "bytes": made.bytes,
        "sha256": made.sha256,
    }
    if as_json:
        emit(facts)
    else:
        title = f"Exported book {book} to {output}"
        show_one(title, {name: str(value) for name, value in facts.items()}, as_json=False)


def export_gl(
    *,
    map_file: Annotated[
        Path, typer.Option("--map", help="CSV (pattern,asset,account) or TOML of [[rule]] tables.")
    ],
    first: Annotated[str, typer.Option("--from", help="First effective day, ISO 8601.")],
    last: Annotated[str, typer.Option("--to", help="Last effective day, ISO 8601.")],
    output: Output,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", help="What was recorded by then; a date means its end. ISO 8601."),
    ] = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Write one period as a balanced batch of a general ledger's accounts.

    The batch has the same id whenever the same closed period is exported with the same map; of a
    period that is still open it is preliminary. Nothing is written where an account fits no rule, or
    where a figure is not tied to the trial balance.

    Example: `causeway ledger export-gl --map gl.csv --from 2026-01-01 --to 2026-01-31 --output gl-01.csv`
    """
    from ledger.export.general_ledger import Period, read_map

    period = Period(_day(first), _day(last))
    rules = read_map(_text_of(map_file), toml=map_file.suffix.lower() == ".toml")
    at = parse_time(as_of)

    async def work(engine: AsyncEngine) -> Batch:
        from ledger.export.gl_exporting import export_gl as verb

        with _progress(f"Writing {output.name}") as progress:
            return await verb(
                engine,
                book,
                output,
                period,
                rules,
                assets=await _assets(engine),
                as_of=at,
                progress=progress,
            )

    batch = run(lambda: on_database(work))
    _show_batch(batch, output, as_json=as_json)


def _show_batch(batch: Batch, output: Path, *, as_json: bool) -> None:
    from ledger.export.general_ledger import totals_of
    from ledger.export.model import exact

    scales = {code: asset.scale for code, asset in batch.frame.assets.items()}
    totals = [
        (code, exact(found.debits, scales[code]), exact(found.credits, scales[code]))
        for code, found in sorted(totals_of(batch.lines).items())
    ]
    status = "final" if batch.is_final else "preliminary"
    columns = ("currency", "debits", "credits")
    if as_json:
        emit(
            {
                "batch": batch.id,
                "status": status,
                "book": batch.frame.book,
                "entity": batch.frame.entity,
                "from": str(batch.period.first),
                "to": str(batch.period.last),
                "map": batch.map_hash,
                "sequence": batch.frame.sequence,
                "root": batch.frame.root.hex(),
                "lines": len(batch.lines),
                "totals": [dict(zip(columns, row, strict=True)) for row in totals],
                "output": str(output),
            }
        )
        return
    title = f"Batch {batch.id} ({status}), {len(batch.lines)} lines, in {output}"
    show(title, columns, totals, as_json=False, right=columns[1:])
    if not batch.is_final:
        typer.echo(
            "preliminary: the period is open, and what is still posted into it counts", err=True
        )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"{text!r} is not a date", remedy="Write 2026-01-31") from error


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the map {path}: {error}") from error
