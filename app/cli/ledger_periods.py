"""``causeway ledger close-period`` and the like: one proposes, two others sign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    DryRun,
    Reason,
    clock,
    parse_date,
    read,
    show,
    show_one,
    write,
)
from app.cli.operators import As, Key, credentials
from kernel.clock import iso

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from ledger.journals.model import PeriodProposal

ProposalId = Annotated[UUID, typer.Argument(metavar="PROPOSAL", help="Id of the proposal.")]


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    for name, command in (
        ("close-period", close_period),
        ("reopen-period", reopen_period),
        ("approve-period", approve_period),
        ("reject-period", reject_period),
        ("period-proposals", period_proposals),
    ):
        app.command(name)(command)


def close_period(
    through: Annotated[str, typer.Argument(help="The last day of the period, ISO date.")],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Propose to close every effective day up to a day; two other operators have to approve.

    Refused while manual journals of the period wait, or the trial balance is not zero.

    Example: `causeway ledger close-period 2025-12-31 --reason "year end" --as cleo --key cleo.key`
    """
    who, now = credentials(as_, key), clock().now()
    day = parse_date(through, now)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from ledger.journals.periods import propose_close

        me = await who.person(conn)
        return _facts(await propose_close(conn, book, day, by=me.code, reason=reason, now=now))

    show_one("Period", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


def reopen_period(
    through: Annotated[str, typer.Argument(help="The last day that shall stay closed, ISO date.")],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Propose to open the closed days after a day again; two other operators have to approve.

    Example: `causeway ledger reopen-period 2025-11-30 --reason "late invoice" --as cleo --key cleo.key`
    """
    who, now = credentials(as_, key), clock().now()
    day = parse_date(through, now)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from ledger.journals.periods import propose_reopen

        me = await who.person(conn)
        return _facts(await propose_reopen(conn, book, day, by=me.code, reason=reason, now=now))

    show_one("Period", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


def approve_period(
    proposal_id: ProposalId,
    *,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Sign the close or the reopening of a period; with the second signature it is recorded.

    Example: `causeway ledger approve-period 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from ledger.journals.decisions import period_bytes
        from ledger.journals.periods import approve_period as verb
        from ledger.journals.periods import get_period

        me = await who.person(conn)
        item = await get_period(conn, proposal_id)
        signature = me.sign(period_bytes(item))
        return _facts(
            await verb(conn, proposal_id, by=me.code, signature=signature, now=clock().now())
        )

    show_one("Period", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


def reject_period(
    proposal_id: ProposalId,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Say no to the close or the reopening of a period, or take back your own proposal.

    Example: `causeway ledger reject-period 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "not yet"
    --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from ledger.journals.periods import reject_period as verb

        me = await who.person(conn)
        return _facts(await verb(conn, proposal_id, by=me.code, reason=reason, now=clock().now()))

    show_one("Period", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


def period_proposals(*, book: Book = BOOK_DEFAULT, as_json: AsJson = False) -> None:
    """List the proposals to close and reopen periods, newest first, with who signed.

    Example: `causeway ledger period-proposals`
    """

    async def work(conn: AsyncConnection) -> list[dict[str, str]]:
        from ledger.journals.periods import list_periods

        return [_facts(item) for item in await list_periods(conn, book)]

    columns = ("id", "kind", "through", "state", "reason", "proposed_by", "approved_by", "proposed")
    rows = [tuple(facts[name] for name in columns) for facts in read(work, book=book)]
    show("Proposals about periods", columns, rows, as_json=as_json)


def _facts(item: PeriodProposal) -> dict[str, str]:
    return {
        "id": str(item.id),
        "kind": item.kind.value,
        "through": item.through.isoformat(),
        "state": str(item.state),
        "reason": item.reason,
        "proposed_by": item.proposed_by,
        "approved_by": ", ".join(item.approvers),
        "proposed": iso(item.proposed_at),
        "decided": iso(item.decided_at) if item.decided_at else "",
        "rejected_by": item.rejected_by,
        "rejection_reason": item.rejection_reason,
    }
