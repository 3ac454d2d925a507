"""``causeway custody payouts, payout, approve, reject, cancel``: coins on their way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    Amount,
    AsJson,
    Book,
    DryRun,
    Money,
    Reason,
    clock,
    one_of,
    parse_time,
    read,
    show,
    show_one,
    write,
)
from app.cli.custody_explain import payout_facts
from app.cli.operators import As, Key, credentials

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from custody.payout_model import Payout

PayoutId = Annotated[UUID, typer.Argument(metavar="PAYOUT", help="Id of the payout.")]


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    for command in (payouts, payout, approve, reject, cancel):
        app.command()(command)


def payouts(
    *,
    state: Annotated[str | None, typer.Option("--state", help="Only those in this state.")] = None,
    claim: Annotated[str | None, typer.Option(help="Only those that debit this claim.")] = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List payouts, oldest first, with what each one waits for.

    Example: `causeway custody payouts --state pending_approval`
    """
    from custody.payout_model import PayoutState

    wanted = None if state is None else {one_of(PayoutState, state, "state of a payout")}

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from custody.payouts import list_payouts

        money = await Money.load(conn)
        found = await list_payouts(conn, book=book, states=wanted, claim=claim)
        return [tuple(payout_facts(item, money).values()) for item in found]

    columns = (
        *("id", "state", "reference", "claim", "amount", "destination", "source"),
        *("requested_by", "approvals_required", "transaction", "fee", "waiting_for", "requested"),
        "expires",
    )
    show("Payouts", columns, read(work), as_json=as_json, right=("amount", "fee"))


def payout(
    amount: Annotated[str, typer.Argument(help='Decimal and asset: "1.5 ETH".')],
    *,
    claim: Annotated[
        str, typer.Option(help="At whose expense: client:ID, payable:PARTY:netted, own:WALLET.")
    ],
    to: Annotated[
        str,
        typer.Option(help="Address, or IBAN|BIC|name; it has to be allowed for the party."),
    ],
    source: Annotated[str, typer.Option("--from", help="The wallet or bank account that pays.")],
    reference: Annotated[str, typer.Option("--ref", help="Your own; one payout for each.")],
    expires: Annotated[
        str | None, typer.Option("--expires", help="When it lapses; without it, in 7 days.")
    ] = None,
    rail: Annotated[
        str, typer.Option(help='"bank" from an account at a bank; else as the chain does.')
    ] = "",
    reason: Reason = "",
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Request a payout: the claim is reserved, and other operators have to approve it.

    Example: `causeway custody payout "1 ETH" --claim client:acme --to 0x70997970C51812dc3A010C7d01b50e0d17dc79C8
    --from client-pool --ref w-17 --as dan --key dan.key`
    """
    asked = Amount.parse(amount)
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.payout_model import PayoutRequest
        from custody.payouts import request_payout
        from registry.model import Role

        money = await Money.load(conn)
        me = await who.person(conn, Role.OPERATIONS, Role.TREASURER, Role.DEALER)
        request = PayoutRequest(
            client_ref=reference,
            claim=claim,
            source_wallet=source,
            asset=asked.asset,
            amount=money.units(asked),
            destination=to,
            requested_by=me.code,
            reason=reason,
            rail=rail,
            expires_at=parse_time(expires),
        )
        made = await request_payout(conn, request, book=book, now=clock().now())
        return await _facts(conn, made, money)

    found = write(work, dry_run=dry_run)
    show_one("Payout", found, as_json=as_json, dry_run=dry_run)
    _exit_if_rejected(found)


def approve(
    payout_id: PayoutId,
    *,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Approve a payout: your key signs its destination, asset, amount, initiator and end.

    The signer takes the approval until the payout expires, by its own clock, and not after.

    Example: `causeway custody approve 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.payout_approvals import approval_bytes
        from custody.payouts import approval_line, approve_payout, get_payout

        me = await who.person(conn)
        pending = await get_payout(conn, payout_id)
        done = await approve_payout(
            conn,
            payout_id,
            by=me.operator,
            signature=me.sign(approval_bytes([approval_line(pending)])),
            book=book,
            now=clock().now(),
        )
        return payout_facts(done, await Money.load(conn))

    show_one("Payout", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


def reject(
    payout_id: PayoutId,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Say no to a payout; what it reserved is given back.

    Example: `causeway custody reject 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "wrong address" --as ben
    --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.payouts import reject_payout

        me = await who.person(conn)
        done = await reject_payout(
            conn, payout_id, by=me.operator, reason=reason, book=book, now=clock().now()
        )
        return payout_facts(done, await Money.load(conn))

    show_one("Payout", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


def cancel(
    payout_id: PayoutId,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Take a payout back that has no nonce yet; what it reserved is given back.

    Example: `causeway custody cancel 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "asked to wait" --as dan
    --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.payouts import cancel_payout

        me = await who.person(conn)
        done = await cancel_payout(
            conn, payout_id, by=me.operator, reason=reason, book=book, now=clock().now()
        )
        return payout_facts(done, await Money.load(conn))

    show_one("Payout", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


async def _facts(conn: AsyncConnection, item: Payout, money: Money) -> dict[str, str]:
    """Return the payout's facts, and why it was rejected if it was."""
    from custody.payout_model import PayoutState
    from custody.payouts import explain

    facts = payout_facts(item, money)
    if item.state is PayoutState.REJECTED:
        story = await explain(conn, item.id)
        facts["refused"] = story.timeline[-1].what
    return facts


def _exit_if_rejected(facts: dict[str, str]) -> None:
    if "refused" in facts:
        raise typer.Exit(1)
