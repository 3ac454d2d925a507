from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.errors import BadKey
from chain.keys.account import AccountKey
from chain.model import WatchList
from custody.addresses import assign_address, find_owner, list_addresses, watch_list
from custody.errors import NotPossible
from custody.model import Address, AddressPurpose
from kernel.db import constraint_name, transact
from kernel.errors import BadInput
from registry.changes import found
from registry.errors import UnknownRecord
from registry.model import Wallet, WalletPurpose
from registry.testing import TOKEN, XPUBS, change, demo_founding

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
DEPOSIT, SETTLEMENT, HOT, CHANGE, SKIPPED = AddressPurpose
T = TypeVar("T")


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncEngine:
    await transact(engine, lambda conn: found(conn, demo_founding(), now=NOW))
    return engine


async def assign(
    engine: AsyncEngine,
    wallet: str = "client-pool",
    purpose: AddressPurpose = DEPOSIT,
    party: str | None = "acme",
    reference: str = "",
) -> Address:
    return await transact(
        engine,
        lambda conn: assign_address(
            conn, wallet, purpose=purpose, party=party, reference=reference, now=NOW
        ),
    )


async def read(engine: AsyncEngine, query: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    async with engine.connect() as conn:
        return await query(conn)


async def test_addresses_are_those_of_the_account_key_in_order(house: AsyncEngine) -> None:
    given = [await assign(house, party=party) for party in ("acme", "birch", "acme")]

    key = AccountKey.parse(XPUBS[0])
    assert [(a.address, a.branch, a.index) for a in given] == [
        (key.address(0, index), 0, index) for index in range(3)
    ]
    assert await read(house, lambda conn: list_addresses(conn, "evm")) == given


async def test_the_first_hot_address_lies_on_the_branch_for_our_own_use(house: AsyncEngine) -> None:
    hot = await assign(house, "house-hot", HOT, None)

    assert hot.address == AccountKey.parse(XPUBS[2]).address(1, 0)


async def test_two_who_ask_at_once_get_different_addresses_without_a_gap(
    house: AsyncEngine,
) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(assign(house)) for _ in range(6)]

    assert sorted(task.result().index for task in tasks) == list(range(6))
    assert len({task.result().address for task in tasks}) == 6


async def test_a_transaction_that_is_rolled_back_leaves_no_gap(house: AsyncEngine) -> None:
    async def interrupted(conn: AsyncConnection) -> None:
        await assign_address(conn, "client-pool", purpose=DEPOSIT, party="acme", now=NOW)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await transact(house, interrupted)

    assert (await assign(house)).index == 0


async def test_the_same_reference_gives_the_same_address(house: AsyncEngine) -> None:
    first = await assign(house, "house-settlement", SETTLEMENT, "acme", "run-1")
    again = await assign(house, "house-settlement", SETTLEMENT, "acme", "run-1")
    other = await assign(house, "house-settlement", SETTLEMENT, "birch", "run-1")

    assert (again, other.index) == (first, 1)


async def test_an_address_tells_whose_it_is(house: AsyncEngine) -> None:
    mine = await assign(house)

    assert await read(house, lambda conn: find_owner(conn, "evm", mine.address)) == mine
    assert await read(house, lambda conn: find_owner(conn, "evm", TOKEN)) is None


async def test_all_our_addresses_and_registered_contracts_are_watched(house: AsyncEngine) -> None:
    given = {
        (await assign(house)).address,
        (await assign(house, "house-hot", HOT, None)).address,
        (await assign(house, "house-settlement", SETTLEMENT, "acme")).address,
    }
    watched = await read(house, lambda conn: watch_list(conn, "evm"))

    assert watched == WatchList(frozenset(given), frozenset({TOKEN}))


@pytest.mark.parametrize(
    ("wallet", "purpose", "party", "message"),
    [
        ("client-pool", SETTLEMENT, "acme", "has no settlement addresses"),
        ("client-pool", SKIPPED, "acme", "has no skipped addresses"),
        ("house-hot", DEPOSIT, "acme", "has no deposit addresses"),
        ("house-settlement", DEPOSIT, "acme", "has no deposit addresses"),
        ("client-pool", DEPOSIT, "simvenue", "is a venue, not a client"),
    ],
)
async def test_an_address_fits_its_wallet(
    house: AsyncEngine, wallet: str, purpose: AddressPurpose, party: str, message: str
) -> None:
    with pytest.raises(NotPossible, match=message):
        await assign(house, wallet, purpose, party)


async def test_a_clients_hot_wallet_takes_no_settlement_payments(house: AsyncEngine) -> None:
    hot = Wallet("client-hot", "evm", "client", WalletPurpose.HOT, XPUBS[0], "m/44'/60'/3'")
    third = replace(hot, account_xpub=OTHER_XPUB)
    await transact(house, lambda conn: change(conn, third, now=NOW))

    with pytest.raises(NotPossible, match="has no settlement addresses"):
        await assign(house, "client-hot", SETTLEMENT, "acme")


async def test_a_segregated_wallet_is_for_its_client_only(house: AsyncEngine) -> None:
    own = Wallet(
        "acme-own", "evm", "client:acme", WalletPurpose.DEPOSIT, OTHER_XPUB, "m/44'/60'/3'"
    )
    await transact(house, lambda conn: change(conn, own, now=NOW))

    assert (await assign(house, "acme-own")).party == "acme"
    with pytest.raises(NotPossible, match="segregated for acme"):
        await assign(house, "acme-own", party="birch")


@pytest.mark.parametrize(("purpose", "party"), [(HOT, "acme"), (DEPOSIT, None)])
async def test_only_hot_addresses_are_nobodys(
    house: AsyncEngine, purpose: AddressPurpose, party: str | None
) -> None:
    with pytest.raises(BadInput, match="Name the party"):
        await assign(house, "client-pool", purpose, party)


async def test_unknown_wallets_and_parties_are_refused(house: AsyncEngine) -> None:
    with pytest.raises(UnknownRecord, match="no wallet 'nowhere'"):
        await assign(house, "nowhere")
    with pytest.raises(UnknownRecord, match="no party 'nobody'"):
        await assign(house, party="nobody")


async def test_a_mistyped_extended_key_gives_no_address(house: AsyncEngine) -> None:
    swapped = OTHER_XPUB[:60] + OTHER_XPUB[61] + OTHER_XPUB[60] + OTHER_XPUB[62:]
    mistyped = Wallet("typo", "evm", "house", WalletPurpose.HOT, swapped, "m/44'/60'/3'")
    await transact(house, lambda conn: change(conn, mistyped, now=NOW))

    with pytest.raises(BadKey):
        await assign(house, "typo", HOT, None)


@pytest.mark.parametrize(
    "verb", ["UPDATE custody.address SET party = 'birch'", "DELETE FROM custody.address"]
)
async def test_an_address_can_never_be_given_to_somebody_else(
    house: AsyncEngine, owner_engine: AsyncEngine, verb: str
) -> None:
    await assign(house)
    async with owner_engine.connect() as conn:
        with pytest.raises(DBAPIError) as refused:
            await conn.execute(text(verb))
    assert constraint_name(refused.value) == "address_kept"


OTHER_XPUB = "xpub6DCoCpSuQZB2qj3utV2gucFr4tS2X5LM9cqDrubREj96z9WsfM1uxxi8mtY14PMroo8u5mtUG7deEiZJxzjfaZP7RqStp3A6XCtnxEQkkcj"
