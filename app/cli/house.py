"""``causeway verify`` and ``migrate``: the books proven, the database at its newest revision."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
from app.cli.house_deep import verify_deep
from app.cli.ledger_proofs import VerifierKey, read_checkpoint, verify_file
from app.cli.progress import progress_bar
from kernel.errors import BadInput, OutsideUnavailable

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from ledger.verification import Verified

FAULTS_EXIT = 1


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command()(verify)
    app.command()(migrate)


def verify(
    *,
    journal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Verify this exported journal; no database is asked."),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What the journal's tree must be.")
    ] = None,
    key: VerifierKey = None,
    since: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Begin where the last check ended, as this file says, and write there how far.",
        ),
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Ask every promise of the house, of every book.")
    ] = False,
    at_rest: Annotated[
        bool, typer.Option("--at-rest", help="With --deep: no worker may have left anything to do.")
    ] = False,
    house: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="With --deep: ask the venues that this house file names."
        ),
    ] = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Derive every balance, hold, block and root of a book again, and name what does not fit.

    With --since the records before the last check are not read again: that the journal still
    begins with them, everything newer, and every row that may change, is proven. With --journal FILE
    --checkpoint FILE an exported journal is replayed and compared, without a database. With --deep every
    promise of the house is asked of its rows, and of whoever holds something for it: nodes by
    CAUSEWAY_EVM_URL and CAUSEWAY_BITCOIN_URL, venues by the house file, banks by their statements.
    Ends with exit code 1 where a fault is found.

    Example: `causeway verify --json`
    """
    if deep:
        if journal is not None or since is not None or checkpoint is not None:
            raise BadInput(
                "a deep check is of the whole house",
                remedy="Leave --journal, --checkpoint and --since away",
            )
        verify_deep(house=house, at_rest=at_rest, as_json=as_json)
        return
    if at_rest or house is not None:
        raise BadInput("--at-rest and --house are of a deep check", remedy="Add --deep")
    if journal is not None:
        if since is not None:
            raise BadInput("a journal file is verified whole", remedy="Leave --since away")
        verify_file(journal, checkpoint, key, as_json=as_json)
        return
    claimed = None if checkpoint is None else read_checkpoint(checkpoint, key)

    async def work(engine: AsyncEngine) -> Verified:
        from ledger.verification import examine

        bar = progress_bar("verified")
        return await examine(engine, book, progress=bar, state=since, checkpoint=claimed)

    found = run(lambda: on_database(work))
    columns = ("table", "row", "what")
    rows = [(fault.table, fault.key, fault.what) for fault in found.faults]
    if as_json:
        lines = [dict(zip(columns, row, strict=True)) for row in rows]
        facts = {"book": book, "records": found.sequence, "since": found.since}
        emit({**facts, "held": not rows, "faults": lines})
    elif rows:
        show(f"Faults in book {book}", columns, rows, as_json=False)
    else:
        newer = f", those after {found.since} read" if found.since else ""
        typer.echo(f"book {book} holds: {found.sequence} records verified{newer}, no fault")
    if rows:
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
