"""What unregistered contracts press on us, and amounts that cannot be."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.model import UNREGISTERED_PER_BLOCK_MAX, BlockContents, Included, Movement, Orphaned
from custody.deposit_model import DepositState
from custody.freezes import list_freezes
from custody.inclusion import apply_step
from custody.unregistered import PER_CONTRACT_DAY_MAX, PER_DAY_MAX, admitted, list_days
from registry.queries import get_chain_asset
from registry.testing import TOKEN, change
from tests.custody.house import BOOK, FAKE_TOKEN, OTHER, STRANGER, House
from tests.custody.test_inclusion import block


@pytest.fixture
async def house(engine: AsyncEngine) -> House:
    return await House(engine).open()


def told(to: str, place: int, *, contract: str = FAKE_TOKEN, sender: str = STRANGER) -> Movement:
    return Movement("0x" + f"{place:064x}", "log:0", sender, to, contract, 7)


async def include(house: House, *movements: Movement, height: int = 1, left_out: int = 0) -> None:
    contents = BlockContents(block(height), movements, left_out=left_out)
    await house.do(lambda c: apply_step(c, Included(contents), book=BOOK, now=house.now))


async def counted(house: House) -> list[tuple[str, int, int]]:
    days = await house.do(lambda c: list_days(c, "evm", since=date(2020, 1, 1)))
    return sorted((item.contract, item.kept, item.left_out) for item in days)


async def test_a_forged_event_from_our_address_has_no_effect_at_all(house: House) -> None:
    house.mine(house.pay_token((house.acme, 5)))
    await house.follow()
    before = await house.balances()
    forged = (told(OTHER, 1, sender=house.hot), told(house.birch, 2, sender=house.acme))

    await include(house, *forged, height=900)

    assert await house.balances() == before
    assert len(await house.deposits()) == 1
    assert await counted(house) == []
    assert await house.do(list_freezes) == []
    assert (
        await house.do(lambda c: c.scalar(text("SELECT count(*) FROM custody.foreign_spend"))) == 0
    )


async def test_a_follower_quarantines_what_an_unregistered_contract_sends(house: House) -> None:
    house.mine(house.pay_token((house.acme, 5), contract=FAKE_TOKEN), empty_after=2)
    await house.follow()

    (deposit,) = await house.deposits()

    assert (deposit.state, deposit.contract) == (DepositState.QUARANTINED, FAKE_TOKEN)
    assert await house.balances() == {}
    assert await counted(house) == [(FAKE_TOKEN, 1, 0)]


async def test_a_flood_fills_neither_the_block_nor_the_day(house: House) -> None:
    for height in range(1, 9):
        places = range(height * 100, height * 100 + UNREGISTERED_PER_BLOCK_MAX)
        await include(house, *(told(house.acme, n) for n in places), height=height, left_out=3)

    arrived = 8 * UNREGISTERED_PER_BLOCK_MAX
    assert len(await house.deposits()) == PER_CONTRACT_DAY_MAX
    assert await counted(house) == [
        ("", 0, 8 * 3),
        (FAKE_TOKEN, PER_CONTRACT_DAY_MAX, arrived - PER_CONTRACT_DAY_MAX),
    ]
    events = await house.do(
        lambda c: c.scalar(
            text("SELECT count(*) FROM kernel.history WHERE name = 'UnregisteredLeftOut'")
        )
    )
    assert events == 2


async def test_what_is_mined_again_is_not_counted_again(house: House) -> None:
    spam = told(house.acme, 1)
    await include(house, spam)
    gone = Orphaned(BlockContents(block(1), (spam,)))
    await house.do(lambda c: apply_step(c, gone, book=BOOK, now=house.now))
    await include(house, spam, height=2)

    (deposit,) = await house.deposits()
    assert (deposit.state, deposit.epoch) == (DepositState.QUARANTINED, 2)
    assert await counted(house) == [(FAKE_TOKEN, 1, 0)]


def test_many_contracts_together_are_bounded_and_named_only_when_something_is_kept() -> None:
    flood = [told(OTHER, n, contract=f"0x{n:040x}") for n in range(PER_DAY_MAX + 5)]

    kept, beyond = admitted(flood, {})

    assert (len(kept), beyond) == (PER_DAY_MAX, {"": 5})


async def bound(house: House, supply: int) -> None:
    token = await house.do(lambda c: get_chain_asset(c, "evm", "USDT"))
    await house.do(lambda c: change(c, replace(token, supply_max=supply), now=house.now))


async def test_a_token_that_mints_by_overflow_is_quarantined_and_frozen(house: House) -> None:
    await bound(house, 10**12)
    await include(house, replace(told(house.acme, 1, contract=TOKEN), amount=10**12))
    assert await house.do(list_freezes) == []

    await include(house, replace(told(house.acme, 2, contract=TOKEN), amount=10**12 + 1), height=2)

    fair, absurd = sorted(await house.deposits(), key=lambda item: item.height)
    assert (fair.state, absurd.state) == (DepositState.INCLUDED, DepositState.QUARANTINED)
    assert await house.balances() == {
        "custody:client-pool USDT": (0, 10**12),
        "client:acme USDT": (0, 10**12),
    }
    (freeze,) = await house.do(list_freezes)
    assert (str(freeze.scope), freeze.closed_by) == ("asset:USDT", "system:follower")


async def test_an_unregistered_contract_never_freezes_anything(house: House) -> None:
    await include(house, replace(told(house.acme, 1), amount=2**256 - 1))

    assert await house.do(list_freezes) == []


async def test_without_a_registered_bound_no_asset_has_so_many_units(house: House) -> None:
    await include(house, replace(told(house.acme, 1, contract=TOKEN), amount=2**128 + 1))

    (deposit,) = await house.deposits()
    assert deposit.state is DepositState.QUARANTINED
    assert len(await house.do(list_freezes)) == 1
