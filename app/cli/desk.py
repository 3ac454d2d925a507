"""``causeway desk``: deals, the position they leave, and the orders that hedge it."""

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
    parse_date,
    read,
    show,
    show_one,
    write,
)
from app.cli.explain import Section, Story, events, postings, tell
from app.cli.operators import As, Key, credentials
from kernel.clock import iso
from kernel.errors import BadInput
from kernel.money import Price

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from ledger.model import JournalTransfer
    from trading.model import Deal, DealRequest
    from venues.model import VenueOrder

app = typer.Typer(help="Deals, the position, hedge orders.", no_args_is_help=True)

DealId = Annotated[UUID, typer.Argument(metavar="DEAL", help="Id of the deal.")]
DESK_DEFAULT = "otc"


@app.command()
def deal(
    party: Annotated[str, typer.Argument(help="Whom the desk deals with.")],
    *,
    sell: Annotated[str | None, typer.Option(help='What the desk sells: "2 ETH".')] = None,
    buy: Annotated[str | None, typer.Option(help='What the desk buys: "2 ETH".')] = None,
    price: Annotated[str, typer.Option(help='For one whole unit: "3000.25 USDT".')],
    fee: Annotated[str | None, typer.Option(help='On top, in the quote asset: "5 USDT".')] = None,
    reference: Annotated[str, typer.Option("--ref", help="Your own; one deal for each.")],
    value_date: Annotated[
        str | None, typer.Option("--value-date", help="When it settles; else today in UTC.")
    ] = None,
    desk: Annotated[str, typer.Option(help="Whose position it changes.")] = DESK_DEFAULT,
    price_id: Annotated[
        UUID | None, typer.Option("--price-id", help="The recorded price it was made on.")
    ] = None,
    reason: Reason = "",
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Book a deal: receivable, payable and the desk's position in one chain of postings.

    Example: `causeway desk deal acme --sell "2 ETH" --price "3000 USDT" --fee "5 USDT" --ref d-1 --as dan
    --key dan.key`
    """
    from trading.model import DealSide

    if (sell is None) == (buy is None):
        raise BadInput("a deal either sells or buys", remedy="Give one of --sell and --buy")
    base = Amount.parse(sell or buy or "")
    quote = Amount.parse(price)
    charge = None if fee is None else Amount.parse(fee)
    if charge is not None and charge.asset != quote.asset:
        raise BadInput(f"the fee is in {charge.asset}, the price in {quote.asset}")
    who = credentials(as_, key)
    now = clock().now()
    due = parse_date(value_date, now)
    side = DealSide.DESK_SELLS if sell is not None else DealSide.DESK_BUYS

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from registry.model import Role
        from trading.deals import book_deal
        from trading.model import DealRequest

        money = await Money.load(conn)
        me = await who.person(conn, Role.DEALER, Role.TREASURER)
        request = DealRequest(
            client_ref=reference,
            desk=desk,
            party=party,
            side=side,
            base=money.asset(base.asset),
            quote=money.asset(quote.asset),
            base_units=money.units(base),
            price=_price(money, base, quote),
            fee_units=0 if charge is None else money.units(charge),
            price_id=price_id,
            value_date=due,
            booked_by=me.code,
            reason=reason,
        )
        return _facts(await book_deal(conn, request, book=book, now=now))

    show_one("Deal", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


@app.command()
def cancel(
    deal_id: DealId,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Cancel a deal before it settles: its booking is reversed in full.

    Example: `causeway desk cancel 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "wrong side" --as dan --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from registry.model import Role
        from trading.deals import cancel_deal

        me = await who.person(conn, Role.DEALER, Role.TREASURER)
        done = await cancel_deal(conn, deal_id, by=me.code, reason=reason, now=clock().now())
        return _facts(done)

    show_one("Deal", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


@app.command()
def deals(
    *,
    party: Annotated[str | None, typer.Option(help="Only those with this party.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="Only those in this state.")] = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List the newest deals, newest first.

    Example: `causeway desk deals --party acme`
    """
    from trading.model import DealState

    states = tuple(DealState) if state is None else (one_of(DealState, state, "state of a deal"),)

    async def work(conn: AsyncConnection) -> list[Deal]:
        from trading.deals import list_deals

        return await list_deals(conn, book, party=party, states=states)

    columns = (
        *("id", "state", "reference", "desk", "party", "side", "amount", "price", "against"),
        *("fee", "value_date", "booked_by", "booked"),
    )
    rows = [tuple(_facts(item).values()) for item in read(work)]
    show("Deals", columns, rows, as_json=as_json, right=("amount", "price", "against", "fee"))


@app.command()
def position(
    *,
    desk: Annotated[str, typer.Option(help="The desk.")] = DESK_DEFAULT,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show what the desk is long or short of, as the ledger has it: deals, fills and fees in kind.

    Example: `causeway desk position --desk otc`
    """

    async def work(conn: AsyncConnection) -> tuple[dict[str, int], Money]:
        from trading.position import position as query

        return await query(conn, book, desk), await Money.load(conn)

    found, money = read(work)
    rows = [
        (asset, money.text(units, asset), "long" if units > 0 else "short" if units else "flat")
        for asset, units in sorted(found.items())
    ]
    show(f"Position of {desk}", ("asset", "position", "side"), rows, as_json=as_json)


@app.command()
def orders(
    *,
    venue: Annotated[str | None, typer.Option(help="Only at this venue.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the hedge orders of every hedge line, oldest first.

    Example: `causeway desk orders --venue binance`
    """

    async def work(conn: AsyncConnection) -> list[VenueOrder]:
        from trading.lines import list_lines
        from venues.orders import list_orders

        lines = [line for line in await list_lines(conn) if venue in {None, line.venue}]
        found: list[VenueOrder] = []
        for place, account, symbol in sorted({(i.venue, i.account, i.symbol) for i in lines}):
            found += await list_orders(conn, place, account, symbol=symbol)
        return found

    columns = (
        *("id", "state", "venue", "account", "symbol", "side", "quantity", "price"),
        *("client_order_id", "reference", "created"),
    )
    rows = [
        (
            str(item.id),
            str(item.state),
            item.venue,
            item.account,
            item.symbol,
            str(item.side),
            item.quantity,
            item.price,
            item.client_order_id,
            item.reference,
            iso(item.created_at),
        )
        for item in read(work)
    ]
    show("Orders", columns, rows, as_json=as_json, right=("quantity", "price"))


@app.command()
def explain(deal_id: DealId, *, as_json: AsJson = False) -> None:
    """Tell the life of a deal: states, postings, and what became of its obligations.

    Example: `causeway desk explain 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80`
    """
    tell(read(lambda conn: _story(conn, deal_id)), as_json=as_json)


async def _story(conn: AsyncConnection, deal_id: UUID) -> Story:
    from kernel.events import list_history
    from ledger.queries import list_transfers
    from settlement.queries import list_obligations
    from trading.deals import get_deal

    found, money = await get_deal(conn, deal_id), await Money.load(conn)
    posted: list[JournalTransfer] = await list_transfers(conn, found.book, correlation=deal_id)
    owed = [i for i in await list_obligations(conn, found.book) if i.deal_id == deal_id]
    return Story(
        f"Deal {deal_id}",
        {"kind": "deal", **_facts(found), "price_id": str(found.request.price_id or "")},
        [*events(await list_history(conn, "deal", deal_id)), *postings(posted, money)],
        {
            "obligations": Section(
                ("id", "leg", "direction", "amount", "state", "value_date"),
                [
                    (
                        str(item.id),
                        item.leg,
                        str(item.direction),
                        money.text(item.amount, item.asset),
                        str(item.state),
                        item.value_date.isoformat(),
                    )
                    for item in owed
                ],
            )
        },
    )


def _price(money: Money, base: Amount, quote: Amount) -> Price:
    return Price.parse(quote.number, money.asset(base.asset), money.asset(quote.asset))


def _facts(item: Deal) -> dict[str, str]:
    request: DealRequest = item.request
    return {
        "id": str(item.id),
        "state": str(item.state),
        "reference": request.client_ref,
        "desk": request.desk,
        "party": request.party,
        "side": str(request.side),
        "amount": request.base.format(request.base_units),
        "price": request.price.format(),
        "against": request.quote.format(item.quote_units),
        "fee": request.quote.format(request.fee_units),
        "value_date": request.value_date.isoformat(),
        "booked_by": request.booked_by,
        "booked": iso(item.created_at),
    }
