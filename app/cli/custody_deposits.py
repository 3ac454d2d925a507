"""``causeway custody adopt, dismiss, pending, confirmations``: deposits off the straight road."""

from __future__ import annotations

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
    one_of,
    read,
    show,
    show_one,
    write,
)
from app.cli.operators import Approver, ApproverKey, As, Key, credentials
from kernel.clock import iso

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from custody.deposit_model import Deposit, PendingArrival
    from custody.policy_versions import PolicyVersion

confirmations = typer.Typer(
    help="When what arrives is deep enough: the policies that have decided.", no_args_is_help=True
)
DepositId = Annotated[UUID, typer.Argument(metavar="DEPOSIT", help="Id of the deposit.")]


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    for command in (adopt, dismiss, pending):
        app.command()(command)
    app.add_typer(confirmations, name="confirmations")


def adopt(
    deposit_id: DepositId,
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
    """Let a quarantined deposit into the books once its token is registered; two operators sign.

    Example: `causeway custody adopt 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "registered since" --as ben
    --key ben.key --approver cleo --approver-key cleo.key`
    """
    one, two = credentials(as_, key), credentials(approver, approver_key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.compliance.people import ADOPT_VERB, deposit_bytes
        from custody.deposits import get_deposit
        from custody.quarantine import adopt as verb

        people = (await one.person(conn), await two.person(conn))
        payload = deposit_bytes(ADOPT_VERB, await get_deposit(conn, deposit_id), reason)
        done = await verb(
            conn,
            deposit_id,
            signatures={person.code: person.sign(payload) for person in people},
            reason=reason,
            book=book,
            now=clock().now(),
        )
        return _deposit(done, await Money.load(conn))

    found = write(work, dry_run=dry_run)
    show_one("Deposit", found, as_json=as_json, dry_run=dry_run)


def dismiss(
    deposit_id: DepositId, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False
) -> None:
    """Leave a quarantined deposit out of the books for good; one operator signs.

    Example: `causeway custody dismiss 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "a forged token" --as ben
    --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.compliance.people import DISMISS_VERB, deposit_bytes
        from custody.deposits import get_deposit
        from custody.quarantine import dismiss as verb

        me = await who.person(conn)
        payload = deposit_bytes(DISMISS_VERB, await get_deposit(conn, deposit_id), reason)
        done = await verb(
            conn,
            deposit_id,
            signatures={me.code: me.sign(payload)},
            reason=reason,
            now=clock().now(),
        )
        return _deposit(done, await Money.load(conn))

    show_one("Deposit", write(work), as_json=as_json)


def pending(
    *,
    chain: Annotated[str | None, typer.Option(help="Only those on this chain.")] = None,
    state: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    as_json: AsJson = False,
) -> None:
    """List what was seen in a pool on its way to us, the newest first; none of it is in the books.

    Example: `causeway custody pending --state seen`
    """
    from custody.deposit_model import PendingState

    wanted = None if state is None else one_of(PendingState, state, "state of a pending arrival")

    async def work(conn: AsyncConnection) -> list[PendingArrival]:
        from custody.pending import list_pending

        return await list_pending(conn, chain=chain, state=wanted)

    columns = (
        *(
            "id",
            "state",
            "party",
            "units",
            "contract",
            "recipient",
            "sender",
            "transaction",
            "seen",
        ),
    )
    rows = [
        (
            *(
                str(item.id),
                str(item.state),
                item.party or "",
                str(item.amount),
                item.contract or "",
            ),
            *(item.recipient, item.sender, item.tx_hash, iso(item.first_seen_at)),
        )
        for item in read(work)
    ]
    show("Pending arrivals", columns, rows, as_json=as_json, right=("units",))


@confirmations.command("list")
def confirmations_list(*, as_json: AsJson = False) -> None:
    """List the confirmation policies that have decided something, and since when.

    Example: `causeway custody confirmations list`
    """

    async def work(conn: AsyncConnection) -> list[PolicyVersion]:
        from custody.policy_versions import list_policy_versions

        return await list_policy_versions(conn)

    columns = ("version", "rules", "content", "first_used")
    rows = [
        (
            *(str(item.policy.version), str(len(item.policy.rules))),
            *(item.content_hash, iso(item.first_used_at)),
        )
        for item in read(work)
    ]
    show("Confirmation policies", columns, rows, as_json=as_json, right=("version", "rules"))


@confirmations.command("explain")
def confirmations_explain(
    arrival_id: Annotated[UUID, typer.Argument(metavar="ID", help="Of the deposit or receipt.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say which version and rule of the policy decided when something counted, and why no other.

    Example: `causeway custody confirmations explain 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """

    async def work(conn: AsyncConnection) -> list[str]:
        from custody.deposits import get_deposit
        from custody.errors import UnknownRow
        from custody.policy_versions import explain_decision
        from custody.receipts import get_receipt

        try:
            return await explain_decision(conn, await get_deposit(conn, arrival_id))
        except UnknownRow:
            return await explain_decision(conn, await get_receipt(conn, arrival_id))

    lines = [(line,) for line in read(work)]
    show(f"What decided about {arrival_id}", ("line",), lines, as_json=as_json)


def _deposit(item: Deposit, money: Money) -> dict[str, str]:
    return {
        "id": str(item.id),
        "state": str(item.state),
        "amount": money.text(item.amount, item.asset) if item.asset else str(item.amount),
        "credit": item.credit,
        "reason": item.reason,
    }
