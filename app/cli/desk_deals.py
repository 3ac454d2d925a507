"""``causeway desk deal, amend, cancel, import, deals``: what the desk has agreed, as it is booked."""

from __future__ import annotations

from datetime import date
from pathlib import Path
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
    parse_time,
    read,
    show,
    show_one,
    write,
)
from app.cli.desk_shown import AMOUNT_COLUMNS, DEAL_COLUMNS, deal_facts
from app.cli.operators import As, Key, credentials
from kernel.errors import BadInput
from kernel.money import Price

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from registry.model import Role
    from trading.deal_import import ImportedDeal
    from trading.model import Deal, DealPurpose

DealId = Annotated[UUID, typer.Argument(metavar="DEAL", help="Id of the deal.")]
Reference = Annotated[str, typer.Option("--ref", help="Your own; one deal for each.")]
ValueDate = Annotated[
    str | None, typer.Option("--value-date", help="When it settles; else by the party's terms.")
]
Fee = Annotated[
    str | None,
    typer.Option(help='On top, in the quote asset: "5 USDT"; else by the party\'s terms.'),
]
NoFee = Annotated[bool, typer.Option("--no-fee", help="Without a fee, whatever the terms say.")]
OffMarket = Annotated[
    str, typer.Option("--off-market", help="Why a price far from the market's is right.")
]
DealsFile = Annotated[Path, typer.Argument(metavar="FILE", help="CSV with a header line.")]


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    for command in (deal, amend, cancel, deals):
        app.command()(command)
    app.command("import")(import_)


def deal(
    party: Annotated[str, typer.Argument(help="Whom the desk deals with.")],
    *,
    sell: Annotated[str | None, typer.Option(help='What the desk sells: "2 ETH".')] = None,
    buy: Annotated[str | None, typer.Option(help='What the desk buys: "2 ETH".')] = None,
    price: Annotated[str, typer.Option(help='For one whole unit: "3000.25 USDT".')],
    fee: Fee = None,
    no_fee: NoFee = False,
    reference: Reference,
    value_date: ValueDate = None,
    agreed_at: Annotated[
        str | None, typer.Option("--agreed-at", help="When it was agreed, if not just now.")
    ] = None,
    purpose: Annotated[
        str, typer.Option(help="client; hedge: with a counterparty; transfer: with treasury.")
    ] = "client",
    desk: Annotated[
        str | None, typer.Option(help="Whose position it changes; else by the party's terms.")
    ] = None,
    price_id: Annotated[
        UUID | None, typer.Option("--price-id", help="The recorded price it was made on.")
    ] = None,
    off_market: OffMarket = "",
    reason: Reason = "",
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Book a deal: receivable, payable and the desk's position in one chain of postings.

    Value date and fee are by the party's terms unless they are given. A price further from the market's
    than the terms allow needs a reason. A transfer moves inventory between desk and treasury.

    Example: `causeway desk deal acme --sell "2 ETH" --price "3000 USDT" --fee "5 USDT" --ref d-1 --as dan
    --key dan.key`
    """
    from trading.model import DealPurpose, DealSide

    if (sell is None) == (buy is None):
        raise BadInput("a deal either sells or buys", remedy="Give one of --sell and --buy")
    base, quote = Amount.parse(sell or buy or ""), Amount.parse(price)
    charge = _charge(fee, quote.asset, no_fee=no_fee)
    meant = one_of(DealPurpose, purpose, "purpose of a deal")
    who, now = credentials(as_, key), clock().now()
    due, agreed = _day(value_date, now), parse_time(agreed_at)
    side = DealSide.DESK_SELLS if sell is not None else DealSide.DESK_BUYS

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from trading.deals import book_deal
        from trading.drafting import with_fee
        from trading.model import DealRequest
        from trading.terms.client_terms import terms_of

        money = await Money.load(conn)
        me = await who.person(conn, *_roles(meant))
        terms = await terms_of(conn, party, on=(agreed or now).date())
        request = DealRequest(
            client_ref=reference,
            desk=desk or terms.desk,
            party=party,
            side=side,
            base=money.asset(base.asset),
            quote=money.asset(quote.asset),
            base_units=money.units(base),
            price=_price(money, base.asset, quote),
            price_id=price_id,
            value_date=due,
            purpose=meant,
            agreed_at=agreed,
            off_market_reason=off_market,
            booked_by=me.code,
            reason=reason,
        )
        units = charge if isinstance(charge, int | None) else money.units(charge)
        return deal_facts(
            await book_deal(conn, with_fee(request, terms, units), book=book, now=now)
        )

    show_one("Deal", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


def amend(
    deal_id: DealId,
    *,
    reference: Annotated[str, typer.Option("--ref", help="Your own, of the deal as amended.")],
    amount: Annotated[str | None, typer.Option(help='Of the base asset: "3 ETH".')] = None,
    price: Annotated[str | None, typer.Option(help='For one whole unit: "3001 USDT".')] = None,
    fee: Annotated[str | None, typer.Option(help='On top: "5 USDT".')] = None,
    no_fee: NoFee = False,
    value_date: Annotated[str | None, typer.Option("--value-date", help="When it settles.")] = None,
    off_market: OffMarket = "",
    reason: Reason,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Correct a deal before it settles: it is reversed and booked anew, in one chain.

    What is not named stays as it was. The moment of the agreement stays too, so the correction is judged by
    the market of then.

    Example: `causeway desk amend 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --ref d-1b --amount "3 ETH"
    --reason "misheard" --as dan --key dan.key`
    """
    typed = None if amount is None else Amount.parse(amount)
    quote = None if price is None else Amount.parse(price)
    who, now = credentials(as_, key), clock().now()
    due = _day(value_date, now)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from trading.amendment import amended
        from trading.deals import amend_deal, get_deal

        money = await Money.load(conn)
        old = await get_deal(conn, deal_id)
        me = await who.person(conn, *_roles(old.request.purpose))
        base = old.request.base.code
        if typed is not None and typed.asset != base:
            raise BadInput(f"the amount is in {typed.asset}, the deal is of {base}")
        charge = _charge(fee, old.request.quote.code, no_fee=no_fee)
        request = amended(
            old,
            reference,
            base_units=None if typed is None else money.units(typed),
            price=None if quote is None else _price(money, base, quote),
            fee_units=charge if isinstance(charge, int | None) else money.units(charge),
            value_date=due,
            off_market_reason=off_market,
            by=me.code,
            reason=reason,
        )
        return deal_facts(await amend_deal(conn, deal_id, request, now=now))

    show_one("Deal", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


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
        from trading.deals import cancel_deal, get_deal

        old = await get_deal(conn, deal_id)
        me = await who.person(conn, *_roles(old.request.purpose))
        done = await cancel_deal(conn, deal_id, by=me.code, reason=reason, now=clock().now())
        return deal_facts(done)

    show_one("Deal", write(work, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


def import_(
    file: DealsFile,
    *,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Book the deals of a CSV file, one a line; the same file again books nothing.

    Columns: ref, party, side (sell or buy), amount, base, price, quote; and if you like fee, value_date,
    agreed_at, desk, purpose, off_market, reason. With a fault in any line nothing is booked; a line that is
    refused (a limit, the market) touches no other, and the command ends with 1.

    Example: `causeway desk import deals.csv --as dan --key dan.key`
    """
    who, now, data = credentials(as_, key), clock().now(), _content(file)

    async def work(conn: AsyncConnection) -> list[ImportedDeal]:
        from trading.deal_import import import_deals
        from trading.model import DealPurpose

        me = await who.person(conn, *_roles(DealPurpose.CLIENT))
        mine = {purpose for purpose in DealPurpose if me.operator.roles & _roles(purpose)}
        return await import_deals(
            conn, file.name, data, purposes=mine, book=book, by=me.code, now=now
        )

    rows = [_imported(item) for item in write(work, dry_run=dry_run)]
    columns = ("line", "reference", "outcome", "deal", "detail")
    show("Imported deals", columns, rows, as_json=as_json)
    if any(row[2] == "refused" for row in rows):
        raise typer.Exit(1)


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

    rows = [tuple(deal_facts(item).values()) for item in read(work)]
    show("Deals", DEAL_COLUMNS, rows, as_json=as_json, right=AMOUNT_COLUMNS)


def _roles(purpose: DealPurpose) -> frozenset[Role]:
    """Return who may book, correct and take back deals of a purpose; a transfer moves inventory."""
    from registry.model import Role
    from trading.model import DealPurpose

    if purpose is DealPurpose.TRANSFER:
        return frozenset({Role.TREASURER})
    return frozenset({Role.DEALER, Role.TREASURER})


def _content(file: Path) -> bytes:
    """Return what the file holds; of one that is too large, enough to see that it is."""
    from trading.deal_file import FILE_BYTES_MAX

    try:
        with file.open("rb") as opened:
            return opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise BadInput(f"the file cannot be read: {error.strerror}", where=str(file)) from error


def _imported(item: ImportedDeal) -> tuple[str, ...]:
    from trading.model import Deal

    found = item.outcome
    if isinstance(found, Deal):
        outcome = "booked" if item.is_new else "known"
        return str(item.line), item.client_ref, outcome, str(found.id), str(found.state)
    return str(item.line), item.client_ref, "refused", "", str(found)


def _charge(fee: str | None, quote: str, *, no_fee: bool) -> Amount | int | None:
    """Return the fee as it was typed, 0 if none is charged, None if it was left open."""
    if fee is None:
        return 0 if no_fee else None
    if no_fee:
        raise BadInput("a deal has a fee or none", remedy="Give one of --fee and --no-fee")
    charge = Amount.parse(fee)
    if charge.asset != quote:
        raise BadInput(f"the fee is in {charge.asset}, the price in {quote}")
    return charge


def _day(text: str | None, now: datetime) -> date | None:
    return None if text is None else parse_date(text, now)


def _price(money: Money, base: str, quote: Amount) -> Price:
    return Price.parse(quote.number, money.asset(base), money.asset(quote.asset))
