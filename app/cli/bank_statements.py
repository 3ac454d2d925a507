"""``causeway bank statement``: what banks say, taken in and looked at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
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
    one_of,
    read,
    show,
    show_one,
    write,
)
from app.cli.operators import As, Credentials, Key, credentials
from app.cli.progress import progress_bar
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from custody.banks.entry_model import BankFile, BankReceipt, KeptStatement
    from custody.banks.importing import ImportReport

FOUND_WRONG = 1
FILES_MAX = 1_000

app = typer.Typer(help="What banks say of our accounts.", no_args_is_help=True)
After = Annotated[UUID | None, typer.Option(help="Go on after this id.")]
Limit = Annotated[int, typer.Option(min=1, max=500, help="At most so many.")]


def register(bank: typer.Typer) -> None:
    """Add these commands to the group of banks."""
    bank.add_typer(app, name="statement")
    bank.command()(receipts)


@app.command("import")
def import_(
    paths: Annotated[list[Path], typer.Argument(help="Files as the bank sent them.")],
    *,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take in statements and notices: camt.053, camt.054, MT940. The same ones again change nothing.

    Each file is a transaction. What cannot be read, does not add up or is of an account that is not ours is kept
    in quarantine and posts nothing; then the command ends with 1.

    Example: `causeway bank statement import statement.xml --as cleo --key cleo.key`
    """
    if len(paths) > FILES_MAX:
        raise BadInput(f"at most {FILES_MAX} files at once")
    for path in paths:
        _require_readable(path)
    who = credentials(as_, key)
    rows: list[dict[str, Any]] = []
    draw = progress_bar("read", "files")
    for path in paths:
        report = _import_one(who, path.name, _bytes(path), dry_run=dry_run)
        rows.append({**_row(report), "name": path.name, "gaps": list(report.gaps)})
        draw(len(rows), len(paths))
    if as_json:
        emit(rows)
    else:
        columns = ("id", "name", "state", "statements", "booked", "pending", "known")
        table = [tuple(str(row[column]) for column in columns) for row in rows]
        show("Files", columns, table, as_json=False)
        for row in rows:
            for line in (*row["gaps"], *([row["reason"]] if row["reason"] else [])):
                typer.echo(f"{row['name']}: {line}", err=True)
    if any(row["state"] != "imported" for row in rows):
        raise typer.Exit(FOUND_WRONG)


@app.command("list")
def list_(
    *,
    account: Annotated[str | None, typer.Option(help="Only of this bank account.")] = None,
    after: After = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List statements and notices in the order in which they came.

    Example: `causeway bank statement list --account desk-eur`
    """

    async def work(conn: AsyncConnection) -> tuple[list[KeptStatement], Money]:
        from custody.banks.statements import list_bank_statements

        found = await list_bank_statements(conn, account=account, after=after, limit=limit)
        return found, await Money.load(conn)

    found, money = read(work)
    columns = ("id", "account", "kind", "name", "sequence", "day", "opening", "closing", "entries")
    rows = [
        (
            *(str(item.id), item.account, item.kind, item.name),
            "" if item.sequence is None else str(item.sequence),
            item.to_date.isoformat(),
            "" if item.opening is None else money.text(item.opening, item.asset),
            "" if item.closing is None else money.text(item.closing, item.asset),
            str(item.entries),
        )
        for item in found
    ]
    show("Statements", columns, rows, as_json=as_json, right=("opening", "closing", "entries"))


@app.command("show")
def show_(
    statement: Annotated[UUID, typer.Argument(help="Id of a statement.")],
    *,
    after: After = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Show a statement and the entries that it was the first to bring.

    Example: `causeway bank statement show 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """

    async def work(
        conn: AsyncConnection,
    ) -> tuple[KeptStatement, list[dict[str, Any]], Money]:
        from custody.banks.statements import get_bank_statement, list_bank_entries

        found = await get_bank_statement(conn, statement)
        entries = await list_bank_entries(conn, statement, after=after, limit=limit)
        return found, entries, await Money.load(conn)

    found, entries, money = read(work)
    columns = ("id", "booked", "value_date", "amount", "kind", "end_to_end", "name", "remittance")
    rows = [
        (
            *(str(item["id"]), item["booking_date"].isoformat(), item["value_date"].isoformat()),
            money.text(int(item["amount"]), item["asset"]),
            ("reversal of " if item["reversal"] else "") + item["kind"],
            *(item["end_to_end"], item["name"], item["remittance"]),
        )
        for item in entries
    ]
    show(f"{found.account}: {found.name}", columns, rows, as_json=as_json, right=("amount",))


@app.command()
def gaps(
    *,
    account: Annotated[str | None, typer.Option(help="Only of this bank account.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show where statements do not follow one another; ends with 1 if there is such a place.

    Example: `causeway bank statement gaps`
    """

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from custody.banks.statements import list_gaps

        found = await list_gaps(conn, None if account is None else [account])
        return [
            (name, gap.before.name, gap.after.name, gap.after.to_date.isoformat(), gap.why)
            for name, gap in found
        ]

    rows = read(work)
    show("Gaps", ("account", "after", "comes", "day", "why"), rows, as_json=as_json)
    if rows:
        raise typer.Exit(FOUND_WRONG)


@app.command()
def quarantine(
    *,
    state: Annotated[str, typer.Option(help="quarantined, dismissed or imported.")] = "quarantined",
    after: After = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List files that are kept and not booked, and why.

    Example: `causeway bank statement quarantine`
    """
    from custody.banks.entry_model import BankFileState

    wanted = one_of(BankFileState, state, "state of a file")

    async def work(conn: AsyncConnection) -> list[BankFile]:
        from custody.banks.statements import list_bank_files

        return await list_bank_files(conn, state=wanted, after=after, limit=limit)

    columns = ("id", "name", "state", "received", "size", "reason")
    rows = [
        (
            *(str(item.id), item.name, str(item.state), iso(item.received_at)),
            *(str(item.size), item.reason),
        )
        for item in read(work)
    ]
    show("Files", columns, rows, as_json=as_json, right=("size",))


@app.command()
def raw(
    file: Annotated[UUID, typer.Argument(help="Id of a file.")],
    *,
    out: Annotated[Path, typer.Option(help="Where to write its bytes.")],
    as_json: AsJson = False,
) -> None:
    """Write a file as it came, byte for byte.

    Example: `causeway bank statement raw 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --out copy.xml`
    """

    async def work(conn: AsyncConnection) -> tuple[BankFile, bytes]:
        from custody.banks.statements import get_bank_file

        return await get_bank_file(conn, file)

    found, content = read(work)
    out.write_bytes(content)
    show_one(found.name, {"sha256": found.sha256, "written": str(out)}, as_json=as_json)


@app.command()
def reread(
    file: Annotated[UUID, typer.Argument(help="Id of a file in quarantine.")],
    *,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Read a file in quarantine again, once its account or currency is registered.

    Example: `causeway bank statement reread 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --as cleo --key cleo.key`
    """
    from custody.banks.importing import parse_bank_file

    who = credentials(as_, key)

    async def bytes_of(conn: AsyncConnection) -> bytes:
        from custody.banks.statements import get_bank_file

        return (await get_bank_file(conn, file))[1]

    parsed = parse_bank_file(read(bytes_of))

    async def work(conn: AsyncConnection) -> ImportReport:
        from custody.banks.importing import reread_file

        by = await _person(conn, who)
        return await reread_file(conn, file, parsed, by=by, now=clock().now())

    report = write(work, dry_run=dry_run)
    facts = {name: str(value) for name, value in _row(report).items()}
    show_one(report.file.name, facts, as_json=as_json, dry_run=dry_run)


@app.command()
def dismiss(
    file: Annotated[UUID, typer.Argument(help="Id of a file in quarantine.")],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Say that a file in quarantine stays out of the books; its bytes are kept.

    Example: `causeway bank statement dismiss 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80
    --reason "meant for another house" --as cleo --key cleo.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> BankFile:
        from custody.banks.importing import dismiss_file

        by = await _person(conn, who)
        return await dismiss_file(conn, file, by=by, reason=reason, now=clock().now())

    done = write(work)
    show_one(done.name, {"id": str(done.id), "state": str(done.state)}, as_json=as_json)


def receipts(
    *,
    state: Annotated[str, typer.Option(help="unmatched, matched or returned.")] = "unmatched",
    account: Annotated[str | None, typer.Option(help="Only of this bank account.")] = None,
    after: After = None,
    limit: Limit = 100,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List what came through banks, what they took back, and debits that nobody explains.

    Example: `causeway bank receipts --state unmatched`
    """
    from custody.banks.entry_model import BankReceiptKind, BankReceiptState

    wanted = one_of(BankReceiptState, state, "state of a receipt")

    async def work(conn: AsyncConnection) -> tuple[list[BankReceipt], Money]:
        from custody.banks.receipts import list_bank_receipts

        kinds = tuple(BankReceiptKind)
        found = await list_bank_receipts(
            conn, book, state=wanted, kinds=kinds, account=account, after=after, limit=limit
        )
        return found, await Money.load(conn)

    found, money = read(work, book=book)
    columns = ("id", "kind", "account", "day", "amount", "end_to_end", "name", "iban", "matched_to")
    rows = [
        (
            *(str(item.id), str(item.kind), item.account, item.booking_date.isoformat()),
            money.text(item.value, item.asset),
            *(item.end_to_end, item.name, item.iban, item.matched_to),
        )
        for item in found
    ]
    show("Receipts", columns, rows, as_json=as_json, right=("amount",))


def _import_one(who: Credentials, name: str, content: bytes, *, dry_run: bool) -> ImportReport:
    from custody.banks.importing import parse_bank_file

    parsed = parse_bank_file(content)

    async def work(conn: AsyncConnection) -> ImportReport:
        from custody.banks.importing import import_file

        by = await _person(conn, who)
        now = clock().now()
        return await import_file(conn, content, name=name, by=by, parsed=parsed, now=now)

    return write(work, dry_run=dry_run)


async def _person(conn: AsyncConnection, who: Credentials) -> str:
    from registry.model import Role

    person = await who.person(conn, Role.FINANCE, Role.OPERATIONS, Role.TREASURER)
    return person.code


def _require_readable(path: Path) -> None:
    """Refuse a file before the first is taken in, and before its bytes are in memory."""
    from banks.safe_xml import BYTES_MAX

    try:
        size = path.stat().st_size
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    if size > BYTES_MAX:
        raise BadInput(f"{path} has {size} bytes, more than {BYTES_MAX}")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error


def _row(report: ImportReport) -> dict[str, Any]:
    return {
        "id": str(report.file.id),
        "state": str(report.file.state),
        "format": report.file.format,
        "new": report.new,
        "statements": len(report.statements),
        "known": len(report.known),
        "booked": report.booked,
        "pending": report.pending,
        "reason": report.file.reason,
    }
