"""``causeway desk fill``: trades that no venue tells, entered by one person, approved by another."""

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
from app.cli.operators import As, Key, credentials
from app.cli.venue_places import PlaceText, split_place
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from trading.hedges.model import HandFill
    from venues.model import VenueFill

app = typer.Typer(help="Trades entered by hand, by two people.", no_args_is_help=True)

FillId = Annotated[UUID, typer.Argument(metavar="FILL", help="Id of the entered trade.")]
COLUMNS = (
    *("id", "state", "place", "symbol", "trade", "side", "amount", "against", "fee"),
    *("executed", "evidence", "entered_by", "decided_by"),
)


@app.command("enter")
def enter(
    place: PlaceText,
    *,
    symbol: Annotated[str, typer.Option("--symbol", help="In the venue's spelling.")],
    trade: Annotated[str, typer.Option("--trade", help="The venue's id of the trade.")],
    order: Annotated[
        str | None, typer.Option("--order", help="The venue's id of its order, if known.")
    ] = None,
    buy: Annotated[str | None, typer.Option(help='What we bought: "2 ETH".')] = None,
    sell: Annotated[str | None, typer.Option(help='What we sold: "2 ETH".')] = None,
    price: Annotated[str, typer.Option(help='Of one whole unit: "3000 USDT".')],
    fee: Annotated[str | None, typer.Option(help='What it cost: "3 USDT".')] = None,
    executed: Annotated[str, typer.Option("--at", help="When it traded (UTC).")],
    evidence: Annotated[str, typer.Option(help="What shows it: a ticket, a statement.")],
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Enter a trade of a hedge line's place; it is posted once another person has approved it.

    Example: `causeway desk fill enter lp/phone --symbol ETH-USDT --trade ticket-7 --buy "2 ETH"
    --price "3000 USDT" --fee "3 USDT" --at 2026-11-20T10:00:00Z --evidence "the broker's ticket 7"
    --as dan --key dan.key`
    """
    if (buy is None) == (sell is None):
        raise BadInput("a trade either buys or sells", remedy="Give one of --buy and --sell")
    who = credentials(as_, key)
    venue, account = split_place(place)
    at = parse_time(executed)
    assert at is not None, "a text was given"

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from matching.model import Side
        from trading.hedges.hand_fills import propose_hand_fill
        from venues.model import VenueFill

        me, money = await who.person(conn), await Money.load(conn)
        base, quote = Amount.parse(buy or sell or ""), Amount.parse(price)
        charge = Amount.parse(fee) if fee else Amount.parse(f"0 {quote.asset}")
        side = Side.BUY if buy is not None else Side.SELL
        units = money.units(base)
        fill = VenueFill(
            venue=venue,
            account=account,
            symbol=symbol,
            trade_id=trade,
            venue_order_id=order or f"hand:{trade}",
            side=side,
            price=quote.number,
            base=base.asset,
            base_units=units,
            quote=quote.asset,
            quote_units=_against(money, base, quote, units, is_cost=side is Side.BUY),
            quote_dust=0,
            fee_asset=charge.asset,
            fee_units=money.units(charge),
            fee_dust=0,
            is_maker=False,
            executed_at=at,
        )
        done = await propose_hand_fill(
            conn, fill, book=book, evidence=evidence, by=me.code, now=clock().now()
        )
        return _facts(done, money)

    show_one("Fill", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


@app.command("approve")
def approve(
    fill_id: FillId, *, as_: As, key: Key, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Approve an entered trade: your key signs exactly what was entered, and it is posted.

    Example: `causeway desk fill approve 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --as cleo --key cleo.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from trading.hedges.hand_fills import approve_hand_fill, get_hand_fill, hand_fill_bytes

        me, money = await who.person(conn), await Money.load(conn)
        item = await get_hand_fill(conn, fill_id)
        signature = me.sign(hand_fill_bytes(item, "approve"))
        done = await approve_hand_fill(
            conn, fill_id, by=me.code, signature=signature, now=clock().now()
        )
        return _facts(done, money)

    show_one("Fill", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


@app.command("reject")
def reject(fill_id: FillId, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False) -> None:
    """Reject an entered trade: it never counts.

    Example: `causeway desk fill reject 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "no such ticket"
    --as cleo --key cleo.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from trading.hedges.hand_fills import get_hand_fill, hand_fill_bytes, reject_hand_fill

        me, money = await who.person(conn), await Money.load(conn)
        item = await get_hand_fill(conn, fill_id)
        signature = me.sign(hand_fill_bytes(item, "reject"))
        done = await reject_hand_fill(
            conn, fill_id, by=me.code, signature=signature, reason=reason, now=clock().now()
        )
        return _facts(done, money)

    show_one("Fill", write(work), as_json=as_json)


@app.command("list")
def list_(
    *,
    state: Annotated[str | None, typer.Option("--state", help="Only those in this state.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the trades that were entered by hand, newest first.

    Example: `causeway desk fill list --state proposed`
    """
    from trading.hedges.model import HandFillState

    states = (
        tuple(HandFillState)
        if state is None
        else (one_of(HandFillState, state, "state of a fill"),)
    )

    async def work(conn: AsyncConnection) -> tuple[list[HandFill], Money]:
        from trading.hedges.hand_fills import list_hand_fills

        return await list_hand_fills(conn, states=states), await Money.load(conn)

    found, money = read(work)
    rows = [tuple(_facts(item, money).values()) for item in found]
    show(
        "Fills entered by hand", COLUMNS, rows, as_json=as_json, right=("amount", "against", "fee")
    )


def _against(money: Money, base: Amount, quote: Amount, units: int, *, is_cost: bool) -> int:
    """Return what the trade was for: a cost is rounded up, proceeds are rounded down."""
    from kernel.money import Price, Rounding

    at = Price.parse(quote.number, money.asset(base.asset), money.asset(quote.asset))
    return at.to_quote(units, Rounding.UP if is_cost else Rounding.DOWN)


def _facts(item: HandFill, money: Money) -> dict[str, str]:
    fill: VenueFill = item.fill
    return {
        "id": str(item.id),
        "state": str(item.state),
        "place": f"{fill.venue}/{fill.account}",
        "symbol": fill.symbol,
        "trade": fill.trade_id,
        "side": fill.side.value,
        "amount": money.text(fill.base_units, fill.base),
        "against": money.text(fill.quote_units, fill.quote),
        "fee": money.text(fill.fee_units, fill.fee_asset),
        "executed": iso(fill.executed_at),
        "evidence": item.evidence,
        "entered_by": item.proposed_by,
        "decided_by": item.decided_by or "",
    }
