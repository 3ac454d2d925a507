"""The blotter: deals by filters, newest first, in pages, with what they come to per asset."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Self
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Uuid,
    case,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.db import Timestamp, Units
from kernel.errors import BadInput
from trading import store
from trading.model import Deal, DealOrigin, DealPurpose, DealSide, DealState
from trading.tables import deal

PAGE_MAX: Final = 500
STANDING: Final = frozenset({DealState.BOOKED, DealState.SETTLING, DealState.SETTLED})
"""The states in which a deal counts: an amended one is counted by what replaced it."""


class Cursor(NamedTuple):
    """The last deal of a page: the next page begins behind it, whatever is booked meanwhile."""

    booked_at: datetime
    deal_id: UUID

    def __str__(self) -> str:
        return f"{self.booked_at.isoformat()}/{self.deal_id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote.

        Raises:
            BadInput: it is no cursor.
        """
        at, _, deal_id = text.partition("/")
        try:
            place = cls(datetime.fromisoformat(at), UUID(deal_id))
        except ValueError:
            place = None
        if place is None or place.booked_at.tzinfo is None:
            raise BadInput(
                f"{text!r} is no place in the blotter", remedy="Give the one that a page ends with"
            )
        return place


@dataclass(frozen=True, slots=True, kw_only=True)
class BlotterFilter:
    """Which deals are wanted; every None is any.

    Attributes:
        asset: code of either of the two assets.
        since, until: booked from the one until just before the other.
        ref: the beginning of the client reference.
    """

    party: str | None = None
    desk: str | None = None
    asset: str | None = None
    side: DealSide | None = None
    state: DealState | None = None
    origin: DealOrigin | None = None
    purpose: DealPurpose | None = None
    since: datetime | None = None
    until: datetime | None = None
    ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlotterTotal:
    """What the deals come to in one asset, in its smallest units.

    Attributes:
        deals: how many have the asset on either side.
        received, paid: by the desk, fees apart.
        fees: charged on top.
    """

    asset: str
    deals: int
    received: int
    paid: int
    fees: int

    @property
    def net(self) -> int:
        """Return by how much the deals make the desk longer (negative: shorter), fees apart."""
        return self.received - self.paid


@dataclass(frozen=True, slots=True, kw_only=True)
class BlotterPage:
    """Some of the deals that were asked for.

    Attributes:
        after: where the next page begins; None: this is the last.
        totals: of all deals that were asked for, on this page or not, by asset. An amended or a
            cancelled deal counts only where its state was asked for.
    """

    deals: tuple[Deal, ...]
    after: Cursor | None
    totals: tuple[BlotterTotal, ...]


async def blotter(
    conn: AsyncConnection,
    book: int,
    filters: BlotterFilter,
    *,
    after: Cursor | None = None,
    limit: int = PAGE_MAX,
) -> BlotterPage:
    """Return the newest deals that *filters* let through, of those behind *after*.

    Args:
        conn: any connection; nothing is locked.
        book: whose deals.
        filters: which of them.
        after: the end of the page before; None: from the newest on.
        limit: deals on the page, at most `PAGE_MAX`.
    """
    wanted = [deal.c.book == book, *_conditions(filters)]
    size = max(1, min(limit, PAGE_MAX))
    query = select(deal).where(*wanted)
    if after is not None:
        place = tuple_(literal(after.booked_at, Timestamp), literal(after.deal_id, Uuid))
        query = query.where(tuple_(deal.c.created_at, deal.c.id) < place)
    ordered = query.order_by(deal.c.created_at.desc(), deal.c.id.desc())
    found = [store.deal_of(row) for row in await conn.execute(ordered.limit(size + 1))]
    page = tuple(found[:size])
    last = page[-1] if len(found) > size else None
    return BlotterPage(
        deals=page,
        after=None if last is None else Cursor(last.created_at, last.id),
        totals=await _totals(conn, wanted, filters),
    )


def _conditions(filters: BlotterFilter) -> list[ColumnElement[bool]]:
    columns = {
        name: getattr(filters, name)
        for name in ("party", "desk", "side", "state", "origin", "purpose")
    }
    found = [deal.c[name] == str(value) for name, value in columns.items() if value is not None]
    if filters.asset is not None:
        found.append(or_(deal.c.base == filters.asset, deal.c.quote == filters.asset))
    if filters.since is not None:
        found.append(deal.c.created_at >= filters.since)
    if filters.until is not None:
        found.append(deal.c.created_at < filters.until)
    if filters.ref is not None:
        found.append(deal.c.client_ref.startswith(filters.ref, autoescape=True))
    return found


async def _totals(
    conn: AsyncConnection, wanted: list[ColumnElement[bool]], filters: BlotterFilter
) -> tuple[BlotterTotal, ...]:
    if filters.state is None:
        wanted = [*wanted, deal.c.state.in_(sorted(STANDING))]
    buys = deal.c.side == str(DealSide.DESK_BUYS)
    nothing = literal(0, Units)
    base, quote = deal.c.base_units, deal.c.quote_units
    sides = union_all(
        select(
            deal.c.base.label("asset"),
            case((buys, base), else_=nothing).label("received"),
            case((buys, nothing), else_=base).label("paid"),
            nothing.label("fees"),
        ).where(*wanted),
        select(
            deal.c.quote,
            case((buys, nothing), else_=quote),
            case((buys, quote), else_=nothing),
            deal.c.fee_units,
        ).where(*wanted),
    ).subquery()
    rows = await conn.execute(
        select(
            sides.c.asset,
            func.count().label("deals"),
            *(
                func.sum(sides.c[name], type_=Units).label(name)
                for name in ("received", "paid", "fees")
            ),
        )
        .group_by(sides.c.asset)
        .order_by(sides.c.asset)
    )
    return tuple(
        BlotterTotal(
            asset=row.asset, deals=row.deals, received=row.received, paid=row.paid, fees=row.fees
        )
        for row in rows
    )
