"""Many balances at once: odd tokens are told from odd nodes, and no node is asked for too much."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from chain.errors import NodeUnavailable, TokenUnreadable
from chain.evm.addresses import address_from_node
from chain.evm.gateway import NO_ANSWER, REFUSES, EvmGateway
from chain.evm.providers import ProviderSet, balance_batches
from chain.evm.refusals import says_contract_fails
from chain.jsonrpc import BATCH_MAX, Rpc
from chain.model import Block, Unreadable
from chain.rate_limit import RateLimit
from chain.simulators.testing import JsonRpc, dev_account, sign_transaction
from tests.chain.conftest import CHAIN_ID, ETHER, TOKENS, NodeStage

ANN, BOB = (dev_account(index).address for index in (0, 1))
OWNER = dev_account(7)

REVERTS = "60006000fd"
"""PUSH1 0 PUSH1 0 REVERT."""
SILENT = "00"
"""STOP: a call succeeds and returns nothing, as it does where a contract destroyed itself."""
BROKEN = "fe"
"""INVALID, as the assert of old compilers."""
SHORT = "60016000f3"
"""PUSH1 1 PUSH1 0 RETURN: one byte, where a number has 32."""


async def deploy(rpc: JsonRpc, nonce: int, runtime: str) -> str:
    size = len(runtime) // 2
    init = f"60{size:02x}80600b6000396000f3"
    raw = sign_transaction(OWNER, nonce, to=None, data=bytes.fromhex(init + runtime), gas=200_000)
    sent = await rpc.call("eth_sendRawTransaction", raw)
    await rpc.call("evm_mine")
    return address_from_node((await rpc.wait_receipt(sent))["contractAddress"])


@pytest.mark.parametrize(
    ("runtime", "why"),
    [
        pytest.param(REVERTS, REFUSES, id="reverts"),
        pytest.param(BROKEN, REFUSES, id="invalid opcode"),
        pytest.param(SILENT, NO_ANSWER, id="answers nothing"),
        pytest.param(SHORT, NO_ANSWER, id="answers one byte"),
    ],
)
async def test_a_token_that_tells_no_balance_keeps_no_other_balance_back(
    evm: NodeStage, runtime: str, why: str
) -> None:
    odd = await deploy(evm.rpc, 0, runtime)
    at = await evm.gateway.head()

    found = await evm.gateway.balances([(ANN, evm.token), (ANN, odd), (ANN, None)], at=at)

    assert found == [TOKENS // 2, Unreadable(why), 10_000 * ETHER]
    with pytest.raises(TokenUnreadable, match=why):
        await evm.gateway.balance(ANN, odd, at=at)


async def test_where_there_is_no_contract_there_is_no_balance(evm: NodeStage) -> None:
    at = await evm.gateway.head()
    assert await evm.gateway.balances([(ANN, BOB)], at=at) == [Unreadable(NO_ANSWER)]


async def test_a_quorum_agrees_that_a_token_does_not_tell_and_no_provider_is_to_blame(
    evm: NodeStage,
) -> None:
    odd = await deploy(evm.rpc, 0, REVERTS)
    three = [
        EvmGateway(evm.rpc.url, chain="evm", network_id=CHAIN_ID, name=name)
        for name in ("one", "two", "three")
    ]
    async with ProviderSet(three, quorum=2) as providers:
        at = await providers.head()
        found = await providers.balances([(ANN, odd), (ANN, None)], at=at)
        with pytest.raises(TokenUnreadable):
            await providers.balance(ANN, odd, at=at)

        assert found == [Unreadable(REFUSES), 10_000 * ETHER]
        assert [health.last_trouble for health in providers.healths] == ["", "", ""]


class Node:
    """A node that counts the batches that are open, and answers 429 where there are too many."""

    def __init__(self, *, most: int = 100) -> None:
        self.open = 0
        self.seen = 0
        self.most = most

    async def serve(self, request: web.Request) -> web.Response:
        body: list[dict[str, Any]] = await request.json()
        self.open += 1
        self.seen = max(self.seen, self.open)
        try:
            if self.open > self.most:
                return web.Response(status=429)
            await asyncio.sleep(0.01)
            answers = [
                {"jsonrpc": "2.0", "id": call["id"], "result": hex(int(call["params"][0][-4:], 16))}
                for call in body
            ]
            return web.json_response(answers)
        finally:
            self.open -= 1

    async def start(self) -> tuple[web.AppRunner, str]:
        app = web.Application()
        app.router.add_post("/", self.serve)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/"


AT = Block("evm", 1, "0x" + "1" * 64, "0x" + "0" * 64, None)  # type: ignore[arg-type]  # its time is not asked for
WANTED = [(f"0x{number:040x}", None) for number in range(10 * BATCH_MAX + 1)]


async def asked(node: Node, gateway: Callable[[str], EvmGateway]) -> list[int | Unreadable]:
    runner, url = await node.start()
    made = gateway(url)
    try:
        return await made.balances(WANTED, at=AT)
    finally:
        await made.close()
        await runner.cleanup()


def plain(url: str) -> EvmGateway:
    return EvmGateway(url, chain="evm", network_id=CHAIN_ID, rpc=Rpc(url, attempts=1))


async def test_several_batches_are_open_at_once_and_no_more_than_allowed() -> None:
    node = Node()

    found = await asked(node, plain)

    assert found == list(range(len(WANTED)))
    assert node.seen == 4


async def test_a_node_that_says_429_is_asked_one_batch_after_the_other_from_then_on() -> None:
    node = Node(most=2)
    runner, url = await node.start()
    made = plain(url)
    try:
        with pytest.raises(NodeUnavailable, match="429"):
            await made.balances(WANTED, at=AT)
        await asyncio.sleep(0.05)
        node.seen = 0
        found = await made.balances(WANTED, at=AT)
    finally:
        await made.close()
        await runner.cleanup()

    assert found == list(range(len(WANTED)))
    assert node.seen == 1


@pytest.mark.parametrize(("per_second", "batches"), [(7, 1), (250, 2), (10_000, 4)])
def test_a_provider_with_a_rate_limit_has_as_many_batches_open_as_it_takes_in_a_second(
    per_second: int, batches: int
) -> None:
    assert balance_batches(RateLimit(per_second, per_second)) == batches


@pytest.mark.parametrize(
    ("code", "message", "fails"),
    [
        (3, "anything", True),
        (-32000, "execution reverted: paused", True),
        (-32000, "invalid opcode: INVALID", True),
        (-32603, "EVM error InvalidFEOpcode", True),
        (-32000, "out of gas", True),
        (-32005, "limit exceeded", False),
        (-32603, "internal error", False),
        (-32000, "header not found", False),
        (-32601, "the method eth_call does not exist", False),
    ],
)
def test_only_what_the_contract_did_is_laid_to_the_contract(
    code: int, message: str, *, fails: bool
) -> None:
    assert says_contract_fails(code, message) is fails
