"""Netting agreements: entered by one operator, signed by another, version number included.

So no signature puts an old version back into force. Of each of a party's agreements, which are told
apart by name, the newest version is the one that holds; no two of them may cover the same thing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from registry.authority import signing_bytes
from registry.model import Operator, PartyKind, Role
from registry.people import require_sha256
from registry.queries import find_assets, get_party, list_entities
from trading.terms import agreement_store as store
from trading.terms.errors import TermsChanged
from trading.terms.model import Agreement
from trading.terms.netting_model import (
    ENTITY,
    MASTER,
    NettingAgreement,
    NettingItem,
    Signed,
    netting_set,
    overlap,
    whole,
)
from trading.terms.signing import record_change, require_two

ENTERED_BY: Final = (Role.TREASURER, Role.OPERATIONS)


def agreement_bytes(
    agreement: Agreement | NettingAgreement, document_hash: str, *, version: int = 1
) -> bytes:
    """Return what the second operator signs to accept *version* of a party's agreement."""
    fields = agreement_fields(_object(agreement, version))
    return signing_bytes("trading.netting_agreement", {**fields, "document": document_hash})


def agreement_fields(agreement: NettingAgreement) -> dict[str, object]:
    """Return an agreement as plain values, every field of it: what is signed, told and shown."""
    return {
        "party": agreement.party,
        "name": agreement.name,
        "version": agreement.version,
        "kind": str(agreement.kind),
        "products": _names(agreement.products),
        "offices": _names(agreement.offices),
        "assets": _names(agreement.assets),
        "effective_from": agreement.effective_from.isoformat(),
        "ends_on": _day(agreement.ends_on),
        "trades_from": _day(agreement.trades_from),
        "prefunded": agreement.prefunded,
        "multilateral": agreement.multilateral,
        "close_out": agreement.close_out,
    }


async def agree(
    conn: AsyncConnection,
    agreement: Agreement | NettingAgreement,
    *,
    document_hash: str,
    by: Operator,
    approver: Operator,
    signature: bytes,
    now: datetime,
) -> int:
    """Put a netting agreement into force and return its version; the same one again: nothing.

    Args:
        conn: the caller's transaction.
        agreement: the terms; its own version number does not count, the next one is written.
        document_hash: SHA-256 of the signed agreement, kept elsewhere.
        by: who enters it: the treasury or operations.
        approver: who signs it: the treasury or an approver.
        signature: the approver's, over `agreement_bytes` of the next version.
        now: the time.

    Raises:
        Refused: the party cannot be prefunded, the one of that name that is in force would end
            before this one begins, another one covers the same, the people may not, or the
            signature is of another version.
        BadInput: an office or an asset is not registered.
        TermsChanged: somebody else changed it meanwhile.
    """
    require_sha256(document_hash, "agreement")
    made = _object(agreement, 1)
    await _require_registered(conn, made)
    known = {item.agreement.name: item for item in await store.list_newest(conn, {made.party})}
    before = known.get(made.name)
    if before is not None:
        made = replace(made, version=before.agreement.version)
        if (before.agreement, before.document_hash) == (made, document_hash):
            return made.version
        _require_no_gap(before.agreement, made, now.date())
        made = replace(made, version=made.version + 1)
    payload = agreement_bytes(made, document_hash, version=made.version)
    people = await require_two(conn, by, approver, payload, signature, entered_by=ENTERED_BY)
    await store.lock_party(conn, made.party)
    await _require_alone(conn, made)
    item = Signed(made, document_hash, people.first.code, people.second.code, now)
    if not await store.insert(conn, item):
        raise TermsChanged(f"the agreement of {made.party} was changed just now")
    details = {**agreement_fields(made), "document": document_hash}
    # The version of an event has its own meaning.
    details["agreement_version"] = details.pop("version")
    await record_change(conn, ENTITY, made.key, "NettingAgreed", details, people, now)
    return made.version


async def list_agreements(conn: AsyncConnection, party: str | None = None) -> list[Signed]:
    """Return the newest version of every agreement of a party, or of all, by party and name."""
    return await store.list_newest(conn, None if party is None else {party})


async def list_agreement_versions(
    conn: AsyncConnection, party: str, name: str = MASTER
) -> list[Signed]:
    """Return every version of an agreement, the oldest first."""
    return await store.list_versions(conn, party, name)


async def netting_sets(
    conn: AsyncConnection, items: Sequence[NettingItem], *, on: date
) -> dict[UUID, str]:
    """Return with what each obligation nets on a day, by its id, in one statement.

    Obligations of one party with the same set net together; sets of two parties have nothing to do
    with each other, whatever they are called.
    """
    known = await find_agreements(conn, {item.party for item in items})
    agreements = {party: [item.agreement for item in found] for party, found in known.items()}
    return {item.id: netting_set(item, agreements.get(item.party, ()), on) for item in items}


async def find_agreement(conn: AsyncConnection, party: str) -> Agreement | None:
    """Return a party's agreement over everything, in force or to be; None: there is none."""
    return (await get_agreements(conn, {party})).get(party)


async def find_agreements(
    conn: AsyncConnection, parties: Collection[str]
) -> dict[str, list[Signed]]:
    """Return the newest version of every agreement of *parties*, by party, in one statement."""
    found: dict[str, list[Signed]] = {}
    for item in await store.list_newest(conn, parties):
        found.setdefault(item.agreement.party, []).append(item)
    return found


async def agreement_version(conn: AsyncConnection, party: str, name: str = MASTER) -> int:
    """Return the version of a party's agreement of that name; 0: there is none."""
    for found in await store.list_newest(conn, {party}):
        if found.agreement.name == name:
            return found.agreement.version
    return 0


async def get_agreements(
    conn: AsyncConnection, parties: Collection[str] | None = None
) -> dict[str, Agreement]:
    """Return the agreements over everything by party, of all parties unless some are named.

    An agreement that covers only some of what settles is not among them: see `netting_sets`.
    """
    return {
        found.agreement.party: _plain(found.agreement)
        for found in await store.list_newest(conn, parties)
        if found.agreement.is_whole
    }


async def _require_registered(conn: AsyncConnection, made: NettingAgreement) -> None:
    party = await get_party(conn, made.party)
    if made.prefunded and party.kind is not PartyKind.CLIENT:
        raise Refused(
            f"{party.code} is a {party.kind} and holds no funds here to settle by book",
            remedy="Only a client can be prefunded",
        )
    if made.offices is not None:
        known = {entity.code for entity in await list_entities(conn)}
        _require_known("legal entity", made.offices - known)
    if made.assets is not None:
        _require_known("asset", made.assets - set(await find_assets(conn, made.assets)))


def _require_known(what: str, unknown: Collection[str]) -> None:
    if unknown:
        raise BadInput(
            f"no {what} {min(unknown)!r} is registered",
            remedy="Register it first, or correct its code",
        )


async def _require_alone(conn: AsyncConnection, made: NettingAgreement) -> None:
    for found in await store.list_newest(conn, {made.party}):
        if overlap(made, found.agreement):
            other = found.agreement.name
            raise Refused(
                f"agreement {other} of {made.party} covers some of what {made.name} would",
                remedy=f"End or narrow {other} first, so that everything nets under one",
            )


def _require_no_gap(before: NettingAgreement, after: NettingAgreement, today: date) -> None:
    # The newest version of an agreement holds, so the one in force ends when the next is written.
    if before.covers(today) and today < after.effective_from:
        begins = after.effective_from.isoformat()
        raise Refused(
            f"an agreement of {after.party} is in force today, and nothing would net until {begins}",
            remedy=f"Enter it on {begins}",
        )


def _object(agreement: Agreement | NettingAgreement, version: int) -> NettingAgreement:
    if isinstance(agreement, Agreement):
        return whole(agreement, version=version)
    return replace(agreement, version=version)


def _plain(made: NettingAgreement) -> Agreement:
    return Agreement(
        party=made.party,
        effective_from=made.effective_from,
        prefunded=made.prefunded,
        ends_on=made.ends_on,
    )


def _names(scope: Collection[str] | None) -> list[str] | None:
    return None if scope is None else sorted(str(name) for name in scope)


def _day(day: date | None) -> str | None:
    return None if day is None else day.isoformat()
