"""The fault proxy before a real node: each fault does what its name says, and nothing else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from chain.simulators.faults.model import Fault, Rule
from chain.simulators.faults.proxy import FaultProxy, FaultProxySettings
from chain.simulators.testing import (
    TRANSFER_TOPIC,
    EvmProcess,
    JsonRpc,
    RpcFailed,
    deploy_test_dollar,
    dev_account,
    hash_of,
    sign_transaction,
    start_evm_process,
    subscribe,
    transfer_token,
)
from kernel.errors import OutsideUnavailable

ALICE, BOB = dev_account(0), dev_account(1)
HEIGHT = 4


@pytest.fixture(scope="module")
def node() -> Iterator[EvmProcess]:
    with start_evm_process("--seed", "1", "--timestamp", "1700000000") as process:
        yield process


@pytest.fixture(scope="module")
def other() -> Iterator[EvmProcess]:
    with start_evm_process("--seed", "2", "--timestamp", "1700000000") as process:
        yield process


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
async def truth(node: EvmProcess, session: aiohttp.ClientSession) -> JsonRpc:
    rpc = JsonRpc(node.url, session)
    await rpc.call("anvil_reset")
    token = await deploy_test_dollar(rpc, ALICE, supply=1_000_000)
    await rpc.call(
        "eth_sendRawTransaction", transfer_token(ALICE, 1, token, to=BOB.address, amount=7)
    )
    await rpc.call("anvil_mine", hex(HEIGHT - 2))
    return rpc


@pytest.fixture
async def proxy(node: EvmProcess, other: EvmProcess, truth: JsonRpc) -> AsyncIterator[FaultProxy]:
    settings = FaultProxySettings(upstream=node.url, other=other.url)
    async with FaultProxy(settings) as made:
        yield made


@pytest.fixture
def rpc(proxy: FaultProxy, session: aiohttp.ClientSession) -> JsonRpc:
    return JsonRpc(proxy.url, session)


async def block(rpc: JsonRpc, reference: str) -> Any:
    return await rpc.call("eth_getBlockByNumber", reference, False)


async def test_without_rules_the_node_speaks_for_itself(rpc: JsonRpc, truth: JsonRpc) -> None:
    batch = [
        {"jsonrpc": "2.0", "id": 7, "method": "eth_chainId", "params": []},
        {"jsonrpc": "2.0", "id": "x", "method": "eth_nothing"},
    ]

    assert await block(rpc, "latest") == await block(truth, "latest")
    assert await rpc.post(batch) == await truth.post(batch)


async def test_a_stale_head_hides_everything_above_it(
    proxy: FaultProxy, rpc: JsonRpc, truth: JsonRpc
) -> None:
    head = await block(truth, "latest")
    sent = await truth.call("eth_sendRawTransaction", sign_transaction(ALICE, 2, to=BOB.address))
    proxy.rules.set(Rule(fault=Fault.STALE_HEAD, blocks=1))
    new = await block(truth, "latest")

    assert await rpc.number("eth_blockNumber") == HEIGHT
    assert await block(rpc, "latest") == head
    assert await block(rpc, hex(HEIGHT + 1)) is None
    assert await rpc.call("eth_getBlockByHash", new["hash"], False) is None
    assert await rpc.call("eth_getBlockReceipts", new["hash"]) is None
    assert await rpc.call("eth_getTransactionReceipt", sent) is None
    waiting = await rpc.call("eth_getTransactionByHash", sent)
    assert waiting["blockHash"] is waiting["blockNumber"] is None
    assert await rpc.number("eth_getTransactionCount", ALICE.address, "latest") == 2
    assert await rpc.call("eth_getLogs", {"fromBlock": hex(HEIGHT + 1), "toBlock": "latest"}) == []
    with pytest.raises(RpcFailed, match="header not found"):
        await rpc.call("eth_getBalance", BOB.address, {"blockHash": new["hash"]})
    with pytest.raises(RpcFailed, match="header not found"):
        await rpc.call("eth_getLogs", {"blockHash": new["hash"]})


async def test_a_node_behind_a_load_balancer_goes_backwards_every_other_time(
    proxy: FaultProxy, rpc: JsonRpc
) -> None:
    proxy.rules.set(Rule(fault=Fault.STALE_HEAD, blocks=2, skip=1, every=2))

    heights = [await rpc.number("eth_blockNumber") for _ in range(4)]

    assert heights == [HEIGHT, HEIGHT - 2, HEIGHT, HEIGHT - 2]


async def test_a_head_may_stand_still_at_a_height(
    proxy: FaultProxy, rpc: JsonRpc, truth: JsonRpc
) -> None:
    proxy.rules.set(Rule(fault=Fault.STALE_HEAD, height=2))
    await truth.call("evm_mine")

    assert await rpc.number("eth_blockNumber") == 2


async def test_logs_are_empty_where_the_bloom_says_otherwise(
    proxy: FaultProxy, rpc: JsonRpc, truth: JsonRpc
) -> None:
    proxy.rules.set(Rule(fault=Fault.EMPTY_LOGS))
    wanted = {"fromBlock": "0x0", "toBlock": "latest", "topics": [TRANSFER_TOPIC]}

    (receipt,) = await rpc.call("eth_getBlockReceipts", "0x2")

    assert len(await truth.call("eth_getLogs", wanted)) == 2
    assert await rpc.call("eth_getLogs", wanted) == []
    assert receipt["logs"] == []
    assert int(receipt["logsBloom"], 16) > 0


async def test_another_chain_id_is_told_by_both_names(proxy: FaultProxy, rpc: JsonRpc) -> None:
    proxy.rules.set(Rule(fault=Fault.WRONG_CHAIN, chain_id=5))

    assert await rpc.number("eth_chainId") == 5
    assert await rpc.call("net_version") == "5"


async def test_the_other_node_has_other_blocks(
    proxy: FaultProxy, rpc: JsonRpc, truth: JsonRpc
) -> None:
    proxy.rules.set(Rule(fault=Fault.OTHER_NODE, times=1))

    theirs, ours = await block(rpc, "0x0"), await block(rpc, "0x0")

    assert theirs["hash"] != ours["hash"] == (await block(truth, "0x0"))["hash"]


async def test_forged_hashes_are_a_branch_of_their_own_that_links(
    proxy: FaultProxy, rpc: JsonRpc, truth: JsonRpc
) -> None:
    proxy.rules.set(Rule(fault=Fault.FORGED_HASH, height=2))

    chain = [await block(rpc, hex(height)) for height in range(HEIGHT + 1)]
    true = [await block(truth, hex(height)) for height in range(HEIGHT + 1)]
    (receipt,) = await rpc.call("eth_getBlockReceipts", chain[2]["hash"])

    assert [one["hash"] == other["hash"] for one, other in zip(chain, true, strict=True)] == [
        *(True, True),
        *(False, False, False),
    ]
    for child, parent in zip(chain[1:], chain, strict=False):
        assert child["parentHash"] == parent["hash"]
    assert await rpc.call("eth_getBlockByHash", chain[3]["hash"], False) == chain[3]
    assert await rpc.call("eth_getBlockByHash", true[3]["hash"], False) is None
    assert receipt["blockHash"] == receipt["logs"][0]["blockHash"] == chain[2]["hash"]


async def test_amounts_are_altered_under_the_true_hash(
    proxy: FaultProxy, rpc: JsonRpc, truth: JsonRpc
) -> None:
    proxy.rules.set(Rule(fault=Fault.ALTERED_AMOUNTS))

    (lie,) = await rpc.call("eth_getBlockReceipts", "0x2")
    (true,) = await truth.call("eth_getBlockReceipts", "0x2")

    assert lie["blockHash"] == true["blockHash"]
    assert int(lie["logs"][0]["data"], 16) == 2 * int(true["logs"][0]["data"], 16) == 14


async def test_traces_are_unavailable(proxy: FaultProxy, rpc: JsonRpc) -> None:
    proxy.rules.set(Rule(fault=Fault.NO_TRACES))

    with pytest.raises(RpcFailed) as failure:
        await rpc.call("debug_traceTransaction", "0x" + "00" * 32, {})

    assert failure.value.code == -32601


async def test_a_refusal_has_the_code_and_the_words_of_the_rule(
    proxy: FaultProxy, rpc: JsonRpc
) -> None:
    proxy.rules.set(Rule(fault=Fault.REFUSE, methods=("eth_call",), code=-32005, message="limit"))

    with pytest.raises(RpcFailed, match="limit") as failure:
        await rpc.call("eth_call", {})

    assert failure.value.code == -32005
    assert await rpc.number("eth_blockNumber") == HEIGHT


async def post(proxy: FaultProxy, session: aiohttp.ClientSession, method: str, *params: Any) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    timeout = aiohttp.ClientTimeout(total=0.3)
    async with session.post(proxy.url, json=body, timeout=timeout) as response:
        return response.status, dict(response.headers), await response.read()


async def test_too_many_requests_are_answered_with_429_and_when_to_come_again(
    proxy: FaultProxy, session: aiohttp.ClientSession
) -> None:
    proxy.rules.set(Rule(fault=Fault.TOO_MANY_REQUESTS, seconds=3, times=1))

    status, headers, _ = await post(proxy, session, "eth_blockNumber")

    assert (status, headers["Retry-After"]) == (429, "3")
    assert (await post(proxy, session, "eth_blockNumber"))[0] == 200


@pytest.mark.parametrize("fault", [Fault.ACCEPT_THEN_TIME_OUT, Fault.TIME_OUT])
async def test_silence_after_the_node_took_the_bytes_and_before_are_two_things(
    proxy: FaultProxy, session: aiohttp.ClientSession, truth: JsonRpc, fault: Fault
) -> None:
    proxy.rules.set(Rule(fault=fault, methods=("eth_sendRawTransaction",)))
    raw = sign_transaction(ALICE, 2, to=BOB.address, value=3)

    with pytest.raises(TimeoutError):
        await post(proxy, session, "eth_sendRawTransaction", raw)

    found = await truth.call("eth_getTransactionByHash", hash_of(raw))
    assert (found is not None) is (fault is Fault.ACCEPT_THEN_TIME_OUT)


@pytest.mark.parametrize(
    "rule",
    [
        Rule(fault=Fault.HALF_ANSWER),
        Rule(fault=Fault.DISCONNECT),
        Rule(fault=Fault.TIME_OUT, seconds=0.01),
    ],
    ids=lambda rule: rule.fault.value,
)
async def test_a_connection_breaks_before_or_in_the_middle_of_an_answer(
    proxy: FaultProxy, session: aiohttp.ClientSession, rule: Rule
) -> None:
    proxy.rules.set(rule)

    with pytest.raises(aiohttp.ClientError):
        await post(proxy, session, "eth_getBlockByNumber", "latest", False)


async def test_a_slow_node_answers_in_the_end(
    proxy: FaultProxy, session: aiohttp.ClientSession
) -> None:
    proxy.rules.set(Rule(fault=Fault.SLOW, seconds=0.1))
    loop = asyncio.get_running_loop()
    began_s = loop.time()

    assert (await post(proxy, session, "eth_blockNumber"))[0] == 200
    assert loop.time() - began_s >= 0.1


async def test_a_node_that_is_not_there_is_an_error_of_its_own(
    session: aiohttp.ClientSession,
) -> None:
    async with FaultProxy(FaultProxySettings(upstream="http://127.0.0.1:9")) as proxy:
        with pytest.raises(RpcFailed, match="does not answer"):
            await JsonRpc(proxy.url, session).call("eth_chainId")


async def test_notifications_are_lost_and_doubled(
    proxy: FaultProxy, session: aiohttp.ClientSession, truth: JsonRpc
) -> None:
    async with subscribe(session, proxy.ws_url, "newHeads") as heads:
        proxy.rules.set(
            Rule(fault=Fault.DROP_NOTIFICATIONS, times=1),
            Rule(fault=Fault.DUPLICATE_NOTIFICATIONS, skip=1, times=1),
        )
        await truth.call("anvil_mine", "0x3")

        told = [int((await heads.next())["number"], 16) for _ in range(3)]

    assert told == [HEIGHT + 2, HEIGHT + 2, HEIGHT + 3]


async def test_calls_over_the_websocket_meet_the_same_rules(
    proxy: FaultProxy, session: aiohttp.ClientSession
) -> None:
    proxy.rules.set(
        Rule(fault=Fault.WRONG_CHAIN, chain_id=5), Rule(fault=Fault.DISCONNECT, methods=("net_*",))
    )
    async with session.ws_connect(proxy.ws_url) as socket:
        await socket.send_json({"jsonrpc": "2.0", "id": 3, "method": "eth_chainId"})
        answer = orjson.loads((await socket.receive(timeout=5)).data)
        await socket.send_json({"jsonrpc": "2.0", "id": 4, "method": "net_version"})
        gone = await socket.receive(timeout=5)

    assert (answer["id"], answer["result"]) == (3, "0x5")
    assert gone.type is aiohttp.WSMsgType.CLOSE


async def test_every_subscriber_is_cut_off_at_once(
    proxy: FaultProxy, session: aiohttp.ClientSession
) -> None:
    async with subscribe(session, proxy.ws_url, "newHeads") as heads:
        await proxy.disconnect()

        assert (await heads.socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE


async def test_rules_are_set_shown_and_cleared_while_it_runs(
    proxy: FaultProxy, session: aiohttp.ClientSession, rpc: JsonRpc
) -> None:
    control = proxy.url + "/faults"
    async with session.put(control, json=[{"fault": "wrong-chain", "chain_id": 5}]) as answer:
        assert answer.status == 200
    assert await rpc.number("eth_chainId") == 5

    async with session.put(control, json=[{"fault": "haunted"}]) as answer:
        assert answer.status == 400
        assert "haunted" in (await answer.json())["error"]
    async with session.get(control) as answer:
        shown = await answer.json()
    async with session.delete(control) as answer:
        assert (await answer.json())["rules"] == []

    assert shown["rules"] == [{"fault": "wrong-chain", "chain_id": 5, "seen": 1, "struck": 1}]
    assert shown["calls"]["eth_chainId"] == 1
    assert await rpc.number("eth_chainId") == 31337


async def test_another_node_that_was_not_given_cannot_answer(
    node: EvmProcess, session: aiohttp.ClientSession
) -> None:
    async with (
        FaultProxy(FaultProxySettings(upstream=node.url)) as proxy,
        session.put(proxy.url + "/faults", json=[{"fault": "other-node"}]) as answer,
    ):
        assert answer.status == 400
        assert "--other" in (await answer.json())["error"]


async def test_a_taken_port_is_named(proxy: FaultProxy, node: EvmProcess) -> None:
    port = int(proxy.url.rsplit(":", 1)[1])

    with pytest.raises(OutsideUnavailable, match="already in use"):
        await FaultProxy(FaultProxySettings(upstream=node.url, port=port)).start()


async def test_the_same_calls_meet_the_same_faults_again(proxy: FaultProxy, rpc: JsonRpc) -> None:
    rules = (
        Rule(fault=Fault.STALE_HEAD, every=3, blocks=2),
        Rule(fault=Fault.REFUSE, skip=1, every=4),
    )
    runs = []
    for _ in range(2):
        proxy.rules.set(*rules)
        body = {"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []}
        runs.append([orjson.dumps(await rpc.post(body)) for _ in range(12)])

    assert runs[0] == runs[1]


def test_it_runs_as_a_process_and_ends_with_its_parent(node: EvmProcess, tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text('[{"fault": "wrong-chain"}]')
    command = [sys.executable, "-m", "chain.simulators.faults", "--parent-pipe"]
    with subprocess.Popen(
        [*command, "--upstream", node.url, "--rules", str(rules)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        ready = orjson.loads(process.stdout.readline())
        process.stdin.close()

        assert process.wait(timeout=10) == 0

    assert ready["control_url"] == ready["url"] + "/faults"
    assert ready["upstream"] == node.url


def test_a_file_that_holds_no_rules_is_an_error(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text('[{"fault": "haunted"}]')
    command = [sys.executable, "-m", "chain.simulators.faults", "--upstream", "http://127.0.0.1:9"]

    ended = subprocess.run(
        [*command, "--rules", str(rules)], capture_output=True, check=False, timeout=20
    )

    assert ended.returncode != 0
    assert b"haunted" in ended.stderr
