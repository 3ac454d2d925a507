"""Rows of terms to values and back; private to the package."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from trading.terms.model import (
    CallBack,
    ClientTerms,
    LastLook,
    Rail,
    SpreadRule,
    StandingInstruction,
)
from trading.terms.tables import call_back, client_terms, standing_instruction

_STANDING = (
    select(
        standing_instruction,
        call_back.c.confirmed,
        call_back.c.reference,
        call_back.c.called_by,
        call_back.c.at.label("called_at"),
    )
    .outerjoin_from(standing_instruction, call_back)
    .order_by(
        standing_instruction.c.party,
        standing_instruction.c.asset,
        standing_instruction.c.rail,
        standing_instruction.c.version,
    )
)


async def insert_standing_instruction(conn: AsyncConnection, item: StandingInstruction) -> bool:
    """Write a version of where a party is paid; False: there is one of that number."""
    statement = upsert(standing_instruction).values(
        party=item.party,
        asset=item.asset,
        rail=item.rail,
        version=item.version,
        destination=item.destination,
        proposed_by=item.proposed_by,
        approved_by=item.approved_by,
        at=item.at,
        effective_from=item.effective_from,
        needs_call_back=item.needs_call_back,
    )
    return (await conn.execute(statement.on_conflict_do_nothing())).rowcount == 1


async def list_standing_instructions(
    conn: AsyncConnection,
    *,
    parties: Collection[str] | None = None,
    asset: str | None = None,
    rail: Rail | None = None,
) -> list[StandingInstruction]:
    """Return every version, with what its call back said, by party, asset, rail and version."""
    query = _STANDING
    if parties is not None:
        query = query.where(standing_instruction.c.party.in_(parties))
    if asset is not None:
        query = query.where(standing_instruction.c.asset == asset)
    if rail is not None:
        query = query.where(standing_instruction.c.rail == rail)
    return [_standing(row) for row in await conn.execute(query)]


async def insert_call_back(
    conn: AsyncConnection, item: StandingInstruction, outcome: CallBack
) -> bool:
    """Write what a call back said; False: something is on record already."""
    statement = upsert(call_back).values(
        party=item.party,
        asset=item.asset,
        rail=item.rail,
        version=item.version,
        confirmed=outcome.confirmed,
        reference=outcome.reference,
        called_by=outcome.by,
        at=outcome.at,
    )
    return (await conn.execute(statement.on_conflict_do_nothing())).rowcount == 1


async def insert_terms(
    conn: AsyncConnection,
    item: ClientTerms,
    *,
    entered_by: str,
    approved_by: str,
    signature: bytes,
    at: datetime,
) -> bool:
    """Write a version of a party's terms; False: there is one of that number."""
    look = item.last_look
    statement = upsert(client_terms).values(
        party=item.party,
        version=item.version,
        effective_from=item.effective_from,
        tenor_days=item.tenor_days,
        fee_ppm=item.fee_ppm,
        spreads=[_spread_json(rule) for rule in item.spreads],
        quote_seconds=item.quote_seconds,
        last_look_ms=None if look is None else look.window_ms,
        last_look_ppm=None if look is None else look.tolerance_ppm,
        off_market_ppm=item.off_market_ppm,
        desk=item.desk,
        entered_by=entered_by,
        approved_by=approved_by,
        signature=signature,
        at=at,
    )
    return (await conn.execute(statement.on_conflict_do_nothing())).rowcount == 1


async def list_terms(
    conn: AsyncConnection,
    *,
    parties: Collection[str] | None = None,
    effective_to: date | None = None,
) -> list[ClientTerms]:
    """Return every version by party and version; with *effective_to*: that begins by then."""
    query = select(client_terms).order_by(client_terms.c.party, client_terms.c.version)
    if parties is not None:
        query = query.where(client_terms.c.party.in_(parties))
    if effective_to is not None:
        query = query.where(client_terms.c.effective_from <= effective_to)
    return [_terms(row) for row in await conn.execute(query)]


def _standing(row: Row[Any]) -> StandingInstruction:
    return StandingInstruction(
        party=row.party,
        asset=row.asset,
        rail=Rail(row.rail),
        version=row.version,
        destination=row.destination,
        effective_from=row.effective_from,
        needs_call_back=row.needs_call_back,
        proposed_by=row.proposed_by,
        approved_by=row.approved_by,
        at=row.at,
        call_back=None
        if row.confirmed is None
        else CallBack(
            confirmed=row.confirmed, reference=row.reference, by=row.called_by, at=row.called_at
        ),
    )


def _terms(row: Row[Any]) -> ClientTerms:
    return ClientTerms(
        party=row.party,
        version=row.version,
        effective_from=row.effective_from,
        tenor_days=row.tenor_days,
        fee_ppm=row.fee_ppm,
        spreads=tuple(_spread(item) for item in row.spreads),
        quote_seconds=row.quote_seconds,
        last_look=None
        if row.last_look_ms is None
        else LastLook(window_ms=row.last_look_ms, tolerance_ppm=row.last_look_ppm),
        off_market_ppm=row.off_market_ppm,
        desk=row.desk,
    )


def _spread_json(rule: SpreadRule) -> dict[str, object]:
    # Units as text: JSON numbers beyond 2**53 do not survive every reader.
    return {
        "base": rule.base,
        "quote": rule.quote,
        "from_units": str(rule.from_units),
        "half_spread_ppm": rule.half_spread_ppm,
    }


def _spread(data: dict[str, Any]) -> SpreadRule:
    return SpreadRule(
        base=data["base"],
        quote=data["quote"],
        from_units=int(data["from_units"]),
        half_spread_ppm=int(data["half_spread_ppm"]),
    )
