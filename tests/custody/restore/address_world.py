"""A house whose database is set back after it gave addresses out."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database, Server
from app.oracles.checks.arrivals import DEPOSITED_ONCE
from chain.scripted import GENESIS_TIME
from custody.errors import NotPossible
from custody.model import AddressPurpose
from custody.restore import store
from custody.restore.coverage import vouch
from custody.restore.finding import begin
from custody.restore.model import (
    ADDRESSES,
    HANDED_OUT,
    SIGNER_LOG,
    Item,
    SourceState,
    opening_bytes,
    vouching_bytes,
)
from custody.restore.opening import open_restore
from custody.restore.returns import Return, Returned, find_skipped, give_back, return_bytes
from custody.restore.signed_payouts import take_signed
from custody.restore.skipping import watch_skipped
from custody.signer.testing import LocalSigner, local_signer, rules_for
from kernel.clock import ManualClock
from kernel.db import APP_ROLE, create_engine
from ledger.testing import enforce_lock_order
from registry.queries import get_wallet
from registry.testing import DEMO_OPERATORS, demo_founding, operator_keypair
from tests.custody.bitcoin.coin_house import CoinHouse
from tests.custody.house import BOOK, House

IDLE_MS = 60_000
WATCHED = 4
WHY = "the disk was lost"

H = TypeVar("H", House, CoinHouse)


@dataclass
class SetBack(Generic[H]):
    """A house, and copies of its database to come back to."""

    server: Server
    database: Database
    house: H
    inside: LocalSigner
    copies: list[tuple[str, datetime]] = field(default_factory=list)

    async def back_up(self) -> None:
        """Copy the database as it is: the moment that it is set back to."""
        name = f"causeway_backup_{secrets.token_hex(6)}"
        await self.house.engine.dispose()
        await self.server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{self.database.name}"')
        self.copies.append((name, self.house.now))

    async def set_back(self) -> None:
        """Put the newest copy in the place of the database; nobody notices."""
        name, _ = self.copies[-1]
        await self.house.engine.dispose()
        await self.server.execute(f'DROP DATABASE "{self.database.name}"')
        await self.server.execute(f'CREATE DATABASE "{self.database.name}" TEMPLATE "{name}"')

    async def find(self, *, worked_on: bool = False) -> None:
        """Let the restore be found: from here on indexes are skipped."""
        house, since = self.house, self.copies[-1][1]
        await house.do(
            lambda conn: begin(conn, WHY, since=since, worked_on=worked_on, now=house.now)
        )

    async def find_after_copy(self) -> None:
        """Copy it, set it back to that, and let it be found."""
        await self.back_up()
        await self.set_back()
        await self.find()

    async def know(self, *, watched: int = WATCHED) -> list[Item]:
        """Let everything that was sent be known; return what people have to look at of addresses."""
        house = self.house
        items = await watch_skipped(house.engine, clock=house.clock, watched=watched)
        await take_signed(house.engine, self.inside, clock=house.clock)
        await self.vouch()
        return items

    async def vouch(self) -> None:
        """Let a person vouch for every place that is neither the signer's log nor addresses."""
        house = self.house
        standing = await house.do(store.require_standing)
        for item in await house.do(lambda conn: store.list_sources(conn, standing.id)):
            if item.state is SourceState.WAITING and item.source not in {SIGNER_LOG, ADDRESSES}:
                signature = operator_keypair("dan").sign(vouching_bytes(item, WHY))
                told: dict[str, Any] = {"signature": signature, "reason": WHY, "now": house.now}
                await house.do(partial(vouch, source=item.source, by="dan", **told))

    async def open(self) -> None:
        """Let two people open every door."""
        house = self.house
        found = await house.do(store.require_standing)
        payload = opening_bytes(found, WHY)
        signed = {code: operator_keypair(code).sign(payload) for code in ("ben", "cleo")}
        await house.do(
            lambda conn: open_restore(conn, signatures=signed, reason=WHY, now=house.now)
        )

    async def restore(self, *, worked_on: bool = False, watched: int = WATCHED) -> None:
        """Set it back, find it, know what was sent, and open."""
        await self.set_back()
        await self.find(worked_on=worked_on)
        await self.know(watched=watched)
        await self.open()

    async def give_back(
        self,
        wallet: str,
        address: str | None,
        party: str,
        *people: str,
        index: int | None = None,
        purpose: AddressPurpose = AddressPurpose.DEPOSIT,
        reference: str = "",
    ) -> Returned:
        """Let two people say whose an address was."""
        house = self.house
        found, number = await house.do(
            lambda conn: find_skipped(conn, wallet, text=address, index=index, searched=3)
        )
        wanted = Return(
            chain=(await house.do(lambda conn: get_wallet(conn, wallet))).chain,
            wallet=wallet,
            address=found,
            index=number,
            party=party,
            purpose=purpose,
            reference=reference,
            reason="as the client's letter shows",
        )
        payload = return_bytes(wanted)
        signed = {code: operator_keypair(code).sign(payload) for code in people or ("ben", "cleo")}
        return await house.do(
            lambda conn: give_back(conn, wanted, signatures=signed, book=BOOK, now=house.now)
        )

    async def handed_out_items(self) -> Mapping[str, str]:
        """Return the state of each address that was given out after the moment, by its path."""
        standing = await self.house.do(store.require_standing)
        items = await self.house.do(lambda conn: store.list_items(conn, standing.id))
        return {item.key: str(item.state) for item in items if item.source == HANDED_OUT}

    async def assert_deposited_once(self) -> None:
        """The oracle of arrivals, which shares no code with what it judges, finds nothing."""
        for check in DEPOSITED_ONCE:
            async with self.house.engine.connect() as conn:
                assert (await conn.exec_driver_sql(check.faults)).all() == []

    async def is_open(self) -> bool:
        try:
            await self.open()
        except NotPossible:
            return False
        return True


@asynccontextmanager
async def set_back_house(
    server: Server, database: Database, folder: Path, kind: type[H]
) -> AsyncIterator[SetBack[H]]:
    """Make the house on an engine of its own: its connections are given up when it is set back."""
    engine: AsyncEngine = create_engine(
        database.app_url,
        role=APP_ROLE,
        idle_in_transaction_timeout_ms=IDLE_MS,
        injected_clock=True,
    )
    founding = demo_founding()
    rules = rules_for(founding.chains, founding.chain_assets, DEMO_OPERATORS)
    try:
        # The chain's blocks are of the house's own time: what is read again is counted by theirs.
        house = kind(engine, clock=ManualClock(GENESIS_TIME + timedelta(hours=1)))
        with (
            local_signer(folder, rules, clock=house.clock) as inside,
            enforce_lock_order(engine),
        ):
            made = SetBack(server, database, house, inside)
            await house.open()
            yield made
            for name, _ in made.copies:
                await server.execute(f'DROP DATABASE IF EXISTS "{name}"')
    finally:
        await engine.dispose()
