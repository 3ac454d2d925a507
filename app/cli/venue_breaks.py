"""``causeway venues breaks`` and ``decide``: what people say where a venue and we do not agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.common import AsJson, DryRun, Reason, clock, one_of, read, show, show_one, write
from app.cli.operators import As, Key, credentials
from app.cli.venue_places import known_place
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from trading.venue_reconciliation_model import VenueBreak
    from venues.escalations import Verdict
    from venues.model import VenueOrder

BreakId = Annotated[UUID, typer.Argument(metavar="BREAK", help="Id of the break.")]
COLUMNS = (
    *("id", "state", "place", "kind", "subject", "ours", "theirs"),
    *("opened", "seen", "explanation", "proposed_by"),
)


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    app.command()(breaks)
    app.command("explain-break")(explain_break)
    app.command("propose-dismissal")(propose_dismissal)
    app.command("dismiss-break")(dismiss_break)
    app.command()(decide)


def breaks(
    place: Annotated[
        str | None, typer.Argument(metavar="[VENUE/ACCOUNT]", help="Only those of this account.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Closed and dismissed ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what reconciliations found to differ, oldest first.

    Example: `causeway venues breaks binance/desk`
    """

    async def work(conn: AsyncConnection) -> list[VenueBreak]:
        from trading.venue_reconciliation import list_breaks
        from trading.venue_reconciliation_model import BreakState

        of = (None, None) if place is None else await known_place(conn, place)
        if every:
            return await list_breaks(conn, *of, states=frozenset(BreakState))
        return await list_breaks(conn, *of)

    rows = [tuple(_break(item).values()) for item in read(work)]
    show("Breaks", COLUMNS, rows, as_json=as_json)


def explain_break(
    break_id: BreakId, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False
) -> None:
    """Say why a break is there; it stands until a reconciliation no longer shows it.

    Example: `causeway venues explain-break 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "rebate of May"
    --as dan --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> VenueBreak:
        from trading.venue_reconciliation import explain_break as verb

        me = await who.person(conn)
        return await verb(conn, break_id, by=me.operator, reason=reason, now=clock().now())

    show_one("Break", _break(write(work)), as_json=as_json)


def propose_dismissal(
    break_id: BreakId, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False
) -> None:
    """Propose to close a break without evidence; another person has to agree.

    Example: `causeway venues propose-dismissal 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "venue confirms"
    --as dan --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> VenueBreak:
        from trading.venue_reconciliation import propose_dismissal as verb

        me = await who.person(conn)
        return await verb(conn, break_id, by=me.operator, reason=reason, now=clock().now())

    show_one("Break", _break(write(work)), as_json=as_json)


def dismiss_break(break_id: BreakId, *, as_: As, key: Key, as_json: AsJson = False) -> None:
    """Agree to close a break without evidence: your key signs its figures and the reason given.

    Example: `causeway venues dismiss-break 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --as ada --key ada.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> VenueBreak:
        from trading.venue_reconciliation import dismiss_break as verb
        from trading.venue_reconciliation import dismissal_bytes, get_break

        me = await who.person(conn)
        signature = me.sign(dismissal_bytes(await get_break(conn, break_id)))
        return await verb(conn, break_id, by=me.operator, signature=signature, now=clock().now())

    show_one("Break", _break(write(work)), as_json=as_json)


def decide(
    order_id: Annotated[UUID, typer.Argument(metavar="ORDER", help="An escalated order.")],
    *,
    verdict: Annotated[
        str,
        typer.Option(help="not-placed, or what the venue says: open, filled, cancelled, expired."),
    ],
    venue_order_id: Annotated[
        str, typer.Option("--venue-order-id", help="The venue's id, if it was placed.")
    ] = "",
    executed: Annotated[
        str, typer.Option("--executed", help="How much of the base asset traded, as a decimal.")
    ] = "0",
    evidence: Annotated[str, typer.Option(help="What shows it; it stays in the history.")],
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Say what became of an order that the venue gave no evidence of; two people of one verdict end it.

    Example: `causeway venues decide 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --verdict not-placed
    --evidence "ticket 4711 of the venue's support" --as dan --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> VenueOrder:
        from registry.model import Role
        from venues.escalations import decide as verb
        from venues.explain import explain_order

        me = await who.person(conn, Role.DEALER, Role.TREASURER, Role.OPERATIONS)
        order = (await explain_order(conn, order_id)).order
        said = await _verdict(conn, order, verdict, venue_order_id, executed)
        return await verb(
            conn, order, operator=me.code, evidence=evidence, verdict=said, now=clock().now()
        )

    done = write(work, dry_run=dry_run)
    facts = {"id": str(done.id), "state": str(done.state), "why": done.state_reason}
    show_one("Order", facts, as_json=as_json, dry_run=dry_run)


async def _verdict(
    conn: AsyncConnection, order: VenueOrder, word: str, venue_order_id: str, executed: str
) -> Verdict:
    from marketdata.instruments import get_instrument
    from venues.escalations import WasNotPlaced, WasPlaced
    from venues.model import VenueStatus

    if word == "not-placed":
        return WasNotPlaced()
    status = one_of(VenueStatus, word, "verdict")
    if not venue_order_id:
        raise BadInput(
            "an order that was placed has an id at the venue", remedy="Give --venue-order-id"
        )
    version = order.instrument_version
    grid = await get_instrument(conn, order.venue, order.symbol, version=version)
    return WasPlaced(venue_order_id, status, grid.base.parse(executed))


def _break(item: VenueBreak) -> dict[str, str]:
    return {
        "id": str(item.id),
        "state": str(item.state),
        "place": f"{item.venue}/{item.account}",
        "kind": item.kind,
        "subject": item.subject,
        "ours": item.ours,
        "theirs": item.theirs,
        "opened": iso(item.opened_at),
        "seen": iso(item.seen_at),
        "explanation": item.explanation,
        "proposed_by": item.proposed_by or "",
    }
