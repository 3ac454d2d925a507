"""A house whose database is set back: the stories of restores are told with it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database, Server
from custody.restore import store
from custody.restore.coverage import cover_chain, vouch
from custody.restore.model import (
    Item,
    Restore,
    Source,
    SourceState,
    opening_bytes,
    settling_bytes,
    vouching_bytes,
)
from custody.restore.opening import open_restore, settle
from custody.restore.signed_payouts import take_signed
from custody.restore.signing import WitnessedSigner
from custody.restore.skipping import watch_skipped
from custody.signer.testing import LocalSigner
from kernel.db import APP_ROLE, create_engine
from registry.testing import operator_keypair
from tests.custody.payout_world import World, make_world

IDLE_MS = 60_000
WATCHED = 2
WHY = "the disk was lost"


@dataclass
class SetBack:
    """A world with a signer that is shown marks, and copies of its database to come back to.

    A copy is PostgreSQL's own, of every page of the database at that moment.
    """

    server: Server
    database: Database
    world: World
    inside: LocalSigner
    copies: list[str] = field(default_factory=list)

    async def back_up(self) -> str:
        """Copy the database as it is; nobody may be connected meanwhile."""
        name = f"causeway_backup_{secrets.token_hex(6)}"
        await self.world.engine.dispose()
        await self.server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{self.database.name}"')
        self.copies.append(name)
        return name

    async def restore(self, name: str) -> None:
        """Put a copy in the place of the database."""
        await self.world.engine.dispose()
        await self.server.execute(f'DROP DATABASE "{self.database.name}"')
        await self.server.execute(f'CREATE DATABASE "{self.database.name}" TEMPLATE "{name}"')

    async def standing(self) -> Restore | None:
        return await self.world.run(store.find_standing)

    async def sources(self) -> dict[str, Source]:
        found = await self.world.run(store.require_standing)
        listed = await self.world.run(lambda conn: store.list_sources(conn, found.id))
        return {item.source: item for item in listed}

    async def take_signed(self) -> list[Item]:
        await watch_skipped(self.world.engine, clock=self.world.clock, watched=WATCHED)
        return await take_signed(self.world.engine, self.inside, clock=self.world.clock)

    async def vouch_for_the_rest(self) -> None:
        """Let a person say that the banks and venues have nothing more."""
        for item in (await self.sources()).values():
            if item.state is not SourceState.WAITING or item.source in {"signer", "chain:evm"}:
                continue
            signature = operator_keypair("dan").sign(vouching_bytes(item, WHY))
            await self.vouch(item, signature)

    async def vouch(self, item: Source, signature: bytes) -> None:
        now = self.world.clock.now()
        await self.world.run(
            lambda conn: vouch(
                conn, item.source, by="dan", signature=signature, reason=WHY, now=now
            )
        )

    async def settle(self, item: Item, *people: str) -> Item:
        payload, now = settling_bytes(item, WHY), self.world.clock.now()
        signed = {code: operator_keypair(code).sign(payload) for code in people}
        told: dict[str, Any] = {"signatures": signed, "reason": WHY, "now": now}
        return await self.world.run(lambda conn: settle(conn, item.source, item.key, **told))

    async def cover_chain(self) -> bool:
        world = self.world
        return await cover_chain(world.engine, world.gateway, "evm", clock=world.clock)

    async def open(self, *people: str) -> Restore:
        found = await self.world.run(store.require_standing)
        payload = opening_bytes(found, WHY)
        signed = {code: operator_keypair(code).sign(payload) for code in people}
        return await self.world.run(
            lambda conn: open_restore(
                conn, signatures=signed, reason=WHY, now=self.world.clock.now()
            )
        )


@asynccontextmanager
async def set_back_world(
    server: Server, database: Database, folder: Path
) -> AsyncIterator[SetBack]:
    """Make the world on an engine of its own: its connections are given up when it is set back."""
    engine: AsyncEngine = create_engine(
        database.app_url,
        role=APP_ROLE,
        idle_in_transaction_timeout_ms=IDLE_MS,
        injected_clock=True,
    )
    try:
        async with make_world(engine, folder) as world:
            assert isinstance(world.vault, LocalSigner)
            world.signer = WitnessedSigner(engine, world.vault, world.clock)
            made = SetBack(server, database, world, world.vault)
            yield made
            for name in made.copies:
                await server.execute(f'DROP DATABASE IF EXISTS "{name}"')
    finally:
        await engine.dispose()
