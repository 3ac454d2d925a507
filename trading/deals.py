"""Booking deals, amending and cancelling them: each one chain in the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import Transfer
from ledger.posting import post, require_applied
from marketdata.prices import get_price
from registry.queries import get_asset, get_party
from trading import store
from trading.errors import DealConflict, DealNotCancellable
from trading.model import Deal, DealRequest, DealState
from trading.postings import account_keys, deal_chain, reversal_chain
from trading.tables import deal

DEALS_MAX: Final = 500


async def book_deal(
    conn: AsyncConnection, request: DealRequest, *, book: int, now: datetime
) -> Deal:
    """Book a deal; the same request again returns the deal there is.

    Raises:
        DealConflict: the client reference names a deal of other content; says in which field.
        UnknownRecord: the party or an asset is not registered.
        NoPrice: there is no price of that id.
    """
    await _require_known(conn, request)
    item, is_new = await _insert(conn, request, amends=None, book=book, now=now)
    if is_new:
        await _post(conn, book, deal_chain(item), now)
        await store.record_deal_event(
            conn, item, DealState.BOOKED, by=request.booked_by, reason=request.reason, now=now
        )
    return item


async def cancel_deal(
    conn: AsyncConnection, deal_id: UUID, *, by: str, reason: str, now: datetime
) -> Deal:
    """Cancel a deal before it settles: its booking is reversed in full. Again: nothing happens.

    Raises:
        DealNotCancellable: settlement has its legs, or it was amended.
    """
    item = await store.get_deal(conn, deal_id, lock=True)
    if item.state is DealState.CANCELLED:
        return item
    _require_unsettled(item)
    await _post(conn, item.book, reversal_chain(item), now)
    return await store.advance_deal(conn, item, DealState.CANCELLED, by=by, reason=reason, now=now)


async def amend_deal(
    conn: AsyncConnection, deal_id: UUID, replacement: DealRequest, *, now: datetime
) -> Deal:
    """Replace a deal before it settles: reversal and new booking are one chain.

    The replacement has a client reference of its own, by which it is booked once.

    Raises:
        DealNotCancellable: settlement has its legs, or it was cancelled or amended otherwise.
        DealConflict: the replacement's client reference names a deal of other content.
    """
    await _require_known(conn, replacement)
    old = await store.get_deal(conn, deal_id, lock=True)
    new, is_new = await _insert(conn, replacement, amends=old.id, book=old.book, now=now)
    if not is_new:
        return new
    _require_unsettled(old)
    lines = (*_linked(reversal_chain(old)), *deal_chain(new))
    await _post(conn, old.book, lines, now)
    by, reason = replacement.booked_by, replacement.reason
    await store.advance_deal(conn, old, DealState.AMENDED, by=by, reason=reason, now=now)
    await store.record_deal_event(conn, new, DealState.BOOKED, by=by, reason=reason, now=now)
    return new


async def get_deal(conn: AsyncConnection, deal_id: UUID) -> Deal:
    """Return a deal.

    Raises:
        NoDeal: there is none.
    """
    return await store.get_deal(conn, deal_id)


async def find_deal(conn: AsyncConnection, book: int, client_ref: str) -> Deal | None:
    """Return the deal with this client reference, if there is one."""
    return await store.find_deal(conn, book, client_ref)


async def list_deals(
    conn: AsyncConnection,
    book: int,
    *,
    party: str | None = None,
    states: Sequence[DealState] = tuple(DealState),
    limit: int = DEALS_MAX,
) -> list[Deal]:
    """Return the newest deals, newest first."""
    query = select(deal).where(
        deal.c.book == book, deal.c.state.in_([str(state) for state in states])
    )
    if party is not None:
        query = query.where(deal.c.party == party)
    rows = await conn.execute(
        query.order_by(deal.c.created_at.desc(), deal.c.id.desc()).limit(min(limit, DEALS_MAX))
    )
    return [store.deal_of(row) for row in rows]


async def _insert(
    conn: AsyncConnection, request: DealRequest, *, amends: UUID | None, book: int, now: datetime
) -> tuple[Deal, bool]:
    item = Deal(
        id=derive_id(now, "deal", book, request.client_ref),
        book=book,
        request=request,
        quote_units=request.quote_units,
        state=DealState.BOOKED,
        pulled_at=None,
        amends=amends,
        created_at=now,
        updated_at=now,
    )
    if await store.insert_deal(conn, item):
        return item, True
    known = await store.find_deal(conn, book, request.client_ref)
    assert known is not None, "the row that the insert met is committed"
    field = _difference(known, item)
    if field is not None:
        raise DealConflict(
            f"deal {request.client_ref} is on record with another {field}",
            remedy="Use a new client reference for a new deal, or amend the old one",
        )
    return known, False


def _difference(known: Deal, asked: Deal) -> str | None:
    """Return the first field in which two deals of one client reference differ, if any."""
    names = (
        "desk",
        "party",
        "side",
        "base",
        "quote",
        "base_units",
        "price",
        "fee_units",
        "price_id",
        "value_date",
    )
    for name in names:
        if getattr(known.request, name) != getattr(asked.request, name):
            return name
    return "amended deal" if known.amends != asked.amends else None


async def _require_known(conn: AsyncConnection, request: DealRequest) -> None:
    await get_party(conn, request.party)
    for asset in (request.base, request.quote):
        known = await get_asset(conn, asset.code)
        if known != asset:
            raise BadInput(f"{asset.code} has {known.scale} decimal places, not {asset.scale}")
    if request.price_id is not None:
        await get_price(conn, request.price_id)


def _require_unsettled(item: Deal) -> None:
    if item.state is not DealState.BOOKED:
        raise DealNotCancellable(f"deal {item.request.client_ref} is {item.state}")
    if item.pulled_at is not None:
        raise DealNotCancellable(
            f"settlement has taken the legs of deal {item.request.client_ref}",
            remedy="Take its obligations back there first",
        )


def _linked(lines: Sequence[Transfer]) -> tuple[Transfer, ...]:
    """Return *lines* with the last one linked too, so that what follows is of the same chain."""
    return tuple(replace(line, linked=True) for line in lines)


async def _post(conn: AsyncConnection, book: int, lines: Sequence[Transfer], now: datetime) -> None:
    await ensure_accounts(conn, book, account_keys(lines), now=now)
    require_applied(await post(conn, book, lines, now=now))
