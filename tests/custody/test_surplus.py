"""Coins that nothing brought: booked as nobody's after two final blocks, reversed once explained."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.model import BlockContents, Included, Movement
from custody.attribution import attribution_bytes
from custody.attributions import attribute
from custody.deposit_model import Deposit, DepositState
from custody.freezes import find_freeze
from custody.inclusion import apply_step
from custody.reconciliation import list_differences, reconcile, reconcile_turn
from custody.reconciliation_model import DifferenceState, Reason
from custody.surplus import book_surpluses
from ledger.testing import enforce_lock_order
from registry.testing import TOKEN, operator_keypair
from tests.custody.house import BOOK, ETHER, STRANGER, House

FINAL = 70
"""Blocks on top of another after which the scripted chain calls it final."""


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncIterator[House]:
    with enforce_lock_order(engine):
        yield await House(engine).open()


async def turn(house: House) -> list[Deposit]:
    _, booked = await reconcile_turn(house.engine, house.gateway, "evm", book=BOOK, now=house.now)
    return booked


async def book_again(house: House) -> list[Deposit]:
    return await book_surpluses(house.engine, house.gateway, "evm", book=BOOK, now=house.now)


async def blocks(house: House, count: int = 1) -> None:
    for _ in range(count):
        house.gateway.mine()
    await house.follow()


async def two_runs_and_final(house: House, address: str, amount: int) -> None:
    """Coins appear; two runs at different blocks show them; both blocks become final."""
    await blocks(house)
    house.gateway.fund(address, amount)
    await blocks(house)
    assert await turn(house) == []
    await blocks(house)
    assert await turn(house) == []
    await blocks(house, FINAL)


async def clean(house: House) -> bool:
    made = await reconcile(house.engine, house.gateway, "evm", book=BOOK, now=house.now)
    return made.is_clean


async def test_a_surplus_at_two_final_blocks_becomes_nobodys_and_no_client_is_credited(
    house: House,
) -> None:
    await two_runs_and_final(house, house.acme, 5 * ETHER)

    (booked,) = await book_again(house)
    await house.advance()

    assert (booked.position, booked.amount, booked.sender) == ("delta:2", 5 * ETHER, "")
    assert await house.balances() == {
        "custody:client-pool ETH": (5 * ETHER, 0),
        "suspense:unattributed:evm ETH": (5 * ETHER, 0),
    }
    assert await house.states() == ["unattributed"]
    assert await clean(house)


async def test_one_run_or_two_at_one_block_book_nothing(house: House) -> None:
    await blocks(house)
    house.gateway.fund(house.acme, ETHER)
    await blocks(house)
    await turn(house)
    await turn(house)
    await blocks(house, FINAL)

    assert await book_again(house) == []


async def test_before_both_blocks_are_final_nothing_is_booked(house: House) -> None:
    await blocks(house)
    house.gateway.fund(house.acme, ETHER)
    await blocks(house)
    await turn(house)
    await blocks(house, FINAL)

    # The second run is at the tip, which is not final yet.
    assert await turn(house) == []
    await blocks(house, FINAL)
    assert len(await book_again(house)) == 1


async def test_blocks_that_the_providers_do_not_agree_on_book_nothing(house: House) -> None:
    await two_runs_and_final(house, house.acme, ETHER)
    house.gateway.quorum = 2

    assert await book_again(house) == []


async def test_a_surplus_that_changed_between_the_runs_begins_anew(house: House) -> None:
    await blocks(house)
    house.gateway.fund(house.acme, ETHER)
    await blocks(house)
    await turn(house)
    house.gateway.fund(house.acme, 1)
    await blocks(house)
    await turn(house)
    await blocks(house, FINAL)

    assert await book_again(house) == []


async def test_while_an_orphaned_deposit_of_the_address_waits_nothing_is_booked(
    house: House,
) -> None:
    house.mine(house.pay(house.acme, ETHER))
    await house.follow()
    house.gateway.reorg(1, [[], []])
    await house.follow()
    assert await house.states() == ["orphaned"]
    await two_runs_and_final(house, house.acme, ETHER)

    assert await book_again(house) == []


async def test_a_surplus_is_booked_once(house: House) -> None:
    await two_runs_and_final(house, house.acme, ETHER)

    assert len(await book_again(house)) == 1
    assert await book_again(house) == []
    await blocks(house)
    assert await turn(house) == []
    (closed,) = await house.do(
        lambda c: list_differences(c, book=BOOK, chain="evm", state=DifferenceState.CLOSED)
    )
    assert "booked as deposit" in closed.detail


async def test_tokens_that_appear_without_an_event_are_nobodys_too(house: House) -> None:
    await blocks(house)
    house.gateway.fund(house.settlement, 7, TOKEN)
    await blocks(house)
    await turn(house)
    await blocks(house)
    await turn(house)
    await blocks(house, FINAL)

    (booked,) = await book_again(house)

    assert (booked.asset, booked.amount, booked.contract) == ("USDT", 7, TOKEN)
    assert await clean(house)


async def test_a_deficit_is_never_booked_and_freezes_the_wallet(house: House) -> None:
    house.mine(house.pay(house.acme, ETHER))
    await house.follow()
    await blocks(house, 3)
    await house.advance()
    await two_runs_and_final(house, house.acme, -1)

    assert await book_again(house) == []
    assert await house.do(lambda c: find_freeze(c, wallet="client-pool")) is not None
    (item,) = await house.do(lambda c: list_differences(c, book=BOOK, chain="evm"))
    assert item.amount == -1


async def found_late(house: House, amount: int, *, height: int = 2) -> None:
    """A provider that traces finds the internal transfer of a block below the surplus's."""
    block = await house.gateway.block_at(height)
    assert block is not None
    move = Movement("0x" + "a" * 64, "trace:0.1", STRANGER, house.acme, None, amount)
    house.clock.advance(timedelta(seconds=1))
    contents = BlockContents(block, (move,))
    await house.do(lambda c: apply_step(c, Included(contents), book=BOOK, now=house.now))


@pytest.mark.parametrize("advanced", [False, True])
async def test_a_transfer_that_is_found_later_reverses_the_booked_surplus(
    house: House, *, advanced: bool
) -> None:
    await two_runs_and_final(house, house.acme, 5 * ETHER)
    await book_again(house)
    if advanced:
        await house.advance()
    await found_late(house, 5 * ETHER)

    assert await clean(house)

    await house.advance()
    assert await house.balances() == {
        "custody:client-pool ETH": (5 * ETHER, 0),
        "client:acme ETH": (5 * ETHER, 0),
    }
    assert sorted(await house.states()) == sorted(
        [str(DepositState.CREDITED), "reversed" if advanced else "orphaned"]
    )


async def test_a_transfer_of_another_amount_is_left_to_people(house: House) -> None:
    await two_runs_and_final(house, house.acme, 5 * ETHER)
    await book_again(house)
    await found_late(house, 2 * ETHER)

    made = await reconcile(house.engine, house.gateway, "evm", book=BOOK, now=house.now)

    (item,) = made.differences
    assert (item.address, item.difference) == (house.acme, -2 * ETHER)
    assert Reason.BOOKED_TWICE not in {e.reason for e in item.explanations}


async def test_what_two_people_attributed_is_reversed_from_whom_they_named(
    house: House,
) -> None:
    await two_runs_and_final(house, house.acme, 5 * ETHER)
    (booked,) = await book_again(house)
    await house.advance()
    await attribute_to(house, replace(booked, state=DepositState.UNATTRIBUTED), "client:birch")
    assert (await house.balances())["client:birch ETH"] == (5 * ETHER, 0)

    await found_late(house, 5 * ETHER)
    assert await clean(house)
    await house.advance()

    balances = await house.balances()
    assert balances.get("client:birch ETH") is None
    assert balances["client:acme ETH"] == (5 * ETHER, 0)


async def attribute_to(house: House, deposit: Deposit, credit: str) -> None:
    payload = attribution_bytes(deposit, credit, "they wrote to us")

    async def work(conn: AsyncConnection) -> Deposit:
        return await attribute(
            conn,
            deposit.id,
            credit=credit,
            reason="they wrote to us",
            first="ada",
            first_signature=operator_keypair("ada").sign(payload),
            second="cleo",
            second_signature=operator_keypair("cleo").sign(payload),
            book=BOOK,
            now=house.now,
        )

    await house.do(work)
