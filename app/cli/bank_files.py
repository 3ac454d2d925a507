"""``causeway bank files``: payment files, approved by two people over their hash."""

from __future__ import annotations

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
    one_of,
    parse_date,
    read,
    show,
    show_one,
    write,
)
from app.cli.operators import (
    Approver,
    ApproverKey,
    As,
    Credentials,
    Key,
    credentials,
    people_of,
    signatures_of,
)
from kernel.clock import iso
from kernel.errors import BadInput, Refused

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from custody.banks.payment_model import PaymentFile, PaymentLine
    from custody.banks.payment_reports import TakenReport

FOUND_WRONG = 1

app = typer.Typer(help="What banks are told to pay.", no_args_is_help=True)
FileId = Annotated[UUID, typer.Argument(metavar="FILE", help="Id of the payment file.")]
Evidence = Annotated[
    str, typer.Option(help="SHA-256 of the document in which the bank says so, in hexadecimal.")
]


@app.command("list")
def list_(
    *,
    state: Annotated[str | None, typer.Option("--state", help="Only those in this state.")] = None,
    account: Annotated[str | None, typer.Option(help="Only those of this account.")] = None,
    after: Annotated[UUID | None, typer.Option(help="Go on after this file.")] = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List payment files, oldest first, with what each one waits for.

    Example: `causeway bank files list --state drafted`
    """
    from custody.banks.payment_model import FileState

    states = None if state is None else {one_of(FileState, state, "state of a payment file")}

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from custody.banks.payment_views import get_file, list_files

        money = await Money.load(conn)
        last = None if after is None else await get_file(conn, after)
        found = await list_files(conn, book=book, account=account, states=states, after=last)
        return [tuple(_facts(item, money).values()) for item in found]

    columns = (
        *("id", "state", "account", "payments", "total", "execution_date", "sha256", "message_id"),
        *("drafted_by", "drafted", "released", "submissions", "bank_status", "waiting_for"),
    )
    show("Payment files", columns, read(work), as_json=as_json, right=("payments", "total"))


@app.command("show")
def show_(file_id: FileId, *, as_json: AsJson = False) -> None:
    """Show a payment file: its payments, who approved it, and what was heard of it.

    Example: `causeway bank files show 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """

    async def work(
        conn: AsyncConnection,
    ) -> tuple[dict[str, str], list[tuple[str, ...]], list[tuple[str, ...]]]:
        from custody.banks.payment_views import get_file, list_approvals, list_lines, list_told

        money, file = await Money.load(conn), await get_file(conn, file_id)
        facts = _facts(file, money)
        given = await list_approvals(conn, file_id)
        facts["approved_by"] = ", ".join(item.operator for item in given)
        lines = [_line(item, file, money) for item in await list_lines(conn, file_id)]
        told: list[tuple[str, ...]] = [
            (iso(item.at), item.name, item.actor, item.reason)
            for item in await list_told(conn, file_id)
        ]
        return facts, lines, told

    facts, lines, told = read(work)
    moments = ("at", "what", "who", "reason")
    if as_json:
        payments = [dict(zip(_LINE, item, strict=True)) for item in lines]
        history = [dict(zip(moments, item, strict=True)) for item in told]
        emit({**facts, "lines": payments, "history": history})
        return
    show_one("Payment file", facts, as_json=False)
    show("Payments", _LINE, lines, as_json=False, right=("amount",))
    show("History", moments, told, as_json=False)


@app.command("draft")
def draft(
    account: Annotated[str, typer.Argument(help="Code of the account that pays.")],
    *,
    on: Annotated[
        str | None, typer.Option("--on", help="Day on which the bank shall pay, YYYY-MM-DD.")
    ] = None,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Write a payment file of the account's approved payouts; who has it made never approves it.

    Without `--on` the bank pays on the first day that its cut-off still allows.

    Example: `causeway bank files draft house-eur --as dan --key dan.key`
    """
    who = credentials(as_, key)
    day = None if on is None else parse_date(on, clock().now())

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.banks.payment_files import draft_file
        from registry.model import Role

        me = await who.person(conn, Role.OPERATIONS, Role.TREASURER)
        file = await draft_file(
            conn, account, book=book, by=me.code, now=clock().now(), execution_date=day
        )
        if file is None:
            raise Refused(
                f"no approved payout of {account} can go into a file now",
                remedy="Look at what they wait for: `causeway custody payouts --state approved`",
            )
        return _facts(file, await Money.load(conn))

    show_one("Payment file", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


@app.command("write")
def write_(
    file_id: FileId,
    *,
    out: Annotated[Path, typer.Option("--out", help="Where to put it; never over another file.")],
    as_json: AsJson = False,
) -> None:
    """Write the bytes of a payment file to look at them: what is approved is their SHA-256.

    Example: `causeway bank files write 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --out payments.xml`
    """

    async def work(conn: AsyncConnection) -> PaymentFile:
        from custody.banks.payment_views import get_file

        return await get_file(conn, file_id)

    file = read(work)
    try:
        with out.open("xb") as target:
            target.write(file.content)
    except OSError as error:
        raise BadInput(
            f"the payment file cannot be written: {error.strerror}",
            where=str(out),
            remedy="Name a file that does not exist yet, in a folder that does",
        ) from error
    facts = {"file": str(out), "sha256": file.sha256, "bytes": str(len(file.content))}
    show_one("Payment file", facts, as_json=as_json)


@app.command("approve")
def approve(
    file_id: FileId, *, as_: As, key: Key, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Approve a payment file: your key signs its hash, account, sum and day. Two people have to.

    Example: `causeway bank files approve 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.banks.payment_files import approval_bytes, approve_file
        from custody.banks.payment_views import get_file

        me = await who.person(conn)
        signature = me.sign(approval_bytes(await get_file(conn, file_id)))
        file = await approve_file(
            conn, file_id, by=me.operator, signature=signature, now=clock().now()
        )
        return _facts(file, await Money.load(conn))

    show_one("Payment file", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


@app.command("discard")
def discard(
    file_id: FileId,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take back a file that was not released: its payouts go into another.

    Example: `causeway bank files discard 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "wrong day" --as dan
    --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.banks.payment_files import discard_file

        me = await who.person(conn)
        file = await discard_file(conn, file_id, by=me.operator, reason=reason, now=clock().now())
        return _facts(file, await Money.load(conn))

    show_one("Payment file", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


@app.command("hold")
def hold(file_id: FileId, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False) -> None:
    """Stop handing a file over: one person does. What the bank has by now, it has.

    Example: `causeway bank files hold 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "wrong payee" --as dan
    --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.banks.payment_release import hold_file

        me = await who.person(conn)
        file = await hold_file(conn, file_id, by=me.operator, reason=reason, now=clock().now())
        return _facts(file, await Money.load(conn))

    show_one("Payment file", write(work), as_json=as_json)


@app.command("again")
def again(
    file_id: FileId,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let a file on hold be handed over once more, the same bytes: two people sign it.

    Example: `causeway bank files again 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "their door was shut"
    --as ben --key ben.key --approver cleo --approver-key cleo.key`
    """
    from custody.banks.payment_release import AGAIN_VERB

    two = credentials(as_, key), credentials(approver, approver_key)
    found = _decide(file_id, AGAIN_VERB, two, evidence="", reason=reason, dry_run=dry_run)
    show_one("Payment file", found, as_json=as_json, dry_run=dry_run)


@app.command("never")
def never(
    file_id: FileId,
    *,
    evidence: Evidence,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give the claims of a file on hold back: the bank has said that it pays nothing of it. Two people sign it.

    Example: `causeway bank files never 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "their letter"
    --evidence e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 --as ben --key ben.key
    --approver cleo --approver-key cleo.key`
    """
    from custody.banks.payment_release import NEVER_VERB

    two = credentials(as_, key), credentials(approver, approver_key)
    found = _decide(file_id, NEVER_VERB, two, evidence=evidence, reason=reason, dry_run=dry_run)
    show_one("Payment file", found, as_json=as_json, dry_run=dry_run)


@app.command("report")
def report(
    path: Annotated[Path, typer.Argument(help="A status report, as the bank sent it.")],
    *,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take in a bank's status report (pain.002); the same one again changes nothing.

    What cannot be read, or speaks of no file that is out, is kept and does nothing; then the command ends with 1.

    Example: `causeway bank files report status.xml --as dan --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> TakenReport:
        from custody.banks.payment_reports import take_report
        from registry.model import Role

        me = await who.person(conn, Role.OPERATIONS, Role.TREASURER)
        return await take_report(conn, _bytes(path), by=me.code, now=clock().now())

    taken = write(work, dry_run=dry_run)
    facts = {
        "id": str(taken.id),
        "state": str(taken.state),
        "file": "" if taken.file_id is None else str(taken.file_id),
        "known_before": "yes" if taken.known else "no",
        "refused": ", ".join(map(str, taken.refused)),
        "accepted": ", ".join(map(str, taken.accepted)),
        "look_at": taken.detail,
    }
    show_one("Status report", facts, as_json=as_json, dry_run=dry_run)
    if taken.detail:
        raise typer.Exit(FOUND_WRONG)


@app.command("reports")
def reports(*, as_json: AsJson = False) -> None:
    """List the newest status reports of banks.

    Example: `causeway bank files reports`
    """

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from custody.banks.payment_views import list_reports

        return [
            (
                *(str(row.id), row.state, str(row.file_id or ""), iso(row.received_at)),
                *(row.received_by, row.sha256, row.detail),
            )
            for row in await list_reports(conn)
        ]

    columns = ("id", "state", "file", "received", "received_by", "sha256", "look_at")
    show("Status reports", columns, read(work), as_json=as_json)


_LINE = (
    *("number", "payout", "end_to_end", "amount", "payee", "state"),
    *("bank_status", "bank_reason"),
)


def _facts(file: PaymentFile, money: Money) -> dict[str, str]:
    return {
        "id": str(file.id),
        "state": str(file.state),
        "account": file.account,
        "payments": str(file.line_count),
        "total": money.text(file.total, file.asset),
        "execution_date": file.execution_date.isoformat(),
        "sha256": file.sha256,
        "message_id": file.message_id,
        "drafted_by": file.drafted_by,
        "drafted": iso(file.drafted_at),
        "released": "" if file.released_at is None else iso(file.released_at),
        "submissions": str(file.submissions),
        "bank_status": file.bank_status,
        "waiting_for": file.waiting_for,
    }


def _line(item: PaymentLine, file: PaymentFile, money: Money) -> tuple[str, ...]:
    return (
        *(str(item.number), str(item.payout_id), item.end_to_end),
        *(money.text(item.amount, file.asset), item.destination, str(item.state)),
        *(item.bank_status, item.bank_reason),
    )


def _decide(
    file_id: UUID,
    verb: str,
    two: tuple[Credentials, Credentials],
    *,
    evidence: str,
    reason: str,
    dry_run: bool,
) -> dict[str, str]:
    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.banks.payment_release import decide_held, decision_bytes
        from custody.banks.payment_views import get_file

        people = await people_of(conn, two)
        payload = decision_bytes(verb, await get_file(conn, file_id), evidence, reason)
        file = await decide_held(
            conn,
            file_id,
            verb=verb,
            signatures=signatures_of(people, payload),
            evidence=evidence,
            reason=reason,
            now=clock().now(),
        )
        return _facts(file, await Money.load(conn))

    return write(work, dry_run=dry_run)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(
            f"the report cannot be read: {error.strerror}", where=str(path), remedy="Name its file"
        ) from error
