"""Rows of quotes: read into values, written with their events."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.db import INJECTED_CLOCK, Timestamp
from kernel.events import DomainEvent, next_version, next_versions, record
from kernel.money import Asset, Price
from kernel.rows import update_rows
from trading.model import DealSide
from trading.quotes.errors import NoQuote
from trading.quotes.model import (
    OPEN_STATES,
    QUOTE_STATES,
    Acceptance,
    DeclineReason,
    Offer,
    OfferSide,
    Quote,
    QuoteRequest,
    QuoteSides,
    QuoteState,
    Reasons,
    RefusalReason,
    SizedIn,
    Taken,
    Verdict,
)
from trading.quotes.tables import quote, quote_acceptance

ENTITY: Final = "quote"

_EVENTS: Final = {
    QuoteState.REQUESTED: "QuoteRequested",
    QuoteState.REFUSED: "QuoteRefused",
    QuoteState.QUOTED: "QuoteMade",
    QuoteState.EXPIRED: "QuoteExpired",
    QuoteState.WITHDRAWN: "QuoteWithdrawn",
    QuoteState.ACCEPTED: "QuoteAccepted",
    QuoteState.BOOKED: "QuoteBooked",
    QuoteState.DECLINED: "QuoteDeclined",
}

_SERVER_TIME: Final = text(
    "SELECT CASE WHEN current_setting(:setting, true) = 'on' THEN CAST(:given AS timestamptz)"
    " ELSE clock_timestamp() END AS at"
).columns(at=Timestamp)


async def server_time(conn: AsyncConnection, given: datetime) -> datetime:
    """Return PostgreSQL's time at this very moment; on an injected clock, the time that is given.

    The ledger judges time likewise. It is read after the quote's row was locked: whoever had to
    wait for the lock is judged by when the lock was had.
    """
    at: datetime = await conn.scalar(_SERVER_TIME, {"setting": INJECTED_CLOCK, "given": given})
    return at


async def insert_quote(conn: AsyncConnection, item: Quote) -> bool:
    """Insert a requested quote; False: its reference is taken. Waits for whoever inserts the same."""
    asked = item.request
    values = {
        "id": item.id,
        "book": item.book,
        "client_ref": asked.client_ref,
        "desk": asked.desk,
        "party": asked.party,
        "base": asked.base.code,
        "base_scale": asked.base.scale,
        "quote": asked.quote.code,
        "quote_scale": asked.quote.scale,
        "units": asked.units,
        "sized_in": str(asked.sized_in),
        "sides": str(asked.sides),
        "requested_by": asked.requested_by,
        "reason": asked.reason,
        "answer_until": item.answer_until,
        "state": str(item.state),
        "detail": "",
        "created_at": item.created_at,
        "updated_at": item.updated_at,
    }
    statement = (
        insert(quote).values(**values).on_conflict_do_nothing(index_elements=["book", "client_ref"])
    )
    return (await conn.execute(statement)).rowcount == 1


async def find_quote(conn: AsyncConnection, book: int, client_ref: str) -> Quote | None:
    """Return the quote with this client reference, if there is one."""
    query = select(quote).where(quote.c.book == book, quote.c.client_ref == client_ref)
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else quote_of(row)


async def get_quote(conn: AsyncConnection, quote_id: UUID, *, lock: bool = False) -> Quote:
    """Return a quote, locked for this transaction if asked.

    Raises:
        NoQuote: there is none.
    """
    query = select(quote).where(quote.c.id == quote_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NoQuote(
            f"no quote {quote_id} is on record", remedy="Look for it with `causeway desk quotes`"
        )
    return quote_of(row)


async def count_open(conn: AsyncConnection, book: int, party: str) -> int:
    """Return how many quotes of a party are not over."""
    query = select(func.count()).where(
        quote.c.book == book,
        quote.c.party == party,
        quote.c.state.in_([str(state) for state in OPEN_STATES]),
    )
    return int(await conn.scalar(query) or 0)


async def list_waiting(
    conn: AsyncConnection, book: int, state: QuoteState, *, now: datetime, limit: int
) -> list[Quote]:
    """Return the oldest quotes that wait for the desk and still may be served, oldest first."""
    until = quote.c.answer_until if state is QuoteState.REQUESTED else quote.c.look_until
    rows = await conn.execute(
        select(quote)
        .where(quote.c.book == book, quote.c.state == str(state), until > now)
        .order_by(quote.c.created_at, quote.c.id)
        .limit(limit)
    )
    return [quote_of(row) for row in rows]


async def lock_open(conn: AsyncConnection, *, desk: str | None, limit: int) -> list[Quote]:
    """Lock quotes that are not over, of a desk or of all, always in the same order."""
    query = select(quote).where(quote.c.state.in_([str(state) for state in OPEN_STATES]))
    if desk is not None:
        query = query.where(quote.c.desk == desk)
    rows = await conn.execute(query.order_by(quote.c.id).limit(limit).with_for_update())
    return [quote_of(row) for row in rows]


async def lock_overdue(
    conn: AsyncConnection, book: int, *, now: datetime, limit: int
) -> list[Quote]:
    """Lock quotes whose time is over, as far as nobody else is at them.

    That of an offer is over, too, where it was made in a time to come: the clock went back.
    """
    waits = (
        ((quote.c.state == str(QuoteState.REQUESTED)) & (quote.c.answer_until <= now))
        | (
            (quote.c.state == str(QuoteState.QUOTED))
            & ((quote.c.valid_until <= now) | (quote.c.made_at > now))
        )
        | (
            (quote.c.state == str(QuoteState.ACCEPTED))
            & ((quote.c.look_until <= now) | (quote.c.taken_at > now))
        )
    )
    rows = await conn.execute(
        select(quote)
        .where(
            quote.c.book == book,
            quote.c.state.in_([str(state) for state in OPEN_STATES]),
            waits,
        )
        .order_by(quote.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [quote_of(row) for row in rows]


async def advance(
    conn: AsyncConnection,
    item: Quote,
    state: QuoteState,
    *,
    by: str,
    now: datetime,
    reason: str = "",
    columns: Mapping[str, Any] | None = None,
) -> Quote:
    """Take the locked *item* to *state*, set further *columns*, and record the event."""
    QUOTE_STATES.require(item.state, state)
    values = {"state": str(state), "updated_at": now, **(columns or {})}
    statement = update(quote).where(quote.c.id == item.id).values(**values).returning(quote)
    moved = quote_of((await conn.execute(statement)).one())
    await record_event(conn, moved, was=item.state, by=by, reason=reason, now=now)
    return moved


async def end(
    conn: AsyncConnection,
    ends: Sequence[tuple[Quote, Quote]],
    *,
    by: str,
    now: datetime,
    reason: str = "",
) -> None:
    """Take many locked quotes to where each ends, (before, after), in a fixed number of statements."""
    for before, after in ends:
        QUOTE_STATES.require(before.state, after.state)
    rows = [
        {
            "id": after.id,
            "state": str(after.state),
            "why_not": None if after.why_not is None else str(after.why_not),
            "detail": after.detail,
            "updated_at": now,
        }
        for _, after in ends
    ]
    await update_rows(conn, quote, rows)
    versions = await next_versions(conn, ENTITY, [after.id for _, after in ends])
    await record(
        conn,
        [
            _event(after, versions[after.id], was=before.state, by=by, reason=reason, now=now)
            for before, after in ends
        ],
    )


async def record_event(
    conn: AsyncConnection,
    item: Quote,
    *,
    was: QuoteState | None,
    by: str,
    now: datetime,
    reason: str = "",
) -> None:
    """Record that *item* came from the state *was* to the one it is in."""
    version = 1 if was is None else await next_version(conn, ENTITY, item.id)
    await record(conn, [_event(item, version, was=was, by=by, reason=reason, now=now)])


def _event(
    item: Quote, version: int, *, was: QuoteState | None, by: str, reason: str, now: datetime
) -> DomainEvent:
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=item.id,
        version=version,
        name=_EVENTS[item.state],
        at=now,
        actor=by,
        reason=reason,
        from_state=None if was is None else str(was),
        to_state=str(item.state),
        payload=_payload(item),
    )


async def insert_acceptance(conn: AsyncConnection, item: Acceptance) -> bool:
    """Insert an attempt to take a quote; False: its reference is taken."""
    statement = (
        insert(quote_acceptance)
        .values(
            book=item.quote.book,
            accept_ref=item.accept_ref,
            quote_id=item.quote.id,
            side=str(item.side),
            accepted_by=item.by,
            accepted_at=item.at,
            verdict=str(item.verdict),
            detail=item.detail,
        )
        .on_conflict_do_nothing(index_elements=["book", "accept_ref"])
    )
    return (await conn.execute(statement)).rowcount == 1


async def find_acceptance(conn: AsyncConnection, book: int, accept_ref: str) -> Acceptance | None:
    """Return the attempt of this reference, with its quote as it stands now."""
    tried = quote_acceptance
    query = select(tried).where(tried.c.book == book, tried.c.accept_ref == accept_ref)
    row = (await conn.execute(query)).one_or_none()
    if row is None:
        return None
    return acceptance_of(row, await get_quote(conn, row.quote_id))


async def list_acceptances(conn: AsyncConnection, item: Quote, *, limit: int) -> list[Acceptance]:
    """Return the attempts to take a quote, oldest first."""
    tried = quote_acceptance
    rows = await conn.execute(
        select(tried)
        .where(tried.c.quote_id == item.id)
        .order_by(tried.c.accepted_at, tried.c.accept_ref)
        .limit(limit)
    )
    return [acceptance_of(row, item) for row in rows]


def acceptance_of(row: Row[Any], item: Quote) -> Acceptance:
    """Return the value of an attempt's row."""
    return Acceptance(
        accept_ref=row.accept_ref,
        quote=item,
        side=DealSide(row.side),
        by=row.accepted_by,
        at=row.accepted_at,
        verdict=Verdict(row.verdict),
        detail=row.detail,
    )


def offer_columns(offer: Offer) -> dict[str, Any]:
    """Return the columns that hold an offer."""
    return {
        "made_at": offer.made_at,
        "valid_until": offer.valid_until,
        "terms_version": offer.terms_version,
        "mid_price_id": offer.mid_price_id,
        "look_ms": offer.look_ms,
        "tolerance_ppm": offer.tolerance_ppm,
        "why": _why_document(offer),
        **_side_columns("bid", offer.bid),
        **_side_columns("ask", offer.ask),
    }


def quote_of(row: Row[Any]) -> Quote:
    """Return the value of a quote's row."""
    base, other = Asset(row.base, row.base_scale), Asset(row.quote, row.quote_scale)
    state = QuoteState(row.state)
    return Quote(
        id=row.id,
        book=row.book,
        request=QuoteRequest(
            client_ref=row.client_ref,
            desk=row.desk,
            party=row.party,
            base=base,
            quote=other,
            units=row.units,
            sized_in=SizedIn(row.sized_in),
            sides=QuoteSides(row.sides),
            requested_by=row.requested_by,
            reason=row.reason,
        ),
        state=state,
        answer_until=row.answer_until,
        offer=None if row.valid_until is None else _offer_of(row, base, other),
        taken=None if row.accept_ref is None else _taken_of(row),
        why_not=_why_not(row.why_not, state),
        detail=row.detail,
        deal_id=row.deal_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _why_not(name: str | None, state: QuoteState) -> RefusalReason | DeclineReason | None:
    if name is None:
        return None
    return RefusalReason(name) if state is QuoteState.REFUSED else DeclineReason(name)


def _taken_of(row: Row[Any]) -> Taken:
    return Taken(
        side=DealSide(row.taken_side),
        accept_ref=row.accept_ref,
        by=row.taken_by,
        at=row.taken_at,
        look_until=row.look_until,
        look_price_id=row.look_price_id,
        moved_ppm=row.moved_ppm,
    )


def _offer_of(row: Row[Any], base: Asset, other: Asset) -> Offer:
    why = row.why
    return Offer(
        bid=_side_of(row, "bid", base, other),
        ask=_side_of(row, "ask", base, other),
        made_at=row.made_at,
        valid_until=row.valid_until,
        terms_version=row.terms_version,
        mid_price_id=row.mid_price_id,
        why=Reasons(
            half_spread_ppm=why["half_spread_ppm"],
            skew_ppm=why["skew_ppm"],
            fee_ppm=why["fee_ppm"],
            position=int(why["position"]),
            venues=tuple(why["venues"]),
            left_out=why["left_out"],
        ),
        look_ms=row.look_ms,
        tolerance_ppm=row.tolerance_ppm,
    )


def _why_document(offer: Offer) -> dict[str, Any]:
    """Return the reasons as JSON; what may be large is text, so that no reader rounds it."""
    why = offer.why
    sides = {"bid": offer.bid, "ask": offer.ask}
    return {
        "half_spread_ppm": why.half_spread_ppm,
        "skew_ppm": why.skew_ppm,
        "fee_ppm": why.fee_ppm,
        "position": str(why.position),
        "venues": list(why.venues),
        "left_out": dict(why.left_out),
        **{
            name: {"cost": _ratio(side.cost), "worst": _ratio(side.worst)}
            for name, side in sides.items()
            if side is not None
        },
    }


def _ratio(price: Price) -> list[str]:
    return [str(price.numerator), str(price.denominator)]


def _side_columns(name: str, side: OfferSide | None) -> dict[str, int | None]:
    values = (
        (None,) * len(_SIDE_COLUMNS)
        if side is None
        else (
            side.price.numerator,
            side.price.denominator,
            side.base_units,
            side.quote_units,
            side.fee_units,
        )
    )
    return {f"{name}_{column}": v for column, v in zip(_SIDE_COLUMNS, values, strict=True)}


def _side_of(row: Row[Any], name: str, base: Asset, other: Asset) -> OfferSide | None:
    found = [getattr(row, f"{name}_{column}") for column in _SIDE_COLUMNS]
    if found[0] is None:
        return None
    numerator, denominator, base_units, quote_units, fee_units = found
    why: Mapping[str, Collection[str]] = row.why[name]
    cost, worst = (
        Price(base, other, *(int(part) for part in why[key])) for key in ("cost", "worst")
    )
    return OfferSide(
        price=Price(base, other, numerator, denominator),
        base_units=base_units,
        quote_units=quote_units,
        fee_units=fee_units,
        cost=cost,
        worst=worst,
    )


def _payload(item: Quote) -> dict[str, str]:
    asked = item.request
    payload = {
        "client_ref": asked.client_ref,
        "desk": asked.desk,
        "party": asked.party,
        "base": asked.base.code,
        "quote": asked.quote.code,
        "units": str(asked.units),
        "sized_in": str(asked.sized_in),
        "sides": str(asked.sides),
    }
    if item.offer is not None:
        payload["valid_until"] = item.offer.valid_until.isoformat()
        for name, side in (("bid", item.offer.bid), ("ask", item.offer.ask)):
            if side is not None:
                payload[f"{name}_base_units"] = str(side.base_units)
                payload[f"{name}_quote_units"] = str(side.quote_units)
    if item.taken is not None:
        payload |= {"side": str(item.taken.side), "accept_ref": item.taken.accept_ref}
    if item.why_not is not None:
        payload |= {"why_not": str(item.why_not), "detail": item.detail}
    if item.deal_id is not None:
        payload["deal_id"] = str(item.deal_id)
    return payload


_SIDE_COLUMNS: Final = ("numerator", "denominator", "base_units", "quote_units", "fee_units")
