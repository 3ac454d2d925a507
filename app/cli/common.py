"""What the commands share: the database, one transaction, tables and JSON."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from kernel.errors import BadInput, OutsideUnavailable
from kernel.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Book = Annotated[int, typer.Option("--book", help="The book of the legal entity.")]
BOOK_DEFAULT = 1


def settings() -> Settings:
    """Read the environment."""
    return Settings.from_env(os.environ)


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a command's coroutine."""
    return asyncio.run(work())


async def on_database(work: Callable[[AsyncEngine], Awaitable[T]]) -> T:
    """Run *work* with an engine as the runtime role, and dispose of it.

    Raises:
        OutsideUnavailable: no database is named, or it does not answer.
    """
    from kernel.db import APP_ROLE, create_engine

    found = settings()
    url = found.app_database_url or found.database_url
    if url is None:
        raise OutsideUnavailable(
            "no database is named",
            where="CAUSEWAY_DATABASE_URL",
            remedy="Set it; `causeway demo --keep` prints the one it runs on",
        )
    engine = create_engine(url.reveal(), role=APP_ROLE)
    try:
        return await work(engine)
    finally:
        await engine.dispose()


def read(work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Run a read in one transaction and return what it returned."""

    async def inner() -> T:
        from kernel.db import transact

        return await on_database(lambda engine: transact(engine, work))

    return run(inner)


def parse_time(text: str | None) -> datetime | None:
    """Read an ISO 8601 time; without a zone it is UTC, without a time it is the end of that day."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput(
            f"{text!r} is not a time", remedy="Write 2026-01-31 or 2026-01-31T17:00:00Z"
        ) from error
    if len(text) == len("2026-01-31"):
        at = at.replace(hour=23, minute=59, second=59, microsecond=999_999)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def show(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    as_json: bool,
    right: Sequence[str] = (),
) -> None:
    """Print rows of text as a table, or as a JSON list of objects keyed by the columns.

    Args:
        right: columns that are aligned to the right (amounts).
    """
    if as_json:
        import orjson

        document = [dict(zip(columns, row, strict=True)) for row in rows]
        typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
