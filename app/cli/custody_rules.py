"""``causeway custody destinations``: where coins may go, as two people make it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from app.cli.common import (
    CHAIN_DEFAULT,
    AsJson,
    Chain,
    Reason,
    chain_providers,
    clock,
    node_url,
    on_database,
    one_of,
    read,
    run,
    show,
    show_one,
    write,
)
from app.cli.operators import As, Key, credentials
from kernel.clock import iso

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from custody.payout_model import AllowedDestination

destinations = typer.Typer(help="Where coins may go, by party.", no_args_is_help=True)

DestinationId = Annotated[UUID, typer.Argument(metavar="DESTINATION", help="Its id.")]


@destinations.command("list")
def destinations_list(
    *,
    party: Annotated[str | None, typer.Option(help="Only those of this party.")] = None,
    as_json: AsJson = False,
) -> None:
    """List destinations, proposed and allowed.

    Example: `causeway custody destinations list --party acme`
    """

    async def work(conn: AsyncConnection) -> list[AllowedDestination]:
        from custody.allow_list import list_destinations

        return await list_destinations(conn, party=party)

    rows = [_destination(item) for item in read(work)]
    columns = (
        *("id", "state", "party", "chain", "address", "kind", "label"),
        *("proposed_by", "approved_by", "usable_from"),
    )
    show("Destinations", columns, [tuple(row.values()) for row in rows], as_json=as_json)


@destinations.command("propose")
def destinations_propose(
    party: str,
    to: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS", help="With its EIP-55 checksum; at a bank: IBAN|BIC|name."
        ),
    ],
    *,
    label: Annotated[str, typer.Option(help="What people call it.")] = "",
    cooling_off: Annotated[
        int, typer.Option("--cooling-off", min=0, help="Hours from approval to first use.")
    ] = 0,
    kind: Annotated[
        str,
        typer.Option(help='eoa (an account with a key), contract, or bank; "": as its place has.'),
    ] = "",
    similar: Annotated[
        list[str] | None,
        typer.Option(
            "--similar-to", help="A known address that looks like it, and that you compared."
        ),
    ] = None,
    chain: Chain = CHAIN_DEFAULT,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Propose that a party's coins may go to an address: your key signs it; a second one approves.

    Example: `causeway custody destinations propose acme 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --as dan
    --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> AllowedDestination:
        from custody.allow_list import destination_bytes, draft_destination, propose_destination
        from custody.payout_model import DestinationKind

        me = await who.person(conn)
        given: dict[str, Any] = {
            "party": party,
            "chain": chain,
            "address": to,
            "label": label,
            "by": me.code,
            "now": clock().now(),
            "cooling_off": timedelta(hours=cooling_off),
            "kind": one_of(DestinationKind, kind or _kind_at(chain), "kind of destination"),
            "acknowledged": similar or [],
        }
        draft = await draft_destination(conn, **given)
        signature = me.sign(destination_bytes(draft))
        return await propose_destination(conn, signature=signature, **given)

    show_one("Destination", _destination(write(work)), as_json=as_json)


def _kind_at(chain: str) -> str:
    from custody.payout_model import DestinationKind
    from registry.model import BANK

    return DestinationKind.BANK if chain == BANK else DestinationKind.EOA


@destinations.command("approve")
def destinations_approve(
    destination_id: DestinationId, *, as_: As, key: Key, as_json: AsJson = False
) -> None:
    """Allow a proposed destination: your key signs party, chain and address.

    Example: `causeway custody destinations approve 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> AllowedDestination:
        from custody.allow_list import approve_destination, destination_bytes, get_destination

        me = await who.person(conn)
        pending = await get_destination(conn, destination_id)
        return await approve_destination(
            conn,
            destination_id,
            by=me.code,
            signature=me.sign(destination_bytes(pending)),
            now=clock().now(),
        )

    show_one("Destination", _destination(write(work)), as_json=as_json)


@destinations.command("reject")
def destinations_reject(
    destination_id: DestinationId, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False
) -> None:
    """Refuse a proposed destination.

    Example: `causeway custody destinations reject 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "not theirs"
    --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> AllowedDestination:
        from custody.allow_list import reject_destination

        me = await who.person(conn)
        return await reject_destination(
            conn, destination_id, by=me.code, reason=reason, now=clock().now()
        )

    show_one("Destination", _destination(write(work)), as_json=as_json)


@destinations.command("revoke")
def destinations_revoke(
    destination_id: DestinationId, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False
) -> None:
    """Take an allowed destination back, at once and by one person.

    Example: `causeway custody destinations revoke 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "key lost"
    --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> AllowedDestination:
        from custody.allow_list import revocation_bytes, revoke_destination

        me = await who.person(conn)
        return await revoke_destination(
            conn,
            destination_id,
            by=me.code,
            signature=me.sign(revocation_bytes(destination_id)),
            reason=reason,
            now=clock().now(),
        )

    show_one("Destination", _destination(write(work)), as_json=as_json)


@destinations.command("prove")
def destinations_prove(
    destination_id: DestinationId,
    *,
    transaction: Annotated[
        str | None,
        typer.Option("--tx", help="In which the contract has paid one of our addresses."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the node what is at a proposed destination, and record what a contract has sent back.

    Needs CAUSEWAY_EVM_URL. A contract is approved only when both are recorded.

    Example: `causeway custody destinations prove 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """

    async def work(engine: AsyncEngine) -> AllowedDestination:
        from custody.allow_list import get_destination, record_code, record_return
        from kernel.db import transact

        found = await transact(engine, lambda conn: get_destination(conn, destination_id))
        async with await chain_providers(engine, found.chain, node_url()) as gateway:
            await gateway.chain_id()
            code = await gateway.code_at(found.address)
        now = clock().now()
        proved = await transact(
            engine, lambda conn: record_code(conn, destination_id, code, now=now)
        )
        if transaction is None:
            return proved
        return await transact(
            engine, lambda conn: record_return(conn, destination_id, transaction, now=now)
        )

    show_one("Destination", _destination(run(lambda: on_database(work))), as_json=as_json)


def _destination(item: AllowedDestination) -> dict[str, str]:
    return {
        "id": str(item.id),
        "state": str(item.state),
        "party": item.party,
        "chain": item.chain,
        "address": item.address,
        "kind": str(item.kind),
        "label": item.label,
        "proposed_by": item.proposed_by,
        "approved_by": item.approved_by or "",
        "usable_from": "" if item.usable_from is None else iso(item.usable_from),
    }
