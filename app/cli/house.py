"""``causeway verify`` and ``migrate``: the books proven, the database at its newest revision."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    async_url,
    emit,
    on_database,
    run,
    settings,
    show,
    show_one,
)
from kernel.errors import OutsideUnavailable

if TYPE_CHECKING:
    import typer
    from sqlalchemy.ext.asyncio import AsyncEngine

    from ledger.audit import Fault

FAULTS_EXIT = 1


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command()(verify)
    app.command()(migrate)


def verify(*, book: Book = BOOK_DEFAULT, as_json: AsJson = False) -> None:
    """Derive every balance, hold, block and root of a book again, and name what does not fit.

    Ends with exit code 1 where a fault is found.

    Example: `causeway verify --book 1`
    """

    async def work(engine: AsyncEngine) -> tuple[list[Fault], int]:
        from kernel.db import transact
        from ledger.queries import head
        from ledger.verification import verify as verb

        stand = await transact(engine, lambda conn: head(conn, book))
        return await verb(engine, book, progress=_progress), stand.sequence

    faults, sequence = run(lambda: on_database(work))
    columns = ("table", "row", "what")
    rows = [(fault.table, fault.key, fault.what) for fault in faults]
    if as_json:
        lines = [dict(zip(columns, row, strict=True)) for row in rows]
        emit({"book": book, "records": sequence, "held": not faults, "faults": lines})
    elif faults:
        show(f"Faults in book {book}", columns, rows, as_json=False)
    else:
        sys.stdout.write(f"book {book} holds: {sequence} records verified, no fault\n")
    if faults:
        sys.exit(FAULTS_EXIT)


def migrate(*, as_json: AsJson = False) -> None:
    """Bring the database at CAUSEWAY_DATABASE_URL to the newest revision; as its owner role.

    Example: `causeway migrate`
    """
    from app.local.migrate import current, head
    from app.local.migrate import migrate as upgrade

    found = settings().database_url
    if found is None:
        raise OutsideUnavailable(
            "no database is named",
            where="CAUSEWAY_DATABASE_URL",
            remedy="Set it to the owner role's URL",
        )
    url = async_url(found.reveal())

    async def work() -> dict[str, str]:
        before = await current(url)
        await upgrade(url)
        return {"before": before or "", "now": await current(url) or "", "newest": head()}

    show_one("Schema", run(work), as_json=as_json)


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done >= total else ""
        sys.stderr.write(f"\rverified {done:,} of {total:,} records{end}")
