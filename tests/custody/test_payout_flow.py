"""A payout from request to finality, told as states and balances."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.addresses import assign_address
from custody.model import AddressPurpose
from custody.payout_model import PayoutState
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from tests.custody.payout_world import BOOK, ETH, USDT, World, make_world

FEE = 21_000 * (10**9 + 10**8)
TOKEN_FEE = 52_000 * (10**9 + 10**8)


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


async def test_a_withdrawal_of_the_native_coin_is_paid(world: World) -> None:
    before = await world.books()
    payout = await world.request()
    assert payout.state is PayoutState.PENDING_APPROVAL
    books = await world.books()
    assert books["client:acme", "ETH"] == (10 * ETH, 2 * ETH, 0)
    assert books["in-flight:evm", "ETH"] == (0, 0, 2 * ETH)

    (payout,) = await world.approve(payout)
    assert payout.state is PayoutState.APPROVED
    report = await world.advance()
    assert (report.allocated, report.signed, report.sent) == ([payout.id],) * 3
    payout = await world.get(payout)
    assert (payout.state, payout.nonce) == (PayoutState.SIGNED, 0)
    cap = payout.fee_cap
    books = await world.books()
    assert books["client:acme", "ETH"] == (8 * ETH, 0, 0)
    assert books["in-flight:evm", "ETH"] == (2 * ETH, 0, 0)
    assert books["custody:client-pool", "ETH"] == (11 * ETH, 0, 2 * ETH + cap)
    assert books["transit:out:evm", "ETH"] == (0, 2 * ETH, 0)
    assert books["expense:network-fee", "ETH"] == (0, cap, 0)

    await world.mine()
    payout = await world.get(payout)
    assert (payout.state, payout.succeeded, payout.fee_paid) == (PayoutState.MINED, True, FEE)
    books = await world.books()
    assert books["custody:client-pool", "ETH"] == (9 * ETH - FEE, 0, 0)
    assert books["transit:out:evm", "ETH"] == (2 * ETH, 0, 0)
    assert books["expense:network-fee", "ETH"] == (FEE, 0, 0)
    await world.assert_rule_two()

    await world.mine()
    assert await world.confirm() == []
    await world.mine()
    (payout,) = await world.confirm()
    assert payout.state is PayoutState.CONFIRMED
    assert await world.books() == {
        **before,
        ("client:acme", "ETH"): (8 * ETH, 0, 0),
        ("custody:client-pool", "ETH"): (9 * ETH - FEE, 0, 0),
        ("expense:network-fee", "ETH"): (FEE, 0, 0),
    }


async def test_a_settlement_in_tokens_is_paid_from_the_house(world: World) -> None:
    before = await world.books()
    payout = await world.approved(
        claim="payable:birch:netted", source_wallet="house-hot", asset="USDT", amount=900 * USDT
    )

    await world.advance()
    await world.mine(3)
    await world.confirm()

    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    after = await world.books()
    expected = {
        **before,
        ("custody:house-hot", "ETH"): (20 * ETH - TOKEN_FEE, 0, 0),
        ("expense:network-fee", "ETH"): (TOKEN_FEE, 0, 0),
    }
    del expected["custody:house-hot", "USDT"], expected["payable:birch:netted", "USDT"]
    assert after == expected
    await world.assert_rule_two()


async def test_an_own_transfer_moves_coins_at_inclusion_without_transit(world: World) -> None:
    payout = await world.approved(
        claim="own:house-settlement",
        source_wallet="house-hot",
        amount=5 * ETH,
        destination=world.hot["house-settlement"],
    )
    books = await world.books()
    assert books["custody:house-hot", "ETH"] == (20 * ETH, 0, 5 * ETH)

    await world.advance()
    await world.mine()

    books = await world.books()
    assert books["custody:house-hot", "ETH"] == (15 * ETH - FEE, 0, 0)
    assert books["custody:house-settlement", "ETH"] == (5 * ETH, 0, 0)
    assert ("transit:out:evm", "ETH") not in books
    assert ("in-flight:evm", "ETH") not in books
    await world.assert_rule_two()
    await world.mine(2)
    assert [item.id for item in await world.confirm()] == [payout.id]
    assert await world.books() == books


async def test_a_reorganisation_takes_a_mined_payout_back_and_pays_it_once(world: World) -> None:
    payout = await world.approved()
    await world.advance()
    signed = await world.books()
    await world.mine()
    mined = await world.books()

    world.gateway.reorg(1, [[], []])
    await world.follow()
    assert (await world.get(payout)).state is PayoutState.SIGNED
    assert await world.books() == signed
    await world.assert_rule_two()

    await world.advance()
    await world.mine()
    assert await world.books() == mined
    await world.mine(2)
    await world.confirm()
    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    await world.assert_rule_two()


async def test_a_reorganisation_after_confirmation_reopens_the_payout(world: World) -> None:
    payout = await world.approved()
    await world.advance()
    await world.mine(3)
    await world.confirm()
    confirmed = await world.books()

    world.gateway.reorg(3, [[], [], [], []])
    await world.follow()
    assert (await world.get(payout)).state is PayoutState.SIGNED
    await world.assert_rule_two()

    await world.advance()
    await world.mine(3)
    await world.confirm()
    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    assert await world.books() == confirmed


async def test_a_sweep_moves_coins_between_addresses_of_one_wallet_and_costs_its_fee(
    world: World,
) -> None:
    now = world.clock.now()
    given = await world.run(
        lambda conn: assign_address(
            conn, "client-pool", purpose=AddressPurpose.DEPOSIT, party="birch", now=now
        )
    )
    world.gateway.fund(given.address, 3 * ETH)
    arrived = transfer(
        derive_id(now, "arrived"), "custody:client-pool", "client:birch", 3 * ETH, "ETH", code="t"
    )

    async def book(conn: AsyncConnection) -> None:
        await ensure_accounts(conn, BOOK, [("client:birch", "ETH")], now=now)
        require_applied(await post(conn, BOOK, [arrived], now=now))

    await world.run(book)
    before = await world.books()
    sweep = await world.approved(
        claim="own:client-pool",
        source_address=given.address,
        destination=world.hot["client-pool"],
        amount=2 * ETH,
    )
    assert (await world.books())["custody:client-pool", "ETH"] == (14 * ETH, 0, 2 * ETH)

    report = await world.advance()
    assert report.waiting == {}
    await world.mine(3)
    await world.confirm()

    assert (await world.get(sweep)).state is PayoutState.CONFIRMED
    assert await world.books() == {
        **before,
        ("custody:client-pool", "ETH"): (14 * ETH - FEE, 0, 0),
        ("expense:network-fee", "ETH"): (FEE, 0, 0),
    }
    head = await world.gateway.head()
    held = [
        await world.gateway.balance(address, None, at=head)
        for address in (given.address, world.hot["client-pool"])
    ]
    assert held == [ETH - FEE, 13 * ETH]
