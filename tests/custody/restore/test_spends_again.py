"""Spends of Bitcoin that the signer has signed and a restored database does not know."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.databases import Database, Server
from chain.simulators.bitcoind import Bitcoind
from custody.bitcoin.spend_model import SpendState
from custody.bitcoin.testing import CHAIN
from custody.payout_model import PayoutState
from custody.payouts import cancel_payout
from custody.restore import store
from custody.restore.coverage import cover_chain, vouch
from custody.restore.finding import begin
from custody.restore.model import (
    Item,
    ItemState,
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
from kernel.errors import Refused
from registry.queries import get_operator
from registry.testing import operator_keypair
from tests.chain.bitcoin.conftest import bitcoind, bitcoind_binary
from tests.custody.bitcoin.spend_world import BOOK, BTC, SpendWorld, make_spend_world
from tests.custody.bitcoin.test_spend_real import make_real_world
from tests.custody.restore.world import WATCHED

__all__ = ["bitcoind", "bitcoind_binary"]
WHY = "the disk was lost"


@dataclass
class SetBack:
    """A desk that pays on Bitcoin, and a copy of its database to come back to."""

    server: Server
    database: Database
    world: SpendWorld
    inside: LocalSigner
    copies: list[str] = field(default_factory=list)

    async def back_up(self) -> None:
        self.copies.append(f"causeway_backup_{secrets.token_hex(6)}")
        await self.world.engine.dispose()
        await self.server.execute(
            f'CREATE DATABASE "{self.copies[-1]}" TEMPLATE "{self.database.name}"'
            " STRATEGY file_copy"
        )

    async def restore(self) -> None:
        """Put the copy in the database's place."""
        name = self.database.name
        await self.world.engine.dispose()
        await self.server.execute(
            f'DROP DATABASE "{name}"',
            f'CREATE DATABASE "{name}" TEMPLATE "{self.copies[-1]}" STRATEGY file_copy',
        )

    async def take_signed(self) -> list[Item]:
        await watch_skipped(self.world.engine, clock=self.world.clock, watched=WATCHED)
        return await take_signed(self.world.engine, self.inside, clock=self.world.clock)

    async def sources(self) -> dict[str, Source]:
        standing = await self.world.run(store.require_standing)
        found = await self.world.run(lambda conn: store.list_sources(conn, standing.id))
        return {item.source: item for item in found}

    async def cover_chain(self) -> bool:
        world = self.world
        return await cover_chain(world.engine, world.node, CHAIN, clock=world.clock)

    async def vouch(self) -> None:
        """Let a person vouch for what this house does not read: all but the chain of Bitcoin."""
        world, now = self.world, self.world.clock.now()
        for item in (await self.sources()).values():
            if item.state is SourceState.WAITING and item.source != f"chain:{CHAIN}":
                signature = operator_keypair("dan").sign(vouching_bytes(item, WHY))
                name = item.source
                await world.run(
                    lambda conn, name=name, signature=signature: vouch(  # type: ignore[misc]
                        conn, name, by="dan", signature=signature, reason=WHY, now=now
                    )
                )

    async def settle(self, item: Item) -> None:
        payload, now = settling_bytes(item, WHY), self.world.clock.now()
        signed = {code: operator_keypair(code).sign(payload) for code in ("ben", "cleo")}
        told: dict[str, Any] = {"signatures": signed, "reason": WHY, "now": now}
        await self.world.run(lambda conn: settle(conn, item.source, item.key, **told))

    async def found_again(self) -> list[Item]:
        """Let the restore be found, and what was signed be taken in."""
        now = self.world.clock.now()
        await self.world.run(lambda conn: begin(conn, WHY, worked_on=False, now=now))
        items = await self.take_signed()
        await self.vouch()
        return items

    async def open(self) -> None:
        world, now = self.world, self.world.clock.now()
        assert await self.cover_chain()
        payload = opening_bytes(await world.run(store.require_standing), WHY)
        signed = {code: operator_keypair(code).sign(payload) for code in ("ben", "cleo")}
        await world.run(lambda conn: open_restore(conn, signatures=signed, reason=WHY, now=now))


@asynccontextmanager
async def set_back(server: Server, database: Database, world: SpendWorld) -> AsyncIterator[SetBack]:
    assert isinstance(world.vault, LocalSigner)
    inside = world.vault
    world.signer = WitnessedSigner(world.engine, inside, world.clock)
    made = SetBack(server, database, world, inside)
    yield made
    for name in made.copies:
        await server.execute(f'DROP DATABASE IF EXISTS "{name}"')


@pytest.fixture
async def house(
    database_server: Server, database: Database, engine: AsyncEngine, tmp_path: Path
) -> AsyncIterator[SetBack]:
    async with (
        make_spend_world(engine, tmp_path) as world,
        set_back(database_server, database, world) as made,
    ):
        yield made


async def test_a_spend_comes_back_and_what_the_restored_house_put_elsewhere_is_taken_back(
    house: SetBack,
) -> None:
    world = house.world
    known = await world.approved(client_ref="known")
    await house.back_up()
    lost = await world.approved(client_ref="lost", amount=BTC // 4)
    await world.advance()
    assert await world.states([known, lost]) == {"signed"}
    spent, books = await world.only(), await world.books()
    signed = house.inside.signer.memory.count()
    await house.restore()
    # It allocates before it asks the signer: coins and the known payout are in another spend then.
    await world.advance()
    assert (await world.only()).spend.state is SpendState.ALLOCATED

    items = await house.found_again()

    assert [item.state for item in items] == [ItemState.RESTORED]
    by_state = {one.spend.state: one for one in await world.spends()}
    assert by_state.keys() == {SpendState.DROPPED, SpendState.SIGNED}
    again = by_state[SpendState.SIGNED]
    assert again.spend.id == spent.spend.id
    assert [item.raw for item in again.attempts] == [item.raw for item in spent.attempts]
    assert await world.books() == books
    await world.assert_exact()
    assert await house.take_signed() == []
    await world.mine(3)
    await world.confirm()
    assert {(await world.get(item)).state for item in (known, lost)} == {PayoutState.CONFIRMED}
    assert house.inside.signer.memory.count() == signed
    await world.assert_exact()


async def test_a_spend_whose_coin_came_in_after_the_moment_comes_back_before_its_block_is_read(
    house: SetBack,
) -> None:
    world = house.world
    await house.back_up()
    world.node.mine(world.node.pay((world.acme, 5 * BTC)))
    await world.mine(3)
    await world.credit()
    lost = await world.approved(client_ref="lost", amount=4 * BTC)
    await world.advance()
    after = await world.approved(client_ref="after", amount=3 * BTC)
    await world.mine()
    await world.advance()
    assert await world.states([lost]) == {"mined"}
    assert await world.states([after]) == {"signed"}
    await world.mine(3)
    await world.confirm()
    books = await world.books()
    await house.restore()

    items = await house.found_again()

    assert {item.state for item in items} == {ItemState.RESTORED}
    assert len(items) == 2
    await world.follow()
    await world.confirm()
    # What came in is not credited before people have opened; until then acme owes what it lacks.
    owed = (await world.books())["receivable:acme:reorg"][0]
    assert owed > 0
    await house.open()
    await world.credit()
    assert {(await world.get(item)).state for item in (lost, after)} == {PayoutState.CONFIRMED}
    # It is set off before acme's next payout.
    await world.request(client_ref="next", amount=BTC)
    now = await world.books()
    assert owed == BTC * 3 // 10
    assert now["client:acme"] == (books["client:acme"][0], BTC, 0)
    assert "receivable:acme:reorg" not in now
    assert now["custody:btc-pool"] == books["custody:btc-pool"]
    await world.assert_exact()


async def test_a_chain_of_real_blocks_is_read_to_its_end_and_nobody_vouches_for_it(
    database_server: Server,
    database: Database,
    engine: AsyncEngine,
    tmp_path: Path,
    bitcoind: Bitcoind,
) -> None:
    async with (
        make_real_world(engine, tmp_path, bitcoind) as world,
        set_back(database_server, database, world) as house,
    ):
        await house.back_up()
        lost = await world.approved(client_ref="lost", amount=BTC // 4)
        await world.advance()
        await world.mine(3)
        await world.confirm()
        books = await world.books()
        await house.restore()

        items = await house.found_again()

        assert [item.state for item in items] == [ItemState.RESTORED]
        assert not await house.cover_chain()
        await world.follow()
        await world.confirm()
        assert await house.cover_chain()
        read = (await house.sources())[f"chain:{CHAIN}"]
        assert (read.state, read.done_by) == (SourceState.DONE, "system:restore")
        await house.open()
        assert (await world.get(lost)).state is PayoutState.CONFIRMED
        assert await world.books() == books
        await world.assert_exact()


async def test_a_spend_that_was_cancelled_comes_back_as_it_was(house: SetBack) -> None:
    world = house.world
    payout = await world.approved()
    await world.advance()
    await house.back_up()
    await world.cancel((await world.only()).spend)
    await world.advance()
    books, spent = await world.books(), await world.only()
    assert spent.spend.state is SpendState.CANCELLING
    await house.restore()

    items = await house.found_again()

    assert [item.state for item in items] == [ItemState.RESTORED]
    again = next(one for one in await world.spends() if one.spend.id == spent.spend.id)
    assert again.spend.state is SpendState.CANCELLING
    assert [item.raw for item in again.attempts] == [item.raw for item in spent.attempts]
    assert (await world.get(payout)).state is PayoutState.CANCELLING
    assert await world.books() == books
    await world.assert_exact()


async def test_a_payment_of_a_spend_that_people_settled_is_not_made_again_under_its_reference(
    house: SetBack,
) -> None:
    world = house.world
    known = await world.approved(client_ref="known")
    await house.back_up()
    lost = await world.approved(client_ref="lost", amount=BTC // 4)
    await world.advance()
    assert len((await world.only()).payouts) == 2
    await house.restore()

    async def end(conn: AsyncConnection) -> None:
        person = await get_operator(conn, known.requested_by)
        told: dict[str, Any] = {"by": person, "reason": "no", "now": world.clock.now()}
        await cancel_payout(conn, known.id, book=BOOK, **told)

    await world.run(end)

    (item,) = await house.found_again()

    assert item.state is ItemState.UNRESOLVED
    assert f"payout {known.id} is cancelled here" in item.what
    await house.settle(item)
    await world.follow()
    await house.open()
    with pytest.raises(Refused, match=f"reference 'lost' of acme .*{item.key}"):
        await world.request(client_ref="lost", amount=lost.amount)
    assert (await world.request(client_ref="known")).state is PayoutState.CANCELLED
