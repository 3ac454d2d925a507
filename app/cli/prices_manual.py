"""``causeway prices override``, ``approve``, ``reject``, ``revoke``, ``overrides``: manual prices by two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.common import AsJson, Reason, clock, one_of, parse_time, read, show, show_one, write
from app.cli.operators import As, Key, credentials
from app.cli.prices_shown import load_pair, split_pair
from kernel.clock import iso

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from marketdata.price_model import Override

OverrideId = Annotated[UUID, typer.Argument(metavar="ID", help="Id of the manual price.")]
COLUMNS = (
    *("id", "state", "price", "use", "from", "expires"),
    *("proposed_by", "decided_by", "ended", "price_id", "reason", "evidence"),
)


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    app.command()(override)
    app.command()(approve)
    app.command()(reject)
    app.command()(revoke)
    app.command()(overrides)


def override(
    pair: Annotated[str, typer.Argument(help="ETH/USDT.")],
    price: Annotated[str, typer.Argument(help="Of one whole unit: 2500.25.")],
    *,
    expires: Annotated[str, typer.Option(help="Until just before this time (UTC).")],
    begins: Annotated[
        str | None, typer.Option("--from", help="From this time on; else from now.")
    ] = None,
    use: Annotated[
        str, typer.Option(help="instead: before all else; last: where nothing else is there.")
    ] = "instead",
    evidence: Annotated[str, typer.Option(help="What shows it: a quote, a document.")] = "",
    reason: Reason,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Propose a manual price; it stands once another person has approved it.

    Example: `causeway prices override ETH/USDT 2500.25 --expires 2027-01-01T00:00:00Z
    --reason "no venue answers" --evidence "broker quote 4711" --as dan --key dan.key`
    """
    from marketdata.price_model import OverrideUse

    who = credentials(as_, key)
    kind = one_of(OverrideUse, use, "use of a manual price")
    start, end = parse_time(begins), parse_time(expires)
    assert end is not None, "a text was given"
    split_pair(pair)

    async def work(conn: AsyncConnection) -> Override:
        from kernel.money import Price
        from marketdata.overrides import propose_override
        from marketdata.price_model import OverrideRequest

        me, now = await who.person(conn), clock().now()
        assets = await load_pair(conn, pair)
        request = OverrideRequest(
            price=Price.parse(price, assets.base, assets.quote),
            use=kind,
            reason=reason,
            evidence=evidence,
            valid_from=start or now,
            expires_at=end,
        )
        return await propose_override(conn, request, by=me.code, now=now)

    show_one("Manual price", _facts(write(work)), as_json=as_json)


def approve(override_id: OverrideId, *, as_: As, key: Key, as_json: AsJson = False) -> None:
    """Approve a manual price: your key signs exactly what was proposed, and it stands.

    Example: `causeway prices approve 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --as cleo --key cleo.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> Override:
        from marketdata.overrides import approve_override, get_override, override_bytes

        me = await who.person(conn)
        item = await get_override(conn, override_id)
        signature = me.sign(override_bytes(item, "approve"))
        return await approve_override(
            conn, item.id, by=me.code, signature=signature, now=clock().now()
        )

    show_one("Manual price", _facts(write(work)), as_json=as_json)


def reject(
    override_id: OverrideId, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False
) -> None:
    """Reject a proposed manual price: it can never stand.

    Example: `causeway prices reject 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "venues are back"
    --as cleo --key cleo.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> Override:
        from marketdata.overrides import get_override, override_bytes, reject_override

        me = await who.person(conn)
        item = await get_override(conn, override_id)
        signature = me.sign(override_bytes(item, "reject"))
        return await reject_override(
            conn, item.id, by=me.code, signature=signature, reason=reason, now=clock().now()
        )

    show_one("Manual price", _facts(write(work)), as_json=as_json)


def revoke(
    override_id: OverrideId, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False
) -> None:
    """End a manual price before it expires; what has used it keeps its id.

    Example: `causeway prices revoke 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "venues are back"
    --as cleo --key cleo.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> Override:
        from marketdata.overrides import revoke_override

        me = await who.person(conn)
        return await revoke_override(
            conn, override_id, by=me.code, reason=reason, now=clock().now()
        )

    show_one("Manual price", _facts(write(work)), as_json=as_json)


def overrides(
    *,
    every: Annotated[bool, typer.Option("--all", help="Past and rejected ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List manual prices that stand or wait for approval, newest first.

    Example: `causeway prices overrides --all`
    """

    async def work(conn: AsyncConnection) -> list[Override]:
        from marketdata.overrides import list_overrides

        return await list_overrides(conn, standing_at=None if every else clock().now())

    rows = [tuple(_facts(item).values()) for item in read(work)]
    show("Manual prices", COLUMNS, rows, as_json=as_json)


def _facts(item: Override) -> dict[str, str]:
    asked = item.request
    return {
        "id": str(item.id),
        "state": str(item.state),
        "price": asked.price.format(),
        "use": str(asked.use),
        "from": iso(asked.valid_from),
        "expires": iso(asked.expires_at),
        "proposed_by": item.proposed_by,
        "decided_by": item.decided_by or "",
        "ended": "" if item.ended_at is None else iso(item.ended_at),
        "price_id": "" if item.price_id is None else str(item.price_id),
        "reason": asked.reason,
        "evidence": asked.evidence,
    }
