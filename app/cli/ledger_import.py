"""``causeway ledger import``: the cut-over from CSV files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    DryRun,
    Money,
    Reason,
    clock,
    emit,
    on_database,
    one_of,
    read,
    run,
    show,
    show_one,
    write,
)
from app.cli.operators import Approver, ApproverKey, As, Credentials, Key, credentials
from app.cli.progress import progress_bar
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from ledger.imports.importing import SettleObligations
    from ledger.imports.model import ImportReport, ImportRun, ObligationRow, Plan


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    app.command("import")(import_)
    app.command()(imports)
    app.command("resolve-hold")(resolve_hold)


def import_(
    folder: Annotated[Path, typer.Argument(help="Folder with accounts.csv, balances.csv, ….")],
    *,
    name: Annotated[str, typer.Option(help="Your own; it is bound to these files.")],
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Bring accounts, opening balances, history, open holds and obligations into a book.

    Everything is checked before anything is posted. If it is interrupted, run it again: it goes on
    where the book stands. `totals.csv` declares the rows and the sum of each file and asset.

    Example: `causeway ledger import cut-over --name cut-over-2026 --reason "from the old system"
    --as ada --key ada.key --approver ben --approver-key ben.key`
    """
    first, second = credentials(as_, key), credentials(approver, approver_key)
    now = clock().now()

    async def check(conn: AsyncConnection) -> Plan:
        from ledger.imports.importing import check_import

        return await check_import(conn, read_folder(folder), book=book, now=now)

    plan = read(check)

    async def begin(conn: AsyncConnection) -> ImportRun:
        return await _begin(conn, plan, (book, name, reason), (first, second), now)

    async def rehearse(conn: AsyncConnection) -> ImportReport:
        from ledger.imports.importing import rehearse_import

        begun = await begin(conn)
        return await rehearse_import(conn, plan, begun, now=now, settle=_settle(begun, first.code))

    report = write(rehearse, dry_run=True) if dry_run else _run(plan, write(begin), first.code)
    _show(plan, report, read(Money.load), as_json=as_json, dry_run=dry_run)


def imports(*, book: Book = BOOK_DEFAULT, as_json: AsJson = False) -> None:
    """List the imports of a book, newest first.

    Example: `causeway ledger imports`
    """

    async def work(conn: AsyncConnection) -> list[ImportRun]:
        from ledger.imports.importing import list_imports

        return await list_imports(conn, book)

    columns = (
        "name",
        "state",
        "files",
        "reason",
        "imported_by",
        "approved_by",
        "begun",
        "completed",
    )
    rows = [
        (
            item.name,
            str(item.state),
            item.digest,
            item.reason,
            item.imported_by,
            item.approved_by,
            iso(item.begun_at),
            iso(item.completed_at) if item.completed_at else "",
        )
        for item in read(work)
    ]
    show("Imports", columns, rows, as_json=as_json)


def resolve_hold(
    hold: Annotated[UUID, typer.Argument(metavar="HOLD", help="Id of the hold.")],
    end: Annotated[str, typer.Argument(help="posted or voided.")],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Post or void a hold that came with an import; other holds belong to what made them.

    Example: `causeway ledger resolve-hold 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 voided --reason "paid before"
    --as ada --key ada.key --approver ben --approver-key ben.key`
    """
    from ledger.imports.holds import HoldEnd

    wanted = one_of(HoldEnd, end, "end of a hold")
    first, second = credentials(as_, key), credentials(approver, approver_key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from ledger.imports.holds import hold_bytes, resolve_imported_hold

        me, other = await first.person(conn), await second.person(conn)
        payload = hold_bytes(book, hold, wanted, reason=reason, by=me.code)
        result = await resolve_imported_hold(
            conn,
            book,
            hold,
            wanted,
            reason=reason,
            by=me.code,
            approver=other.code,
            signature=other.sign(payload),
            now=clock().now(),
        )
        return {
            "hold": str(hold),
            "end": str(wanted),
            "transfer": str(result.transfer_id),
            "sequence": str(result.sequence),
        }

    show_one("Imported hold", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return the CSV files of a folder by name; what has another suffix is left alone.

    Raises:
        BadInput: there is no such folder, a file cannot be read or is too large.
    """
    from ledger.imports.model import FILE_BYTES_MAX

    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".csv")
        for path in paths:
            if path.stat().st_size > FILE_BYTES_MAX:
                raise BadInput(f"{path} is larger than {FILE_BYTES_MAX} bytes")
        files = {path.name: path.read_bytes() for path in paths}
    except OSError as error:
        raise BadInput(
            f"the folder cannot be read: {error.strerror}", where=str(error.filename or folder)
        ) from error
    if not files:
        raise BadInput("the folder has no CSV file", where=str(folder))
    return files


async def _begin(
    conn: AsyncConnection,
    plan: Plan,
    what: tuple[int, str, str],
    who: tuple[Credentials, Credentials],
    now: datetime,
) -> ImportRun:
    from ledger.imports.importing import begin_import
    from ledger.imports.planning import import_bytes

    book, name, reason = what
    me, other = await who[0].person(conn), await who[1].person(conn)
    payload = import_bytes(book, name, plan.digest, reason=reason, imported_by=me.code)
    return await begin_import(
        conn,
        plan,
        book=book,
        name=name,
        reason=reason,
        by=me.code,
        approver=other.code,
        signature=other.sign(payload),
        now=now,
    )


def _run(plan: Plan, begun: ImportRun, by: str) -> ImportReport:
    async def work() -> ImportReport:
        from ledger.imports.importing import run_import

        return await on_database(
            lambda engine: run_import(
                engine,
                plan,
                begun,
                clock=clock().now,
                settle=_settle(begun, by),
                progress=progress_bar("imported"),
            )
        )

    return run(work)


def _settle(begun: ImportRun, by: str) -> SettleObligations:
    """Return what hands obligations to the settlement room, as the operator who runs it now."""

    async def settle(conn: AsyncConnection, rows: Sequence[ObligationRow]) -> int:
        from settlement.import_model import ImportedObligation
        from settlement.imports import import_obligations
        from settlement.model import Direction

        new = await import_obligations(
            conn,
            [
                ImportedObligation(
                    key=row.key,
                    party=row.party,
                    direction=Direction(str(row.direction)),
                    asset=row.asset,
                    amount=row.amount,
                    value_date=row.value_date,
                )
                for row in rows
            ],
            book=begun.book,
            by=by,
            reason=f"import {begun.name}",
            now=begun.begun_at,
        )
        return len(new)

    return settle


def _show(plan: Plan, report: ImportReport, money: Money, *, as_json: bool, dry_run: bool) -> None:
    facts = {
        "name": report.run.name,
        "state": str(report.run.state),
        "files": plan.digest,
        "accounts_created": report.accounts_created,
        "accounts_existing": report.accounts_existing,
        "transfers_created": report.transfers_created,
        "transfers_existing": report.transfers_existing,
        "obligations": report.obligations,
    }
    columns = ("file", "asset", "rows", "total")
    rows = [
        (f"{kind}.csv", asset, str(count), money.text(total, asset))
        for (kind, asset), (count, total) in sorted(plan.totals.items())
    ]
    if as_json:
        totals = [dict(zip(columns, row, strict=True)) for row in rows]
        emit({**facts, "totals": totals, **({"dry_run": True} if dry_run else {})})
        return
    show("Import", ("", ""), [(key, str(value)) for key, value in facts.items()], as_json=False)
    show("Control totals, met", columns, rows, as_json=False, right=("rows", "total"))
