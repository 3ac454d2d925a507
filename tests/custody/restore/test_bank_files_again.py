"""Payment files that a bank was given and a restored database does not know."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from app.local.databases import Database, Server
from banks.safe_xml import parse_xml
from banks.submission import Outcome, Submission
from custody.banks import payment_store
from custody.banks.payment_files import discard_file
from custody.banks.payment_model import FileState
from custody.errors import Frozen
from custody.payout_model import Payout, PayoutState
from custody.payouts import cancel_payout, every_payout
from custody.restore import store
from custody.restore.bank_files import bank_file_bytes, take_bank_file
from custody.restore.finding import begin
from custody.restore.model import Item, ItemState, RestoreState, settling_bytes
from custody.restore.opening import settle
from kernel.db import APP_ROLE, create_engine
from kernel.errors import BadInput, Refused
from registry.queries import get_operator
from registry.testing import operator_keypair
from tests.custody.banks.pay_world import BOOK, World, entry, make_world

IDLE_MS = 60_000


@dataclass
class SetBack:
    """A desk that pays through a bank, and copies of its database to come back to."""

    world: World
    server: Server
    database: Database
    copy: str = ""

    async def back_up(self) -> None:
        self.copy = f"causeway_backup_{secrets.token_hex(6)}"
        await self.world.engine.dispose()
        await self.server.execute(
            f'CREATE DATABASE "{self.copy}" TEMPLATE "{self.database.name}" STRATEGY file_copy'
        )

    async def restore(self) -> None:
        await self.put_back()
        await self.find_out()

    async def put_back(self) -> None:
        name = self.database.name
        await self.world.engine.dispose()
        await self.server.execute(
            f'DROP DATABASE "{name}"',
            f'CREATE DATABASE "{name}" TEMPLATE "{self.copy}" STRATEGY file_copy',
        )

    async def find_out(self) -> None:
        now = self.world.now
        await self.world.run(lambda conn: begin(conn, "the disk was lost", now=now))

    async def take(self, raw: bytes, *people: str) -> Item:
        async def work(conn: AsyncConnection) -> Item:
            payload = await bank_file_bytes(conn, raw)
            named = people or ("ben", "cleo")
            signed = {code: operator_keypair(code).sign(payload) for code in named}
            return await take_bank_file(conn, raw, signatures=signed, now=self.world.now)

        return await self.world.run(work)

    async def settle_and_open(self, item: Item) -> None:
        """Let two people say that they have dealt with an item; then open, whatever is unread."""
        payload, now = settling_bytes(item, "asked the bank"), self.world.now
        signed = {code: operator_keypair(code).sign(payload) for code in ("ben", "cleo")}

        async def work(conn: AsyncConnection) -> None:
            names: dict[str, Any] = {"signatures": signed, "reason": "asked the bank", "now": now}
            await settle(conn, item.source, item.key, **names)
            standing = await store.require_standing(conn)
            opened = {"opened_by": {}, "opened_reason": "known", "opened_at": now}
            known = {"state": RestoreState.OPEN, "sent_known_at": now}
            await store.update_restore(conn, standing.id, **known, **opened)

        await self.world.run(work)

    async def unresolved(self) -> int:
        standing = await self.world.run(store.require_standing)
        return await self.world.run(lambda conn: store.count_unresolved(conn, standing.id))


@pytest.fixture
async def house(database_server: Server, database: Database) -> AsyncIterator[SetBack]:
    engine = create_engine(
        database.app_url,
        role=APP_ROLE,
        idle_in_transaction_timeout_ms=IDLE_MS,
        injected_clock=True,
    )
    made = SetBack(await make_world(engine), database_server, database)
    yield made
    await engine.dispose()
    await database_server.execute(f'DROP DATABASE IF EXISTS "{made.copy}"')


async def paid_and_set_back(house: SetBack) -> tuple[bytes, dict[str, tuple[int, int, int]]]:
    """Give the bank a file of a payout that the copy knows as approved, and of one that it lacks."""
    world = house.world
    await world.approved(client_ref="known")
    await house.back_up()
    await world.approved(client_ref="lost", amount=2_000)
    file = await world.signed_file()
    await world.advance()
    assert len(world.door.copies) == 1
    assert (await world.file(file.id)).line_count == 2
    books = await world.books()
    await house.restore()
    return world.door.copies[0][1], books


async def test_a_file_comes_back_with_its_payouts_and_postings_and_is_not_handed_over_again(
    house: SetBack,
) -> None:
    raw, books = await paid_and_set_back(house)
    world = house.world

    item = await house.take(raw)
    work = await world.advance()

    assert item.state is ItemState.RESTORED
    assert await world.books() == books
    assert (work.drafted, work.released, len(world.door.copies)) == ([], [], 1)
    assert (await house.take(raw)).state is ItemState.NOTED
    assert await world.books() == books


@pytest.mark.parametrize(
    ("before", "state"),
    [
        pytest.param((), FileState.DRAFTED, id="drafted"),
        pytest.param(("ben", "cleo"), FileState.APPROVED, id="approved"),
    ],
)
async def test_a_file_that_stands_here_as_never_released_is_released_as_the_bank_has_it(
    house: SetBack, before: tuple[str, ...], state: FileState
) -> None:
    world = house.world
    payout = await world.approved(client_ref="known")
    file = await world.drafted()
    for code in before:
        await world.sign_file(file.id, code)
    await house.back_up()
    for code in {"ben", "cleo"} - {*before}:
        await world.sign_file(file.id, code)
    await world.advance()
    books, raw = await world.books(), world.door.copies[0][1]
    await house.restore()
    # Its time is over meanwhile, and nobody takes back what may have been paid.
    world.clock.advance(timedelta(days=90))
    await world.advance()
    assert (await world.file(file.id)).state is state

    item = await house.take(raw)
    await world.advance()

    assert item.state is ItemState.RESTORED
    assert await world.books() == books
    assert (await world.get(payout)).state is PayoutState.SIGNED
    found = await world.file(file.id)
    assert (found.state, found.submissions) == (FileState.SUBMITTED, 1)
    assert len(world.door.copies) == 1
    assert (await house.take(raw)).state is ItemState.NOTED


async def test_a_file_that_was_discarded_here_and_given_to_the_bank_is_for_people(
    house: SetBack,
) -> None:
    world = house.world
    await world.approved(client_ref="known")
    file = await world.drafted()
    await house.back_up()
    await world.sign_file(file.id, "ben")
    await world.sign_file(file.id, "cleo")
    await world.advance()
    raw = world.door.copies[0][1]
    await house.restore()

    async def end(conn: AsyncConnection) -> None:
        person = await get_operator(conn, "ben")
        await discard_file(conn, file.id, by=person, reason="not wanted", now=world.now)

    await world.run(end)

    item = await house.take(raw)

    assert item.state is ItemState.UNRESOLVED
    assert "stands as discarded here" in item.what
    assert await house.unresolved() == 1


async def test_a_payment_of_a_file_that_cannot_come_back_is_in_no_other_file(
    house: SetBack,
) -> None:
    world = house.world
    both = [await world.approved(client_ref="one"), await world.approved(client_ref="two")]
    await house.back_up()
    await world.signed_file()
    await world.advance()
    raw = world.door.copies[0][1]
    await house.restore()
    one, two = both

    async def end(conn: AsyncConnection) -> None:
        person = await get_operator(conn, two.requested_by)
        await cancel_payout(conn, two.id, by=person, reason="no", book=BOOK, now=world.now)

    await world.run(end)

    item = await house.take(raw)

    assert (item.state, await house.unresolved()) == (ItemState.UNRESOLVED, 1)
    assert f"payout {two.id} is cancelled here" in item.what
    await house.settle_and_open(item)
    assert (await world.advance()).drafted == []
    stays = await world.get(one)
    assert stays.state is PayoutState.APPROVED
    assert "was sent before the database was restored" in stays.waiting_for


async def test_a_payment_that_people_settled_is_not_made_again_under_its_reference(
    house: SetBack,
) -> None:
    raw, _ = await paid_and_set_back(house)
    # The name that the payout's reference went by at the bank cannot be read any more.
    item = await house.take(raw.replace(b"lost", b"lust"))
    assert item.state is ItemState.UNRESOLVED
    await house.settle_and_open(item)

    for claim in ("client:acme", "client:acme:held"):
        with pytest.raises(Refused, match=f"reference 'lost' of acme .* {item.key}"):
            await house.world.request(client_ref="lost", amount=2_000, claim=claim)

    another = await house.world.request(client_ref="another", amount=2_000)
    assert another.state is PayoutState.PENDING_APPROVAL


async def test_a_payment_that_was_asked_for_again_in_between_is_in_no_file(
    house: SetBack,
) -> None:
    world = house.world
    await house.back_up()
    await world.approved(client_ref="lost", amount=2_000)
    await world.signed_file()
    await world.advance()
    raw = world.door.copies[0][1]
    await house.put_back()
    again = await world.approved(client_ref="lost", amount=2_000)
    await house.find_out()

    item = await house.take(raw)

    assert item.state is ItemState.UNRESOLVED
    assert "reference lost of acme is of another payout by now" in item.what
    await house.settle_and_open(item)
    assert (await world.advance()).drafted == []
    stays = await world.get(again)
    assert stays.state is PayoutState.APPROVED
    assert "was sent before the database was restored" in stays.waiting_for


async def test_what_people_must_look_at_is_listed_before_what_is_only_said(
    house: SetBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, _ = await paid_and_set_back(house)
    # Beside it stands a note for each payment of the file.
    item = await house.take(raw.replace(b"lost", b"lust"))
    signed = replace(item, source="signer", key="payment-1")
    await house.world.run(lambda conn: store.save_item(conn, signed))
    monkeypatch.setattr(store, "ITEMS_MAX", 2)

    listed = await house.world.run(lambda conn: store.list_items(conn, item.restore_id))

    assert listed == [item, signed]


async def test_a_file_that_is_out_has_a_copy_in_doubt_from_then_on(house: SetBack) -> None:
    world = house.world
    world.door.answers.append(Submission(Outcome.UNKNOWN, "no answer"))
    _, file = await world.submitted(client_ref="known")
    assert (file.state, file.submissions) == (FileState.UNKNOWN, 1)
    await house.back_up()

    await house.restore()

    assert (await world.file(file.id)).submissions == 2


async def test_without_its_file_the_desk_pays_nothing_while_the_restore_stands(
    house: SetBack,
) -> None:
    await paid_and_set_back(house)

    work = await house.world.advance()

    assert (work.drafted, len(house.world.door.copies)) == ([], 1)
    with pytest.raises(Frozen, match="the database was restored"):
        await house.world.request(client_ref="another")


async def test_the_statement_ends_a_payment_that_came_back(house: SetBack) -> None:
    raw, _ = await paid_and_set_back(house)
    world = house.world
    await house.take(raw)
    found = {item.client_ref: item for item in await world.run(all_payouts)}
    assert {item.state for item in found.values()} == {PayoutState.SIGNED}

    taken = await world.book(*(entry(item, -item.amount) for item in found.values()))

    assert len(taken) == 2
    assert {(await world.get(item)).state for item in found.values()} == {PayoutState.CONFIRMED}
    [file] = await world.run(payment_store.list_files)
    assert file.state is FileState.CLOSED


async def test_a_file_that_pays_nobody_whom_two_people_have_allowed_is_for_people(
    house: SetBack,
) -> None:
    raw, _ = await paid_and_set_back(house)
    books = await house.world.books()
    name = parse_xml(raw).findtext(".//{*}MsgId")
    assert name is not None
    strange = raw.replace(b"lost", b"lust").replace(name.encode(), b"CW" + b"ab" * 16)
    assert strange != raw

    item = await house.take(strange)

    assert item.state is ItemState.UNRESOLVED
    assert await house.unresolved() == 1
    assert await house.world.books() == books


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda raw: raw.replace(b"GB82WEST", b"GB83WEST"), id="payee"),
        pytest.param(lambda raw: raw[: len(raw) // 2], id="half"),
        pytest.param(lambda _: b"<Document/>", id="other"),
    ],
)
async def test_what_is_no_payment_file_of_ours_is_refused(
    house: SetBack, spoil: Callable[[bytes], bytes]
) -> None:
    raw, _ = await paid_and_set_back(house)

    with pytest.raises(BadInput):
        await house.take(spoil(raw))


async def test_a_file_that_pays_something_else_is_for_people(house: SetBack) -> None:
    raw, _ = await paid_and_set_back(house)
    books = await house.world.books()

    item = await house.take(raw.replace(b">100.50<", b">100.60<"))

    assert item.state is ItemState.UNRESOLVED
    assert "pays somebody else, or something else" in item.what
    assert await house.world.books() == books


async def test_one_person_alone_takes_in_no_file(house: SetBack) -> None:
    raw, _ = await paid_and_set_back(house)

    with pytest.raises(Refused, match="1 of 2 people say that the bank has file"):
        await house.take(raw, "ben")


async def all_payouts(conn: AsyncConnection) -> list[Payout]:
    return [item async for item in every_payout(conn, book=BOOK, states={*PayoutState})]
