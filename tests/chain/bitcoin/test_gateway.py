"""The port spoken to a real bitcoind on regtest."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from chain.bitcoin.gateway import BitcoinGateway
from chain.bitcoin.model import RateSource
from chain.bitcoin.networks import MAIN
from chain.bitcoin.node import NodeRpc
from chain.bitcoin.transactions import Input, Outpoint, Transaction, encode
from chain.errors import BlockGone, WrongChain
from chain.model import (
    COINBASE,
    BroadcastOutcome,
    Movement,
    PendingMovement,
    Spend,
    TransactionOutcome,
    WatchList,
)
from chain.simulators.bitcoind import COOKIE, Bitcoind
from tests.chain.bitcoin.yard import CHANGE, CLIENT, FEE, OURS, STRANGER, Coin, Yard, sign, split

WATCH = WatchList(frozenset({OURS.address, CHANGE.address}), frozenset())


@pytest.fixture
def yard(bitcoind: Bitcoind) -> Yard:
    return Yard(bitcoind)


@pytest.fixture
async def gateway(yard: Yard) -> AsyncIterator[BitcoinGateway]:
    async with yard.gateway() as made:
        yield made


async def test_a_block_shows_what_pays_us_and_all_outputs_of_what_spends_ours(
    yard: Yard, gateway: BitcoinGateway
) -> None:
    [theirs, more] = await yard.fund(STRANGER, 2)
    deposit = split(theirs, [(OURS.address, 70_000), (OURS.address, 30_001)])
    other = split(more, [(CLIENT.address, 5_000)])
    await yard.mine_exactly(deposit, other)
    block = await gateway.head()

    found = await gateway.contents(block, WATCH)

    assert found.movements == (
        Movement(deposit.tx_id, "vout:0", STRANGER.address, OURS.address, None, 70_000),
        Movement(deposit.tx_id, "vout:1", STRANGER.address, OURS.address, None, 30_001),
    )
    assert (found.outcomes, found.spends, found.traced) == ((), (), True)

    coins = [
        Coin(Outpoint(deposit.tx_id, 0), 70_000, OURS),
        Coin(Outpoint(deposit.tx_id, 1), 30_001, OURS),
    ]
    payout = sign(coins, [(CLIENT.address, 60_000), (CHANGE.address, 38_000)])
    await yard.send(payout)
    [mined] = await yard.mine(1, OURS.address)
    block = await gateway.head()
    assert block.hash == mined

    found = await gateway.contents(block, WATCH)

    minted, *moved = found.movements
    assert (minted.sender, minted.recipient, minted.position) == (COINBASE, OURS.address, "vout:0")
    assert minted.amount == 5_000_000_000 + 2_001
    assert moved == [
        Movement(payout.tx_id, "vout:0", OURS.address, CLIENT.address, None, 60_000),
        Movement(payout.tx_id, "vout:1", OURS.address, CHANGE.address, None, 38_000),
    ]
    assert found.outcomes == (TransactionOutcome(payout.tx_id, OURS.address, 0, True, 2_001, None),)
    assert found.spends == tuple(
        Spend(payout.tx_id, n, deposit.tx_id, n, OURS.address, coin.amount)
        for n, coin in enumerate(coins)
    )
    assert await gateway.find_transaction(payout.tx_id) == found.outcomes[0]
    first = await gateway.block_at(1)
    assert first is not None
    run = await gateway.contents_of_range(first, block, WATCH)
    assert [item.block.height for item in run] == list(range(1, block.height + 1))
    assert run[-1] == found
    assert await gateway.block_at(block.height + 1) is None
    assert await gateway.has_block(block) == 1
    assert await gateway.finalized_height() == block.height - 100


async def test_a_block_that_the_node_does_not_have_is_gone(
    yard: Yard, gateway: BitcoinGateway
) -> None:
    await yard.mine(3)
    block, first = await gateway.head(), await gateway.block_at(1)
    assert first is not None
    await yard.rewind(2)
    await yard.mine(1, CLIENT.address)

    assert await gateway.has_block(block) == 0
    with pytest.raises(BlockGone):
        await gateway.contents_of_range(first, block, WATCH)


async def test_a_node_of_another_network_is_refused_at_the_start_and_before_every_broadcast(
    yard: Yard,
) -> None:
    cookie = yard.node.folder / COOKIE
    wrong = BitcoinGateway(yard.node.url, chain="bitcoin", network=MAIN, cookie=cookie)
    with pytest.raises(WrongChain, match="regtest"):
        async with wrong:
            pass
    [coin] = await yard.fund()
    signed = split(coin, [(OURS.address, 1_000_000)])
    with pytest.raises(WrongChain):
        await wrong.broadcast(encode(signed), signed.tx_id)
    await wrong.close()
    assert await yard.node.call("getrawmempool") == []


async def test_what_waits_names_its_outpoints_and_a_replaced_deposit_is_seen_as_replaced(
    yard: Yard, gateway: BitcoinGateway
) -> None:
    # Failure 6 of the catalogue: the replacement pays no address of ours.
    [coin, other] = await yard.fund(STRANGER, 2)
    deposit = split(coin, [(OURS.address, 70_000)])
    await yard.send(split(other, [(CLIENT.address, 5_000)]))
    await yard.send(deposit)
    spent = (coin.outpoint.tx_id, coin.outpoint.index)
    waiting = PendingMovement(
        deposit.tx_id, STRANGER.address, 0, OURS.address, None, 70_000, (spent,)
    )
    assert await gateway.pending(WATCH) == (waiting,)
    assert await gateway.pending(WATCH) == (waiting,)
    assert await gateway.pool_spender(coin.outpoint) == deposit.tx_id
    assert not await gateway.is_unspent(coin.outpoint, with_pool=True)
    assert await gateway.is_unspent(coin.outpoint, with_pool=False)

    replacement = split(coin, [(CLIENT.address, 70_000)], fee=20 * FEE)
    await yard.send(replacement)

    assert await gateway.pending(WATCH) == ()
    assert await gateway.pool_spender(coin.outpoint) == replacement.tx_id
    await yard.mine()
    assert await gateway.pool_spender(coin.outpoint) is None
    assert not await gateway.is_unspent(coin.outpoint, with_pool=False)
    assert await gateway.is_unspent(Outpoint(replacement.tx_id, 0), with_pool=False)


async def test_an_address_that_joins_the_list_after_its_payment_was_looked_at_is_still_seen(
    yard: Yard, gateway: BitcoinGateway
) -> None:
    [coin] = await yard.fund()
    before = WatchList(frozenset({CHANGE.address}), frozenset())
    assert await gateway.pending(before) == ()
    await yard.send(split(coin, [(OURS.address, 70_000)]))
    assert await gateway.pending(before) == ()
    assert [item.amount for item in await gateway.pending(WATCH)] == [70_000]


async def test_a_broadcast_is_judged_by_its_id_and_by_what_spends_its_inputs(
    yard: Yard, gateway: BitcoinGateway
) -> None:
    [coin, other] = await yard.fund(OURS, 2)
    first = split(coin, [(CLIENT.address, 70_000)])
    rival = split(coin, [(STRANGER.address, 70_000)])
    orphan = sign([Coin(Outpoint("ab" * 32, 0), 10_000, OURS)], [(CLIENT.address, 5_000)])
    damaged = Transaction((Input(other.outpoint, witness=first.inputs[0].witness),), first.outputs)

    async def say(item: Transaction) -> tuple[BroadcastOutcome, str]:
        report = await gateway.broadcast(encode(item), item.tx_id)
        return report.outcome, report.detail

    assert await say(first) == (BroadcastOutcome.ACCEPTED, "")
    assert (await say(first))[0] is BroadcastOutcome.ACCEPTED
    # A conflict in the pool: pools forget, so nothing is rejected.
    outcome, detail = await say(rival)
    assert outcome is BroadcastOutcome.UNKNOWN, detail
    # Inputs that are nowhere: a parent may come.
    outcome, detail = await say(orphan)
    assert outcome is BroadcastOutcome.UNKNOWN, detail
    outcome, detail = await say(damaged)
    assert outcome is BroadcastOutcome.UNKNOWN, detail
    assert (await gateway.accepts(encode(damaged))).accepted is False

    await yard.mine()
    assert (await say(first))[0] is BroadcastOutcome.ACCEPTED
    outcome, detail = await say(rival)
    assert outcome is BroadcastOutcome.REJECTED
    assert first.tx_id in detail
    # And when the chain takes it back, there is no evidence any more.
    await yard.rewind(1)
    assert (await say(rival))[0] is BroadcastOutcome.UNKNOWN
    assert (await gateway.broadcast(b"\x00" * 60, first.tx_id)).outcome is BroadcastOutcome.REJECTED
    assert (await gateway.broadcast(encode(first), "00" * 32)).outcome is BroadcastOutcome.REJECTED


async def test_a_transaction_already_mined_is_accepted_though_all_its_outputs_are_spent(
    yard: Yard, gateway: BitcoinGateway
) -> None:
    [coin] = await yard.fund(OURS)
    first = sign([coin], [(OURS.address, coin.amount - FEE)])
    second = sign(
        [Coin(Outpoint(first.tx_id, 0), coin.amount - FEE, OURS)],
        [(CLIENT.address, coin.amount - 2 * FEE)],
    )
    await yard.send(first)
    await yard.send(second)
    await yard.mine()

    report = await gateway.broadcast(encode(first), first.tx_id)

    assert report.outcome is BroadcastOutcome.ACCEPTED


async def test_a_fee_beyond_the_cap_and_coins_burnt_are_not_relayed(
    yard: Yard, gateway: BitcoinGateway
) -> None:
    [coin] = await yard.fund(OURS)
    greedy = sign([coin], [(CLIENT.address, coin.amount // 2)])
    report = await gateway.broadcast(encode(greedy), greedy.tx_id)
    assert report.outcome is BroadcastOutcome.UNKNOWN
    assert await yard.node.call("getrawmempool") == []


async def test_fees_come_from_the_node_and_from_the_fallback_where_it_has_no_data(
    gateway: BitcoinGateway,
) -> None:
    rate = await gateway.fee_rate(6)
    assert (rate.rate, rate.source) == (20_000, RateSource.FALLBACK)
    info = await gateway.rpc.ask("getmempoolinfo")
    for key, found in (
        ("minrelaytxfee", await gateway.min_relay_rate()),
        ("incrementalrelayfee", await gateway.incremental_rate()),
    ):
        assert float(info[key]) * 10**8 == pytest.approx(found)
        assert found >= 100


async def test_what_the_pool_would_take_is_told_with_fee_and_size(
    yard: Yard, gateway: BitcoinGateway
) -> None:
    [coin] = await yard.fund(OURS)
    item = split(coin, [(CLIENT.address, 70_000)])
    verdict = await gateway.accepts(encode(item))
    assert (verdict.accepted, verdict.fee, verdict.virtual_size) == (True, FEE, item.virtual_size)
    assert await yard.node.call("getrawmempool") == []


async def test_a_scan_finds_every_unspent_output_at_one_block(
    yard: Yard, gateway: BitcoinGateway
) -> None:
    [coin] = await yard.fund(STRANGER)
    deposit = split(coin, [(OURS.address, 70_000), (CHANGE.address, 1)])
    await yard.mine_exactly(deposit)
    head = await gateway.head()

    found = await gateway.scan([OURS.address, f"raw({CHANGE.script.hex()})"])

    assert (found.height, found.block_hash) == (head.height, head.hash)
    assert [(c.tx_id, c.index, c.address, c.amount, c.height) for c in found.coins] == [
        (deposit.tx_id, 0, OURS.address, 70_000, head.height),
        (deposit.tx_id, 1, CHANGE.address, 1, head.height),
    ]


async def test_a_node_that_restarts_lets_us_in_by_its_new_cookie(yard: Yard) -> None:
    rpc = NodeRpc(yard.node.url, cookie=yard.node.folder / COOKIE)
    assert await rpc.ask("getblockcount") == 0
    cookie = yard.node.folder / COOKIE
    right = cookie.read_text()
    cookie.write_text("__cookie__:wrong")
    with pytest.raises(Exception, match="does not let us in") as failure:
        await rpc.ask_once("getblockcount")
    assert "wrong" not in str(failure.value)
    cookie.write_text(right)
    assert await rpc.ask("getblockcount") == 0
    await rpc.close()
