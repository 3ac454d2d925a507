"""The table of coins: exact under any schedule of blocks, and no coin taken twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.addresses import address_of
from chain.bitcoin.testing import ScriptedBitcoin
from chain.bitcoin.transactions import Outpoint, Transaction
from chain.model import (
    Block,
    BlockContents,
    ChainStep,
    Included,
    Movement,
    Orphaned,
    Spend,
    TransactionOutcome,
    WatchList,
    output_position,
)
from custody.address_books import list_holdings
from custody.bitcoin.coin_model import COIN_STATES, Coin, CoinState, settled
from custody.bitcoin.coins import list_locks, list_spendable, lock, sum_unspent, unlock
from custody.bitcoin.testing import CHAIN, HOT, POOL
from custody.compliance.address_list import AddressList
from custody.errors import NotPossible
from custody.inclusion import apply_step
from custody.model import AddressPurpose
from ledger.testing import enforce_lock_order
from tests.custody.bitcoin.coin_house import BOOK, COIN, CoinHouse

STRANGER = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
FIRST, SECOND = UUID(int=1), UUID(int=2)


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncIterator[CoinHouse]:
    with enforce_lock_order(engine):
        yield await CoinHouse(engine).open()


# Any schedule.


class Script:
    """What strangers and we do to a chain, at random: payments, spends, double spends, forks."""

    def __init__(self, house: CoinHouse, ours: list[str], rng: random.Random) -> None:
        self.house, self.ours, self.rng = house, ours, rng
        self.node: ScriptedBitcoin = house.node

    async def act(self) -> None:
        match self.rng.randint(0, 5):
            case 0 | 1:
                self.node.submit(self.payment())
            case 2:
                await self.spend()
            case 3:
                self.double_spend()
            case _:
                self.fork()

    def payment(self) -> Transaction:
        ends = [self.rng.choice([*self.ours, STRANGER]) for _ in range(self.rng.randint(1, 4))]
        return self.node.pay(*((end, self.rng.randint(1_000, 9_999)) for end in ends))

    async def spend(self) -> None:
        """Spend a coin of ours, also one that waits in the pool, partly back to us."""
        coins = [
            Outpoint(item.tx_id, place)
            for item in self.node._pool.values()
            for place, output in enumerate(item.outputs)
            if address_of(output.script, self.node.network) in self.ours and output.amount > 9
        ]
        coins += [
            Outpoint(coin.tx_id, coin.index)
            for coin in (await self.node.scan(self.ours)).coins
            if await self.node.pool_spender(Outpoint(coin.tx_id, coin.index)) is None
        ]
        free = [item for item in coins if await self.node.pool_spender(item) is None]
        if free:
            taken = self.rng.sample(free, min(len(free), self.rng.randint(1, 3)))
            total = sum(found.amount for item in taken if (found := self.node._output(item)))
            ends = [
                (self.rng.choice([*self.ours, STRANGER]), total // 3)
                for _ in range(self.rng.randint(1, 2))
            ]
            self.node.submit(self.node.pay(*ends, spend=taken))

    def double_spend(self) -> None:
        if self.node._pool:
            victim = self.rng.choice([*self.node._pool.values()])
            self.node.submit(self.node.pay((STRANGER, 1), spend=[victim.inputs[0].outpoint]))

    def fork(self) -> None:
        depth = self.rng.randint(0, min(5, len(self.node.blocks) - 1))
        if depth and self.rng.random() < 0.6:
            self.node.reorg(depth, [])
        for _ in range(depth + 1):
            waiting = [*self.node._pool.values()]
            taken = waiting[: self.rng.randint(0, len(waiting))]
            if self.rng.random() < 0.2:
                taken = [self.node.new_coins(self.rng.choice(self.ours)), *taken]
            self.node.mine(*taken)


def model_of(node: ScriptedBitcoin, ours: list[str]) -> dict[Outpoint, tuple[object, ...]]:
    """Return what reading the final chain alone says: by other code than ours."""
    made: dict[Outpoint, tuple[str | None, int, int, str]] = {}
    spent: dict[Outpoint, tuple[str, int]] = {}
    for mined in node._branch:
        for item in mined.transactions:
            for one in item.inputs:
                spent[one.outpoint] = (item.tx_id, mined.block.height)
            for place, output in enumerate(item.outputs):
                to = address_of(output.script, node.network)
                if to in ours:
                    key = Outpoint(item.tx_id, place)
                    made[key] = (to, output.amount, mined.block.height, mined.block.hash)
    return {key: (*facts, *spent.get(key, (None, None))) for key, facts in made.items()}


def told(coin: Coin) -> tuple[object, ...]:
    return (
        *(coin.address, coin.amount, coin.height, coin.block_hash),
        *(coin.spent_by, coin.spent_height),
    )


@pytest.mark.parametrize("seed", range(12))
async def test_any_schedule_of_reorganisations_ends_in_the_coins_of_the_final_chain(
    house: CoinHouse, seed: int
) -> None:
    rng = random.Random(seed)
    change = await house.assign(POOL, AddressPurpose.CHANGE, None, "spend 1")
    ours = [house.acme, house.birch, house.hot, change]
    script = Script(house, ours, rng)
    for _ in range(rng.randint(25, 40)):
        await script.act()
        if rng.random() < 0.4:
            await house.follow()
    house.mine(empty_after=2)
    await house.follow()

    expected = model_of(house.node, ours)
    there = {c.outpoint: c for c in await house.coins() if c.state is not CoinState.ORPHANED}
    assert {key: told(coin) for key, coin in there.items()} == expected
    unspent = {c.outpoint: c.amount for c in there.values() if c.state is CoinState.UNSPENT}
    scanned = (await house.node.scan(ours)).coins
    assert unspent == {Outpoint(c.tx_id, c.index): c.amount for c in scanned}
    assert sum(unspent.values()) == sum(
        (await house.do(lambda conn: sum_unspent(conn, CHAIN))).values()
    )


# Steps one by one.


def block(height: int, fork: str = "a") -> Block:
    at = ScriptedBitcoin().blocks[0].time
    return Block(CHAIN, height, f"{fork}{height}", f"{fork}{height - 1}", at)


async def apply(house: CoinHouse, *steps: ChainStep) -> None:
    for one in steps:

        async def work(conn: AsyncConnection, step: ChainStep = one) -> None:
            await apply_step(conn, step, book=BOOK, now=house.now)

        await house.do(work)


def making(house: CoinHouse, height: int) -> BlockContents:
    made = Movement("t1", output_position(0), STRANGER, house.hot, None, 9)
    return BlockContents(block(height), (made,))


def spending(house: CoinHouse, height: int, fork: str = "a") -> BlockContents:
    return BlockContents(
        block(height, fork),
        outcomes=(TransactionOutcome("t2", house.hot, 0, True, 9, None),),
        spends=(Spend("t2", 0, "t1", 0, house.hot, 9),),
    )


async def test_a_coin_that_is_found_late_is_spent_already(house: CoinHouse) -> None:
    """A second reading may find an output whose spending was read before."""
    await apply(house, Included(spending(house, 6)))
    (coin,) = await house.coins()
    assert (coin.state, coin.height, coin.spent_by) == (CoinState.SPENT, None, "t2")

    await apply(house, Included(making(house, 5), late=True))
    (coin,) = await house.coins()
    assert (coin.state, coin.height, coin.spent_height) == (CoinState.SPENT, 5, 6)

    await apply(house, Orphaned(spending(house, 6)))
    (coin,) = await house.coins()
    assert (coin.state, coin.height, coin.spent_by) == (CoinState.UNSPENT, 5, None)


async def test_a_coin_made_and_spent_in_one_block_comes_and_goes_with_it(house: CoinHouse) -> None:
    both = BlockContents(
        block(5),
        making(house, 5).movements,
        spending(house, 5).outcomes,
        spends=spending(house, 5).spends,
    )
    for expected, step in (
        (CoinState.SPENT, Included(both)),
        (CoinState.ORPHANED, Orphaned(both)),
        (CoinState.SPENT, Included(both)),
    ):
        await apply(house, step)
        assert [coin.state for coin in await house.coins()] == [expected]


def test_a_coin_has_no_other_states_than_its_two_facts_make() -> None:
    assert len(COIN_STATES.edges) == 6
    coin = Coin(
        chain=CHAIN,
        tx_id="t",
        index=0,
        address="a",
        wallet=POOL,
        branch=0,
        address_index=0,
        purpose=AddressPurpose.DEPOSIT,
        amount=1,
        coinbase=False,
        own=False,
        height=None,
        block_hash=None,
        state=CoinState.UNSPENT,
    )
    assert settled(coin).state is CoinState.ORPHANED
    assert (coin.confirmations(9), coin.key_path) == (0, "0/0")


# What may be spent, and by whom.


async def credited(house: CoinHouse, *amounts: int) -> list[Outpoint]:
    paid = house.node.pay(*((house.acme, amount) for amount in amounts))
    house.mine(paid, empty_after=3)
    await house.catch_up()
    return [Outpoint(paid.tx_id, place) for place in range(len(amounts))]


async def test_a_deposit_may_be_spent_once_it_is_credited(house: CoinHouse) -> None:
    house.mine(house.node.pay((house.acme, COIN)))
    await house.catch_up()
    assert await house.spendable() == []
    house.mine(empty_after=2)
    await house.follow()
    assert await house.spendable() == []
    await house.advance()
    assert await house.spendable() == [COIN]


async def test_what_compliance_holds_is_not_spent(house: CoinHouse) -> None:
    paid = house.node.pay((house.acme, COIN))
    watch = WatchList(frozenset({house.acme}), frozenset())
    (movement,) = (await house.node.contents(house.node.mine(paid), watch)).movements
    house.screening = AddressList.blocking(1, [movement.sender])
    house.mine(empty_after=2)
    await house.catch_up()

    assert await house.states() == ["held"]
    assert await house.spendable() == []


async def test_a_coin_is_locked_by_one_spend_at_a_time(house: CoinHouse) -> None:
    one, two = await credited(house, 5, 6)

    async def take(spend_id: UUID, *keys: Outpoint) -> list[Coin]:
        return await house.do(lambda c: lock(c, spend_id, keys, chain=CHAIN, now=house.now))

    assert [coin.amount for coin in await take(FIRST, one)] == [5]
    assert [coin.amount for coin in await take(FIRST, one)] == [5]
    assert await house.spendable() == [6]
    with pytest.raises(NotPossible, match=f"taken by spend {FIRST}"):
        await take(SECOND, two, one)
    # Nothing of a refused lock stays.
    locks = await house.do(lambda conn: list_locks(conn, CHAIN))
    assert [(item.outpoint, item.spend_id) for item in locks] == [(one, FIRST)]
    tip = await house.tip()
    mine = await house.do(lambda c: list_spendable(c, CHAIN, POOL, tip=tip, include=FIRST))
    assert [coin.amount for coin in mine] == [6, 5]

    assert await house.do(lambda conn: unlock(conn, SECOND)) == 0
    assert await house.do(lambda conn: unlock(conn, FIRST, [one])) == 1
    assert sorted(coin.amount for coin in await take(SECOND, two, one)) == [5, 6]


async def test_of_two_who_want_a_coin_at_once_one_is_refused(house: CoinHouse) -> None:
    keys = await credited(house, 5, 6, 7)
    refused = 0

    async def take(spend_id: UUID, wanted: list[Outpoint]) -> None:
        nonlocal refused
        try:
            await house.do(lambda c: lock(c, spend_id, wanted, chain=CHAIN, now=house.now))
        except NotPossible:
            refused += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(take(FIRST, keys))
        group.create_task(take(SECOND, keys[::-1]))

    locks = await house.do(lambda conn: list_locks(conn, CHAIN))
    assert (refused, len(locks), len({item.spend_id for item in locks})) == (1, 3, 1)


async def test_only_an_unspent_coin_of_ours_can_be_locked(house: CoinHouse) -> None:
    (key,) = await credited(house, COIN)
    house.mine(house.node.pay((STRANGER, 5), spend=[key]))
    await house.follow()

    for wanted, words in ((key, "spent"), (Outpoint("00" * 32, 7), "not a coin of ours")):
        with pytest.raises(NotPossible, match=words):
            await house.do(
                lambda c, one=wanted: lock(c, FIRST, [one], chain=CHAIN, now=house.now)  # type: ignore[misc]  # bound by the loop
            )
    assert await house.do(lambda conn: list_locks(conn, CHAIN)) == []


async def test_what_a_stranger_sends_to_a_hot_address_is_not_spent(house: CoinHouse) -> None:
    house.mine(house.node.pay((house.hot, COIN)), empty_after=5)
    await house.catch_up()
    assert await house.spendable(HOT) == []


async def test_a_holding_is_what_the_unspent_coins_of_an_address_hold(house: CoinHouse) -> None:
    """Not arrivals less payouts: on Bitcoin a payout names no address that it leaves from."""
    (one, _) = await credited(house, COIN, 7)
    house.mine(house.node.pay((STRANGER, 5), (house.hot, 40), spend=[one]))
    house.mine(house.node.pay((house.birch, 11)))
    await house.follow()

    async def holdings(conn: AsyncConnection, *, movable: bool) -> dict[tuple[str, str], int]:
        return await list_holdings(conn, CHAIN, BOOK, movable=movable)

    everything = {(house.acme, "BTC"): 7, (house.hot, "BTC"): 40, (house.birch, "BTC"): 11}
    assert await house.do(lambda conn: holdings(conn, movable=False)) == everything
    # What is not credited yet stays where it arrived.
    del everything[house.birch, "BTC"]
    assert await house.do(lambda conn: holdings(conn, movable=True)) == everything
