"""Three providers of one chain, real nodes behind fault proxies, of which one fails or lies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

import chain.jsonrpc
from chain.answers import merge_reports
from chain.contracts.artefact import load_artefact
from chain.errors import (
    BlockGone,
    CallReverted,
    IncompleteAnswer,
    NodeUnavailable,
    WrongChain,
)
from chain.evm.gateway import EvmGateway
from chain.evm.providers import Provider, ProviderSet, provider_set
from chain.evm.transactions import erc20_transfer_data, transaction_hash
from chain.health import Standing, order
from chain.model import Block, BroadcastOutcome, BroadcastReport, WatchList
from chain.simulators.faults.model import Fault, Rule
from chain.simulators.faults.proxy import FaultProxy, FaultProxySettings
from chain.simulators.testing import (
    dev_account,
    encode_call,
    sign_transaction,
    transfer_token,
)
from kernel.errors import BadInput
from tests.chain.conftest import CHAIN_ID, NodeStage

ANN, BOB, CAROL = (dev_account(index) for index in (0, 1, 5))
NAMES = ("one", "two", "three")
TIMEOUT_S = 1.0


@dataclass
class World:
    """A chain, three proxies before its node, and the set that speaks to them."""

    stage: NodeStage
    proxies: tuple[FaultProxy, ...]
    providers: ProviderSet

    def calls(self, method: str) -> list[int]:
        return [proxy.rules.calls[method] for proxy in self.proxies]

    async def mine(self, *raws: str) -> Block:
        for raw in raws:
            await self.stage.rpc.call("eth_sendRawTransaction", raw)
        await self.stage.mine()
        return await self.stage.gateway.head()

    def watch(self) -> WatchList:
        return WatchList(frozenset({CAROL.address}), frozenset({self.stage.token}))

    @property
    def favourite(self) -> int:
        """Which provider is asked first."""
        return order(self.providers.healths, time.monotonic())[0]

    def standing(self) -> list[Standing]:
        return [health.standing for health in self.providers.healths]


def signed(value: int = 1, nonce: int = 0) -> tuple[bytes, str]:
    raw = bytes.fromhex(sign_transaction(ANN, nonce, to=CAROL.address, value=value)[2:])
    return raw, transaction_hash(raw)


def contract_address(creator: str, nonce: int) -> str:
    """Return the address of what *creator* creates with *nonce* (below 128)."""
    raw = bytes.fromhex("d694" + creator[2:]) + (bytes([nonce]) if nonce else b"\x80")
    return to_checksum_address(keccak(raw)[12:])


def opened(urls: list[str], quorum: int = 2) -> ProviderSet:
    return provider_set(
        [Provider(url, name) for url, name in zip(urls, NAMES, strict=False)],
        chain="evm",
        network_id=CHAIN_ID,
        quorum=quorum,
        timeout_s=TIMEOUT_S,
    )


@pytest.fixture
async def proxies(
    evm: NodeStage, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[FaultProxy, ...]]:
    monkeypatch.setattr(chain.jsonrpc, "BACKOFF_BASE_S", 0.001)
    async with AsyncExitStack() as stack:
        settings = FaultProxySettings(upstream=evm.rpc.url)
        yield tuple([await stack.enter_async_context(FaultProxy(settings)) for _ in NAMES])


@pytest.fixture
async def world(evm: NodeStage, proxies: tuple[FaultProxy, ...]) -> AsyncIterator[World]:
    async with opened([proxy.url for proxy in proxies]) as providers:
        yield World(evm, proxies, providers)


# ---------------------------------------------------------------------- the chain id


async def test_a_provider_of_another_chain_is_refused_at_the_start(
    proxies: tuple[FaultProxy, ...],
) -> None:
    proxies[1].rules.set(Rule(fault=Fault.WRONG_CHAIN, chain_id=5))

    with pytest.raises(WrongChain, match="two: the node serves chain 5"):
        async with opened([proxy.url for proxy in proxies]):
            pass


async def test_chain_id_replay_nothing_is_sent_to_a_provider_that_serves_another_chain_meanwhile(
    world: World,
) -> None:
    """Failure 18: the chain id is asserted at every broadcast, per provider."""
    world.proxies[0].rules.set(Rule(fault=Fault.WRONG_CHAIN, chain_id=5))

    report = await world.providers.broadcast(*signed())
    world.proxies[0].rules.clear()
    again = await world.providers.broadcast(*signed())

    assert report.outcome is again.outcome is BroadcastOutcome.ACCEPTED
    assert world.calls("eth_sendRawTransaction") == [0, 2, 2]
    assert world.standing() == [Standing.OUT, Standing.SERVING, Standing.SERVING]


async def test_when_every_provider_serves_another_chain_nothing_is_sent(world: World) -> None:
    for proxy in world.proxies:
        proxy.rules.set(Rule(fault=Fault.WRONG_CHAIN, chain_id=5))

    with pytest.raises(WrongChain):
        await world.providers.broadcast(*signed())

    assert world.calls("eth_sendRawTransaction") == [0, 0, 0]
    with pytest.raises(NodeUnavailable):
        await world.providers.head()
    with pytest.raises(NodeUnavailable):
        await world.providers.block_at(1)


async def test_a_provider_silent_at_the_start_must_name_its_chain_before_it_is_believed(
    proxies: tuple[FaultProxy, ...], evm: NodeStage
) -> None:
    late, impostor = proxies[0], proxies[1]
    late.rules.set(Rule(fault=Fault.DISCONNECT))
    async with opened([proxy.url for proxy in proxies]) as providers:
        assert providers.healths[0].standing == "unproven"
        late.rules.set(Rule(fault=Fault.WRONG_CHAIN, chain_id=5))
        impostor.rules.clear()
        await asyncio.sleep(0.6)
        for _ in range(3):
            await providers.head()

        assert providers.healths[0].standing == "out"
    assert late.rules.calls["eth_getBlockByNumber"] == 0


async def test_fewer_than_a_quorum_at_the_start_is_not_enough(
    proxies: tuple[FaultProxy, ...],
) -> None:
    for proxy in proxies[:2]:
        proxy.rules.set(Rule(fault=Fault.DISCONNECT))

    with pytest.raises(NodeUnavailable, match="1 of 3 providers"):
        async with opened([proxy.url for proxy in proxies]):
            pass


# ---------------------------------------------------------------------- the head


async def test_a_stale_provider_does_not_hold_the_head_back(world: World) -> None:
    world.proxies[0].rules.set(Rule(fault=Fault.STALE_HEAD, blocks=2))
    head = await world.mine()

    assert await world.providers.head() == head
    assert [health.height for health in world.providers.healths] == [
        head.height - 2,
        head.height,
        head.height,
    ]


async def test_two_stale_providers_of_three_do(world: World) -> None:
    for proxy in world.proxies[:2]:
        proxy.rules.set(Rule(fault=Fault.STALE_HEAD, blocks=2))
    head = await world.mine()

    assert (await world.providers.head()).height == head.height - 2


async def test_lying_rpc_a_provider_on_a_branch_of_its_own_does_not_lead_astray(
    world: World,
) -> None:
    """Failure 20: its blocks are on nobody else's chain, so it is asked last."""
    await world.mine()
    true = await world.mine()
    world.proxies[0].rules.set(Rule(fault=Fault.FORGED_HASH, height=true.height - 1))
    for honest in world.proxies[1:]:
        honest.rules.set(Rule(fault=Fault.SLOW, seconds=0.1))
    for _ in range(8):
        await world.providers.heads()

    head = await world.providers.head()

    assert head == true
    assert await world.providers.has_block(true) == 2
    for height in range(true.height + 1):
        assert await world.providers.block_at(height) == await world.stage.gateway.block_at(height)
    assert world.providers.healths[0].troubles == 0


async def test_a_fork_at_the_tip_is_followed_only_up_to_where_providers_agree(
    world: World,
) -> None:
    tip = await world.mine()
    world.proxies[0].rules.set(Rule(fault=Fault.FORGED_HASH, height=tip.height))
    world.proxies[1].rules.set(Rule(fault=Fault.STALE_HEAD, blocks=1))

    assert (await world.providers.head()).height == tip.height - 1


async def test_providers_that_have_nothing_in_common_agree_on_nothing(world: World) -> None:
    world.proxies[0].rules.set(Rule(fault=Fault.FORGED_HASH, height=1))
    world.proxies[1].rules.set(Rule(fault=Fault.DISCONNECT))
    for _ in range(70):
        await world.stage.mine()

    with pytest.raises(IncompleteAnswer, match="agree"):
        await world.providers.head()


async def test_lagging_rpc_a_provider_that_goes_backwards_is_noted_and_survived(
    world: World,
) -> None:
    """Failure 20: two nodes behind one address, one of them three blocks behind."""
    for _ in range(3):
        await world.mine()
    head = await world.providers.head()
    world.proxies[2].rules.set(
        Rule(fault=Fault.STALE_HEAD, blocks=3, every=2, methods=("eth_getBlockByNumber",))
    )

    assert [await world.providers.head() for _ in range(4)] == [head] * 4
    assert world.providers.healths[2].backwards >= 1
    assert "went back" in world.providers.healths[2].last_trouble


async def test_every_provider_is_named_with_its_head_or_its_trouble(world: World) -> None:
    world.proxies[1].rules.set(Rule(fault=Fault.DISCONNECT))

    one, two, three = await world.providers.heads()

    assert one.block == three.block == await world.stage.gateway.head()
    assert [head.provider for head in (one, two, three)] == list(NAMES)
    assert two.block is None
    assert "does not answer" in two.trouble


# ---------------------------------------------------------------------- reads


@pytest.mark.parametrize(
    "rule",
    [
        Rule(fault=Fault.DISCONNECT),
        Rule(fault=Fault.HALF_ANSWER),
        Rule(fault=Fault.TIME_OUT),
        Rule(fault=Fault.TOO_MANY_REQUESTS, seconds=1),
        Rule(fault=Fault.REFUSE, message="internal error"),
        Rule(fault=Fault.SLOW, seconds=5),
    ],
    ids=lambda rule: rule.fault.value,
)
async def test_a_failing_provider_is_passed_over_and_then_left_in_peace(
    world: World, rule: Rule
) -> None:
    first = world.favourite
    world.proxies[first].rules.set(rule)
    truth = await world.stage.gateway.block_at(1)
    before = world.calls("eth_getBlockByNumber")[first]

    assert await world.providers.block_at(1) == truth
    assert await world.providers.block_at(1) == truth

    assert world.calls("eth_getBlockByNumber")[first] - before == 1
    assert world.providers.healths[first].troubles == 1


async def test_one_provider_rate_limited_rests_for_as_long_as_it_asks(world: World) -> None:
    first = world.favourite
    world.proxies[first].rules.set(Rule(fault=Fault.TOO_MANY_REQUESTS, seconds=20))
    asked_s = time.monotonic()

    await world.providers.block_at(1)

    limited = world.providers.healths[first]
    assert limited.rests_until_s - asked_s > 15
    assert "429" in limited.last_trouble


@pytest.mark.parametrize("fault", [Fault.EMPTY_LOGS, Fault.STALE_HEAD])
async def test_gone_and_incomplete_of_one_are_asked_of_another_before_they_are_believed(
    world: World, fault: Fault
) -> None:
    raw = transfer_token(BOB, 0, world.stage.token, to=CAROL.address, amount=6)
    block = await world.mine(raw)
    first = world.favourite
    world.proxies[first].rules.set(Rule(fault=fault, blocks=1))
    before = world.calls("eth_getBlockByHash")[first]

    contents = await world.providers.contents(block, world.watch())

    assert [move.amount for move in contents.movements] == [6]
    assert world.calls("eth_getBlockByHash")[first] > before


async def test_a_block_that_nobody_has_is_gone(world: World) -> None:
    block = await world.mine()
    await world.stage.reorg(1)

    with pytest.raises(BlockGone):
        await world.providers.contents(block, world.watch())
    with pytest.raises(BlockGone):
        await world.providers.balance(CAROL.address, None, at=block)
    assert await world.providers.has_block(block) == 0


async def test_lying_rpc_amounts_are_believed_only_of_a_quorum(world: World) -> None:
    """Failure 20: the hash is right, the amount is not, and the bloom cannot tell."""
    raw = transfer_token(BOB, 0, world.stage.token, to=CAROL.address, amount=6)
    block = await world.mine(raw, sign_transaction(ANN, 0, to=CAROL.address, value=9))
    for liar in world.proxies:
        for proxy in world.proxies:
            proxy.rules.clear()
        liar.rules.set(Rule(fault=Fault.ALTERED_AMOUNTS))

        contents = await world.providers.contents(block, world.watch())
        (ranged,) = await world.providers.contents_of_range(block, block, world.watch())

        assert sorted(move.amount for move in contents.movements) == [6, 9]
        assert ranged == contents


async def test_no_quorum_on_amounts_is_no_answer(world: World) -> None:
    raw = transfer_token(BOB, 0, world.stage.token, to=CAROL.address, amount=6)
    block = await world.mine(raw)
    world.proxies[0].rules.set(Rule(fault=Fault.ALTERED_AMOUNTS))
    world.proxies[1].rules.set(Rule(fault=Fault.DISCONNECT))

    with pytest.raises(IncompleteAnswer, match="no 2 tell the same"):
        await world.providers.contents(block, world.watch())


@pytest.mark.parametrize(("quorum", "asked"), [(1, [0, 1, 1]), (2, [1, 1, 2])])
async def test_that_a_block_holds_nothing_is_told_by_another_provider_the_second_time(
    evm: NodeStage, proxies: tuple[FaultProxy, ...], quorum: int, asked: list[int]
) -> None:
    async with opened([proxy.url for proxy in proxies], quorum) as providers:
        world = World(evm, proxies, providers)
        block = await world.mine(sign_transaction(ANN, 0, to=BOB.address))
        before = world.calls("eth_getBlockByHash")

        for _ in range(2):
            assert (await world.providers.contents(block, world.watch())).movements == ()

        after = world.calls("eth_getBlockByHash")
        assert sorted(now - then for now, then in zip(after, before, strict=True)) == asked


async def test_a_block_that_only_one_of_two_providers_can_trace_is_taken_without_traces(
    evm: NodeStage, proxies: tuple[FaultProxy, ...]
) -> None:
    """Else a block that is heavy to trace would stop the chain for good."""
    async with opened([proxy.url for proxy in proxies[:2]]) as providers:
        world = World(evm, proxies[:2], providers)
        block = await split(world, 8)
        proxies[1].rules.set(Rule(fault=Fault.TIME_OUT, methods=("debug_*", "trace_*")))

        contents = await providers.contents(block, world.watch())

        assert (contents.movements, contents.traced) == ((), False)


async def test_a_transaction_that_one_provider_has_not_seen_is_found_at_another(
    world: World,
) -> None:
    raw, tx_hash = signed()
    await world.mine("0x" + raw.hex())
    world.proxies[0].rules.set(Rule(fault=Fault.STALE_HEAD, blocks=1))

    found = await world.providers.find_transaction(tx_hash)

    assert found is not None
    assert found.tx_hash == tx_hash
    assert await world.providers.find_transaction("0x" + "22" * 32) is None
    assert await world.providers.block_at(10_000) is None


async def test_nobody_answering_is_not_an_answer(world: World) -> None:
    for proxy in world.proxies:
        proxy.rules.set(Rule(fault=Fault.DISCONNECT))

    for question in (
        world.providers.block_at(1),
        world.providers.find_transaction("0x" + "22" * 32),
        world.providers.fees(),
        world.providers.next_nonce(ANN.address),
        world.providers.finalized_height(),
        world.providers.code_at(CAROL.address),
    ):
        with pytest.raises(NodeUnavailable):
            await question


async def test_a_call_that_would_fail_is_an_answer_and_not_asked_of_others(world: World) -> None:
    with pytest.raises(CallReverted):
        await world.providers.estimate_gas(
            sender=CAROL.address,
            recipient=world.stage.token,
            data=erc20_transfer_data(BOB.address, 1),
        )

    assert sum(world.calls("eth_estimateGas")) == 1


async def split(world: World, value: int) -> Block:
    """Mine a payment to Carol that a contract passes on."""
    contract = contract_address(ANN.address, 0)
    data = encode_call("split(address[])", [CAROL.address])
    creation = load_artefact("TestSplitter").bytecode
    return await world.mine(
        sign_transaction(ANN, 0, to=None, data=creation, gas=2_000_000),
        sign_transaction(ANN, 1, to=contract, data=data, value=value, gas=200_000),
    )


async def test_what_only_traces_show_is_believed_of_a_quorum_that_traces(world: World) -> None:
    block = await split(world, 8)

    assert world.providers.traces
    contents = await world.providers.contents(block, world.watch())

    assert contents.traced
    assert [(move.position[:6], move.amount) for move in contents.movements] == [("trace:", 8)]


async def test_without_a_quorum_that_traces_internal_payments_are_left_to_balances(
    proxies: tuple[FaultProxy, ...], evm: NodeStage
) -> None:
    for proxy in proxies[1:]:
        proxy.rules.set(Rule(fault=Fault.NO_TRACES))
    async with opened([proxy.url for proxy in proxies]) as providers:
        world = World(evm, proxies, providers)
        block = await split(world, 8)

        contents = await providers.contents(block, world.watch())

        assert not providers.traces
        assert (contents.movements, contents.traced) == ((), False)
        proxies[2].rules.set(Rule(fault=Fault.DISCONNECT))
        plain = await world.mine(sign_transaction(ANN, 2, to=CAROL.address, value=9))
        (move,) = (await providers.contents(plain, world.watch())).movements
        assert move.amount == 9


# ---------------------------------------------------------------------- counts and fees


async def test_one_lagging_and_one_lying_provider_move_neither_nonce_nor_finality(
    world: World,
) -> None:
    for nonce in range(3):
        await world.mine("0x" + signed(nonce=nonce)[0].hex())
    world.proxies[0].rules.set(Rule(fault=Fault.STALE_HEAD, blocks=2))

    assert await world.providers.next_nonce(ANN.address) == 3
    assert await world.providers.finalized_height() <= (await world.providers.head()).height

    world.proxies[1].rules.set(Rule(fault=Fault.STALE_HEAD, blocks=2))
    assert await world.providers.next_nonce(ANN.address) == 1


async def test_a_provider_without_a_fee_history_still_has_a_bid(world: World) -> None:
    for proxy in world.proxies:
        proxy.rules.set(
            Rule(fault=Fault.REFUSE, code=-32601, message="no", methods=("eth_feeHistory",))
        )

    first, second = await world.providers.fees(), await world.providers.fees()

    assert first == second
    assert 0 < first.max_priority_fee_per_gas < first.max_fee_per_gas
    assert world.calls("eth_feeHistory") == [1, 1, 1]


# ---------------------------------------------------------------------- sending


async def test_signed_bytes_go_to_every_provider_once_and_one_that_takes_them_is_enough(
    world: World,
) -> None:
    world.proxies[0].rules.set(Rule(fault=Fault.TIME_OUT, methods=("eth_sendRawTransaction",)))
    world.proxies[1].rules.set(
        Rule(fault=Fault.REFUSE, message="txpool is full", methods=("eth_sendRawTransaction",))
    )

    report = await world.providers.broadcast(*signed())

    assert report.outcome is BroadcastOutcome.ACCEPTED
    assert report.detail.startswith("three")
    assert world.calls("eth_sendRawTransaction") == [1, 1, 1]


async def test_accepted_then_timed_out_everywhere_is_unknown_and_then_accepted(
    world: World,
) -> None:
    """Failure 8: the answer was lost; the same bytes are sent again and are known."""
    for proxy in world.proxies:
        proxy.rules.set(Rule(fault=Fault.ACCEPT_THEN_TIME_OUT, times=1))

    first = await world.providers.broadcast(*signed())
    second = await world.providers.broadcast(*signed())
    await world.mine()

    assert first.outcome is BroadcastOutcome.UNKNOWN
    assert "one:" in first.detail
    assert second.outcome is BroadcastOutcome.ACCEPTED
    assert (await world.providers.broadcast(*signed())).outcome is BroadcastOutcome.ACCEPTED
    assert await world.providers.next_nonce(ANN.address) == 1


async def test_a_rejection_needs_a_quorum_that_saw_the_nonce_spent(world: World) -> None:
    other, _ = signed(value=2)
    await world.mine("0x" + other.hex())
    world.proxies[0].rules.set(Rule(fault=Fault.DISCONNECT))

    by_two = await world.providers.broadcast(*signed(value=1))
    world.proxies[1].rules.set(Rule(fault=Fault.DISCONNECT))
    by_one = await world.providers.broadcast(*signed(value=1))

    assert by_two.outcome is BroadcastOutcome.REJECTED
    assert transaction_hash(other) in by_two.detail
    assert by_one.outcome is BroadcastOutcome.UNKNOWN


async def test_several_are_sent_in_order_with_a_report_each(world: World) -> None:
    items = [signed(nonce=nonce) for nonce in range(3)]

    reports = await world.providers.broadcast_many([*items, (items[0][0], items[1][1])])

    assert [report.outcome for report in reports] == [
        *[BroadcastOutcome.ACCEPTED] * 3,
        BroadcastOutcome.REJECTED,
    ]
    await world.mine()
    assert await world.providers.next_nonce(ANN.address) == 3


A, R, U = (
    BroadcastReport(BroadcastOutcome.ACCEPTED, "a"),
    BroadcastReport(BroadcastOutcome.REJECTED, "r"),
    BroadcastReport(BroadcastOutcome.UNKNOWN, "u"),
)


@pytest.mark.parametrize(
    ("reports", "outcome"),
    [
        ([A, U, U], BroadcastOutcome.ACCEPTED),
        ([R, R, A], BroadcastOutcome.ACCEPTED),
        ([R, R, R], BroadcastOutcome.REJECTED),
        ([R, R, U], BroadcastOutcome.REJECTED),
        ([R, U, U], BroadcastOutcome.UNKNOWN),
        ([R], BroadcastOutcome.UNKNOWN),
        ([U, U, U], BroadcastOutcome.UNKNOWN),
        ([], BroadcastOutcome.UNKNOWN),
    ],
)
def test_reports_are_merged_by_positive_evidence(
    reports: list[BroadcastReport], outcome: BroadcastOutcome
) -> None:
    named = [(f"p{place}", report) for place, report in enumerate(reports)]

    merged = merge_reports(named, quorum=2)

    assert merged.outcome is outcome
    assert merged.detail


@pytest.mark.parametrize("count", [0, 17])
def test_a_set_has_a_bounded_number_of_providers(count: int) -> None:
    with pytest.raises(BadInput):
        opened([]) if not count else provider_set(
            [Provider("http://127.0.0.1:9")] * count, chain="evm", network_id=1, quorum=1
        )


@pytest.mark.parametrize("quorum", [0, 3])
def test_a_quorum_is_of_the_providers_there_are(quorum: int) -> None:
    with pytest.raises(BadInput):
        opened(["http://127.0.0.1:9", "http://127.0.0.1:9"], quorum=quorum)


def test_providers_of_one_set_serve_one_chain_and_have_names_of_their_own() -> None:
    one = EvmGateway("http://key@host:1/secret", chain="evm", network_id=1)
    two = EvmGateway("http://host:1", chain="evm", network_id=2)

    assert [h.provider for h in ProviderSet([one, one], quorum=1).healths] == [
        "host:1",
        "host:1 #2",
    ]
    with pytest.raises(BadInput, match="one chain"):
        ProviderSet([one, two], quorum=1)


def test_a_provider_named_twice_is_no_quorum_with_itself() -> None:
    urls = ["http://one.example/key", "http://two.example", "http://one.example/key"]

    with pytest.raises(BadInput, match="one provider is named twice") as refused:
        opened(urls)

    assert "key" not in refused.value.render()
