"""What the signer has signed and a restored database does not know: found, taken in, never made twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from app.local.databases import Database, Server
from custody.errors import Frozen, NotPossible
from custody.payout_model import Payout, PayoutState
from custody.payouts import cancel_payout, expire_payouts
from custody.restore import store
from custody.restore.finding import begin
from custody.restore.model import ItemState, SourceState
from custody.restore.signing import SHOWN_BYTES_MAX, fit
from custody.restore.watching import look
from custody.restore_marks import About, Mark
from custody.signer.verification import find_faults
from kernel.errors import OutsideUnavailable
from registry.queries import get_operator
from tests.custody.payout_world import BOOK, ETH, PAYEE, USDT
from tests.custody.restore.world import SetBack, set_back_world

BLOCKS = 4


@pytest.fixture
async def house(
    database_server: Server, database: Database, tmp_path: Path
) -> AsyncIterator[SetBack]:
    async with set_back_world(database_server, database, tmp_path) as made:
        yield made


async def pay_and_set_back(house: SetBack) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Pay before a copy of the database is made, and after it; put the copy back; return the books.

    Known to the copy: *first*, paid; *second*, approved. Lost: that *second* was paid, and *third* (mined)
    and *fourth* (signed, in no block) with all that they are.
    """
    world = house.world
    await world.approved(client_ref="first", amount=ETH)
    await world.advance()
    await world.mine(BLOCKS)
    await world.confirm()
    await world.approved(client_ref="second", amount=ETH)
    copy = await house.back_up()

    await world.advance()
    await world.approved(client_ref="third", amount=100 * USDT, asset="USDT")
    await world.advance()
    await world.mine(BLOCKS)
    await world.confirm()
    await world.approved(client_ref="fourth", amount=2 * ETH)
    await world.advance()
    books = await world.books()

    await house.restore(copy)
    return books


async def test_the_first_question_finds_the_restore_and_nothing_is_signed(house: SetBack) -> None:
    await pay_and_set_back(house)
    signed = house.inside.signer.memory.count()
    assert await house.standing() is None

    report = await house.world.advance()

    assert report.signed == []
    assert house.inside.signer.memory.count() == signed == 4
    standing = await house.standing()
    assert standing is not None
    assert "the signer was shown mark 4, which this database does not have" in standing.evidence


async def test_a_copy_in_the_database_s_place_is_found_though_the_server_went_on(
    house: SetBack,
) -> None:
    world = house.world
    assert (await look(world.engine, clock=world.clock)).evidence == ""
    await house.restore(await house.back_up())

    with pytest.raises(Frozen, match="nobody has looked yet"):
        await world.request(client_ref="another")
    seen = await look(world.engine, clock=world.clock)

    assert "has become cluster" in seen.evidence
    assert await house.standing() is not None


async def test_the_log_is_read_back_to_what_both_know_whoever_errs_about_the_moment(
    house: SetBack,
) -> None:
    await pay_and_set_back(house)
    world = house.world
    world.clock.advance(timedelta(days=3))
    now = world.clock.now()
    await world.run(lambda conn: begin(conn, "the disk was lost", since=now, now=now))

    items = await house.take_signed()

    assert {item.state for item in items} == {ItemState.RESTORED}
    assert len(items) == 3
    standing = await house.standing()
    assert standing is not None
    assert standing.since < now - timedelta(days=2)


async def test_nothing_runs_out_that_may_have_been_paid(house: SetBack) -> None:
    await pay_and_set_back(house)
    world = house.world
    await world.advance()
    world.clock.advance(timedelta(days=90))
    now = world.clock.now()

    assert await world.run(lambda conn: expire_payouts(conn, book=BOOK, now=now)) == []

    assert {item.state for item in await house.take_signed()} == {ItemState.RESTORED}


def test_a_question_carries_as_many_marks_as_it_has_room_for() -> None:
    about = [
        About(
            payout_id=UUID(int=number),
            book=1,
            claim="client:acme",
            client_ref=f"payment-{number}",
            rail="evm",
            asset="ETH",
            amount="1",
            native_asset="ETH",
            reason="r" * 500,
        )
        for number in range(100)
    ]
    marks = [Mark(number=number, previous="", at=0, about=about) for number in range(1, 20)]

    carried = fit(marks)

    assert 1 < len(carried) < len(marks)
    assert carried == marks[: len(carried)]
    assert len(msgspec.json.encode(carried)) <= SHOWN_BYTES_MAX + len(carried) + 1
    assert fit([]) == []
    assert fit([Mark(number=1, previous="", at=0, about=about * 6)]) != []


async def test_every_door_is_shut_while_a_restore_stands(house: SetBack) -> None:
    await pay_and_set_back(house)
    await house.world.advance()

    with pytest.raises(Frozen, match="the database was restored"):
        await house.world.request(client_ref="another")
    with pytest.raises(Frozen, match="nothing is taken in"):
        await house.world.follow()
    with pytest.raises(NotPossible, match="the doors stay shut"):
        await house.open("ben", "cleo")


async def test_what_was_signed_is_taken_in_and_the_books_are_as_they_were(house: SetBack) -> None:
    books = await pay_and_set_back(house)
    world = house.world
    await world.advance()

    items = await house.take_signed()
    await house.vouch_for_the_rest()
    await world.follow()
    await world.confirm()

    assert {item.state for item in items} == {ItemState.RESTORED}
    assert len(items) == 3
    assert await world.books() == books
    await world.assert_rule_two()
    assert await house.take_signed() == []


async def test_a_reference_that_was_lost_is_still_that_of_its_payout(house: SetBack) -> None:
    await pay_and_set_back(house)
    world = house.world
    await world.advance()
    await house.take_signed()
    await house.vouch_for_the_rest()
    await world.follow()
    assert await house.cover_chain()
    await house.open("ben", "cleo")

    again = await world.request(client_ref="third", amount=100 * USDT, asset="USDT")

    assert again.state in {PayoutState.MINED, PayoutState.CONFIRMED}
    assert again.destination == PAYEE


async def test_a_payout_that_was_asked_for_again_before_the_restore_was_found_is_not_sent_too(
    house: SetBack,
) -> None:
    await pay_and_set_back(house)
    world = house.world
    again = await world.approved(client_ref="third", amount=100 * USDT, asset="USDT")
    await world.advance()

    found = {item.state: item for item in await house.take_signed()}

    left = found[ItemState.UNRESOLVED]
    assert "reference third of acme is of another payout by now" in left.what
    await house.settle(left, "ben", "cleo")
    await house.vouch_for_the_rest()
    await world.follow()
    assert await house.cover_chain()
    await house.open("ben", "cleo")
    for _ in range(3):
        world.clock.advance(timedelta(minutes=2))
        await world.advance()
    stays = await world.get(again)
    assert stays.state is PayoutState.APPROVED
    assert "was sent before the database was restored" in stays.waiting_for
    assert house.inside.signer.memory.count() == 4

    async def cancel(conn: AsyncConnection) -> Payout:
        person, now = await get_operator(conn, stays.requested_by), world.clock.now()
        return await cancel_payout(conn, stays.id, by=person, reason="paid", book=BOOK, now=now)

    assert (await world.run(cancel)).state is PayoutState.CANCELLED
    same = await world.request(client_ref="third", amount=100 * USDT, asset="USDT")
    assert (same.id, same.state) == (stays.id, PayoutState.CANCELLED)


async def test_a_chain_is_followed_to_where_it_was_and_not_for_ever_after_its_head(
    house: SetBack,
) -> None:
    await pay_and_set_back(house)
    world = house.world
    await world.advance()
    await house.take_signed()
    await house.vouch_for_the_rest()
    assert not await house.cover_chain()

    await world.follow()
    # A chain whose blocks are faster than the house: there is always one more.
    world.gateway.mine()

    assert await house.cover_chain()
    assert (await house.sources())["chain:evm"].state is SourceState.DONE


async def test_a_node_that_still_catches_up_does_not_say_where_its_chain_was(
    house: SetBack,
) -> None:
    await pay_and_set_back(house)
    world = house.world
    world.clock.advance(timedelta(hours=1))
    await world.advance()
    await house.take_signed()
    await house.vouch_for_the_rest()
    await world.follow()

    with pytest.raises(OutsideUnavailable, match=r"before .* when the restore was found"):
        await house.cover_chain()
    assert (await house.sources())["chain:evm"].state is SourceState.WAITING

    world.gateway.begins += timedelta(hours=1)
    world.gateway.mine()
    assert not await house.cover_chain()
    await world.follow()
    assert await house.cover_chain()


async def test_a_signer_that_will_not_yet_is_asked_ever_more_slowly(house: SetBack) -> None:
    world = house.world
    # Nobody tells the signer what people allow: it has never heard of the payee.
    world.vault = None
    await world.approved()
    await world.advance()
    world.clock.advance(timedelta(hours=1))
    asked = []
    for _ in range(4):
        await world.advance()
        number, _, _ = await world.run(store.last_mark)
        asked.append(number)
        world.clock.advance(timedelta(seconds=18))

    # Every second before; now once a minute.
    assert [number - asked[0] for number in asked] == [0, 0, 0, 1]
    assert house.inside.signer.memory.count() == 0


async def test_two_people_open_and_the_house_goes_on_where_the_chain_is(house: SetBack) -> None:
    books = await pay_and_set_back(house)
    world = house.world
    await world.advance()
    await house.take_signed()
    await house.vouch_for_the_rest()
    await world.follow()
    await world.confirm()
    with pytest.raises(NotPossible, match="chain:evm is not read to its end"):
        await house.open("ben", "cleo")
    assert await house.cover_chain()
    assert {item.state for item in (await house.sources()).values()} <= {
        SourceState.DONE,
        SourceState.VOUCHED,
    }

    await house.open("ben", "cleo")
    await world.advance()
    fifth = await world.approved(client_ref="fifth", amount=ETH)
    await world.advance()
    await world.mine(BLOCKS)
    await world.confirm()

    assert (await world.get(fifth)).state is PayoutState.CONFIRMED
    assert house.inside.signer.memory.count() == 5
    assert find_faults(house.inside.signer.memory) == []
    before, after = books["client:acme", "ETH"][0], (await world.books())["client:acme", "ETH"][0]
    assert before - after == ETH
    await world.assert_rule_two()
