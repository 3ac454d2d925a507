"""``causeway custody freeze, unfreeze, freezes, stops``: what is closed, by people and by caps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import AsJson, clock, read, show, show_one, write
from app.cli.operators import Approver, ApproverKey, As, Key, credentials
from kernel.clock import iso

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from custody.freezes import Freeze
    from custody.reconciliation_model import SigningStop

ScopeText = Annotated[
    str,
    typer.Argument(
        metavar="SCOPE", help="global, chain:CODE, asset:CODE, wallet:CODE or client:ID."
    ),
]
Why = Annotated[str, typer.Option("--reason", help="Why; it is signed and stays in the history.")]


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    for command in (freeze, unfreeze, freezes, stops):
        app.command()(command)


def freeze(scope: ScopeText, *, reason: Why, as_: As, key: Key, as_json: AsJson = False) -> None:
    """Stop everything of a scope at once: requests, signing, sending, crediting. One person does.

    What a process of the house froze already, the signer may not know: freezing it again tells it.

    Example: `causeway custody freeze client:acme --reason "stolen phone" --as dan --key dan.key`
    """
    from custody.freezes import Scope

    who, parsed = credentials(as_, key), Scope.parse(scope)

    async def work(conn: AsyncConnection) -> Freeze:
        from custody.freeze_model import freeze_bytes
        from custody.freezes import close, derive_freeze_id

        me, now = await who.person(conn), clock().now()
        signature = me.sign(freeze_bytes(derive_freeze_id(parsed, now), parsed, reason))
        return await close(conn, parsed, by=me.code, signature=signature, reason=reason, now=now)

    show_one("Freeze", _facts(write(work)), as_json=as_json)


def unfreeze(
    scope: ScopeText,
    *,
    reason: Why,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    as_json: AsJson = False,
) -> None:
    """Let a scope move again: two people sign.

    Example: `causeway custody unfreeze global --reason "looked at" --as ada --key ada.key --approver ben
    --approver-key ben.key`
    """
    from custody.freezes import Scope

    first, second = credentials(as_, key), credentials(approver, approver_key)
    parsed = Scope.parse(scope)

    async def work(conn: AsyncConnection) -> Freeze:
        from custody.freeze_model import thaw_bytes
        from custody.freezes import get_closed, open_again

        people = [await item.person(conn) for item in (first, second)]
        payload = thaw_bytes((await get_closed(conn, parsed)).id, reason)
        return await open_again(
            conn,
            parsed,
            signatures={item.code: item.sign(payload) for item in people},
            reason=reason,
            now=clock().now(),
        )

    show_one("Freeze", _facts(write(work)), as_json=as_json)


def freezes(
    *,
    past: Annotated[bool, typer.Option("--past", help="Also those that were opened.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what is frozen, newest first.

    Example: `causeway custody freezes`
    """

    async def work(conn: AsyncConnection) -> list[Freeze]:
        from custody.freezes import list_freezes

        return await list_freezes(conn, past=past)

    rows = [tuple(_facts(item).values()) for item in read(work)]
    columns = (
        *("id", "scope", "state", "closed_by", "signed_by", "closed_at", "reason"),
        *("opened_by", "opened_at"),
    )
    show("Freezes", columns, rows, as_json=as_json)


def stops(
    *,
    wallet: Annotated[str | None, typer.Option(help="Only those of this wallet.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the hot wallets that sign nothing for others now, because they hold more than their cap.

    Example: `causeway custody stops --wallet client-pool`
    """

    async def work(conn: AsyncConnection) -> list[SigningStop]:
        from custody.signing_stops import list_stops

        return await list_stops(conn, wallet=wallet)

    rows = [(item.wallet, item.asset, iso(item.since), item.reason) for item in read(work)]
    show("Signing stops", ("wallet", "asset", "since", "reason"), rows, as_json=as_json)


def _facts(item: Freeze) -> dict[str, str]:
    return {
        "id": str(item.id),
        "scope": str(item.scope),
        "state": str(item.state),
        "closed_by": item.closed_by,
        "signed_by": item.signed_by or "",
        "closed_at": iso(item.closed_at),
        "reason": item.closed_reason,
        "opened_by": " and ".join(item.opened_by or ()),
        "opened_at": "" if item.opened_at is None else iso(item.opened_at),
    }
