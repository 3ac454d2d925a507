"""The gateway before a node that fails in every way that a node behind a load balancer can."""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

import chain.evm.reading
import chain.jsonrpc
from chain.errors import (
    BlockGone,
    IncompleteAnswer,
    NodeTrouble,
    NodeUnavailable,
    UnreadableAnswer,
    WrongChain,
)
from chain.evm.gateway import EvmGateway
from chain.evm.transactions import transaction_hash
from chain.jsonrpc import Rpc
from chain.model import BroadcastOutcome, WatchList
from chain.simulators.testing import dev_account, sign_transaction, transfer_token
from tests.chain.conftest import CHAIN_ID, NodeStage

ANN, BOB, CAROL = (dev_account(index) for index in (0, 1, 5))

Handler = Callable[[dict[str, Any]], Awaitable[web.Response]]


@dataclass
class Proxy:
    """A node in front of a real one; a method may be given another handler."""

    upstream: str
    session: aiohttp.ClientSession
    handlers: dict[str, Handler] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    url: str = ""

    async def serve(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.calls[body["method"]] += 1
        handler = self.handlers.get(body["method"], self.forward)
        return await handler(body)

    async def forward(self, body: dict[str, Any]) -> web.Response:
        async with self.session.post(self.upstream, json=body) as answer:
            return web.Response(body=await answer.read(), content_type="application/json")

    async def result(self, body: dict[str, Any]) -> Any:
        async with self.session.post(self.upstream, json=body) as answer:
            return (await answer.json())["result"]


def answer(body: dict[str, Any], result: object) -> web.Response:
    return web.json_response({"jsonrpc": "2.0", "id": body["id"], "result": result})


def refusal(message: str, code: int = -32000) -> Handler:
    async def handle(body: dict[str, Any]) -> web.Response:
        error = {"code": code, "message": message}
        return web.json_response({"jsonrpc": "2.0", "id": body["id"], "error": error})

    return handle


def always(result: object) -> Handler:
    async def handle(body: dict[str, Any]) -> web.Response:
        return answer(body, result)

    return handle


def plain(text: str, status: int = 200) -> Handler:
    async def handle(body: dict[str, Any]) -> web.Response:
        return web.Response(text=text, status=status)

    return handle


async def silence(body: dict[str, Any]) -> web.Response:
    await asyncio.sleep(2)
    return web.Response(text="too late")


@pytest.fixture
async def proxy(evm: NodeStage, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    monkeypatch.setattr(chain.jsonrpc, "BACKOFF_BASE_S", 0.001)
    async with aiohttp.ClientSession() as session:
        made = Proxy(evm.rpc.url, session)
        app = web.Application()
        app.router.add_post("/", made.serve)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        yield made
        await runner.cleanup()


@pytest.fixture
async def gateway(proxy: Proxy) -> AsyncIterator[EvmGateway]:
    async with EvmGateway(proxy.url, chain="evm", network_id=CHAIN_ID, timeout_s=0.5) as made:
        yield made


def signed(value: int = 1) -> tuple[bytes, str]:
    raw = bytes.fromhex(sign_transaction(ANN, 0, to=CAROL.address, value=value)[2:])
    return raw, transaction_hash(raw)


def watch(evm: NodeStage) -> WatchList:
    return WatchList(frozenset({CAROL.address}), frozenset({evm.token}))


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(silence, id="time-out"),
        pytest.param(plain("bad gateway", 502), id="502"),
        pytest.param(plain("slow down", 429), id="429"),
        pytest.param(plain("<html>"), id="html"),
        pytest.param(plain(""), id="empty"),
        pytest.param(plain("[]"), id="a list"),
        pytest.param(plain('{"jsonrpc": "2.0", "id": 1}'), id="no result"),
        pytest.param(always(None), id="null"),
        pytest.param(always("0x" + "ee" * 32), id="another hash"),
        pytest.param(refusal("insufficient funds for gas * price + value"), id="no funds"),
        pytest.param(refusal("replacement transaction underpriced"), id="underpriced"),
        pytest.param(refusal("limit exceeded", -32005), id="rate limit"),
    ],
)
async def test_bytes_sent_without_evidence_have_an_unknown_fate_and_were_sent_once(
    proxy: Proxy, gateway: EvmGateway, fault: Handler
) -> None:
    proxy.handlers["eth_sendRawTransaction"] = fault

    report = await gateway.broadcast(*signed())

    assert report.outcome is BroadcastOutcome.UNKNOWN
    assert report.detail
    assert proxy.calls["eth_sendRawTransaction"] == 1


async def test_a_time_out_after_the_node_took_the_bytes_is_unknown_then_accepted(
    proxy: Proxy, gateway: EvmGateway, evm: NodeStage
) -> None:
    async def take_and_fall_silent(body: dict[str, Any]) -> web.Response:
        await proxy.forward(body)
        return await silence(body)

    proxy.handlers["eth_sendRawTransaction"] = take_and_fall_silent
    first = await gateway.broadcast(*signed())
    del proxy.handlers["eth_sendRawTransaction"]
    second = await gateway.broadcast(*signed())
    await evm.mine()
    third = await gateway.broadcast(*signed())

    assert first.outcome is BroadcastOutcome.UNKNOWN
    assert second.outcome is third.outcome is BroadcastOutcome.ACCEPTED
    assert await gateway.next_nonce(ANN.address) == 1


async def test_nothing_is_sent_to_a_node_that_serves_another_chain_meanwhile(
    proxy: Proxy, gateway: EvmGateway
) -> None:
    proxy.handlers["eth_chainId"] = always("0x1")

    with pytest.raises(WrongChain):
        await gateway.broadcast(*signed())

    assert proxy.calls["eth_sendRawTransaction"] == 0


async def test_a_node_of_another_chain_is_refused_at_the_start(proxy: Proxy) -> None:
    with pytest.raises(WrongChain, match="31337"):
        async with EvmGateway(proxy.url, chain="evm", network_id=1):
            pass


async def test_a_spent_nonce_is_no_rejection_while_the_spender_is_not_seen(
    proxy: Proxy, gateway: EvmGateway
) -> None:
    """Two nodes behind one address: one has mined our bytes, the other has not heard of them."""
    proxy.handlers["eth_sendRawTransaction"] = refusal("nonce too low")

    report = await gateway.broadcast(*signed())

    assert report.outcome is BroadcastOutcome.UNKNOWN
    assert "who spent it" in report.detail


async def test_a_spent_nonce_is_no_rejection_while_the_node_cannot_be_asked(
    proxy: Proxy, gateway: EvmGateway
) -> None:
    proxy.handlers["eth_sendRawTransaction"] = refusal("nonce too low")
    proxy.handlers["eth_getBlockByHash"] = always(None)

    assert (await gateway.broadcast(*signed())).outcome is BroadcastOutcome.UNKNOWN


@pytest.mark.parametrize("faults", [1, 2])
async def test_questions_are_asked_again_when_the_way_to_the_node_fails(
    proxy: Proxy, gateway: EvmGateway, faults: int
) -> None:
    async def sometimes(body: dict[str, Any]) -> web.Response:
        if proxy.calls["eth_getBlockByNumber"] <= faults:
            return web.Response(status=503)
        return await proxy.forward(body)

    proxy.handlers["eth_getBlockByNumber"] = sometimes

    assert (await gateway.head()).height == 3


async def test_questions_are_not_asked_for_ever(proxy: Proxy, gateway: EvmGateway) -> None:
    proxy.handlers["eth_getBlockByNumber"] = plain("down", 503)
    proxy.calls.clear()

    with pytest.raises(NodeUnavailable):
        await gateway.head()

    assert proxy.calls["eth_getBlockByNumber"] == chain.jsonrpc.ATTEMPTS_MAX


async def test_a_port_where_nobody_listens_is_named_as_unavailable() -> None:
    gateway = EvmGateway("http://127.0.0.1:9/", chain="evm", network_id=1)

    with pytest.raises(NodeUnavailable):
        await gateway.head()

    await gateway.close()


async def test_receipts_are_read_one_by_one_where_a_node_cannot_give_a_blocks(
    proxy: Proxy, gateway: EvmGateway, evm: NodeStage
) -> None:
    proxy.handlers["eth_getBlockReceipts"] = refusal("the method does not exist", -32601)
    for raw in (
        sign_transaction(ANN, 0, to=CAROL.address, value=5),
        transfer_token(BOB, 0, evm.token, to=CAROL.address, amount=6),
    ):
        await evm.rpc.call("eth_sendRawTransaction", raw)
    await evm.mine()
    head = await gateway.head()

    first = await gateway.contents(head, watch(evm))
    second = await gateway.contents(head, watch(evm))

    assert sorted(m.amount for m in first.movements) == [5, 6]
    assert first == second
    assert proxy.calls["eth_getBlockReceipts"] == 1
    assert proxy.calls["eth_getTransactionReceipt"] == 4


async def _pay_tokens(evm: NodeStage) -> None:
    raw = transfer_token(BOB, 0, evm.token, to=CAROL.address, amount=6)
    await evm.rpc.call("eth_sendRawTransaction", raw)
    await evm.mine()


async def test_an_answer_whose_logs_are_missing_is_not_taken_for_an_empty_block(
    proxy: Proxy, gateway: EvmGateway, evm: NodeStage
) -> None:
    await _pay_tokens(evm)

    async def forgetful(body: dict[str, Any]) -> web.Response:
        return answer(body, [item | {"logs": []} for item in await proxy.result(body)])

    proxy.handlers["eth_getBlockReceipts"] = forgetful

    with pytest.raises(IncompleteAnswer, match="not all of its logs"):
        await gateway.contents(await gateway.head(), watch(evm))


@pytest.mark.parametrize("result", [[], None, "0x"], ids=["no receipts", "null", "not a list"])
async def test_an_empty_answer_is_not_taken_for_an_empty_block(
    proxy: Proxy, gateway: EvmGateway, evm: NodeStage, result: object
) -> None:
    await _pay_tokens(evm)
    proxy.handlers["eth_getBlockReceipts"] = always(result)

    with pytest.raises(NodeTrouble):
        await gateway.contents(await gateway.head(), watch(evm))


async def test_a_block_that_the_node_lost_is_gone(
    proxy: Proxy, gateway: EvmGateway, evm: NodeStage
) -> None:
    head = await gateway.head()
    proxy.handlers["eth_getBlockByHash"] = always(None)

    with pytest.raises(BlockGone):
        await gateway.contents(head, watch(evm))


async def test_a_block_told_otherwise_than_before_is_refused(
    proxy: Proxy, gateway: EvmGateway, evm: NodeStage
) -> None:
    head = await gateway.head()

    async def liar(body: dict[str, Any]) -> web.Response:
        return answer(body, await proxy.result(body) | {"parentHash": "0x" + "ee" * 32})

    proxy.handlers["eth_getBlockByHash"] = liar

    with pytest.raises(IncompleteAnswer):
        await gateway.contents(head, watch(evm))


async def test_a_balance_of_something_that_is_no_token_is_refused(
    gateway: EvmGateway,
) -> None:
    with pytest.raises(UnreadableAnswer, match="does not answer balanceOf"):
        await gateway.balance(CAROL.address, BOB.address, at=await gateway.head())


async def test_a_transaction_told_otherwise_than_asked_for_is_refused(
    proxy: Proxy, gateway: EvmGateway, evm: NodeStage
) -> None:
    raw, tx_hash = signed()
    await gateway.broadcast(raw, tx_hash)
    await evm.mine()

    async def another(body: dict[str, Any]) -> web.Response:
        return answer(body, await proxy.result(body) | {"hash": "0x" + "ee" * 32})

    proxy.handlers["eth_getTransactionByHash"] = another

    with pytest.raises(IncompleteAnswer):
        await gateway.find_transaction(tx_hash)


UNTRACEABLE = [
    pytest.param(plain("not in your plan", 403), id="403"),
    pytest.param(plain("<html>"), id="html"),
    pytest.param(silence, id="time-out"),
    pytest.param(always(None), id="null"),
    pytest.param(always([]), id="nothing"),
    pytest.param(always([{"error": "execution timeout"}]), id="one failed"),
    pytest.param(always([{"result": {"type": "CALL", "calls": {}}}]), id="no frames"),
]


@pytest.mark.parametrize("fault", UNTRACEABLE)
async def test_a_block_that_a_node_cannot_trace_is_read_without_traces(
    evm: NodeStage, proxy: Proxy, gateway: EvmGateway, fault: Handler
) -> None:
    """Else one odd block stops the chain for ever."""
    raw = transfer_token(ANN, 0, evm.token, to=CAROL.address, amount=5)
    await evm.rpc.call("eth_sendRawTransaction", raw)
    await evm.mine()
    proxy.handlers["trace_block"] = proxy.handlers["debug_traceBlockByHash"] = fault

    contents = await gateway.contents(await gateway.head(), watch(evm))

    assert ([move.amount for move in contents.movements], contents.traced) == ([5], False)


@pytest.mark.parametrize("fault", UNTRACEABLE[:3])
async def test_trouble_with_traces_at_the_start_is_no_trouble_with_the_node(
    evm: NodeStage, proxy: Proxy, fault: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.handlers["trace_block"] = proxy.handlers["debug_traceBlockByHash"] = fault
    async with EvmGateway(proxy.url, chain="evm", network_id=CHAIN_ID, timeout_s=0.5) as made:
        assert not made.traces
        proxy.handlers.clear()
        await made.prove()
        assert not made.traces
        monkeypatch.setattr(chain.evm.reading, "TRACER_PATIENCE_S", 0.0)
        monkeypatch.setattr(made._reading, "_ask_tracer_at_s", 0.0)
        await made.prove()
        assert made.traces


async def test_a_key_in_the_address_is_in_no_error_nor_in_what_it_came_from(
    proxy: Proxy,
) -> None:
    key = "s3cretkey"
    troubles: list[NodeTrouble] = []
    proxy.handlers["eth_chainId"] = plain("forbidden", 401)
    for url in (proxy.url + key, f"http://127.0.0.1:99999/{key}", f"http://[::1/{key}"):
        rpc = Rpc(url, attempts=1)
        for question in (rpc.ask("eth_chainId"), rpc.ask_many([("eth_chainId", ())])):
            with pytest.raises(NodeTrouble) as raised:
                await question
            troubles.append(raised.value)
        await rpc.close()

    for trouble in troubles:
        shown = "".join(traceback.format_exception(trouble))
        assert key not in shown
