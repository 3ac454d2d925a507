"""``causeway settle default``: what stands with a party that does not pay, and that nothing goes to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

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
    read,
    show,
    show_one,
    write,
)
from app.cli.operators import Approver, ApproverKey, As, Key, credentials
from kernel.clock import iso

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from settlement.fail_model import PartyDefault

app = typer.Typer(help="Default of a party: report, declare, lift.", no_args_is_help=True)

Party = Annotated[str, typer.Argument(metavar="PARTY", help="Code of the party.")]


@app.command("report")
def report(party: Party, *, book: Book = BOOK_DEFAULT, as_json: AsJson = False) -> None:
    """Show the close-out as it stands: by netting set and asset, what is held, what could leave.

    Only a set whose agreement has a close-out clause is one sum; anything else stands as it is owed.

    Example: `causeway settle default report acme`
    """

    async def work(conn: AsyncConnection) -> tuple[dict[str, Any], Money]:
        from settlement.defaults import report_close_out

        made = await report_close_out(conn, party, book=book, now=clock().now())
        return made.document(), await Money.load(conn)

    document, money = read(work)
    if as_json:
        emit(document)
        return
    rows = [
        (
            line["netting_set"],
            *(money.text(int(line[side]), line["asset"]) for side in ("we_owe", "they_owe")),
            "" if line["net"] is None else money.text(int(line["net"]), line["asset"]),
        )
        for line in document["sets"]
    ]
    columns = ("netting set", "we owe", "they owe", "net of the close-out")
    show(f"Close-out of {party}", columns, rows, as_json=False, right=columns[1:])
    held = [
        (one["account"], money.text(int(one["units"]), one["asset"])) for one in document["held"]
    ]
    show("In our books", ("account", "balance"), held, as_json=False, right=("balance",))
    if document["leaving"]:
        show("Not out yet", ("payout",), [(text,) for text in document["leaving"]], as_json=False)


@app.command("declare")
def declare(
    party: Party,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    book: Book = BOOK_DEFAULT,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Stop everything that would go to a party, and keep the close-out report; two people sign.

    Example: `causeway settle default declare acme --reason "insolvent since today" --as ada --key ada.key --approver cleo
    --approver-key cleo.key`
    """
    first, second = credentials(as_, key), credentials(approver, approver_key)

    async def work(conn: AsyncConnection) -> PartyDefault:
        from settlement.defaults import declare_default

        me, other = await first.person(conn), await second.person(conn)
        return await declare_default(
            conn,
            party,
            book=book,
            by=me.operator,
            sign=me.sign,
            second=other.operator,
            second_sign=other.sign,
            reason=reason,
            now=clock().now(),
        )

    made = write(work, dry_run=dry_run)
    show_one("Default", _facts(made), as_json=as_json, dry_run=dry_run)


@app.command("lift")
def lift(
    party: Party,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    book: Book = BOOK_DEFAULT,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let things be released to a party again; its freeze is opened with `causeway custody unfreeze`.

    Example: `causeway settle default lift acme --reason "it has paid" --as ada --key ada.key --approver cleo
    --approver-key cleo.key`
    """
    first, second = credentials(as_, key), credentials(approver, approver_key)

    async def work(conn: AsyncConnection) -> PartyDefault:
        from settlement.defaults import get_default, lift_bytes, lift_default

        me, other = await first.person(conn), await second.person(conn)
        found = await get_default(conn, book, party)
        return await lift_default(
            conn,
            party,
            book=book,
            by=me.operator,
            second=other.operator,
            signature=other.sign(lift_bytes(found, reason)),
            reason=reason,
            now=clock().now(),
        )

    done = write(work, dry_run=dry_run)
    show_one("Default", _facts(done), as_json=as_json, dry_run=dry_run)


@app.command("list")
def list_(
    *,
    past: Annotated[bool, typer.Option("--past", help="Also those that were lifted.")] = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List the parties in default, the newest first.

    Example: `causeway settle default list --past`
    """

    async def work(conn: AsyncConnection) -> list[PartyDefault]:
        from settlement.defaults import list_defaults

        return await list_defaults(conn, book, past=past)

    rows = [tuple(_facts(item).values()) for item in read(work)]
    columns = (
        *("id", "party", "state", "declared_by", "second", "reason", "declared", "report"),
        *("lifted_by", "lifted_reason"),
    )
    show("Defaults", columns, rows, as_json=as_json)


def _facts(item: PartyDefault) -> dict[str, str]:
    return {
        "id": str(item.id),
        "party": item.party,
        "state": str(item.state),
        "declared_by": item.declared_by,
        "second": item.second,
        "reason": item.reason,
        "declared": iso(item.declared_at),
        "report": item.report_hash,
        "lifted_by": item.lifted_by or "",
        "lifted_reason": item.lifted_reason or "",
    }
