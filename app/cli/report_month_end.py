"""``causeway report month-end``: what stands in the way, who let it pass, the pack, its check."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

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
from app.cli.operators import Approver, ApproverKey, As, Key, credentials
from app.cli.prices_snapshot import Month, parse_month
from app.cli.report_pnl import FIFO, MethodName
from app.cli.report_shown import In
from kernel.clock import iso
from kernel.errors import BadInput, Refused

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from app.reports.month_end import Built
    from reporting.month_end.model import MonthEnd, Obstacle, Waiver

MANIFEST: Final = "manifest.json"
FILE_COLUMNS: Final = ("name", "bytes", "sha256")
OBSTACLE_COLUMNS: Final = ("obstacle", "what", "may pass", "let pass by", "reason")
PACK_COLUMNS: Final = ("id", "month", "manifest_sha256", "built_by", "built_at")


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    app.command("month-end")(month_end)
    app.command()(obstacles)
    app.command()(waive)
    app.command("month-ends")(month_ends)
    app.command("check-pack")(check_pack)


def month_end(
    month: Month,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="A new folder.")],
    map_file: Annotated[
        Path, typer.Option("--map", metavar="FILE", help="Map of the general ledger, CSV or TOML.")
    ],
    currency: In,
    method: MethodName = FIFO,
    no_pdf: Annotated[
        bool, typer.Option("--no-pdf", help="Clients' statements as CSV only.")
    ] = False,
    as_: As,
    key: Key,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Build the pack of a month: every report in one folder, and a manifest with the hash of each file.

    Trial balance, positions, profit and loss at the locked prices, the general ledger's batch, every
    client's statement, and the breaks that are open. Refused while a break or the period is open, unless
    two people have said why (`causeway report waive`).

    Example: `causeway report month-end 2026-10 --out pack-2026-10 --map gl.csv --in USDT --as cleo --key cleo.key`
    """
    who = credentials(as_, key)
    first = parse_month(month)

    async def work(engine: AsyncEngine) -> Built:
        from app.documents import find_statement_draw
        from app.reports.month_end import Order, build_pack
        from kernel.db import transact
        from ledger.export.general_ledger import read_map
        from registry.model import Role
        from reporting.valuation.model import Method

        rules = read_map(_text(map_file), toml=map_file.suffix.lower() == ".toml")
        draw = None if no_pdf else find_statement_draw()
        if draw is None and not no_pdf:
            raise Refused(
                "PDFs need reportlab", remedy="Install causeway[documents], or give --no-pdf"
            )

        async def asked(conn: AsyncConnection) -> Order:
            me = await who.person(conn, Role.FINANCE, Role.TREASURER)
            return Order(
                book=book,
                month=first,
                rules=rules,
                currency=(await Money.load(conn)).asset(currency),
                method=one_of(Method, method, "method"),
                draw=draw,
                by=me.code,
            )

        order = await transact(engine, asked)
        return await build_pack(engine, order, out, now=clock().now(), progress=_say)

    built = run(lambda: on_database(work))
    facts = {**_facts(built.month_end), "folder": str(out)}
    files = [(item.name, str(item.size), item.sha256) for item in built.pack.files]
    if as_json:
        emit({**facts, "files": [dict(zip(FILE_COLUMNS, row, strict=True)) for row in files]})
        return
    show_one(f"The month's end of {month}", facts, as_json=False)
    show("Files", FILE_COLUMNS, files, as_json=False, right=("bytes",))


def obstacles(month: Month, *, book: Book = BOOK_DEFAULT, as_json: AsJson = False) -> None:
    """Show what stands in the way of a month's end; exit code 1 while something has not been let pass.

    Example: `causeway report obstacles 2026-10`
    """
    first = parse_month(month)

    async def work(conn: AsyncConnection) -> tuple[tuple[Obstacle, ...], dict[str, Waiver]]:
        from app.reports.month_end import read_obstacles
        from reporting.month_end.waivers import list_waivers

        found = await read_obstacles(conn, book, first)
        return found, await list_waivers(conn, book, first)

    found, waivers = read(work, book=book)
    rows = []
    for item in found:
        waiver = waivers.get(item.key)
        people = f"{waiver.proposed_by}, {waiver.approved_by}" if waiver else ""
        may = "two people may" if item.may_pass else "never"
        rows.append((item.key, item.what, may, people, waiver.reason if waiver else ""))
    show(f"What stands in the way of {month}", OBSTACLE_COLUMNS, rows, as_json=as_json)
    if any(not item.may_pass or item.key not in waivers for item in found):
        raise typer.Exit(1)


def waive(
    month: Month,
    obstacle: Annotated[str, typer.Argument(metavar="OBSTACLE", help="As `obstacles` names it.")],
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
    """Let an open period or an open break pass: two people sign the obstacle and the reason.

    Example: `causeway report waive 2026-10 period-open --reason "the auditor closes it" --as cleo --key cleo.key --approver ben --approver-key ben.key`
    """
    who, second = credentials(as_, key), credentials(approver, approver_key)
    first = parse_month(month)

    async def work(conn: AsyncConnection) -> Waiver:
        from app.reports.month_end import read_obstacles
        from reporting.month_end.waivers import waive as verb
        from reporting.month_end.waivers import waiver_bytes

        found = {item.key: item for item in await read_obstacles(conn, book, first)}
        if obstacle not in found:
            raise Refused(
                f"{obstacle} does not stand in the way of {month}",
                remedy="See `causeway report obstacles`",
            )
        me, other = await who.person(conn), await second.person(conn)
        payload = waiver_bytes(book, first, found[obstacle], reason)
        return await verb(
            conn,
            book,
            first,
            found[obstacle],
            reason=reason,
            by=me.code,
            proposal=me.sign(payload),
            approved_by=other.code,
            approval=other.sign(payload),
            now=clock().now(),
        )

    item = write(work, dry_run=dry_run)
    facts = {
        "id": str(item.id),
        "month": month,
        "obstacle": item.obstacle,
        "reason": item.reason,
        "proposed_by": item.proposed_by,
        "approved_by": item.approved_by,
    }
    show_one(f"{item.obstacle} of {month} may pass", facts, as_json=as_json, dry_run=dry_run)


def month_ends(*, book: Book = BOOK_DEFAULT, as_json: AsJson = False) -> None:
    """List the packs that were built, the latest months first.

    Example: `causeway report month-ends`
    """

    async def work(conn: AsyncConnection) -> list[MonthEnd]:
        from reporting.month_end.waivers import list_month_ends

        return await list_month_ends(conn, book)

    rows = [tuple(_facts(item).values()) for item in read(work, book=book)]
    show("Month ends", PACK_COLUMNS, rows, as_json=as_json)


def check_pack(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A pack.")],
    *,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Check a pack's files against its manifest, and the manifest against the record; else exit code 1.

    Example: `causeway report check-pack pack-2026-10`
    """

    async def work(conn: AsyncConnection) -> set[str]:
        from reporting.month_end.waivers import list_month_ends

        return {item.manifest_sha256 for item in await list_month_ends(conn, book)}

    known = read(work, book=book)
    from app.reports.month_end import check_pack as verb

    differences = list(verb(folder))
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    if digest not in known:
        differences.append("no pack with this manifest is on record")
    facts = {
        "folder": str(folder),
        "manifest_sha256": digest,
        "differences": "; ".join(differences),
    }
    show_one(f"The pack {folder}", facts, as_json=as_json)
    if differences:
        raise typer.Exit(1)


def _say(what: str) -> None:
    """Say on the terminal's error output what is being done; nothing where nobody watches."""
    if sys.stderr.isatty():
        typer.echo(f"{what} …", err=True)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the map {path}: {error}") from error


def _facts(item: MonthEnd) -> dict[str, str]:
    return dict(
        zip(
            PACK_COLUMNS,
            (
                *(str(item.id), f"{item.month:%Y-%m}", item.manifest_sha256),
                *(item.built_by, iso(item.built_at)),
            ),
            strict=True,
        )
    )
