"""Deposits of Bitcoin: outputs that pay addresses of ours, from the pool to the client's account."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.bitcoin.transactions import Outpoint
from custody.bitcoin.coin_model import COINBASE_MATURITY
from custody.bitcoin.testing import HOT, POOL, SETTLEMENT
from custody.deposit_model import DepositKind, PendingState
from custody.model import AddressPurpose
from custody.policy import ConfirmationPolicy
from ledger.testing import enforce_lock_order
from tests.custody.bitcoin.coin_house import COIN, CoinHouse

STRANGER = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
"""The key of the generator, as BIP 173 writes it on other networks."""


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncIterator[CoinHouse]:
    with enforce_lock_order(engine):
        yield await CoinHouse(engine).open()


async def test_a_deposit_is_held_when_included_and_credited_when_deep_enough(
    house: CoinHouse,
) -> None:
    house.mine(house.node.pay((house.acme, COIN)))
    await house.catch_up()
    assert await house.states() == ["included"]
    assert await house.balances() == {
        "custody:btc-pool": (0, COIN),
        "client:acme": (0, COIN),
    }

    house.mine(empty_after=1)
    await house.catch_up()

    assert await house.states() == ["credited"]
    assert await house.balances() == {"custody:btc-pool": (COIN, 0), "client:acme": (COIN, 0)}
    assert await house.open_holds() == []


async def test_every_output_is_a_deposit_of_its_own(house: CoinHouse) -> None:
    """Identity is (chain, transaction, output): two to one address in one transaction are two."""
    house.mine(
        house.node.pay((house.acme, 5), (house.acme, 5), (house.birch, 7)),
        house.node.pay((house.acme, 11)),
        empty_after=3,
    )
    await house.catch_up()

    found = await house.deposits()
    assert sorted((d.address, d.amount, d.position) for d in found) == sorted(
        [
            (house.acme, 5, "vout:0"),
            (house.acme, 5, "vout:1"),
            (house.birch, 7, "vout:2"),
            (house.acme, 11, "vout:0"),
        ]
    )
    balances = await house.balances()
    assert (balances["client:acme"], balances["client:birch"]) == ((21, 0), (7, 0))
    assert await house.spendable() == [11, 7, 5, 5]


async def test_an_output_needs_no_balance_to_prove_that_it_came(house: CoinHouse) -> None:
    house.mine(house.node.pay((house.acme, COIN)), empty_after=3)
    await house.catch_up()

    (deposit,) = await house.deposits()
    assert (str(deposit.state), deposit.received) == ("credited", None)


async def test_dust_is_booked_and_is_nobodys(house: CoinHouse) -> None:
    house.policy = ConfirmationPolicy(1, house.policy.rules, {"bitcoin:BTC": 1_000})
    house.mine(house.node.pay((house.acme, 999), (house.acme, 1_000)), empty_after=3)
    await house.catch_up()

    assert sorted(await house.states()) == ["credited", "dust"]
    balances = await house.balances()
    assert balances["suspense:dust"] == (999, 0)
    assert balances["custody:btc-pool"] == (1_999, 0)


@pytest.mark.parametrize("purpose", [AddressPurpose.HOT, AddressPurpose.CHANGE])
async def test_what_strangers_send_to_addresses_of_our_own_use_is_nobodys(
    house: CoinHouse, purpose: AddressPurpose
) -> None:
    address = await house.assign(HOT, purpose, None, "x")
    house.mine(house.node.pay((address, 500)), empty_after=3)
    await house.catch_up()

    (deposit,) = await house.deposits()
    assert (str(deposit.state), deposit.kind) == ("unattributed", DepositKind.UNATTRIBUTED)
    assert deposit.reason == f"sent to a {purpose} address"
    assert (await house.balances())["suspense:unattributed:bitcoin"] == (500, 0)
    # What is nobody's yet stays where it is.
    assert await house.spendable(HOT) == []


async def test_own_change_is_a_coin_and_never_a_deposit(house: CoinHouse) -> None:
    """A transaction that spends a coin of ours pays out and pays back: no client deposited that."""
    house.mine(house.node.pay((house.acme, COIN)), empty_after=3)
    await house.catch_up()
    (coin,) = await house.coins()
    change = await house.assign(POOL, AddressPurpose.CHANGE, None, "spend 1")
    ours = house.node.pay((STRANGER, 30), (change, 40), (house.birch, 20), spend=[coin.outpoint])
    house.mine(ours)
    await house.follow()

    assert len(await house.deposits()) == 1
    found = {item.address: item for item in await house.coins()}
    assert str(found[house.acme].state) == "spent"
    assert found[house.acme].spent_by == ours.tx_id
    assert (found[change].own, found[change].amount) == (True, 40)
    assert found[house.birch].own
    # Own change counts from one block on.
    assert await house.spendable() == [40, 20]


async def test_what_pays_a_settlement_address_is_a_receipt(house: CoinHouse) -> None:
    house.mine(house.node.pay((house.settlement, 7 * COIN)), empty_after=1)
    await house.catch_up()
    assert await house.spendable(SETTLEMENT) == []
    house.mine()
    await house.catch_up()

    (receipt,) = await house.receipts()
    assert (str(receipt.state), receipt.reference, receipt.party) == ("final", "run-7", "acme")
    assert await house.deposits() == []
    assert await house.balances() == {
        "custody:btc-settlement": (7 * COIN, 0),
        "suspense:bitcoin": (7 * COIN, 0),
    }
    assert await house.spendable(SETTLEMENT) == [7 * COIN]


async def test_new_coins_are_not_credited_before_they_are_mature(house: CoinHouse) -> None:
    """Whatever the policy says: nobody can spend them before, and a short branch may take them."""
    house.mine(house.node.new_coins(house.acme), empty_after=COINBASE_MATURITY - 2)
    await house.catch_up()
    (deposit,) = await house.deposits()
    assert (str(deposit.state), deposit.depth_required) == ("included", COINBASE_MATURITY)
    (coin,) = await house.coins()
    assert coin.coinbase
    assert not coin.is_mature((await house.tip()).height)
    assert await house.spendable() == []

    house.mine()
    await house.catch_up()

    assert await house.states() == ["credited"]
    assert coin.is_mature((await house.tip()).height)
    assert await house.spendable() == [50 * COIN]


async def test_new_coins_at_a_settlement_address_are_not_final_before_they_are_mature(
    house: CoinHouse,
) -> None:
    house.mine(house.node.new_coins(house.settlement), empty_after=COINBASE_MATURITY - 2)
    await house.catch_up()
    assert [str(item.state) for item in await house.receipts()] == ["included"]

    house.mine()
    await house.catch_up()
    assert [str(item.state) for item in await house.receipts()] == ["final"]


async def test_final_means_a_hundred_blocks(house: CoinHouse) -> None:
    house.policy = ConfirmationPolicy.uniform(1, finalized=True)
    house.mine(house.node.pay((house.acme, COIN)), empty_after=99)
    await house.catch_up()
    assert await house.states() == ["included"]

    house.mine()
    await house.catch_up()
    assert await house.states() == ["credited"]


# The pool.


async def test_a_replaced_unconfirmed_deposit_is_seen_as_replaced_although_its_replacement_pays_us_nothing(
    house: CoinHouse,
) -> None:
    await house.follow()
    gift = house.node.fund(STRANGER, 100_000)
    first = house.node.pay((house.acme, 90_000), spend=[gift])
    house.node.submit(first)
    assert (await house.look_at_the_pool()).seen == 1
    assert await house.balances() == {}

    elsewhere = house.node.pay((STRANGER, 80_000), spend=[gift])
    house.node.submit(elsewhere)
    assert (await house.look_at_the_pool()).replaced == 1
    (item,) = await house.pending()
    assert item.state is PendingState.REPLACED

    house.node.mine_pool()
    await house.catch_up()
    assert await house.deposits() == []
    assert [str(one.state) for one in await house.pending()] == ["replaced"]


async def test_a_double_spend_that_is_mined_replaces_the_deposit_that_waits(
    house: CoinHouse,
) -> None:
    """A conflicting double spend of a deposit: the pool showed one, a block has the other."""
    await house.follow()
    gift = house.node.fund(STRANGER, 100_000)
    parent = house.node.pay((STRANGER, 95_000), spend=[gift])
    house.mine(parent)
    outpoint = Outpoint(parent.tx_id, 0)
    house.node.submit(house.node.pay((house.acme, 90_000), spend=[outpoint]))
    await house.follow()
    assert (await house.look_at_the_pool()).seen == 1

    house.mine(house.node.pay((STRANGER, 80_000), spend=[outpoint]))
    await house.catch_up()
    assert (await house.look_at_the_pool()).replaced == 1
    assert await house.deposits() == []
    assert await house.balances() == {}


async def test_a_transaction_that_pools_forgot_is_not_called_replaced(house: CoinHouse) -> None:
    await house.follow()
    gone = house.node.pay((house.acme, 5_000))
    house.node.submit(gone)
    await house.look_at_the_pool()
    house.node.drop(gone.tx_id)

    report = await house.look_at_the_pool()

    assert (report.replaced, report.dropped) == (0, 0)
    assert [str(item.state) for item in await house.pending()] == ["seen"]


async def test_a_transaction_that_is_mined_before_we_follow_is_not_called_replaced(
    house: CoinHouse,
) -> None:
    await house.follow()
    house.node.submit(house.node.pay((house.acme, 5_000)))
    await house.look_at_the_pool()
    house.node.mine_pool()

    assert (await house.look_at_the_pool()).replaced == 0
    await house.follow()
    assert [str(item.state) for item in await house.pending()] == ["included"]
    assert await house.states() == ["included"]


async def test_a_thousand_outputs_of_one_transaction_are_a_thousand_deposits_and_none_twice(
    house: CoinHouse,
) -> None:
    ends = [house.acme if n % 2 else house.birch for n in range(1_000)]
    paid = house.node.pay(*((end, 10_000 + n) for n, end in enumerate(ends)))
    house.mine(paid, empty_after=2)
    await house.catch_up()
    await house.advance()

    assert len(await house.coins()) == 1_000
    assert sum(amount for amount in await house.spendable()) == sum(range(10_000, 11_000))
    found = await house.balances()
    assert found["custody:btc-pool"] == (sum(range(10_000, 11_000)), 0)
    assert found["client:acme"] == (sum(range(10_001, 11_000, 2)), 0)
