"""Withdrawals that a venue was asked for and a restored database does not know: found, never asked for again."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database, Server
from custody.errors import NotPossible
from custody.restore import store
from custody.restore.coverage import cover_withdrawals, vouch
from custody.restore.finding import begin
from custody.restore.model import (
    Item,
    ItemState,
    SourceState,
    opening_bytes,
    settling_bytes,
    vouching_bytes,
)
from custody.restore.opening import open_restore, settle
from custody.restore.progress import list_missing
from custody.restore.signed_payouts import take_signed
from custody.restore.skipping import watch_skipped
from custody.signer.testing import LocalSigner
from custody.venues.model import VenueWithdrawal, WithdrawalState
from custody.venues.sending import DOUBT_PAUSE, submit
from kernel.errors import Refused
from registry.testing import operator_keypair
from tests.custody.payout_world import BOOK, ETH
from tests.custody.restore.world import WATCHED
from tests.custody.venues.transfer_world import (
    FEE,
    HELD,
    PLACE,
    TransferWorld,
    make_transfer_world,
)
from venues.treasury_model import TreasuryCapabilities
from venues.treasury_testing import BY_ID, BY_LIST, Answer

W = WithdrawalState
PLACE_NAME = "withdrawals:sim/main"
WHY = "the disk was lost"


@dataclass
class SetBack:
    """A desk with an account at a venue, and a copy of its database to come back to."""

    server: Server
    database: Database
    world: TransferWorld
    copies: list[str] = field(default_factory=list)
    copied_at: datetime | None = None

    async def back_up(self) -> None:
        self.copies.append(f"causeway_backup_{secrets.token_hex(6)}")
        self.copied_at = self.world.desk.clock.now()
        await self.world.desk.engine.dispose()
        await self.server.execute(
            f'CREATE DATABASE "{self.copies[-1]}" TEMPLATE "{self.database.name}"'
            " STRATEGY file_copy"
        )

    async def restore(self) -> None:
        await self.put_back()
        await self.find_out()

    async def put_back(self) -> None:
        name = self.database.name
        await self.world.desk.engine.dispose()
        await self.server.execute(
            f'DROP DATABASE "{name}"',
            f'CREATE DATABASE "{name}" TEMPLATE "{self.copies[-1]}" STRATEGY file_copy',
        )

    async def find_out(self) -> None:
        now = self.world.desk.clock.now()
        since = self.copied_at
        await self.world.desk.run(
            lambda conn: begin(conn, "the disk was lost", since=since, now=now)
        )

    async def sent(self, item: VenueWithdrawal) -> VenueWithdrawal:
        world = self.world
        return await submit(
            world.desk.engine, world.treasury, item.id, holder="w", clock=world.desk.clock
        )

    async def know_the_rest(self) -> None:
        """Read what was signed, and let a person vouch for every other place."""
        desk = self.world.desk
        assert isinstance(desk.vault, LocalSigner)
        await watch_skipped(desk.engine, clock=desk.clock, watched=WATCHED)
        await take_signed(desk.engine, desk.vault, clock=desk.clock)
        standing, now = await desk.run(store.require_standing), desk.clock.now()
        for item in await desk.run(lambda conn: store.list_sources(conn, standing.id)):
            if item.state is SourceState.WAITING and item.source != PLACE_NAME:
                signature = operator_keypair("dan").sign(vouching_bytes(item, WHY))
                said = partial(vouch, source=item.source, by="dan", signature=signature)
                await desk.run(partial(said, reason=WHY, now=now))

    async def open(self) -> None:
        desk = self.world.desk
        payload = opening_bytes(await desk.run(store.require_standing), WHY)
        signed = {code: operator_keypair(code).sign(payload) for code in ("ben", "cleo")}
        now = desk.clock.now()
        await desk.run(lambda conn: open_restore(conn, signatures=signed, reason=WHY, now=now))

    async def cover(self) -> list[Item]:
        world = self.world
        return await cover_withdrawals(world.desk.engine, world.treasury, clock=world.desk.clock)

    async def missing(self) -> list[str]:
        standing = await self.world.desk.run(store.require_standing)
        return await self.world.desk.run(lambda conn: list_missing(conn, standing.id))

    async def source(self) -> SourceState:
        standing = await self.world.desk.run(store.require_standing)
        found = await self.world.desk.run(
            lambda conn: store.get_source(conn, standing.id, PLACE_NAME)
        )
        return found.state

    async def settle(self, item: Item, reference: str = "") -> Item:
        reason = "booked by hand, journal 4"
        payload = settling_bytes(item, reason, reference)
        signed = {code: operator_keypair(code).sign(payload) for code in ("ben", "cleo")}
        now = self.world.desk.clock.now()
        told: dict[str, Any] = {"signatures": signed, "reason": reason, "now": now}
        return await self.world.desk.run(
            lambda conn: settle(conn, item.source, item.key, reference=reference, **told)
        )

    async def forget_one(self) -> Item:
        """Have the venue make a withdrawal that the restored database has never heard of."""
        await self.back_up()
        await self.sent(await self.world.approved(client_ref="lost", amount=4 * ETH))
        await self.restore()
        await self.know_the_rest()
        (item,) = await self.cover()
        return item

    async def available(self) -> int:
        balance, _, pending = (await self.world.desk.books())[PLACE.path, "ETH"]
        return balance - pending


@pytest.fixture
async def house(
    database_server: Server, database: Database, engine: AsyncEngine, tmp_path: Path
) -> AsyncIterator[SetBack]:
    async with make_transfer_world(engine, tmp_path) as world:
        made = SetBack(database_server, database, world)
        yield made
        for name in made.copies:
            await database_server.execute(f'DROP DATABASE IF EXISTS "{name}"')


async def test_those_that_wait_here_for_their_approvers_may_have_been_sent_and_end_on_evidence(
    house: SetBack,
) -> None:
    world = house.world
    went, never = await world.request(), await world.request(amount=3 * ETH)
    assert {went.state, never.state} == {W.PENDING_APPROVAL}
    world.desk.clock.advance(timedelta(hours=3))
    await house.back_up()
    assert (await house.sent(await world.approve(went))).state is W.ACKED
    await house.restore()

    for item in (went, never):
        with pytest.raises(NotPossible, match="not waiting for approval"):
            await world.approve(item)
    await world.work(1)
    assert (await world.get(never)).state is W.UNKNOWN
    await world.work(DOUBT_PAUSE.total_seconds())
    for _ in range(2):
        assert (await world.get(never)).state is W.UNKNOWN
        await world.work(10)

    assert (await world.get(went)).state is W.DEBITED
    assert (await world.get(never)).state is W.NOT_PLACED
    assert [item.amount for item in world.treasury.requests] == [2 * ETH]
    assert await house.available() == HELD - 2 * ETH


async def test_one_that_was_sent_and_forgotten_is_for_people_and_is_not_asked_for_again(
    house: SetBack,
) -> None:
    world = house.world
    known = await house.sent(await world.approved())
    world.treasury.answers = [Answer.LOSE_AFTER]
    unknown = await house.sent(await world.approved(amount=ETH))
    waits = await world.approved(amount=3 * ETH)
    await house.back_up()
    await house.sent(waits)
    lost = await house.sent(await world.approved(client_ref="lost", amount=4 * ETH))
    await house.restore()
    await house.know_the_rest()

    (item,) = await house.cover()

    assert (item.state, item.source) == (ItemState.UNRESOLVED, PLACE_NAME)
    assert f"{4 * ETH - FEE} ETH" in item.what
    assert lost.address in item.what
    # Those that the venue may have are followed to their ends first.
    assert await house.source() is SourceState.WAITING
    await world.work(DOUBT_PAUSE.total_seconds() + 1)
    assert [found.key for found in await house.cover()] == [item.key]
    assert {(await world.get(row)).state for row in (known, unknown, waits)} == {W.DEBITED}
    assert await house.source() is SourceState.DONE
    assert any("1 items are for people" in line for line in await house.missing())
    assert (await house.settle(item)).state is ItemState.SETTLED
    assert await house.cover() == []
    await house.open()
    with pytest.raises(Refused, match="was asked for before the database was restored"):
        await world.request(client_ref="lost", amount=4 * ETH)
    assert (await world.request(client_ref="another")).state is W.PENDING_APPROVAL


async def test_one_that_was_asked_for_again_before_the_restore_was_found_is_the_one_that_was_sent(
    house: SetBack,
) -> None:
    world = house.world
    await house.back_up()
    await house.sent(await world.approved(client_ref="lost"))
    world.desk.clock.advance(timedelta(hours=3))
    await house.put_back()
    again = await world.request(client_ref="lost")
    await house.find_out()
    await house.know_the_rest()
    await world.work(DOUBT_PAUSE.total_seconds() + 1)
    for _ in range(3):
        # The venue's list is read from when it was asked for: it is older than that.
        await world.work(10)
    assert (await world.get(again)).state is W.NOT_PLACED

    assert await house.cover() == []

    await world.work(10)
    found = await world.get(again)
    assert found.state in {W.ACKED, W.ESCALATED, W.DEBITED}
    assert found.venue_ref is not None
    assert len(world.treasury.requests) == 1


async def test_what_is_like_one_whose_reference_nobody_knows_is_not_asked_for_again(
    house: SetBack,
) -> None:
    world = house.world
    world.treasury.capabilities = BY_LIST
    item = await house.forget_one()
    assert item.key == "w-1"
    await house.settle(item)
    await house.open()

    for reference in ("lost", "another"):
        with pytest.raises(Refused, match="nobody has said under which reference") as refused:
            await world.request(client_ref=reference, amount=4 * ETH)
        assert refused.value.where == f"{PLACE_NAME} w-1"

    other = await world.request(client_ref="another", amount=3 * ETH)
    assert other.state is W.PENDING_APPROVAL
    # What stands is the same to whoever asks for it again.
    assert (await world.request(client_ref="another", amount=3 * ETH)).id == other.id


async def test_one_whose_reference_people_have_said_is_not_asked_for_again_under_it(
    house: SetBack,
) -> None:
    world = house.world
    world.treasury.capabilities = BY_LIST
    item = await house.forget_one()
    await house.settle(item, reference="lost")
    await house.open()

    for amount in (4 * ETH, 3 * ETH):
        with pytest.raises(Refused, match="'lost' was asked for before the database was restored"):
            await world.request(client_ref="lost", amount=amount)

    assert (await world.request(client_ref="another", amount=4 * ETH)).state is W.PENDING_APPROVAL


async def test_nobody_says_a_reference_where_the_venue_lists_ours(house: SetBack) -> None:
    item = await house.forget_one()

    with pytest.raises(NotPossible, match="no withdrawal whose reference is to be said"):
        await house.settle(item, reference="lost")


@pytest.mark.parametrize("can", [BY_ID, BY_LIST], ids=["lists-our-ids", "lists-none"])
async def test_one_that_the_venue_did_not_pay_after_all_is_for_nobody_and_is_asked_for_again(
    house: SetBack, can: TreasuryCapabilities
) -> None:
    world = house.world
    world.treasury.capabilities = can
    item = await house.forget_one()
    world.treasury.fail("w-1")

    (again,) = await house.cover()

    assert (again.key, again.state) == (item.key, ItemState.RESTORED)
    assert again.what.startswith("failed w-1")
    await house.open()
    asked = await world.request(client_ref="lost", amount=4 * ETH)
    assert asked.state is W.PENDING_APPROVAL


async def test_one_of_another_book_at_the_same_account_is_waited_for_and_is_no_stranger(
    house: SetBack, owner_engine: AsyncEngine
) -> None:
    world = house.world
    world.treasury.answers = [Answer.LOSE_AFTER]
    item = await house.sent(await world.approved(amount=ETH))
    await house.back_up()
    await house.restore()
    await house.know_the_rest()
    # The account has coins of two books, and this one is the other's.
    async with owner_engine.begin() as conn:
        other = text("UPDATE custody.venue_withdrawal SET book = :book")
        await conn.execute(other, {"book": BOOK + 1})

    assert await house.cover() == []

    assert await house.source() is SourceState.WAITING
    assert (await world.get(item)).state is W.UNKNOWN
