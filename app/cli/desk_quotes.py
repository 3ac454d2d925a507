"""``causeway desk quote, accept, outcome, withdraw, quotes``: what a client is offered, and takes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final
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
    on_database,
    one_of,
    parse_time,
    read,
    rehearse,
    run,
    show,
    show_one,
    write,
)
from app.cli.operators import As, Key, credentials
from kernel.clock import iso
from kernel.errors import BadInput, OutsideUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from trading.quotes.model import (
        Acceptance,
        DeclineRate,
        Offer,
        OfferSide,
        Quote,
        QuoteRequest,
        QuoteSides,
    )

QuoteId = Annotated[UUID, typer.Argument(metavar="QUOTE", help="Id of the quote.")]
Wait = Annotated[
    float, typer.Option("--wait", min=0, max=60, help="Seconds to wait for the desk's process.")
]
POLL_S: Final = 0.05
TOLD_AFTER_S: Final = 1.0
ANSWER_WAIT_S: Final = 5.0
LOOK_WAIT_S: Final = 12.0
"""Longer than any last look may take."""
DECLINES_SINCE: Final = timedelta(days=30)
NOBODY: Final = "Start the process that has the books: `causeway up` with the section [desk]"

LISTED: Final = (
    *("id", "state", "reference", "desk", "party", "pair", "size", "sides", "bid", "ask"),
    *("valid_until", "why_not", "deal"),
)


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    for command in (quote, accept, outcome, withdraw, quotes):
        app.command()(command)


def quote(
    party: Annotated[str, typer.Argument(help="Who asks.")],
    *,
    sell: Annotated[
        str | None, typer.Option(help='What the desk would sell: "10 BTC". Its ask.')
    ] = None,
    buy: Annotated[
        str | None, typer.Option(help='What the desk would buy: "10 BTC". Its bid.')
    ] = None,
    two_way: Annotated[
        str | None, typer.Option("--two-way", help='Either of them, at two prices: "10 BTC".')
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="What it is paid in, where the amount is what is dealt.")
    ] = None,
    of: Annotated[
        str | None, typer.Option("--of", help="What is dealt, where the amount is what is paid.")
    ] = None,
    reference: Annotated[str, typer.Option("--ref", help="Your own; one quote for each.")],
    desk: Annotated[
        str | None, typer.Option(help="Whose position it would change; else as in the terms.")
    ] = None,
    reason: Reason = "",
    wait: Wait = ANSWER_WAIT_S,
    as_: As,
    key: Key,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Ask the desk for a price, in its own words: it sells at the ask and buys at the bid.

    Ends with 1 if there is no price and says why, with 3 if nobody is there to make one; the same
    reference then asks again for the same quote.

    Example: `causeway desk quote acme --sell "2 ETH" --against USDT --ref q-1 --as dan --key dan.key`
    """
    amount, sides = _asked_for(sell, buy, two_way)
    base, other, is_in_base = _pair(amount, against, of)
    who = credentials(as_, key)

    async def ask(conn: AsyncConnection) -> Quote:
        from registry.model import Role
        from trading.quotes.model import QuoteRequest, SizedIn
        from trading.quotes.requesting import request_quote
        from trading.terms.client_terms import terms_of

        now = clock().now()
        money = await Money.load(conn)
        me = await who.person(conn, Role.DEALER, Role.TREASURER)
        request = QuoteRequest(
            client_ref=reference,
            desk=desk or (await terms_of(conn, party, on=now.date())).desk,
            party=party,
            base=money.asset(base),
            quote=money.asset(other),
            units=money.units(amount),
            sized_in=SizedIn.BASE if is_in_base else SizedIn.QUOTE,
            sides=sides,
            requested_by=me.code,
            reason=reason,
        )
        return await request_quote(conn, request, book=book, now=now)

    async def work(engine: AsyncEngine) -> Quote:
        from kernel.db import transact
        from trading.quotes.model import QuoteState

        asked = await transact(engine, ask)
        return await _wait(engine, asked, QuoteState.REQUESTED, wait, "a price")

    found = run(lambda: on_database(work))
    show_one("Quote", _facts(found), as_json=as_json)
    if found.offer is None:
        raise typer.Exit(1)


def accept(
    quote_id: QuoteId,
    *,
    side: Annotated[str, typer.Option(help="What the desk does: sell (its ask) or buy (its bid).")],
    reference: Annotated[str, typer.Option("--ref", help="Your own; one attempt for each.")],
    wait: Wait = LOOK_WAIT_S,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take a quote: the deal is booked, or, where the terms allow a last look, is when it passed.

    The same reference again tells the outcome of the same attempt. Ends with 1 if it was not taken or
    was declined, with 3 if nobody has looked yet.

    Example: `causeway desk accept 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --side sell --ref a-1 --as dan
    --key dan.key`
    """
    who = credentials(as_, key)
    chosen = _desk_side(side)

    async def take(conn: AsyncConnection) -> Acceptance:
        from registry.model import Role
        from trading.model import DealSide
        from trading.quotes.accepting import accept_quote

        me = await who.person(conn, Role.DEALER, Role.TREASURER)
        return await accept_quote(
            conn,
            quote_id,
            DealSide(chosen),
            accept_ref=reference,
            by=me.code,
            now=clock().now(),
        )

    found = run(lambda: on_database(_taking(take, wait, dry_run=dry_run)))
    _tell_outcome(found, as_json=as_json, dry_run=dry_run)


def outcome(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="Whoever accepted gave the attempt this.")
    ],
    *,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Tell what became of an attempt to take a quote: after a lost answer, this and never a new one.

    Example: `causeway desk outcome a-1`
    """

    async def work(conn: AsyncConnection) -> Acceptance:
        from trading.quotes.queries import get_acceptance

        return await get_acceptance(conn, book, reference)

    _tell_outcome(read(work), as_json=as_json)


def withdraw(
    quote_id: QuoteId,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Take an offer back before it is taken.

    Example: `causeway desk withdraw 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason news --as dan --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> Quote:
        from registry.model import Role
        from trading.quotes.ending import withdraw_quote

        me = await who.person(conn, Role.DEALER, Role.TREASURER)
        return await withdraw_quote(conn, quote_id, by=me.code, reason=reason, now=clock().now())

    show_one("Quote", _facts(write(work)), as_json=as_json)


def quotes(
    *,
    party: Annotated[str | None, typer.Option(help="Only of this party.")] = None,
    desk: Annotated[str | None, typer.Option(help="Only of this desk.")] = None,
    state: Annotated[str | None, typer.Option(help="Only in this state.")] = None,
    declines: Annotated[
        bool, typer.Option("--declines", help="How often a last look declined, by party.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(help="With --declines: accepted since; else of 30 days.")
    ] = None,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List the newest quotes, newest first; or how often acceptances were declined, and why.

    Example: `causeway desk quotes --party acme`
    """
    from trading.quotes.model import QuoteState

    if declines:
        _show_declines(party, since, book, as_json=as_json)
        return
    states = (
        tuple(QuoteState) if state is None else (one_of(QuoteState, state, "state of a quote"),)
    )

    async def work(conn: AsyncConnection) -> list[Quote]:
        from trading.quotes.queries import list_quotes

        return await list_quotes(conn, book, party=party, desk=desk, states=states)

    rows = [tuple(_facts(item)[name] for name in LISTED) for item in read(work)]
    show("Quotes", LISTED, rows, as_json=as_json, right=("size", "bid", "ask"))


def _asked_for(sell: str | None, buy: str | None, two_way: str | None) -> tuple[Amount, QuoteSides]:
    from trading.quotes.model import QuoteSides

    words = {QuoteSides.SELL: sell, QuoteSides.BUY: buy, QuoteSides.TWO_WAY: two_way}
    given = [(text, sides) for sides, text in words.items() if text is not None]
    if len(given) != 1:
        raise BadInput(
            "a quote is for one amount", remedy="Give one of --sell, --buy and --two-way"
        )
    text, sides = given[0]
    return Amount.parse(text), sides


def _pair(amount: Amount, against: str | None, of: str | None) -> tuple[str, str, bool]:
    """Return the codes of base and quote asset, and whether the amount is of the base."""
    if against is not None and of is None:
        return amount.asset, against, True
    if of is not None and against is None:
        return of, amount.asset, False
    raise BadInput(
        "a quote exchanges two assets",
        remedy='Give --against ("10 BTC" --against USDT) or --of ("600000 USDT" --of BTC)',
    )


def _desk_side(side: str) -> str:
    if side not in {"sell", "buy"}:
        raise BadInput(f"{side!r} is not a side", remedy="Use sell or buy: what the desk does")
    return f"desk_{side}s"


def _taking(
    take: Callable[[AsyncConnection], Awaitable[Acceptance]], wait: float, *, dry_run: bool
) -> Callable[[AsyncEngine], Awaitable[Acceptance]]:
    async def work(engine: AsyncEngine) -> Acceptance:
        from kernel.db import transact
        from trading.quotes.model import QuoteState, Verdict

        if dry_run:
            return await rehearse(engine, take)
        done = await transact(engine, take)
        if done.verdict is not Verdict.WON:
            return done
        item = await _wait(engine, done.quote, QuoteState.ACCEPTED, wait, "the last look")
        return replace(done, quote=item)

    return work


async def _wait(engine: AsyncEngine, item: Quote, state: str, wait: float, what: str) -> Quote:
    """Return the quote once it has left *state*.

    Raises:
        OutsideUnavailable: it has not within the time: nobody serves quotes.
    """
    import asyncio

    from kernel.db import transact
    from trading.quotes.queries import get_quote

    quote_id, steps = item.id, int(wait / POLL_S)
    for step in range(steps):
        if item.state != state:
            break
        if step == int(TOLD_AFTER_S / POLL_S):
            typer.echo(f"waiting for {what} of quote {quote_id} …", err=True)
        await asyncio.sleep(POLL_S)
        item = await transact(engine, lambda conn: get_quote(conn, quote_id))
    if item.state != state:
        return item
    raise OutsideUnavailable(
        f"{what} did not come within {wait:g} s", where=f"quote {item.id}", remedy=NOBODY
    )


def _tell_outcome(found: Acceptance, *, as_json: bool, dry_run: bool = False) -> None:
    from trading.quotes.model import QuoteState, Verdict

    item, won = found.quote, found.verdict is Verdict.WON
    result = str(item.state if won else found.verdict)
    facts = {
        "reference": found.accept_ref,
        "outcome": result,
        "detail": item.detail if won else found.detail,
        "quote": str(item.id),
        "side": str(found.side),
        "exchanged": _exchange(item.offer.side(found.side) if item.offer else None, item.request),
        "deal": str(item.deal_id or ""),
        "by": found.by,
        "at": iso(found.at),
    }
    show_one("Acceptance", facts, as_json=as_json, dry_run=dry_run)
    if not won or item.state is QuoteState.DECLINED:
        raise typer.Exit(1)


def _show_declines(party: str | None, since: str | None, book: int, *, as_json: bool) -> None:
    start = parse_time(since) or clock().now() - DECLINES_SINCE

    async def work(conn: AsyncConnection) -> list[DeclineRate]:
        from trading.quotes.queries import list_decline_rates

        return await list_decline_rates(conn, book, since=start, party=party)

    rows = [
        (
            item.party,
            str(item.looked_at),
            str(sum(item.declined.values())),
            f"{item.ppm // 10_000}.{item.ppm // 100 % 100:02} %",
            ", ".join(f"{count} {reason}" for reason, count in item.declined.items()),
        )
        for item in read(work)
    ]
    columns = ("party", "looked_at", "declined", "rate", "reasons")
    show("Last look", columns, rows, as_json=as_json, right=("looked_at", "declined", "rate"))


def _facts(item: Quote) -> dict[str, str]:
    asked, offer = item.request, item.offer
    bid, ask = (offer.bid, offer.ask) if offer else (None, None)
    size = asked.base if asked.sized_in == "base" else asked.quote
    return {
        "id": str(item.id),
        "state": str(item.state),
        "reference": asked.client_ref,
        "desk": asked.desk,
        "party": asked.party,
        "pair": f"{asked.base.code}/{asked.quote.code}",
        "size": size.format(asked.units),
        "sides": str(asked.sides),
        "bid": _price(bid),
        "ask": _price(ask),
        "desk_buys": _exchange(bid, asked),
        "desk_sells": _exchange(ask, asked),
        "valid_until": iso(offer.valid_until) if offer else "",
        "last_look": _look(offer),
        "why_not": str(item.why_not or ""),
        "detail": item.detail,
        "deal": str(item.deal_id or ""),
        "asked": iso(item.created_at),
    }


def _look(offer: Offer | None) -> str:
    if offer is None or offer.look_ms is None:
        return ""
    return f"{offer.look_ms} ms, {offer.tolerance_ppm} ppm either way"


def _price(side: OfferSide | None) -> str:
    return "" if side is None else side.price.format()


def _exchange(side: OfferSide | None, asked: QuoteRequest) -> str:
    """Return what changes hands, with the fee: ``10 ETH for 30,015 USDT, fee 5 USDT``."""
    if side is None:
        return ""
    fee = f", fee {asked.quote.format(side.fee_units)}" if side.fee_units else ""
    return f"{asked.base.format(side.base_units)} for {asked.quote.format(side.quote_units)}{fee}"
