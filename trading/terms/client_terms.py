"""Terms of dealing: set by two people, one version after the other, and which one holds on a day."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import date, datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from registry.authority import signing_bytes
from registry.model import Operator, Role
from registry.queries import get_party, list_assets
from trading.postings import require_desk
from trading.terms import store
from trading.terms.errors import TermsChanged
from trading.terms.model import ANY, DEFAULT_TERMS, ClientTerms
from trading.terms.signing import record_change, require_two

ENTITY: Final = "client-terms"
ENTERED_BY: Final = (Role.DEALER, Role.TREASURER, Role.OPERATIONS)


def terms_bytes(terms: ClientTerms) -> bytes:
    """Return what the second operator signs to accept a version of a party's terms."""
    return signing_bytes("trading.client_terms", terms_fields(terms))


def terms_fields(terms: ClientTerms) -> dict[str, object]:
    """Return the terms as plain values, every field of them: what is signed, told and shown."""
    look = terms.last_look
    return {
        "party": terms.party,
        "version": terms.version,
        "effective_from": terms.effective_from.isoformat(),
        "tenor_days": terms.tenor_days,
        "fee_ppm": terms.fee_ppm,
        "spreads": [
            {
                "base": rule.base,
                "quote": rule.quote,
                "from_units": str(rule.from_units),
                "half_spread_ppm": rule.half_spread_ppm,
            }
            for rule in terms.spreads
        ],
        "quote_seconds": terms.quote_seconds,
        "last_look": None
        if look is None
        else {"window_ms": look.window_ms, "tolerance_ppm": look.tolerance_ppm},
        "off_market_ppm": terms.off_market_ppm,
        "desk": terms.desk,
    }


async def set_terms(
    conn: AsyncConnection,
    terms: ClientTerms,
    *,
    by: Operator,
    approver: Operator,
    signature: bytes,
    now: datetime,
) -> int:
    """Write the next version of a party's terms and return its number.

    The newest version's content again: nothing is written, and its number is returned. Deals and
    quotes keep the number of the version that they were made under; no version is ever rewritten.

    Args:
        conn: the caller's transaction.
        terms: with the number of the next version.
        by: who enters them: a dealer, the treasury or operations.
        approver: who signs them: the treasury or an approver.
        signature: the approver's, over `terms_bytes`.
        now: the time; the terms begin today (UTC) or later.

    Raises:
        UnknownRecord: the party is not registered.
        BadInput: a spread is for an asset that is not registered, or no desk can have that name.
        Refused: they begin in the past, the people may not, or the signature does not hold.
        TermsChanged: the number is not the next one.
    """
    await get_party(conn, terms.party)
    newest = await newest_terms(conn, terms.party)
    if replace(terms, version=newest.version) == newest:
        return newest.version
    if terms.version != newest.version + 1:
        raise TermsChanged(
            f"version {terms.version} of the terms of {terms.party} is not the next one"
            f" after {newest.version}"
        )
    if terms.effective_from < now.date():
        raise Refused(
            f"terms cannot begin in the past, on {terms.effective_from.isoformat()}",
            remedy=f"The first day possible is {now.date().isoformat()}",
        )
    await _require_assets(conn, terms)
    require_desk(terms.desk)
    people = await require_two(
        conn, by, approver, terms_bytes(terms), signature, entered_by=ENTERED_BY
    )
    if not await store.insert_terms(
        conn,
        terms,
        entered_by=people.first.code,
        approved_by=people.second.code,
        signature=signature,
        at=now,
    ):
        raise TermsChanged(f"the terms of {terms.party} were changed just now")
    details = terms_fields(terms)
    # The version of an event has its own meaning.
    details["terms_version"] = details.pop("version")
    await record_change(conn, ENTITY, terms.party, "ClientTermsSet", details, people, now)
    return terms.version


async def terms_of(conn: AsyncConnection, party: str, *, on: date) -> ClientTerms:
    """Return the terms of *party* that hold on a day (UTC); the house's if it has none."""
    return (await terms_of_many(conn, [(party, on)]))[party, on]


async def terms_of_many(
    conn: AsyncConnection, asked: Collection[tuple[str, date]]
) -> dict[tuple[str, date], ClientTerms]:
    """Return `terms_of` of many (party, day) in one statement."""
    if not asked:
        return {}
    versions: dict[str, list[ClientTerms]] = {}
    latest = max(on for _, on in asked)
    for item in await store.list_terms(
        conn, parties={party for party, _ in asked}, effective_to=latest
    ):
        versions.setdefault(item.party, []).append(item)
    return {
        (party, on): holding_on(versions.get(party, ()), on) or replace(DEFAULT_TERMS, party=party)
        for party, on in asked
    }


def holding_on(versions: Collection[ClientTerms], on: date) -> ClientTerms | None:
    """Return the newest of one party's *versions* that has begun by a day."""
    begun = [item for item in versions if item.effective_from <= on]
    return max(begun, key=lambda item: item.version, default=None)


async def newest_terms(conn: AsyncConnection, party: str) -> ClientTerms:
    """Return the newest version of a party's terms, begun or not; the house's if it has none."""
    versions = await store.list_terms(conn, parties=[party])
    return versions[-1] if versions else replace(DEFAULT_TERMS, party=party)


async def list_terms(conn: AsyncConnection, party: str | None = None) -> list[ClientTerms]:
    """Return every version of a party's terms, or of all parties', by party and version."""
    return await store.list_terms(conn, parties=None if party is None else [party])


async def _require_assets(conn: AsyncConnection, terms: ClientTerms) -> None:
    known = {asset.code for asset in await list_assets(conn)}
    named = {code for rule in terms.spreads for code in (rule.base, rule.quote)} - {ANY}
    unknown = sorted(named - known)
    if unknown:
        raise BadInput(
            f"no asset {unknown[0]!r} is registered",
            where=f"the spreads of {terms.party}",
            remedy="Register it first, or correct its code",
        )
