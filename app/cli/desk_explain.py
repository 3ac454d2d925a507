"""The lives of deals, quotes, hedge orders, hedge lines and confirmations, for ``desk explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from app.cli.common import Money
from app.cli.desk_shown import deal_facts
from app.cli.explain import Moment, Section, Story, events, postings
from kernel.clock import iso
from kernel.errors import Refused

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from marketdata.model import RecordedPrice
    from trading.confirmations.model import Affirmation, Confirmation
    from trading.hedges.model import HedgeLine
    from trading.model import Deal
    from trading.pnl.model import Match, Slice
    from trading.quotes.model import OfferSide, Quote
    from venues.explain import OrderStory

PRICE_COLUMNS = ("role", "id", "price", "kind", "quality", "observed")
VERSION_COLUMNS = ("id", "version", "operation", "state", "text_sha256", "issued")
CONFIRMATION_COLUMNS = (
    *("id", "state", "operation", "party", "trade", "version", "deal", "supersedes", "value_date"),
    *("text_sha256", "pdf_sha256", "issued_by", "issued"),
)


async def explain_object(conn: AsyncConnection, object_id: UUID) -> Story:
    """Return the story of whatever of the desk has this id.

    Raises:
        Refused: nothing has it.
    """
    from trading.confirmations.errors import NoConfirmation
    from trading.confirmations.queries import get_confirmation
    from trading.deals import get_deal
    from trading.errors import NoDeal
    from trading.quotes.errors import NoQuote
    from trading.quotes.queries import get_quote
    from venues.errors import NoOrder
    from venues.explain import explain_order

    money = await Money.load(conn)
    try:
        return await _deal(conn, await get_deal(conn, object_id), money)
    except NoDeal:
        pass
    try:
        return await _confirmation(conn, await get_confirmation(conn, object_id))
    except NoConfirmation:
        pass
    try:
        return await _quote(conn, await get_quote(conn, object_id), money)
    except NoQuote:
        pass
    try:
        return _order(await explain_order(conn, object_id), money)
    except NoOrder:
        pass
    raise Refused(
        f"the desk has no deal, confirmation, quote or order {object_id}",
        remedy="Look at `causeway desk blotter`, `confirmations`, `quotes` and `orders`; name a hedge"
        " line as DESK/ASSET",
    )


async def explain_line(conn: AsyncConnection, desk: str, asset: str) -> Story:
    """Return the story of a hedge line.

    Raises:
        NoHedgeLine: there is none.
    """
    from trading.hedges.lines import get_line, list_line_history
    from venues.explain import list_newest_orders

    line, money = await get_line(conn, desk, asset), await Money.load(conn)
    orders = [
        order
        for place in line.places
        for order in await list_newest_orders(
            conn, place.venue, place.account, symbol=place.symbol, reference=line.reference
        )
    ]
    return Story(
        f"Hedge line {desk}/{asset}",
        {"kind": "hedge line", **_line_facts(line, money)},
        events(await list_line_history(conn, desk, asset)),
        {
            "places": Section(
                ("venue", "account", "symbol", "open"),
                [(p.venue, p.account, p.symbol, "yes" if p.is_open else "no") for p in line.places],
            ),
            "orders": Section(
                ("id", "state", "venue", "account", "side", "quantity", "price", "created"),
                [
                    (
                        *(str(item.id), str(item.state), item.venue, item.account, item.side.value),
                        *(item.quantity, item.price or "", iso(item.created_at)),
                    )
                    for item in orders
                ],
            ),
        },
    )


async def _deal(conn: AsyncConnection, found: Deal, money: Money) -> Story:
    from kernel.events import list_history
    from ledger.queries import list_transfers
    from settlement.queries import list_obligations_of
    from trading.confirmations.queries import list_affirmations, list_confirmations_of

    confirmations = await list_confirmations_of(conn, [found.id])
    said = [
        moment
        for item in confirmations
        for moment in (
            *_said(item, await list_affirmations(conn, item.id)),
            Moment(item.issued_at, "paper", item.issued_by, _issued(item)),
        )
    ]
    posted = await list_transfers(conn, found.book, correlation=found.id)
    owed = await list_obligations_of(conn, found.id)
    asked = found.request
    return Story(
        f"Deal {found.id}",
        {
            "kind": "deal",
            **deal_facts(found),
            "agreed": iso(found.agreed_at),
            "price_id": str(found.price_id),
            "mid_price_id": str(found.mid_price_id or ""),
            "quote": str(asked.quote_id or ""),
            "terms_version": str(found.terms_version),
            "calendars": found.calendars,
            "amends": str(found.amends or ""),
            "off_market": _off_market(found),
        },
        [*events(await list_history(conn, "deal", found.id)), *postings(posted, money), *said],
        {
            "prices": await _prices(
                conn, {"made on": found.price_id, "mid when agreed": found.mid_price_id}
            ),
            "hedges": await _hedges(conn, found, money),
            "confirmations": Section(
                VERSION_COLUMNS, [_confirmation_row(item) for item in confirmations]
            ),
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
            ),
        },
    )


async def _hedges(conn: AsyncConnection, found: Deal, money: Money) -> Section:
    """Return what closed a deal: opposite deals and fills, first in, first out, and what is open."""
    from ledger.queries import head
    from trading.pnl.allocation import allocate
    from trading.pnl.journal import read_journal

    now = (await head(conn, found.book)).sequence
    journal = await read_journal(conn, found.book, found.request.desk, through=now)
    allocation = allocate(journal.flows(now))
    rows = [
        row
        for match in allocation.matches
        if (row := _match_row(match, found.id, money)) is not None
    ]
    rows += [
        ("open", "", money.text(item.units, item.flow.base), "")
        for item in allocation.open
        if item.flow.id == found.id
    ]
    return Section(("by", "id", "amount", "against"), rows)


def _match_row(match: Match, deal_id: UUID, money: Money) -> tuple[str, ...] | None:
    for mine, other in ((match.older, match.newer), (match.newer, match.older)):
        if mine.flow.id == deal_id:
            return (
                str(other.flow.kind),
                str(other.flow.id),
                money.text(mine.units, mine.flow.base),
                _value(other, money),
            )
    return None


def _value(part: Slice, money: Money) -> str:
    return money.text(part.value, part.flow.quote) if part.flow.quote else ""


async def _confirmation(conn: AsyncConnection, item: Confirmation) -> Story:
    from kernel.events import list_history
    from trading.confirmations.queries import list_affirmations, list_versions

    said = await list_affirmations(conn, item.id)
    return Story(
        f"Confirmation {item.id}",
        {"kind": "confirmation", **confirmation_facts(item)},
        events(await list_history(conn, "confirmation", item.id)),
        {
            "said": Section(
                ("verdict", "by", "second", "key", "evidence", "reason", "at"),
                [
                    (
                        *(str(i.verdict), i.entered_by, i.approved_by or ""),
                        *(str(i.key_version or ""), i.evidence or "", i.reason, iso(i.at)),
                    )
                    for i in said
                ],
            ),
            "versions": Section(
                VERSION_COLUMNS,
                [_confirmation_row(i) for i in await list_versions(conn, item.trade_id)],
            ),
        },
    )


async def _quote(conn: AsyncConnection, item: Quote, money: Money) -> Story:
    from kernel.events import list_history
    from trading.quotes.queries import list_acceptances

    asked, offer = item.request, item.offer
    size = asked.base if asked.sized_in == "base" else asked.quote
    facts = {
        "kind": "quote",
        "id": str(item.id),
        "state": str(item.state),
        "reference": asked.client_ref,
        "desk": asked.desk,
        "party": asked.party,
        "pair": f"{asked.base.code}/{asked.quote.code}",
        "size": size.format(asked.units),
        "sides": str(asked.sides),
        "why_not": str(item.why_not or ""),
        "detail": item.detail,
        "deal": str(item.deal_id or ""),
    }
    sections: dict[str, Section] = {}
    if offer is not None:
        facts |= {
            "valid_until": iso(offer.valid_until),
            "terms_version": str(offer.terms_version),
            "half_spread": f"{offer.why.half_spread_ppm} ppm",
            "skew": f"{offer.why.skew_ppm} ppm",
            "position": money.text(offer.why.position, asked.base.code),
            "venues": ", ".join(offer.why.venues),
            "left_out": ", ".join(f"{k}: {v}" for k, v in sorted(offer.why.left_out.items())),
        }
        sections["prices"] = await _prices(conn, {"mid of the offer": offer.mid_price_id})
        sections["offer"] = Section(
            ("side", "price", "market_cost", "gives", "takes", "fee"),
            [
                _offer_row(name, side, item)
                for name, side in (("bid", offer.bid), ("ask", offer.ask))
                if side is not None
            ],
        )
    sections["acceptances"] = Section(
        ("reference", "side", "verdict", "by", "at", "detail"),
        [
            (i.accept_ref, str(i.side), str(i.verdict), i.by, iso(i.at), i.detail)
            for i in await list_acceptances(conn, item)
        ],
    )
    history = await list_history(conn, "quote", item.id)
    return Story(f"Quote {item.id}", facts, events(history), sections)


def _offer_row(name: str, side: OfferSide, item: Quote) -> tuple[str, ...]:
    base, quote = item.request.base, item.request.quote
    amounts = (base.format(side.base_units), quote.format(side.quote_units))
    gives, takes = amounts if name == "ask" else amounts[::-1]
    return (
        *(name, side.price.format(), side.cost.format(), gives, takes),
        quote.format(side.fee_units),
    )


def _order(story: OrderStory, money: Money) -> Story:
    item, fills = story.order, story.fills
    return Story(
        f"Order {item.id}",
        {
            "kind": "hedge order",
            "id": str(item.id),
            "state": str(item.state),
            "reason": item.state_reason,
            "venue": f"{item.venue}/{item.account}",
            "symbol": item.symbol,
            "side": item.side.value,
            "quantity": item.quantity,
            "price": item.price or "",
            "time_in_force": item.time_in_force.value,
            "reference": item.reference,
            "client_order_id": item.client_order_id,
            "venue_order_id": item.venue_order_id or "",
            "executed": money.text(item.executed_units, fills[0].base) if fills else "",
            "created": iso(item.created_at),
        },
        events(story.events),
        {
            "fills": Section(
                ("trade", "base", "quote", "fee", "at"),
                [
                    (
                        fill.trade_id,
                        money.text(fill.base_units, fill.base),
                        money.text(fill.quote_units, fill.quote),
                        money.text(fill.fee_units, fill.fee_asset) if fill.fee_asset else "",
                        iso(fill.executed_at),
                    )
                    for fill in fills
                ],
            )
        },
    )


def confirmation_facts(item: Confirmation) -> dict[str, str]:
    """Return a confirmation as names and values, without its text."""
    return {
        "id": str(item.id),
        "state": str(item.state),
        "operation": str(item.kind),
        "party": item.party,
        "trade": str(item.trade_id),
        "version": str(item.version),
        "deal": str(item.deal_id),
        "supersedes": str(item.supersedes or ""),
        "value_date": item.value_date.isoformat(),
        "text_sha256": item.text_sha256,
        "pdf_sha256": item.pdf_sha256 or "",
        "issued_by": item.issued_by,
        "issued": iso(item.issued_at),
    }


def _confirmation_row(item: Confirmation) -> tuple[str, ...]:
    return (
        *(str(item.id), str(item.version), str(item.kind), str(item.state)),
        *(item.text_sha256, iso(item.issued_at)),
    )


def _said(item: Confirmation, said: list[Affirmation]) -> list[Moment]:
    return [
        Moment(i.at, "paper", i.entered_by, f"version {item.version} {i.verdict}: {i.reason}")
        if i.reason
        else Moment(i.at, "paper", i.entered_by, f"version {item.version} {i.verdict}")
        for i in said
    ]


def _issued(item: Confirmation) -> str:
    return f"confirmation issued, version {item.version} ({item.kind})"


def _off_market(found: Deal) -> str:
    if found.off_market_ppm is None:
        return ""
    return f"{found.off_market_ppm} ppm: {found.request.off_market_reason}"


def _line_facts(line: HedgeLine, money: Money) -> dict[str, str]:
    look = line.look
    facts = {
        "desk": line.desk,
        "asset": line.asset,
        "state": str(line.state),
        "target": money.text(line.target, line.asset),
        "quote": line.quote or "",
    }
    if look is None:
        return {**facts, "last_look": ""}
    return facts | {
        "last_look": iso(look.at),
        "verdict": str(look.verdict),
        "detail": look.detail,
        "position": money.text(look.position, line.asset),
        "need": money.text(look.need, line.asset),
        "waiting": money.text(look.waiting, line.asset),
        "residual": money.text(look.residual, line.asset),
    }


async def _prices(conn: AsyncConnection, wanted: dict[str, UUID | None]) -> Section:
    """Return the prices on record that stand behind something."""
    from marketdata.prices import find_prices

    ids = {price_id for price_id in wanted.values() if price_id is not None}
    found = await find_prices(conn, ids)
    return Section(
        PRICE_COLUMNS,
        [
            _price_row(role, found[price_id])
            for role, price_id in wanted.items()
            if price_id is not None and price_id in found
        ],
    )


def _price_row(role: str, item: RecordedPrice) -> tuple[str, ...]:
    record = item.record
    return (
        *(role, str(item.id), record.price.format(), str(record.kind)),
        *(str(record.quality), iso(record.observed_at)),
    )
