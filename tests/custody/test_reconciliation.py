from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.errors import BlockGone
from chain.model import Block
from custody.errors import NotPossible
from custody.reconciliation import Reconciled, held_in_custody, reconcile_chain
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import Balance, Side, transfer
from ledger.posting import post, require_applied
from ledger.testing import enforce_lock_order
from tests.custody.house import BOOK, ETHER, House

BLOCK = Block("evm", 1, "0x1", "0x0", datetime(2026, 1, 5, tzinfo=UTC))


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncIterator[House]:
    with enforce_lock_order(engine):
        yield await House(engine).open()


def test_what_has_arrived_counts_and_what_is_only_reserved_to_leave_is_still_there() -> None:
    balance = Balance(
        side=Side.DEBIT, debits_posted=100, debits_pending=7, credits_posted=30, credits_pending=20
    )
    assert held_in_custody(balance) == 77


def test_the_difference_is_what_the_chain_has_more() -> None:
    compared = Reconciled(wallet="w", asset="ETH", ledger=10, chain=7, block=BLOCK)
    assert compared.difference == -3


async def test_every_wallet_and_asset_is_compared_at_the_cursors_block(house: House) -> None:
    house.mine(house.pay(house.acme, ETHER), house.pay_token((house.settlement, 9)))
    await house.catch_up()
    house.mine(house.pay(house.acme, ETHER))

    compared = await reconcile_chain(house.engine, house.gateway, "evm", book=BOOK)

    assert {(c.wallet, c.asset): (c.ledger, c.chain) for c in compared} == {
        ("client-pool", "ETH"): (ETHER, ETHER),
        ("client-pool", "USDT"): (0, 0),
        ("house-hot", "ETH"): (0, 0),
        ("house-hot", "USDT"): (0, 0),
        ("house-settlement", "ETH"): (0, 0),
        ("house-settlement", "USDT"): (9, 9),
    }
    assert {c.block.height for c in compared} == {1}


async def test_coins_that_no_movement_explains_show_as_a_difference(house: House) -> None:
    house.gateway.fund(house.hot, 5)
    house.mine()
    await house.follow()

    assert await house.differences() == {"house-hot ETH": 5}


async def test_a_posting_without_coins_shows_as_a_difference(house: House) -> None:
    house.mine()
    await house.follow()

    async def invent(conn: AsyncConnection) -> None:
        debit, credit = "custody:house-hot", "equity:capital"
        await ensure_accounts(conn, BOOK, [(debit, "ETH"), (credit, "ETH")], now=house.now)
        made_up = transfer(derive_id(house.now, "x"), debit, credit, 3, "ETH", code="x")
        require_applied(await post(conn, BOOK, [made_up], now=house.now))

    await house.do(invent)

    assert await house.differences() == {"house-hot ETH": -3}


async def test_a_block_that_the_node_lost_is_not_a_difference(house: House) -> None:
    house.mine(house.pay(house.acme, ETHER))
    await house.follow()
    house.gateway.reorg(1, [[], []])

    with pytest.raises(BlockGone):
        await house.differences()


async def test_before_the_first_block_there_is_nothing_to_compare(house: House) -> None:
    with pytest.raises(NotPossible, match="no block of evm"):
        await house.differences()
