"""Ether that contracts pass on, on real nodes: traced where the node traces, never guessed elsewhere."""

from __future__ import annotations

from typing import Final

import pytest

from chain.errors import NodeUnavailable
from chain.evm.gateway import EvmGateway
from chain.evm.reading import Tracer
from chain.jsonrpc import Rpc, RpcRefusal
from chain.model import BlockContents, WatchList
from chain.received import balance_delta, received
from chain.simulators.testing import dev_account
from tests.chain.conftest import CHAIN_ID, NodeStage
from tests.chain.test_tokens import OWNER, Sender

PAID, LOST = (dev_account(index).address for index in (5, 6))
WATCH: Final = WatchList(frozenset({PAID, LOST}), frozenset())


async def read(evm: NodeStage) -> BlockContents:
    """Read the head block, by its hash and as a range, and return what both say."""
    head = await evm.gateway.head()
    contents = await evm.gateway.contents(head, WATCH)
    assert await evm.gateway.contents_of_range(head, head, WATCH) == [contents]
    return contents


@pytest.fixture
async def splitter(evm: NodeStage) -> tuple[Sender, str]:
    sender = Sender(evm)
    return sender, await sender.deploy("TestSplitter", [])


async def test_ether_passed_on_is_seen_where_the_node_traces_and_nothing_is_guessed_elsewhere(
    splitter: tuple[Sender, str],
) -> None:
    sender, contract = splitter
    await sender.call(contract, "split(address[])", [PAID, LOST], value=1_000)

    contents = await read(sender.evm)

    gateway = sender.evm.gateway
    delta = await balance_delta(gateway, PAID, None, block=contents.block)
    assert delta == 500
    assert contents.traced is gateway.traces
    seen = [(m.position, m.sender, m.recipient, m.amount) for m in contents.movements]
    if gateway.traces:
        assert seen == [("trace:0", contract, PAID, 500), ("trace:1", contract, LOST, 500)]
        assert await received(gateway, PAID, None, [500], block=contents.block) == [500]
    else:
        assert seen == []


async def test_a_reverted_internal_transfer_is_never_credited(
    splitter: tuple[Sender, str],
) -> None:
    # Failure 1 of the catalogue: the transaction succeeds, a part of it was taken back.
    sender, contract = splitter
    receipt = await sender.call(
        contract, "splitWithRevertedPart(address,address)", PAID, LOST, value=1_000
    )

    contents = await read(sender.evm)

    gateway = sender.evm.gateway
    assert int(receipt["status"], 16) == 1
    assert [m.recipient for m in contents.movements] == ([PAID] if gateway.traces else [])
    assert await balance_delta(gateway, LOST, None, block=contents.block) == 0


async def test_a_failed_transaction_passes_nothing_on(splitter: tuple[Sender, str]) -> None:
    sender, contract = splitter
    receipt = await sender.call(contract, "splitAndRevert(address[])", [PAID, LOST], value=1_000)

    assert int(receipt["status"], 16) == 0
    assert (await read(sender.evm)).movements == ()


async def test_ether_of_a_contract_that_destroys_itself_is_passed_on(
    splitter: tuple[Sender, str],
) -> None:
    sender, contract = splitter
    await sender.call(contract, "payByDestruction(address)", PAID, value=700)

    contents = await read(sender.evm)

    assert await balance_delta(sender.evm.gateway, PAID, None, block=contents.block) == 700
    if sender.evm.gateway.traces:
        assert [(m.position, m.amount) for m in contents.movements] == [("trace:1", 700)]


async def test_a_plain_payment_stays_what_it_was(evm: NodeStage) -> None:
    sender = Sender(evm)
    await sender.send(PAID, b"", value=5)

    contents = await read(evm)

    assert [(m.position, m.sender, m.amount) for m in contents.movements] == [
        ("top", OWNER.address, 5)
    ]


async def test_a_gateway_told_not_to_trace_says_so_of_every_block(
    splitter: tuple[Sender, str],
) -> None:
    sender, contract = splitter
    await sender.call(contract, "split(address[])", [PAID], value=1_000)
    url = sender.evm.rpc.url
    async with EvmGateway(url, chain="evm", network_id=CHAIN_ID, trace=False) as gateway:
        contents = await gateway.contents(await gateway.head(), WATCH)

    assert (gateway.traces, contents.traced, contents.movements) == (False, False, ())


class Mute(Rpc):
    """A node that traced at first and then takes too long."""

    mute = False

    async def ask_once(self, method: str, *params: object) -> object:
        if self.mute and method in set(Tracer):
            raise NodeUnavailable("time-out")
        return await super().ask_once(method, *params)


async def test_a_block_that_cannot_be_traced_in_time_is_read_without_and_says_so(
    splitter: tuple[Sender, str],
) -> None:
    sender, contract = splitter
    await sender.call(contract, "split(address[])", [PAID], value=1_000)
    url = sender.evm.rpc.url
    rpc = Mute(url)
    async with EvmGateway(url, chain="evm", network_id=CHAIN_ID, rpc=rpc) as gateway:
        head = await gateway.head()
        rpc.mute = True
        late = await gateway.contents(head, WATCH)
        rpc.mute = False
        again = await gateway.contents(head, WATCH)

    assert (late.traced, late.movements) == (False, ())
    assert len(again.movements) == again.traced == gateway.traces


class Geth(Rpc):
    """A node that knows only the other way to show call frames."""

    async def ask_once(self, method: str, *params: object) -> object:
        if method == Tracer.FLAT:
            raise RpcRefusal(method, -32601, f"the method {method} does not exist/is not available")
        return await super().ask_once(method, *params)


async def test_both_ways_to_show_call_frames_tell_the_same(
    splitter: tuple[Sender, str],
) -> None:
    sender, contract = splitter
    await sender.call(contract, "splitWithRevertedPart(address,address)", PAID, LOST, value=1_000)
    url = sender.evm.rpc.url
    async with EvmGateway(url, chain="evm", network_id=CHAIN_ID, rpc=Geth(url)) as gateway:
        contents = await gateway.contents(await gateway.head(), WATCH)

    assert contents == await read(sender.evm)
    assert gateway.traces == sender.evm.gateway.traces
