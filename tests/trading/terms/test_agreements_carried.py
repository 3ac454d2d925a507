"""The revision that made agreements objects: what was agreed is carried, code of before goes on."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import date

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database, Server, cloned
from app.local.errors import MigrationNotDone
from app.local.migrate import downgrade, migrate
from kernel.db import APP_ROLE, create_engine
from tests.conftest import IDLE_MS
from trading.terms import agreement_store
from trading.terms.agreements import get_agreements
from trading.terms.model import Agreement
from trading.terms.netting_model import NettingAgreement, Product, whole

BEFORE, AFTER = "0044_pre_cycle", "0045_pre_agreements"
SINCE = date(2026, 1, 5)
WRITE = text(
    "INSERT INTO trading.agreement AS a VALUES"
    " ('acme', :version, '2026-01-05', :prefunded, 'ada', 'ben', 'ff', '2026-01-05')"
    " ON CONFLICT (party) DO UPDATE SET version = excluded.version, prefunded = excluded.prefunded"
    " WHERE a.version = excluded.version - 1"
)
READ = text("SELECT version, effective_from, prefunded FROM trading.agreement")


@pytest.fixture
def database(database_server: Server) -> Iterator[Database]:
    """A database of one's own, empty."""
    name = f"causeway_carried_{secrets.token_hex(6)}"
    with cloned(database_server, "template1", name) as made:
        yield made


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """That database as it was before, with an agreement, as the runtime role."""
    await migrate(database.owner_url, BEFORE)
    made = create_engine(database.owner_url, role=APP_ROLE, idle_in_transaction_timeout_ms=IDLE_MS)
    async with made.begin() as conn:
        await conn.execute(WRITE, {"version": 1, "prefunded": False})
    yield made
    await made.dispose()


async def test_what_was_agreed_is_carried_and_both_codes_see_what_the_other_writes(
    engine: AsyncEngine, database: Database
) -> None:
    await migrate(database.owner_url, AFTER)
    async with engine.begin() as conn:
        known = Agreement(party="acme", effective_from=SINCE, prefunded=False)
        assert await get_agreements(conn) == {"acme": known}
        (carried,) = await agreement_store.list_newest(conn)
        assert (carried.agreement, carried.document_hash) == (whole(known), "ff")

        assert (await conn.execute(WRITE, {"version": 2, "prefunded": True})).rowcount == 1
        assert await get_agreements(conn) == {"acme": replace(known, prefunded=True)}
        assert not await agreement_store.insert(
            conn, carried._replace(agreement=whole(known, version=2))
        )
        third = carried._replace(agreement=whole(known, version=3))
        assert await agreement_store.insert(conn, third)
        assert list(map(tuple, await conn.execute(READ))) == [(3, SINCE, False)]

    await downgrade(database.owner_url, BEFORE)
    async with engine.begin() as conn:
        assert list(map(tuple, await conn.execute(READ))) == [(3, SINCE, False)]


async def test_code_of_before_nets_nothing_under_an_agreement_it_cannot_know(
    engine: AsyncEngine, database: Database
) -> None:
    await migrate(database.owner_url, AFTER)
    narrow = NettingAgreement(
        party="acme", version=2, products=frozenset({Product.SPOT}), effective_from=SINCE
    )
    async with engine.begin() as conn:
        (carried,) = await agreement_store.list_newest(conn)
        assert await agreement_store.insert(conn, carried._replace(agreement=narrow))
        assert list(map(tuple, await conn.execute(READ))) == [(2, date.max, False)]

    with pytest.raises(MigrationNotDone, match="covers less than everything"):
        await downgrade(database.owner_url, BEFORE)
