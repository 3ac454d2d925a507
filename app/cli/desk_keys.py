"""``causeway desk confirmation-keys, enrol-confirmation-key, revoke-confirmation-key``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import AsJson, Reason, clock, read, show, show_one, write
from app.cli.operators import Approver, ApproverKey, As, Key, credentials
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from trading.confirmations.model import ConfirmationKey

COLUMNS = (
    *("party", "version", "label", "public_key", "enrolled_by", "approved_by", "enrolled"),
    *("revoked_by", "revoked"),
)
Party = Annotated[str, typer.Argument(metavar="PARTY", help="Whose key it is.")]


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    for command in (confirmation_keys, enrol_confirmation_key, revoke_confirmation_key):
        app.command()(command)


def confirmation_keys(
    *,
    party: Annotated[str | None, typer.Option(help="Only those of this party.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the keys with which clients affirm, those out of force too.

    Example: `causeway desk confirmation-keys --party acme`
    """

    async def work(conn: AsyncConnection) -> list[ConfirmationKey]:
        from trading.confirmations.keys import list_keys

        return await list_keys(conn, party)

    rows = [tuple(_facts(item).values()) for item in read(work)]
    show("Confirmation keys", COLUMNS, rows, as_json=as_json)


def enrol_confirmation_key(
    party: Party,
    label: Annotated[str, typer.Argument(metavar="LABEL", help="What the client calls it.")],
    public_key: Annotated[
        str, typer.Argument(metavar="HEX", help="Its public half, Ed25519, 64 digits.")
    ],
    *,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    as_json: AsJson = False,
) -> None:
    """Put a client's key into force. Both people made sure of it by another way than a mail.

    Example: `causeway desk enrol-confirmation-key acme back-office
    d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a --as ada --key ada.key --approver ben
    --approver-key ben.key`
    """
    first, second = credentials(as_, key), credentials(approver, approver_key)
    try:
        public = bytes.fromhex(public_key)
    except ValueError as error:
        raise BadInput(
            "the public key is not hexadecimal", remedy="Write its 32 bytes as 64 digits"
        ) from error

    async def work(conn: AsyncConnection) -> ConfirmationKey:
        from trading.confirmations.keys import enrol_key, key_bytes, next_key_version

        people = [await item.person(conn) for item in (first, second)]
        payload = key_bytes(party, label, public, version=await next_key_version(conn, party))
        return await enrol_key(
            conn,
            party=party,
            label=label,
            public_key=public,
            by=people[0].operator,
            approver=people[1].operator,
            signature=people[1].sign(payload),
            now=clock().now(),
        )

    show_one("Confirmation key", _facts(write(work)), as_json=as_json)


def revoke_confirmation_key(
    party: Party,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Which of its keys.")],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Put a client's key out of force at once. What it signed before stays signed.

    Example: `causeway desk revoke-confirmation-key acme 1 --reason "laptop lost" --as dan --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> ConfirmationKey:
        from trading.confirmations.keys import revoke_key

        me = await who.person(conn)
        return await revoke_key(
            conn, party, version, by=me.operator, reason=reason, now=clock().now()
        )

    show_one("Confirmation key", _facts(write(work)), as_json=as_json)


def _facts(item: ConfirmationKey) -> dict[str, str]:
    return {
        "party": item.party,
        "version": str(item.version),
        "label": item.label,
        "public_key": item.public_key.hex(),
        "enrolled_by": item.enrolled_by,
        "approved_by": item.approved_by,
        "enrolled": iso(item.enrolled_at),
        "revoked_by": item.revoked_by or "",
        "revoked": "" if item.revoked_at is None else iso(item.revoked_at),
    }
