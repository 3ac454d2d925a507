"""Ranges of blocks from a node that leaves out, mixes up or refuses: nothing wrong is believed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from chain.errors import BlockGone, IncompleteAnswer, NodeTrouble, RangeTooLarge
from chain.evm.addresses import checksum_address
from chain.evm.erc20 import TRANSFER_TOPIC
from chain.evm.gateway import EvmGateway
from chain.evm.ranges import (
    CONTRACTS_FILTER_MAX,
    RECIPIENTS_FILTER_MAX,
    Needle,
    log_filter,
    recipient_filter,
)
from chain.jsonrpc import Call, Rpc, RpcRefusal
from chain.model import Block, BlockContents, WatchList
from chain.scripted import GENESIS_TIME
from chain.simulators.testing import dev_account, sign_transaction, transfer_token
from tests.chain.conftest import CHAIN_ID, NodeStage

ANN, BOB, CAROL = (dev_account(index) for index in (0, 1, 5))
OTHER = "0x" + "cd" * 32

Change = Callable[[Any], Any]


class Tampered(Rpc):
    """The way to a real node, on which answers are changed."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.changes: dict[str, Change] = {}
        self.batches = True
        self.asked: list[tuple[str, Sequence[Any]]] = []

    async def ask(self, method: str, *params: Any) -> Any:
        self.asked.append((method, params))
        return self._changed(method, await super().ask(method, *params))

    async def ask_many(self, calls: Sequence[Call]) -> list[Any | RpcRefusal]:
        if not self.batches:
            raise RpcRefusal("a batch", -32600, "batches are not supported")
        answers = await super().ask_many(calls)
        return [
            self._changed(method, answer)
            for (method, _), answer in zip(calls, answers, strict=True)
        ]

    def _changed(self, method: str, answer: Any) -> Any:
        return self.changes.get(method, lambda same: same)(answer)


@dataclass
class Run:
    """Four blocks: tokens for us, nothing, ether for us, tokens for somebody else."""

    first: Block
    last: Block
    rpc: Tampered
    gateway: EvmGateway
    watch: WatchList

    async def read(self, watch: WatchList | None = None) -> list[BlockContents]:
        return await self.gateway.contents_of_range(self.first, self.last, watch or self.watch)

    async def honest(self) -> list[BlockContents]:
        """What the blocks hold, read one by one and without any change."""
        changes, self.rpc.changes = self.rpc.changes, {}
        blocks = [await self.gateway.block_at(at) for at in self.heights]
        found = [await self.gateway.contents(one, self.watch) for one in blocks if one is not None]
        self.rpc.changes = changes
        return found

    @property
    def heights(self) -> range:
        return range(self.first.height, self.last.height + 1)

    def change(self, method: str, change: Change) -> None:
        self.rpc.changes[method] = change


@pytest.fixture
async def run(evm: NodeStage) -> AsyncIterator[Run]:
    blocks: list[Block] = []
    for raw in (
        transfer_token(BOB, 0, evm.token, to=CAROL.address, amount=4),
        None,
        sign_transaction(ANN, 0, to=CAROL.address, value=6),
        transfer_token(BOB, 1, evm.token, to=ANN.address, amount=5),
    ):
        if raw is not None:
            await evm.rpc.call("eth_sendRawTransaction", raw)
        await evm.mine()
        blocks.append(await evm.gateway.head())
    rpc = Tampered(evm.rpc.url)
    watch = WatchList(frozenset({CAROL.address}), frozenset({evm.token}))
    async with EvmGateway(
        evm.rpc.url, chain="evm", network_id=CHAIN_ID, rpc=rpc, trace=False
    ) as gateway:
        yield Run(blocks[0], blocks[-1], rpc, gateway, watch)


async def test_a_range_reads_receipts_only_where_something_is(run: Run) -> None:
    found = await run.read()

    assert [sum(m.amount for m in item.movements) for item in found] == [4, 0, 6, 0]
    assert found == await run.honest()


async def test_an_empty_answer_about_events_is_seen_through_by_the_filters_of_the_blocks(
    run: Run,
) -> None:
    # Failure 20 of the catalogue, below the head.
    run.change("eth_getLogs", lambda _: [])

    assert await run.read() == await run.honest()


async def test_receipts_without_their_events_are_refused(run: Run) -> None:
    run.change("eth_getLogs", lambda _: [])
    run.change("eth_getBlockReceipts", lambda all_: [{**one, "logs": []} for one in all_])

    with pytest.raises(IncompleteAnswer):
        await run.read()


def every(**changes: Any) -> Change:
    return lambda items: [{**item, **changes} for item in items]


@pytest.mark.parametrize(
    ("method", "change", "trouble"),
    [
        pytest.param("eth_getLogs", every(blockHash=OTHER), IncompleteAnswer, id="other block"),
        pytest.param("eth_getLogs", every(blockNumber="0x1"), IncompleteAnswer, id="height"),
        pytest.param("eth_getLogs", every(transactionHash=OTHER), IncompleteAnswer, id="nobody's"),
        pytest.param("eth_getLogs", every(removed=True), IncompleteAnswer, id="taken back"),
        pytest.param("eth_getLogs", lambda _: None, NodeTrouble, id="no list"),
        pytest.param("eth_getLogs", lambda _: [{}], NodeTrouble, id="no log"),
        pytest.param("eth_getBlockByNumber", lambda _: None, BlockGone, id="no block"),
        pytest.param(
            "eth_getBlockByNumber",
            lambda item: {**item, "parentHash": OTHER},
            BlockGone,
            id="other parent",
        ),
        pytest.param(
            "eth_getBlockByNumber",
            lambda item: {**item, "transactions": [{}]},
            NodeTrouble,
            id="no transaction",
        ),
        pytest.param(
            "eth_getBlockByNumber",
            lambda item: {
                **item,
                "transactions": [{**one, "blockHash": OTHER} for one in item["transactions"]],
            },
            IncompleteAnswer,
            id="transactions of another block",
        ),
    ],
)
async def test_answers_that_contradict_the_run_are_trouble(
    run: Run, method: str, change: Change, trouble: type[NodeTrouble]
) -> None:
    run.change(method, change)

    with pytest.raises(trouble):
        await run.read()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-32005, "query returned more than 10000 results"),
        (-32600, "Under the Free tier you can make requests with up to a 10 block range"),
        (-32602, "Log response size exceeded"),
        (-32000, "exceed maximum block range: 5000"),
        (-32005, "limit exceeded"),
    ],
)
async def test_a_range_that_a_provider_finds_too_large_is_said_to_be_so(
    run: Run, code: int, words: str
) -> None:
    def refuse(_: Any) -> Any:
        raise RpcRefusal("eth_getLogs", code, words)

    run.change("eth_getLogs", refuse)

    with pytest.raises(RangeTooLarge):
        await run.read()


async def test_a_node_that_takes_no_batches_is_asked_block_by_block(run: Run) -> None:
    run.rpc.batches = False

    assert await run.read() == await run.honest()


async def test_a_hundred_thousand_addresses_are_never_sent_to_the_node(run: Run) -> None:
    many = frozenset(checksum_address((n + 1).to_bytes(20, "big")) for n in range(100_000))
    watch = WatchList(run.watch.addresses | many, run.watch.contracts)

    assert await run.read(watch) == await run.honest()

    (params,) = [params for method, params in run.rpc.asked if method == "eth_getLogs"]
    assert params[0]["topics"] == [TRANSFER_TOPIC]
    assert len(params[0]["address"]) == 1


async def test_what_comes_in_of_a_contract_that_is_not_registered_is_found_as_well(
    run: Run,
) -> None:
    found = await run.read(WatchList(run.watch.addresses, frozenset({ANN.address})))

    assert [sum(m.amount for m in item.movements) for item in found] == [4, 0, 6, 0]
    assert {m.contract for m in found[0].movements} == run.watch.contracts


def test_recipients_are_asked_for_while_they_are_few() -> None:
    at = Block("evm", 7, OTHER, OTHER, GENESIS_TIME)
    addresses = [
        checksum_address((n + 1).to_bytes(20, "big")) for n in range(RECIPIENTS_FILTER_MAX + 1)
    ]
    few = Needle.of(WatchList(frozenset(addresses[1:]), frozenset()))

    asked = recipient_filter(at, at, few)

    assert asked is not None
    assert len(asked["topics"][2]) == RECIPIENTS_FILTER_MAX
    many = Needle.of(WatchList(frozenset(addresses), frozenset()))
    assert recipient_filter(at, at, many) is None
    assert recipient_filter(at, at, Needle.of(WatchList(frozenset(), frozenset()))) is None


def test_many_contracts_are_looked_through_instead_of_named() -> None:
    at = Block("evm", 7, OTHER, OTHER, GENESIS_TIME)
    many = frozenset(
        checksum_address((n + 1).to_bytes(20, "big")) for n in range(CONTRACTS_FILTER_MAX + 1)
    )

    assert "address" not in log_filter(at, at, Needle.of(WatchList(frozenset(), many)))
