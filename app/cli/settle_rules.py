"""``causeway settle agree`` and ``instruct``: what a party agreed to, and where it is paid."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import AsJson, clock, one_of, parse_date, show_one, write
from app.cli.operators import Approver, ApproverKey, As, Key, credentials
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    app.command()(agree)
    app.command()(instruct)


def agree(
    party: str,
    *,
    document: Annotated[Path, typer.Option(help="The signed agreement; its hash stays.")],
    effective_from: Annotated[
        str | None, typer.Option("--effective-from", help="ISO date; else today in UTC.")
    ] = None,
    prefunded: Annotated[
        bool, typer.Option("--prefunded", help="It settles by book, from what it holds here.")
    ] = False,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    as_json: AsJson = False,
) -> None:
    """Put a netting agreement into force, entered by one operator and signed by another.

    Example: `causeway settle agree acme --document isda.pdf --as ada --key ada.key --approver ben
    --approver-key ben.key`
    """
    first, second = credentials(as_, key), credentials(approver, approver_key)
    digest = hash_file(document)
    now = clock().now()
    start = parse_date(effective_from, now)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from settlement.agreements import agree as verb
        from settlement.agreements import agreement_bytes
        from settlement.model import Agreement

        me, other = await first.person(conn), await second.person(conn)
        made = Agreement(party=party, effective_from=start, prefunded=prefunded)
        version = await _next_version(conn, "netting-agreement", party)
        standing = await verb(
            conn,
            made,
            document_hash=digest,
            by=me.operator,
            approver=other.operator,
            signature=other.sign(agreement_bytes(made, digest, version=version)),
            now=now,
        )
        return {
            "party": party,
            "effective_from": start.isoformat(),
            "prefunded": str(prefunded).lower(),
            "document": digest,
            "version": str(standing),
            "entered_by": me.code,
            "approved_by": other.code,
        }

    show_one("Netting agreement", write(work), as_json=as_json)


def instruct(
    party: str,
    asset: str,
    destination: Annotated[str, typer.Argument(metavar="ADDRESS", help="Where it is paid.")],
    *,
    rail: Annotated[str, typer.Option(help="How value moves there.")] = "evm",
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    as_json: AsJson = False,
) -> None:
    """Set where a party is paid in an asset from now on, signed by a second operator.

    A payout needs the address to be an allowed destination of the party as well.

    Example: `causeway settle instruct acme ETH 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --as ada --key ada.key
    --approver ben --approver-key ben.key`
    """
    from settlement.model import Rail

    first, second = credentials(as_, key), credentials(approver, approver_key)
    way = one_of(Rail, rail, "rail")

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from chain.evm.addresses import parse_address
        from settlement.agreements import instruct as verb
        from settlement.agreements import standing_instruction_bytes

        to = parse_address(destination)
        me, other = await first.person(conn), await second.person(conn)
        version = await _next_version(conn, "standing-instruction", f"{party}/{asset}/{way}")
        payload = standing_instruction_bytes(party, asset, way, to, version=version)
        standing = await verb(
            conn,
            party=party,
            asset=asset,
            rail=way,
            destination=to,
            by=me.operator,
            approver=other.operator,
            signature=other.sign(payload),
            now=clock().now(),
        )
        return {
            "party": party,
            "asset": asset,
            "rail": str(way),
            "destination": to,
            "version": str(standing),
            "entered_by": me.code,
            "approved_by": other.code,
        }

    show_one("Standing instruction", write(work), as_json=as_json)


async def _next_version(conn: AsyncConnection, entity_type: str, key: str) -> int:
    """Return the version that is signed now: each one in force before left one event."""
    from kernel.events import next_version
    from kernel.ids import stable_id

    return await next_version(conn, entity_type, stable_id(entity_type, key))


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        BadInput: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BadInput(f"the file cannot be read: {error.strerror}", where=str(path)) from error
