"""The chain in memory behaves as a node does where tests rest on it."""

from __future__ import annotations

import pytest

from chain.bitcoin.addresses import address_of
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.ports import BitcoinReader
from chain.bitcoin.scripts import witness_script
from chain.bitcoin.testing import ScriptedBitcoin
from chain.bitcoin.transactions import Input, Outpoint, Transaction, encode
from chain.model import (
    COINBASE,
    BroadcastOutcome,
    Movement,
    PendingMovement,
    Spend,
    TransactionOutcome,
    WatchList,
)


def address(number: int) -> str:
    found = address_of(witness_script(0, bytes([number]) * 20), REGTEST)
    assert found is not None
    return found


OURS, CHANGE, CLIENT, STRANGER = map(address, (1, 2, 3, 4))
WATCH = WatchList(frozenset({OURS, CHANGE}), frozenset())


def spend(outpoint: Outpoint, *outputs: tuple[str, int], sequence: int = 0) -> Transaction:
    made = ScriptedBitcoin().pay(*outputs, spend=[outpoint])
    return Transaction((Input(outpoint, sequence),), made.outputs)


async def test_a_block_shows_what_pays_us_and_all_outputs_of_what_spends_ours() -> None:
    chain: BitcoinReader
    chain = gateway = ScriptedBitcoin()
    coin = gateway.fund(OURS, 100_000)
    minted = gateway.new_coins(OURS)
    paid = gateway.pay((STRANGER, 1), (OURS, 7_000), (OURS, 8_000))
    ours = spend(coin, (CLIENT, 60_000), (CHANGE, 39_000))
    block = gateway.mine(minted, paid, ours)
    sender = address_of(witness_script(0, b"\xee" * 20), REGTEST)
    assert sender is not None

    found = await chain.contents(block, WATCH)

    assert found.movements == (
        Movement(minted.tx_id, "vout:0", COINBASE, OURS, None, 5_000_000_000),
        Movement(paid.tx_id, "vout:1", sender, OURS, None, 7_000),
        Movement(paid.tx_id, "vout:2", sender, OURS, None, 8_000),
        Movement(ours.tx_id, "vout:0", OURS, CLIENT, None, 60_000),
        Movement(ours.tx_id, "vout:1", OURS, CHANGE, None, 39_000),
    )
    assert found.outcomes == (TransactionOutcome(ours.tx_id, OURS, 0, True, 1_000, None),)
    assert found.spends == (Spend(ours.tx_id, 0, coin.tx_id, coin.index, OURS, 100_000),)
    assert found.traced
    assert await chain.find_transaction(ours.tx_id) is not None
    assert not await chain.is_unspent(coin, with_pool=False)
    scanned = await chain.scan([OURS, CHANGE])
    assert (scanned.height, scanned.block_hash) == (block.height, block.hash)
    assert sum(item.amount for item in scanned.coins) == 5_000_000_000 + 15_000 + 39_000


async def test_what_waits_names_its_inputs_and_a_replacement_must_pay_for_itself() -> None:
    gateway = ScriptedBitcoin()
    coin = gateway.fund(STRANGER, 100_000)
    first, cheap, second = (
        spend(coin, (payee, amount))
        for payee, amount in ((OURS, 99_000), (OURS, 98_990), (CLIENT, 97_000))
    )
    for item, expected in (
        (first, BroadcastOutcome.ACCEPTED),
        (cheap, BroadcastOutcome.UNKNOWN),
        (first, BroadcastOutcome.ACCEPTED),
    ):
        report = await gateway.broadcast(encode(item), item.tx_id)
        assert report.outcome is expected, report
    assert await gateway.pending(WATCH) == (
        PendingMovement(first.tx_id, STRANGER, 0, OURS, None, 99_000, ((coin.tx_id, coin.index),)),
    )
    assert await gateway.pool_spender(coin) == first.tx_id

    assert (await gateway.accepts(encode(second))).accepted
    assert (
        await gateway.broadcast(encode(second), second.tx_id)
    ).outcome is BroadcastOutcome.ACCEPTED

    assert await gateway.pending(WATCH) == ()
    gateway.mine_pool()
    late = await gateway.broadcast(encode(first), first.tx_id)
    assert late.outcome is BroadcastOutcome.REJECTED
    assert second.tx_id in late.detail


async def test_a_reorganisation_puts_back_into_the_pool_what_can_still_be_mined() -> None:
    gateway = ScriptedBitcoin()
    coin = gateway.fund(OURS, 50_000)
    ours, theirs = spend(coin, (CLIENT, 49_000)), gateway.pay((OURS, 5_000))
    gateway.mine(ours, theirs)
    double = spend(coin, (STRANGER, 48_000))

    left = gateway.reorg(1, [[double], []])

    assert {item.tx_id for item in left} == {ours.tx_id, theirs.tx_id}
    assert gateway.pool == {theirs.tx_id}
    with pytest.raises(ValueError, match="not there"):
        gateway.mine(ours)
    child = spend(Outpoint(theirs.tx_id, 0), (CLIENT, 4_000), sequence=1)
    raw = encode(child)
    assert (await gateway.broadcast(raw, child.tx_id)).outcome is BroadcastOutcome.ACCEPTED
    assert gateway.drop(theirs.tx_id)
    assert gateway.pool == frozenset()
    missing = await gateway.broadcast(raw, child.tx_id)
    assert missing.outcome is BroadcastOutcome.UNKNOWN
