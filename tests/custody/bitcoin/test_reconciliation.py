"""Ledger, table of coins and node at one block: exact, coin by coin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.model import ScannedCoin, UnspentScan
from chain.bitcoin.testing import ScriptedBitcoin
from chain.errors import BlockGone
from custody.bitcoin.scan_reconciliation import compare_coins, reconcile_coins
from custody.bitcoin.testing import CHAIN
from custody.control_messages import ScopeKind
from custody.errors import NotPossible
from custody.freezes import load_freezes
from custody.model import AddressPurpose
from custody.reconciliation import list_differences, list_items
from custody.reconciliation_model import Reason, Run
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post
from ledger.testing import enforce_lock_order
from tests.custody.bitcoin.coin_house import BOOK, COIN, CoinHouse

STRANGER = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"


@dataclass(slots=True)
class Lying(ScriptedBitcoin):
    """A node whose answer to a scan is what somebody makes of it."""

    tell: Callable[[tuple[ScannedCoin, ...]], Sequence[ScannedCoin]] = field(default=tuple)
    scans: int = 0
    between: Callable[[], object] | None = None

    async def scan(self, addresses: Sequence[str]) -> UnspentScan:
        said = await ScriptedBitcoin.scan(self, addresses)
        self.scans += 1
        if self.between is not None:
            self.between()
        return replace(said, coins=tuple(self.tell(said.coins)))


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncIterator[CoinHouse]:
    with enforce_lock_order(engine):
        yield await CoinHouse(engine, node=Lying()).open()


async def run(house: CoinHouse) -> Run:
    return await reconcile_coins(house.engine, house.node, CHAIN, book=BOOK, now=house.now)


def lying(house: CoinHouse) -> Lying:
    assert isinstance(house.node, Lying)
    return house.node


async def some_coins(house: CoinHouse) -> None:
    house.mine(
        house.node.pay((house.acme, COIN), (house.birch, 7), (house.settlement, 9)),
        house.node.pay((house.hot, 5), (house.acme, 11)),
        empty_after=1,
    )
    house.mine(house.node.new_coins(house.birch))
    await house.catch_up()


async def test_ledger_table_and_node_agree_at_every_block(house: CoinHouse) -> None:
    await some_coins(house)
    made = await run(house)

    assert made.is_clean
    assert [(f.wallet, f.ledger, f.chain) for f in made.figures] == [
        ("btc-hot", 5, 5),
        ("btc-pool", 51 * COIN + 18, 51 * COIN + 18),
        ("btc-settlement", 9, 9),
    ]
    assert made.block == await house.tip()
    house.mine(empty_after=5)
    await house.catch_up()
    assert (await run(house)).is_clean
    assert await compare_coins(house.engine, house.node, CHAIN, book=BOOK) == [
        replace(figure, block=await house.tip()) for figure in made.figures
    ]


async def test_a_coin_that_the_node_has_not_is_missing_and_freezes_its_wallet(
    house: CoinHouse,
) -> None:
    await some_coins(house)
    lying(house).tell = lambda coins: [c for c in coins if c.amount != 7]
    made = await run(house)

    (item,) = made.differences
    (coin,) = [c for c in await house.coins() if c.amount == 7]
    assert (item.wallet, item.address) == ("btc-pool", str(coin.outpoint))
    assert (item.books, item.chain, item.explanations[0].reason) == (7, 0, Reason.MISSING_COIN)
    assert house.birch in item.explanations[0].detail
    (freeze,) = await house.do(load_freezes)
    assert (freeze.scope.kind, freeze.scope.name) == (ScopeKind.WALLET, "btc-pool")
    assert [i.address for i in await house.do(lambda c: list_items(c, made.id))] == [item.address]


async def test_a_coin_that_the_table_has_not_is_foreign(house: CoinHouse) -> None:
    await some_coins(house)
    extra = ScannedCoin("ab" * 32, 3, house.acme, 44, 1)
    lying(house).tell = lambda coins: [*coins, extra]
    (item,) = (await run(house)).differences

    assert (item.address, item.books, item.chain) == (f"{'ab' * 32}:3", 0, 44)
    assert item.explanations[0].reason is Reason.FOREIGN_COIN
    assert not await house.do(load_freezes)


async def test_two_coins_that_are_wrong_by_opposite_amounts_are_two_differences(
    house: CoinHouse,
) -> None:
    """The sums agree, and nothing is right: there is no netting."""
    await some_coins(house)

    def shifted(coins: tuple[ScannedCoin, ...]) -> list[ScannedCoin]:
        by = {COIN: -1, 11: 1}
        return [replace(coin, amount=coin.amount + by.get(coin.amount, 0)) for coin in coins]

    lying(house).tell = shifted
    made = await run(house)

    assert [figure.difference for figure in made.figures] == [0, 0, 0]
    assert sorted(item.difference or 0 for item in made.differences) == [-1, 1]
    assert {i.explanations[0].reason for i in made.differences} == {Reason.COIN_AMOUNT}
    assert not made.is_clean


async def test_what_the_ledger_has_and_no_coin_holds_is_named(house: CoinHouse) -> None:
    await some_coins(house)

    async def opening(conn: AsyncConnection) -> None:
        keys = {("custody:btc-hot", "BTC"), ("equity:opening", "BTC")}
        await ensure_accounts(conn, BOOK, keys, now=house.now)
        id_, ends = derive_id(house.now, "opening"), ("custody:btc-hot", "equity:opening")
        line = transfer(id_, *ends, 3, "BTC", code="opening")
        await post(conn, BOOK, [line], now=house.now)

    await house.do(opening)
    (item,) = (await run(house)).differences

    assert (item.wallet, item.address, item.difference) == ("btc-hot", "", -3)
    assert item.explanations[0].reason is Reason.POSTED_WITHOUT_COINS


async def test_a_difference_stands_until_a_run_no_longer_shows_it(house: CoinHouse) -> None:
    await some_coins(house)
    lying(house).tell = lambda coins: [c for c in coins if c.amount != 11]
    await run(house)
    house.mine()
    await house.catch_up()
    await run(house)
    (standing,) = await house.do(lambda c: list_differences(c, book=BOOK, chain=CHAIN))
    assert (standing.amount, standing.last_height - standing.first_height) == (-11, 1)

    lying(house).tell = tuple
    assert (await run(house)).is_clean
    assert await house.do(lambda c: list_differences(c, book=BOOK, chain=CHAIN)) == []


async def test_books_behind_the_node_are_not_compared(house: CoinHouse) -> None:
    await some_coins(house)
    house.mine(house.node.pay((house.acme, 1)))

    with pytest.raises(BlockGone, match="the node is at block 4, the books are at 3"):
        await run(house)
    await house.catch_up()
    assert (await run(house)).is_clean


async def test_a_block_that_comes_during_the_scan_is_waited_for(house: CoinHouse) -> None:
    await some_coins(house)
    node = lying(house)
    waiting = [node.pay((house.acme, 1))]

    def mine_once() -> None:
        if waiting:
            node.mine(waiting.pop())

    node.between = mine_once
    assert (await run(house)).is_clean
    # The block that came meanwhile is no difference: the scan is of the block before it.
    assert node.scans == 1


async def test_a_chain_that_was_never_read_is_not_compared(house: CoinHouse) -> None:
    with pytest.raises(NotPossible, match="no block"):
        await run(house)


@pytest.mark.parametrize("depth", [1, 3])
async def test_ledger_table_and_node_agree_after_a_reorganisation(
    house: CoinHouse, depth: int
) -> None:
    await some_coins(house)
    await house.assign("btc-pool", AddressPurpose.CHANGE, None, "spend 1")
    house.node.reorg(depth, [[], [house.node.pay((house.birch, 13))], [], []])
    await house.catch_up()

    assert (await run(house)).is_clean
