"""Three nodes of one chain, of which one lags, lies or is silent; and what a lone liar cannot hide."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from chain.bitcoin.model import FeeRate, RateSource
from chain.bitcoin.node_set import NodeSet
from chain.bitcoin.transactions import Outpoint, encode
from chain.errors import IncompleteAnswer, NodeUnavailable, WrongChain
from chain.model import Block, BroadcastOutcome, WatchList
from chain.simulators.bitcoind import Bitcoind
from tests.chain.bitcoin.liar import Liar, lying, truth
from tests.chain.bitcoin.yard import CLIENT, FEE, OURS, STRANGER, Yard, sign, split

WATCH = WatchList(frozenset({OURS.address}), frozenset())


@pytest.fixture
def yard(bitcoind: Bitcoind) -> Yard:
    return Yard(bitcoind)


@pytest.fixture
async def three(bitcoind: Bitcoind) -> AsyncIterator[list[Liar]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(lying(bitcoind)) for _ in range(3)]


def set_of(liars: list[Liar], quorum: int = 2) -> NodeSet:
    return NodeSet([liar.gateway(name=f"node-{n}") for n, liar in enumerate(liars)], quorum=quorum)


async def pay_us(yard: Yard) -> tuple[Block, str]:
    """Mine a payment to us; return its block and id."""
    [coin] = await yard.fund(STRANGER)
    deposit = split(coin, [(OURS.address, 70_000)])
    await yard.mine_exactly(deposit)
    async with yard.gateway() as gateway:
        return await gateway.head(), deposit.tx_id


def without_payment(method: str, params: list[Any], answer: Any) -> Any:
    """Hide transactions that pay us: their outputs pay somebody else, in words."""
    if method != "getblock" or params[1:] != [3]:
        return answer
    changed = copy.deepcopy(answer)
    for item in changed["tx"]:
        for output in item["vout"]:
            if output["scriptPubKey"].get("address") == OURS.address:
                output["scriptPubKey"] |= {"hex": CLIENT.script.hex(), "address": CLIENT.address}
    return changed


def dropping(method: str, params: list[Any], answer: Any) -> Any:
    """Leave the last transaction out."""
    if method == "getblock" and params[1:] == [3]:
        return answer | {"tx": answer["tx"][:-1], "nTx": answer["nTx"] - 1}
    return answer


def other_root(method: str, params: list[Any], answer: Any) -> Any:
    """Leave all but the new coins out, and say the merkle root that fits what is left: their id."""
    if method != "getblock" or params[1:] != [3]:
        return answer
    alone = answer["tx"][:1]
    return answer | {"tx": alone, "nTx": 1, "merkleroot": alone[0]["txid"]}


def doubling(method: str, params: list[Any], answer: Any) -> Any:
    """Show bytes that pay twice as much, under the same id."""
    if method != "getblock" or params[1:] != [3]:
        return answer
    changed = copy.deepcopy(answer)
    amount, twice = (n.to_bytes(8, "little").hex() for n in (70_000, 140_000))
    for item in changed["tx"]:
        item["hex"] = item["hex"].replace(amount, twice)
    return changed


def hiding_inputs(method: str, params: list[Any], answer: Any) -> Any:
    """Show no inputs at all: then none of them spends what is ours."""
    if method != "getblock" or params[1:] != [3]:
        return answer
    changed = copy.deepcopy(answer)
    for item in changed["tx"][1:]:
        item["vin"] = []
    return changed


def poorer(method: str, params: list[Any], answer: Any) -> Any:
    """Say that inputs held next to nothing, so that fees are below zero."""
    if method != "getblock" or params[1:] != [3]:
        return answer
    changed = copy.deepcopy(answer)
    for item in changed["tx"][1:]:
        for spent in item["vin"]:
            spent["prevout"]["value"] = 1
            spent["prevout"]["scriptPubKey"]["hex"] = OURS.script.hex()
    return changed


def without_undo(method: str, params: list[Any], answer: Any) -> Any:
    """Say nothing of what is spent."""
    if method != "getblock" or params[1:] != [3]:
        return answer
    changed = copy.deepcopy(answer)
    for item in changed["tx"][1:]:
        for spent in item["vin"]:
            del spent["prevout"]
    return changed


def other_header(method: str, params: list[Any], answer: Any) -> Any:
    """Show another time, and with it another header, under the same hash."""
    del params
    if method in {"getblock", "getblockheader"} and isinstance(answer, dict):
        return answer | {"time": answer["time"] + 1}
    return answer


async def test_what_one_node_says_of_outputs_in_words_is_not_believed_but_its_bytes(
    yard: Yard, three: list[Liar]
) -> None:
    block, tx_id = await pay_us(yard)
    three[0].lie = without_payment
    async with three[0].gateway() as gateway:
        found = await gateway.contents(block, WATCH)
    assert [(move.tx_hash, move.amount) for move in found.movements] == [(tx_id, 70_000)]


@pytest.mark.parametrize(
    "lie",
    [dropping, other_root, doubling, other_header, hiding_inputs, poorer, without_undo],
    ids=lambda lie: lie.__name__,
)
async def test_a_lone_node_cannot_show_another_block_under_the_same_hash(
    yard: Yard, three: list[Liar], lie: Any
) -> None:
    block, _ = await pay_us(yard)
    three[0].lie = lie
    async with three[0].gateway() as gateway:
        with pytest.raises(IncompleteAnswer):
            await gateway.contents(block, WATCH)


@pytest.mark.parametrize("lie", [hiding_inputs, without_undo], ids=lambda lie: lie.__name__)
async def test_a_lone_node_that_leaves_out_what_is_spent_hides_no_coin_of_ours(
    yard: Yard, three: list[Liar], lie: Any
) -> None:
    [coin] = await yard.fund(OURS)
    await yard.mine_exactly(sign([coin], [(STRANGER.address, coin.amount - FEE)]))
    async with three[0].gateway() as gateway:
        block = await gateway.head()
        (spend,) = (await gateway.contents(block, WATCH)).spends
        assert spend.amount == coin.amount
        three[0].lie = lie
        with pytest.raises(IncompleteAnswer):
            await gateway.contents(block, WATCH)


def hiding_spends(method: str, params: list[Any], answer: Any) -> Any:
    """Say that inputs spend what strangers had: no block holds what contradicts it."""
    if method != "getblock" or params[1:] != [3]:
        return answer
    changed = copy.deepcopy(answer)
    for item in changed["tx"]:
        for spent in item["vin"]:
            if "prevout" in spent:
                spent["prevout"]["scriptPubKey"]["hex"] = CLIENT.script.hex()
    return changed


async def test_one_liar_of_three_hides_no_spend_and_moves_no_head(
    yard: Yard, three: list[Liar]
) -> None:
    [coin] = await yard.fund(OURS)
    payout = split(coin, [(CLIENT.address, 70_000)])
    await yard.send(payout)
    await yard.mine()
    for place in range(3):
        liars = three[place:] + three[:place]
        liars[0].lie = hiding_spends
        async with set_of(liars) as nodes:
            head = await nodes.head()
            found = await nodes.contents(head, WATCH)
            assert [(item.spent_tx, item.spent_index) for item in found.spends] == [
                (coin.outpoint.tx_id, coin.outpoint.index)
            ]
            first = await nodes.block_at(head.height - 3)
            assert first is not None
            assert (await nodes.contents_of_range(first, head, WATCH))[-1] == found
            assert await nodes.has_block(head) == 3
            assert await nodes.finalized_height() == head.height - 100
        liars[0].lie = truth


async def test_a_node_cannot_say_that_a_transaction_is_in_a_block_that_lacks_it(
    yard: Yard, three: list[Liar]
) -> None:
    block, tx_id = await pay_us(yard)
    await yard.mine()

    def elsewhere(method: str, params: list[Any], answer: Any) -> Any:
        if method == "getrawtransaction" and isinstance(answer, dict):
            return answer | {"blockhash": block.parent}
        return answer

    def invented(method: str, params: list[Any], answer: Any) -> Any:
        told = elsewhere(method, params, answer)
        if method == "getblock" and params == [block.parent, 3]:
            return answer | {"tx": [*answer["tx"], here["tx"][-1]]}
        return told

    here = await yard.node.call("getblock", block.hash, 3)
    for lie in (elsewhere, invented):
        three[0].lie = lie
        async with three[0].gateway() as gateway:
            with pytest.raises(IncompleteAnswer):
                await gateway.find_transaction(tx_id)


async def test_two_liars_that_contradict_each_other_and_the_third_are_no_quorum(
    yard: Yard, three: list[Liar]
) -> None:
    block, _ = await pay_us(yard)
    three[0].lie, three[1].lie = dropping, doubling
    async with set_of(three) as nodes:
        with pytest.raises(IncompleteAnswer):
            await nodes.contents(block, WATCH)


async def test_a_silent_node_does_not_stop_the_others_and_two_silent_ones_do(
    yard: Yard, three: list[Liar]
) -> None:
    block, _ = await pay_us(yard)
    async with set_of(three) as nodes:
        three[0].refuse = [(503, "Work queue depth exceeded")] * 1_000
        assert await nodes.head() == block
        assert len((await nodes.contents(block, WATCH)).movements) == 1
        assert [head.block for head in await nodes.heads()] == [None, block, block]
        three[1].refuse = [(500, "")] * 1_000
        with pytest.raises(NodeUnavailable):
            await nodes.head()


async def test_a_node_of_another_network_is_refused_at_the_start(
    yard: Yard, three: list[Liar]
) -> None:
    await yard.mine()

    def other(method: str, params: list[Any], answer: Any) -> Any:
        del params
        return answer | {"chain": "main"} if method == "getblockchaininfo" else answer

    three[2].lie = other
    with pytest.raises(WrongChain, match="node-2"):
        async with set_of(three):
            pass


async def test_unspent_outputs_and_scans_are_what_a_quorum_says(
    yard: Yard, three: list[Liar]
) -> None:
    block, tx_id = await pay_us(yard)

    def poor(method: str, params: list[Any], answer: Any) -> Any:
        del params
        if method == "scantxoutset":
            return answer | {"unspents": []}
        return None if method == "gettxout" else answer

    three[0].lie = poor
    async with set_of(three) as nodes:
        found = await nodes.scan([OURS.address])
        assert (found.block_hash, [coin.tx_id for coin in found.coins]) == (block.hash, [tx_id])
        assert await nodes.is_unspent(Outpoint(tx_id, 0), with_pool=False)


async def test_one_node_accepts_for_all_and_one_refusal_with_evidence_is_not_enough(
    yard: Yard, three: list[Liar]
) -> None:
    [coin, other] = await yard.fund(OURS, 2)
    signed = split(coin, [(CLIENT.address, 70_000)])
    spent = sign([other], [(CLIENT.address, other.amount - 2_000)])
    rival = sign([other], [(STRANGER.address, other.amount - 2_000)])
    async with set_of(three) as nodes:
        three[0].refuse = [(500, "")] * 2
        report = await nodes.broadcast(encode(signed), signed.tx_id)
        assert report.outcome is BroadcastOutcome.ACCEPTED
        await yard.mine_exactly(spent)
        report = await nodes.broadcast(encode(rival), rival.tx_id)
        assert report.outcome is BroadcastOutcome.REJECTED
        assert spent.tx_id in report.detail


async def test_fees_are_the_median_and_one_node_cannot_raise_what_is_relayed(
    three: list[Liar],
) -> None:
    def asking(rate: str | None, floor: str) -> Any:
        def lie(method: str, params: list[Any], answer: Any) -> Any:
            del params
            if method == "estimatesmartfee" and rate is not None:
                return {"feerate": float(rate), "blocks": 2}
            if method == "getmempoolinfo":
                return answer | {"mempoolminfee": float(floor), "incrementalrelayfee": float(floor)}
            return answer

        return lie

    for liar, rate, floor in zip(
        three, ("0.00003", None, "0.00007"), ("0.00001", "0.00002", "0.5"), strict=True
    ):
        liar.lie = asking(rate, floor)
    async with set_of(three) as nodes:
        assert await nodes.min_relay_rate() == 2_000
        assert await nodes.incremental_rate() == 2_000
        assert await nodes.fee_rate(2) == FeeRate(3_000, RateSource.NODE)
