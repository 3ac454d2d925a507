"""What a confirmation says, read from where it is kept."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from marketdata.prices import find_prices
from registry.model import LegalEntity
from registry.queries import find_parties, get_entity
from trading import store as deals
from trading.confirmations.errors import NoConfirmation
from trading.confirmations.versions import Version
from trading.confirmations.wording import Agreed, Paid, TradeFacts
from trading.model import Deal
from trading.tables import deal as table
from trading.terms import store as terms
from trading.terms.agreements import find_agreements
from trading.terms.netting_model import NettingItem, Product, Signed

AMENDMENTS_MAX: Final = 1_000
"""Deals in one trade: a line that is longer is a mistake of some machine."""

_Target = tuple[str, str, str, int]
"""A version of a standing instruction: party, asset, rail, version."""


async def read_lines(
    conn: AsyncConnection, deal_ids: Collection[UUID]
) -> dict[UUID, tuple[Deal, ...]]:
    """Return, for each deal, its trade's deals up to it: first one first, itself last.

    Raises:
        NoConfirmation: the trade has more than `AMENDMENTS_MAX` deals.
    """
    start = select(
        table.c.id.label("of"), table.c.id, table.c.amends, literal(0).label("depth")
    ).where(table.c.id.in_(deal_ids))
    line = start.cte("line", recursive=True)
    step = select(line.c.of, table.c.id, table.c.amends, line.c.depth + 1).where(
        table.c.id == line.c.amends, line.c.depth <= AMENDMENTS_MAX
    )
    line = line.union_all(step)
    rows = await conn.execute(
        select(line.c.of, table)
        .join(table, table.c.id == line.c.id)
        .order_by(line.c.of, line.c.depth.desc())
    )
    found: dict[UUID, list[Deal]] = {}
    for row in rows:
        found.setdefault(row.of, []).append(deals.deal_of(row))
    for deal_id, members in found.items():
        if len(members) > AMENDMENTS_MAX:
            raise NoConfirmation(
                f"the trade of deal {deal_id} has more than {AMENDMENTS_MAX} deals"
            )
    return {deal_id: tuple(members) for deal_id, members in found.items()}


async def read_facts(
    conn: AsyncConnection, versions: Sequence[Version], *, by: str, now: datetime
) -> list[TradeFacts]:
    """Return what the confirmations of *versions* say, in their order."""
    parties = sorted({version.deal.request.party for version in versions})
    entities = await _entities(conn, parties)
    prices = await find_prices(conn, {version.deal.price_id for version in versions})
    agreements = await find_agreements(conn, parties)
    destinations = await _destinations(conn, parties)
    facts = []
    for version in versions:
        asked = version.deal.request
        facts.append(
            TradeFacts(
                confirmation_id=version.id,
                trade_id=version.trade_id,
                version=version.number,
                kind=version.kind,
                deal=version.deal,
                before=version.before,
                entity=entities[asked.party],
                price=prices[version.deal.price_id],
                agreed=_agreed(
                    agreements.get(asked.party, ()), version.deal, entities[asked.party].code
                ),
                paid=_paid(version.deal, destinations),
                issued_by=by,
                issued_at=now,
            )
        )
    return facts


async def _entities(conn: AsyncConnection, parties: Sequence[str]) -> dict[str, LegalEntity]:
    """Return, for each party, which of our companies faces it."""
    found = await find_parties(conn, parties)
    known = {code: await get_entity(conn, code) for code in {p.entity for p in found.values()}}
    return {code: known[party.entity] for code, party in found.items()}


def _agreed(found: Sequence[Signed], deal: Deal, office: str) -> Agreed | None:
    """Return the agreement under which both sides of the deal net on its value date, if one does."""
    asked = deal.request
    legs = [
        NettingItem(
            id=deal.id,
            party=asked.party,
            office=office,
            product=Product.SPOT,
            asset=asset.code,
            trade_date=deal.agreed_at.date(),
            value_date=deal.value_date,
        )
        for asset in (asked.base, asked.quote)
    ]
    for item in found:
        made = item.agreement
        if made.covers(deal.value_date) and all(made.includes(leg) for leg in legs):
            return Agreed(made.effective_from, made.version, item.document_hash)
    return None


async def _destinations(conn: AsyncConnection, parties: Sequence[str]) -> dict[_Target, str]:
    """Return where each version of each standing instruction of *parties* points."""
    found = await terms.list_standing_instructions(conn, parties=parties)
    return {(i.party, i.asset, str(i.rail), i.version): i.destination for i in found}


def _paid(deal: Deal, destinations: dict[_Target, str]) -> dict[str, Paid]:
    party = deal.request.party
    return {
        item.asset: Paid(
            item.rail,
            item.version,
            None
            if item.version is None
            else destinations[party, item.asset, str(item.rail), item.version],
        )
        for item in deal.instructions
    }
