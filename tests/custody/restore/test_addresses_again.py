"""Addresses given out after a restore's moment: nobody else is given them, and what is paid is kept."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.follow import READ_AGAIN_MAX, follow
from chain.model import ChainStep
from custody.addresses import WatchListReader, list_descriptors, watch_list
from custody.bitcoin.testing import CHAIN, POOL
from custody.compliance.address_list import AddressList
from custody.errors import Frozen, NotPossible, UnknownRow
from custody.inclusion import apply_step
from custody.model import AddressPurpose
from custody.restore import store
from custody.restore.finding import begin
from custody.restore.returns import Returned
from custody.restore.watching import look
from custody.skipped import list_skips
from kernel.errors import BadInput, CausewayError, Refused
from registry.errors import NotAuthorised
from registry.model import Wallet, WalletPurpose
from registry.testing import change
from settlement.matching.sources import list_waiting, lock_waiting
from tests.custody.bitcoin.coin_house import COIN, CoinHouse
from tests.custody.house import BOOK, ETHER, FAKE_TOKEN, STRANGER, House
from tests.custody.restore.address_world import WATCHED, WHY, SetBack
from tests.custody.waits import waits_for_a_lock

DEPOSIT, SETTLEMENT = AddressPurpose.DEPOSIT, AddressPurpose.SETTLEMENT
REREAD = 40
"""Blocks after which those below have been read a second time."""
OWN_XPUB = "xpub6DCoCpSuQZB2qj3utV2gucFr4tS2X5LM9cqDrubREj96z9WsfM1uxxi8mtY14PMroo8u5mtUG7deEiZJxzjfaZP7RqStp3A6XCtnxEQkkcj"


MANY_BLOCKS = """
    WITH many AS (
        INSERT INTO chain.block (chain, hash, height, parent, time, state, inclusion, traced)
        SELECT c.chain, 'many ' || n, c.height + n, 'many ' || n - 1, b.time, 'canonical', 1, true
        FROM chain.cursor c JOIN chain.block b USING (chain, hash)
        CROSS JOIN generate_series(1, CAST(:count AS integer)) n
    ), moved AS (
        UPDATE chain.cursor
        SET height = height + CAST(:count AS integer), hash = 'many ' || CAST(:count AS integer)
        RETURNING chain, height
    )
    UPDATE chain.following f SET reread = moved.height FROM moved WHERE f.chain = moved.chain
"""
"""Blocks upon the newest one, all of which were read a second time."""


async def given(house: House, party: str = "acme", reference: str = "") -> str:
    return await house.assign("client-pool", DEPOSIT, party, reference)


async def test_what_a_client_pays_at_an_address_of_the_lost_hours_is_his(
    lost: SetBack[House],
) -> None:
    """Restored, the house is asked for an address by another client; the first one pays at his."""
    house = lost.house
    await lost.back_up()
    acme = await given(house, "acme")
    await lost.set_back()
    await lost.find()
    birch = await given(house, "birch")
    await lost.know()
    await lost.open()

    house.mine(house.pay(acme, 3 * ETHER), house.pay(birch, 5 * ETHER), empty_after=4)
    await house.catch_up()
    balances = await house.balances()
    assert balances["client:birch ETH"] == (5 * ETHER, 0)
    assert "client:acme ETH" not in balances
    assert balances["suspense:unattributed:evm ETH"] == (3 * ETHER, 0)

    back = await lost.give_back("client-pool", acme, "acme")
    await house.catch_up()

    assert (back.address.address, back.arrivals) == (acme, 1)
    balances = await house.balances()
    assert balances["client:acme ETH"] == (3 * ETHER, 0)
    assert balances["client:birch ETH"] == (5 * ETHER, 0)
    assert "suspense:unattributed:evm ETH" not in balances
    house.mine(house.pay(acme, ETHER), empty_after=REREAD)
    await house.catch_up()
    assert (await house.balances())["client:acme ETH"] == (4 * ETHER, 0)
    assert await house.open_holds() == []
    assert await house.differences() == {}
    await lost.assert_deposited_once()


@pytest.mark.parametrize("credited", ["while-it-stands", "when-it-is-open"])
async def test_a_block_that_was_read_before_the_restore_was_found_is_read_again(
    lost: SetBack[House], credited: str
) -> None:
    """It was read twice, too, as every block is: nobody looked for the address then."""
    house = lost.house
    await lost.back_up()
    acme = await given(house)
    house.mine(house.pay(acme, 3 * ETHER), empty_after=REREAD)
    await lost.set_back()
    await house.catch_up()
    assert (await house.follow()).reread == 0
    assert await house.deposits() == []

    await lost.find(worked_on=True)
    await lost.know()
    await house.follow()
    if credited == "when-it-is-open":
        await lost.open()
        await house.advance()
    assert await house.states() == ["unattributed" if credited == "when-it-is-open" else "included"]
    await lost.give_back("client-pool", acme, "acme")
    if credited == "while-it-stands":
        await lost.open()
    await house.catch_up()

    assert await house.states() == ["credited"]
    assert (await house.balances())["client:acme ETH"] == (3 * ETHER, 0)
    assert await house.open_holds() == []
    assert await house.differences() == {}
    await lost.assert_deposited_once()


async def test_blocks_that_are_too_many_to_be_read_again_are_for_people(
    lost: SetBack[House],
) -> None:
    house = lost.house
    await house.follow()
    await lost.find_after_copy()
    await house.do(lambda conn: conn.execute(text(MANY_BLOCKS), {"count": READ_AGAIN_MAX + 9}))

    await lost.know()

    assert await lost.handed_out_items() == {"evm": "unresolved"}


async def test_an_address_that_was_not_watched_is_given_back_by_its_index(
    lost: SetBack[House],
) -> None:
    house = lost.house
    await lost.back_up()
    addresses = [await given(house, "acme", str(n)) for n in range(3)]
    await lost.restore(watched=1)
    house.mine(house.pay(addresses[2], ETHER), empty_after=REREAD)
    await house.catch_up()
    assert (await house.follow()).reread == 0
    assert await house.deposits() == []

    back = await lost.give_back("client-pool", None, "acme", index=4)
    await house.catch_up()

    assert back.address.address == addresses[2]
    assert (await house.balances())["client:acme ETH"] == (ETHER, 0)
    # The text is enough where it is among the first.
    assert (await lost.give_back("client-pool", addresses[1], "acme")).address.index == 3


async def test_what_was_given_out_a_second_time_before_it_was_found_is_nobodys(
    lost: SetBack[House],
) -> None:
    house = lost.house
    acme = await given_to_two(lost)
    house.mine(house.pay(acme, 3 * ETHER), empty_after=4)
    await house.follow()
    assert [item.party for item in await house.deposits()] == ["birch"]

    await lost.find(worked_on=True)
    await lost.know()
    await house.catch_up()

    assert await lost.handed_out_items() == {"client-pool/0/2": "unresolved"}
    assert not await lost.is_open()
    assert "client:birch ETH" not in await posted(house)
    await lost.give_back("client-pool", acme, "acme")
    assert await lost.handed_out_items() == {"client-pool/0/2": "restored"}
    await lost.open()
    await house.catch_up()
    assert await posted(house) == {"custody:client-pool ETH", "client:acme ETH"}
    assert await house.differences() == {}
    await lost.assert_deposited_once()


async def posted(house: House) -> set[str]:
    return {path for path, (amount, _) in (await house.balances()).items() if amount}


async def test_what_compliance_holds_at_an_address_of_two_is_released_to_whom_it_was(
    lost: SetBack[House],
) -> None:
    house = lost.house
    house.screening = AddressList.blocking(1, {STRANGER}, "stolen")
    acme = await given_to_two(lost)
    house.mine(house.pay(acme, 3 * ETHER), empty_after=4)
    await house.catch_up()
    assert await house.states() == ["held"]
    await lost.find(worked_on=True)
    await lost.know()

    await lost.give_back("client-pool", acme, "acme")
    await lost.open()
    await house.catch_up()

    (deposit,) = await house.deposits()
    assert (deposit.party, str(deposit.state)) == ("acme", "held")
    await house.release(deposit.id)
    await house.catch_up()
    assert await posted(house) == {"custody:client-pool ETH", "client:acme ETH"}
    assert await house.differences() == {}


async def given_to_two(lost: SetBack[House]) -> str:
    """Return an address that acme was given before the house was set back, and birch after."""
    await lost.back_up()
    lost.house.clock.advance(timedelta(minutes=1))
    address = await given(lost.house, "acme")
    await lost.set_back()
    lost.house.clock.advance(timedelta(minutes=1))
    assert await given(lost.house, "birch") == address
    return address


async def test_a_receipt_at_a_settlement_address_of_two_pays_for_nobody_before_it_is_given_back(
    lost: SetBack[House],
) -> None:
    house = lost.house
    await lost.back_up()
    house.clock.advance(timedelta(minutes=1))
    address = await house.assign("house-settlement", SETTLEMENT, "acme", "run-8")
    await lost.set_back()
    house.clock.advance(timedelta(minutes=1))
    assert await house.assign("house-settlement", SETTLEMENT, "birch", "run-9") == address
    house.mine(house.pay(address, ETHER), empty_after=4)
    await house.catch_up()
    (before,) = await house.do(lambda conn: list_waiting(conn, BOOK))

    await lost.find(worked_on=True)
    await lost.know()
    assert await house.do(lambda conn: list_waiting(conn, BOOK)) == []
    assert await house.do(lambda conn: lock_waiting(conn, {before.id})) == {}
    await lost.give_back("house-settlement", address, "acme", purpose=SETTLEMENT, reference="run-8")
    await lost.open()
    await house.catch_up()

    (after,) = await house.do(lambda conn: list_waiting(conn, BOOK))
    assert (before.party, after.party, after.reference) == ("birch", "acme", "run-8")


async def test_whose_addresses_are_is_for_people_where_no_moment_is_known(
    lost: SetBack[House],
) -> None:
    house = lost.house
    await house.do(lambda conn: begin(conn, WHY, since=store.OLDEST, now=house.now))
    await lost.know()

    assert set((await lost.handed_out_items()).values()) == {"unresolved"}
    assert not await lost.is_open()


async def test_a_block_that_is_being_taken_in_is_waited_for_before_an_address_is_given_back(
    lost: SetBack[House],
) -> None:
    house = lost.house
    await lost.back_up()
    acme = await given(house)
    await lost.restore()
    await house.follow()
    house.mine(house.pay(acme, ETHER))
    giving: list[asyncio.Task[Returned]] = []

    async with asyncio.TaskGroup() as group:

        async def apply(conn: AsyncConnection, step: ChainStep) -> None:
            await apply_step(conn, step, book=BOOK, now=house.now)
            # It is not committed yet, and knows the address as nobody's.
            giving.append(group.create_task(lost.give_back("client-pool", acme, "acme")))
            waiting = group.create_task(waits_for_a_lock(house.engine))
            await asyncio.wait((giving[0], waiting), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()

        await follow(
            house.engine,
            house.gateway,
            "evm",
            watch=lambda conn: watch_list(conn, "evm"),
            apply=apply,
            now=house.now,
        )

    assert giving[0].result().arrivals == 1
    house.mine(empty_after=4)
    await house.catch_up()
    assert (await house.balances())["client:acme ETH"] == (ETHER, 0)


async def test_what_lies_at_a_settlement_address_of_the_lost_hours_becomes_a_receipt(
    lost: SetBack[House],
) -> None:
    house = lost.house
    await lost.back_up()
    address = await house.assign("house-settlement", SETTLEMENT, "birch", "run-8")
    await lost.restore()
    house.mine(house.pay(address, ETHER), empty_after=4)
    await house.catch_up()
    assert await house.receipts() == []

    await lost.give_back(
        "house-settlement", address, "birch", purpose=SETTLEMENT, reference="run-8"
    )
    await house.catch_up()

    (receipt,) = await house.receipts()
    assert (receipt.party, receipt.reference, str(receipt.state)) == ("birch", "run-8", "final")
    assert await house.states() == ["reversed"]
    assert await posted(house) == {"custody:house-settlement ETH", "suspense:evm ETH"}
    house.mine(empty_after=REREAD)
    await house.catch_up()
    assert len(await house.receipts()) == 1
    assert await house.differences() == {}
    await lost.assert_deposited_once()


async def test_what_is_quarantined_there_is_the_owners_too(lost: SetBack[House]) -> None:
    house = lost.house
    house.gateway.tokens.add(FAKE_TOKEN)
    await lost.back_up()
    acme = await given(house)
    await lost.restore()
    reader = house.pay_token((acme, 10**9), contract=FAKE_TOKEN)
    house.mine(reader, house.pay(acme, ETHER), empty_after=4)
    await house.catch_up()
    await lost.give_back("client-pool", acme, "acme")
    await house.catch_up()

    assert {item.party for item in await house.deposits()} == {"acme"}
    assert (await house.balances())["client:acme ETH"] == (ETHER, 0)


async def test_a_coin_that_pays_an_address_of_the_lost_hours_is_its_clients(
    lost_coins: SetBack[CoinHouse],
) -> None:
    house = lost_coins.house
    await lost_coins.back_up()
    acme = await house.assign(POOL, DEPOSIT, "acme", "second")
    house.mine(house.node.pay((acme, 2 * COIN)), empty_after=1)
    await lost_coins.set_back()
    await house.follow()
    await lost_coins.find(worked_on=True)
    birch = await house.assign(POOL, DEPOSIT, "birch", "second")
    await lost_coins.know()
    await lost_coins.open()
    house.mine(house.node.pay((acme, COIN), (birch, 5 * COIN)), empty_after=REREAD)
    await house.catch_up()
    assert (await house.balances())["client:birch"] == (5 * COIN, 0)

    back = await lost_coins.give_back(POOL, acme, "acme", reference="second")
    await house.catch_up()

    assert back.arrivals == 2
    balances = await house.balances()
    assert (balances["client:acme"], balances["client:birch"]) == ((3 * COIN, 0), (5 * COIN, 0))
    assert balances["custody:btc-pool"] == (8 * COIN, 0)
    await lost_coins.assert_deposited_once()
    assert sorted(await house.spendable()) == [COIN, 2 * COIN, 5 * COIN]
    found = await house.do(lambda conn: list_descriptors(conn, CHAIN, wallet=POOL))
    # So far a person's own node has to look.
    (skip,) = await house.do(lambda conn: list_skips(conn, wallet=POOL))
    assert found[0].handed_out == skip.last + 2


async def test_however_often_it_is_set_back_nobody_is_given_what_another_one_has(
    lost: SetBack[House],
) -> None:
    """Hand-outs, copies and restores at random: outside it is remembered who was given what."""
    house, rng = lost.house, random.Random(7)
    outside = {house.acme: "acme", house.birch: "birch", house.settlement: "acme"}
    await lost.back_up()
    restored = 0
    for step in range(36):
        house.clock.advance(timedelta(seconds=1))
        match rng.randint(0, 7):
            case 0 if restored < 5:
                await lost.restore(watched=1)
                restored += 1
            case 1 if restored:
                await lost.back_up()
            case number:
                party = rng.choice(("acme", "birch"))
                wallet, purpose = (
                    ("house-settlement", SETTLEMENT) if number == 2 else ("client-pool", DEPOSIT)
                )
                address = await house.assign(wallet, purpose, party, f"step {step}")
                assert outside.setdefault(address, party) == party, f"given to two at step {step}"
    assert restored >= 3
    skips = await house.do(lambda conn: list_skips(conn, wallet="client-pool"))
    ranges = [(skip.first, skip.last) for skip in skips]
    assert all(upper[0] > lower[1] for lower, upper in pairwise(ranges))


async def test_a_database_that_is_set_back_twice_to_one_moment_gives_nothing_of_between_again(
    lost: SetBack[House],
) -> None:
    """It was the wrong moment, say: the second time it does not know that it jumped before."""
    house = lost.house
    own = Wallet("new-pool", "evm", "client", WalletPurpose.DEPOSIT, OWN_XPUB, "m/44'/60'/3'")
    await lost.back_up()
    outside: dict[str, str] = {}
    for party in ("acme", "birch"):
        house.clock.advance(timedelta(minutes=1))
        await lost.restore(watched=1)
        await house.do(lambda conn: change(conn, own, now=house.now))
        for wallet in ("client-pool", "new-pool"):
            address = await house.assign(wallet, DEPOSIT, party, "again")
            assert outside.setdefault(address, party) == party
    assert len(outside) == 4


async def test_a_wallet_of_the_lost_hours_begins_behind_what_it_may_have_given_out(
    lost: SetBack[House],
) -> None:
    house = lost.house
    own = Wallet("new-pool", "evm", "client", WalletPurpose.DEPOSIT, OWN_XPUB, "m/44'/60'/3'")
    await lost.back_up()
    await house.do(lambda conn: change(conn, own, now=house.now))
    acme = await house.assign("new-pool", DEPOSIT, "acme")
    await lost.restore()
    await house.do(lambda conn: change(conn, own, now=house.now))

    birch = await house.assign("new-pool", DEPOSIT, "birch")

    assert birch != acme
    back = await lost.give_back("new-pool", acme, "acme")
    assert (back.address.index, back.address.party) == (0, "acme")
    house.mine(house.pay(acme, ETHER), empty_after=4)
    await house.catch_up()
    assert (await house.balances())["client:acme ETH"] == (ETHER, 0)


async def test_nothing_is_handed_out_before_it_was_looked_whether_it_was_set_back(
    lost: SetBack[House],
) -> None:
    house = lost.house
    await look(house.engine, clock=house.clock)
    await lost.back_up()
    acme = await given(house)
    await lost.set_back()

    with pytest.raises(Frozen, match="nobody has looked yet"):
        await given(house, "birch")
    assert (await look(house.engine, clock=house.clock)).evidence

    assert await given(house, "birch") != acme
    standing = await house.do(store.require_standing)
    assert standing.worked_on is False


async def test_a_reader_that_knows_the_list_sees_what_is_watched_since(
    lost: SetBack[House],
) -> None:
    house, reader = lost.house, WatchListReader()
    await house.do(lambda conn: reader.read(conn, "evm"))
    await lost.find_after_copy()
    skipped = await house.do(lambda conn: reader.read(conn, "evm"))
    await lost.know(watched=2)

    after = await house.do(lambda conn: reader.read(conn, "evm"))
    # Three wallets give addresses out, each watches two.
    assert len(after.addresses - skipped.addresses) == 6
    assert after == await house.do(lambda conn: watch_list(conn, "evm"))
    await lost.give_back("client-pool", None, "acme", index=2 + WATCHED)
    grown = await house.do(lambda conn: reader.read(conn, "evm"))
    assert len(grown.addresses - after.addresses) == 1


async def test_an_address_is_given_back_by_two_people_to_whom_it_can_be(
    lost: SetBack[House],
) -> None:
    await lost.find_after_copy()
    await given(lost.house, "acme", "again")
    refused: list[tuple[dict[str, Any], tuple[str, ...], type[CausewayError], str]] = [
        ({}, ("ben",), Refused, "two people"),
        ({}, ("ben", "dan"), NotAuthorised, "dan"),
        ({"index": 0}, (), NotPossible, "acme's since"),
        ({"index": 2**31 - 1}, (), NotPossible, "skipped by no restore"),
        ({"index": 2, "address": FAKE_TOKEN}, (), NotPossible, f"and not {FAKE_TOKEN}"),
        ({"index": 2 + WATCHED, "address": FAKE_TOKEN}, (), NotPossible, "and not"),
        ({"party": "simvenue"}, (), NotPossible, "is a venue, not a client"),
        ({"purpose": SETTLEMENT}, (), NotPossible, "has no settlement addresses"),
        ({"reference": "again"}, (), NotPossible, "for that since"),
        ({"index": None, "address": FAKE_TOKEN}, (), UnknownRow, "none of the 3 first"),
        ({"index": None}, (), BadInput, "name the address"),
    ]
    for changed, people, error, message in refused:
        told = {"address": None, "index": 2, "party": "acme", **changed}
        address, party = told.pop("address"), told.pop("party")
        with pytest.raises(error, match=message):
            await lost.give_back("client-pool", address, party, *people, **told)


async def test_the_database_gives_nobody_an_address_that_two_people_have_not(
    lost: SetBack[House],
) -> None:
    await lost.find_after_copy()
    await lost.know()
    sql = (
        "UPDATE custody.address SET purpose = 'deposit', party = 'birch' WHERE purpose = 'skipped'"
    )

    with pytest.raises(DBAPIError, match="kept for ever"):
        await lost.house.do(lambda conn: conn.execute(text(sql)))


async def test_a_wallet_whose_key_cannot_be_right_is_for_people_and_gives_nothing_out(
    lost: SetBack[House],
) -> None:
    house = lost.house
    bad = Wallet(
        "bad-pool", "evm", "client", WalletPurpose.DEPOSIT, OWN_XPUB[:-1] + "k", "m/44'/60'/3'"
    )
    await house.do(lambda conn: change(conn, bad, now=house.now))
    await lost.find_after_copy()

    (item,) = await lost.know()

    assert (item.source, item.key) == ("addresses", "bad-pool")
    assert not await lost.is_open()
