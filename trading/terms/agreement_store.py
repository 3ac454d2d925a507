"""Rows of netting agreements to values and back; private to the package."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import date
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.leases import wait_for
from trading.terms.netting_model import (
    ENTITY,
    MASTER,
    AgreementKind,
    NettingAgreement,
    Product,
    Signed,
)
from trading.terms.tables import agreement, netting_agreement

_KEY = (netting_agreement.c.party, netting_agreement.c.name)
_NEWEST = (
    select(netting_agreement)
    .ext(distinct_on(*_KEY))
    .order_by(*_KEY, netting_agreement.c.version.desc())
)


async def lock_party(conn: AsyncConnection, party: str) -> None:
    """Wait until nobody else changes an agreement of *party*, for this transaction."""
    await wait_for(conn, f"{ENTITY}:{party}")


async def insert(conn: AsyncConnection, item: Signed) -> bool:
    """Write a version of an agreement; False: there is one of that number."""
    made = item.agreement
    statement = upsert(netting_agreement).values(
        party=made.party,
        name=made.name,
        version=made.version,
        kind=made.kind,
        products=_names(made.products),
        offices=_names(made.offices),
        assets=_names(made.assets),
        effective_from=made.effective_from,
        ends_on=made.ends_on,
        trades_from=made.trades_from,
        prefunded=made.prefunded,
        multilateral=made.multilateral,
        close_out=made.close_out,
        agreed_by=item.agreed_by,
        approved_by=item.approved_by,
        document_hash=item.document_hash,
        at=item.at,
    )
    if (await conn.execute(statement.on_conflict_do_nothing())).rowcount == 0:
        return False
    if made.name == MASTER:
        await _tell_code_of_before(conn, item)
    return True


async def list_newest(
    conn: AsyncConnection, parties: Collection[str] | None = None
) -> list[Signed]:
    """Return the newest version of every agreement, by party and name."""
    query = _NEWEST
    if parties is not None:
        query = query.where(netting_agreement.c.party.in_(parties))
    return [_signed(row) for row in await conn.execute(query)]


async def list_versions(conn: AsyncConnection, party: str, name: str) -> list[Signed]:
    """Return every version of an agreement, the oldest first."""
    query = (
        select(netting_agreement)
        .where(netting_agreement.c.party == party, netting_agreement.c.name == name)
        .order_by(netting_agreement.c.version)
    )
    return [_signed(row) for row in await conn.execute(query)]


async def _tell_code_of_before(conn: AsyncConnection, item: Signed) -> None:
    # It knows agreements over everything and without an end; of any other nothing nets there.
    made = item.agreement
    is_known = made.is_whole and made.ends_on is None
    columns = {
        "version": made.version,
        "effective_from": made.effective_from if is_known else date.max,
        "prefunded": made.prefunded,
        "agreed_by": item.agreed_by,
        "approved_by": item.approved_by,
        "document_hash": item.document_hash,
        "at": item.at,
    }
    statement = upsert(agreement).values(party=made.party, **columns)
    await conn.execute(statement.on_conflict_do_update(index_elements=["party"], set_=columns))


def _signed(row: Row[Any]) -> Signed:
    return Signed(
        NettingAgreement(
            party=row.party,
            version=row.version,
            name=row.name,
            kind=AgreementKind(row.kind),
            products=None if row.products is None else frozenset(map(Product, row.products)),
            offices=None if row.offices is None else frozenset(row.offices),
            assets=None if row.assets is None else frozenset(row.assets),
            effective_from=row.effective_from,
            ends_on=row.ends_on,
            trades_from=row.trades_from,
            prefunded=row.prefunded,
            multilateral=row.multilateral,
            close_out=row.close_out,
        ),
        row.document_hash,
        row.agreed_by,
        row.approved_by,
        row.at,
    )


def _names(scope: Iterable[str] | None) -> list[str] | None:
    return None if scope is None else sorted(str(name) for name in scope)
