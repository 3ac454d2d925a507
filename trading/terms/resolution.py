"""When and how deals settle: their terms, the calendars, and where their parties are paid."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from kernel.money import Asset
from registry.kept_calendars import find_calendars
from trading.terms.model import (
    ClientTerms,
    Rail,
    Settlement,
    SettlementQuestion,
    SettlementTarget,
)
from trading.terms.rails import Rails, load_rails
from trading.terms.value_dates import (
    Kept,
    calendars_of,
    countries_of,
    describe_calendars,
    find_value_date,
)


async def resolve_settlement(
    conn: AsyncConnection,
    *,
    party: str,
    base: Asset,
    quote: Asset,
    trade_date: date,
    value_date: date | None,
    terms: ClientTerms,
    agreed_at: datetime | None = None,
) -> Settlement:
    """Return when a deal settles, and how each of its two assets moves.

    Args:
        conn: the caller's transaction.
        party: whom the deal is with.
        base, quote: the deal's assets.
        trade_date: the day (UTC) on which it was agreed.
        value_date: what both sides agreed; None: as the terms have it.
        terms: of the party, on the trade date.
        agreed_at: the moment of the agreement, for the cut-offs of that day; None: they do not
            count.

    Raises:
        BadInput: the value date is before the trade date.
        Refused: it is no business day of both assets, or its cut-off is over; names the next one.
    """
    asked = SettlementQuestion(
        party=party,
        base=base,
        quote=quote,
        trade_date=trade_date,
        value_date=value_date,
        terms=terms,
        agreed_at=agreed_at,
    )
    (answer,) = await resolve_settlements(conn, [asked])
    if isinstance(answer, Settlement):
        return answer
    raise answer


async def resolve_settlements(
    conn: AsyncConnection, asked: Sequence[SettlementQuestion]
) -> list[Settlement | Refused | BadInput]:
    """Return `resolve_settlement` of many deals, one answer each, in a few statements.

    What is refused is the answer to its own question and touches no other. A party that is
    prefunded on the value date settles by book; any other by the rail, and where it is paid by the
    standing instruction, that is in force on the trade date.
    """
    if not asked:
        return []
    known = await load_rails(conn, {question.party for question in asked})
    assets = {asset.code for question in asked for asset in (question.base, question.quote)}
    kept = await find_calendars(conn, countries_of(assets))
    return [_answer(question, known, kept) for question in asked]


def _target(known: Rails, party: str, asset: str, traded: date, settled: date) -> SettlementTarget:
    """Return how *asset* moves between us and *party*."""
    if known.is_prefunded(party, asset, settled):
        return SettlementTarget(asset=asset, rail=Rail.BOOK, version=None)
    found = known.paid_at(party, asset, traded)
    return SettlementTarget(
        asset=asset,
        rail=known.paid_by(party, asset, traded),
        version=None if found is None else found.version,
    )


def _answer(asked: SettlementQuestion, known: Rails, kept: Kept) -> Settlement | Refused | BadInput:
    try:
        settled = find_value_date(asked, kept)
    except (Refused, BadInput) as refusal:
        return refusal
    assets = (asked.base.code, asked.quote.code)
    return Settlement(
        value_date=settled,
        calendars=describe_calendars(calendars_of(*assets, kept=kept)),
        instructions=tuple(
            _target(known, asked.party, code, asked.trade_date, settled) for code in assets
        ),
    )
