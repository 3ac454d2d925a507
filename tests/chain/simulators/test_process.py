"""The simulator as a process: start, ports, the end of its parent, and real clients."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from web3 import AsyncWeb3, WebSocketProvider
from web3.providers import AsyncHTTPProvider
from web3.types import Wei

from chain.simulators.evm import __main__ as command
from chain.simulators.evm import server
from chain.simulators.evm.errors import PortTaken
from chain.simulators.evm.model import EvmSimulatorSettings
from chain.simulators.evm.server import EvmSimulator, serve
from chain.simulators.process import ready_line
from chain.simulators.testing import (
    GWEI,
    EvmProcess,
    JsonRpc,
    RpcFailed,
    dev_account,
    sign_transaction,
    start_evm_process,
    subscribe,
)
from kernel.errors import BadInput, OutsideUnavailable
from kernel.parent import wait_for_parent_end

END_TIMEOUT_S = 10.0

PARENT = """
import subprocess, sys, time
child = subprocess.Popen(
    [sys.executable, "-m", "chain.simulators.evm", "--port", "0", "--parent-pipe"],
    stdin=subprocess.PIPE,
)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def process() -> Iterator[EvmProcess]:
    with start_evm_process("--slots-in-an-epoch", "1") as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
async def simulator() -> AsyncIterator[EvmSimulator]:
    running = EvmSimulator(EvmSimulatorSettings(port=0, timestamp=1_700_000_000))
    await running.start()
    yield running
    await running.stop()


def is_alive(pid: int) -> bool:
    """Return whether the process runs; one that has ended and was not yet reaped does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_the_ready_line_says_where_and_who(process: EvmProcess) -> None:
    ready = process.ready

    assert (ready["event"], ready["component"]) == ("ready", "evm")
    assert ready["url"].startswith("http://127.0.0.1:")
    assert ready["ws_url"] == ready["url"].replace("http://", "ws://")
    assert ready["chain_id"] == 31337
    assert ready["accounts"][0] == "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"
    assert len(ready["accounts"]) == 10
    assert ready["pid"] == process.process.pid
    assert json.loads(ready_line(ready)) == ready
    assert "\n" not in ready_line(ready)


@pytest.mark.skipif(sys.platform != "linux", reason="looks the process up in /proc")
def test_killing_the_parent_ends_the_simulator() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = json.loads(parent.stdout.readline())["pid"]
        assert is_alive(child)

        os.kill(parent.pid, signal.SIGKILL)

        deadline = time.monotonic() + END_TIMEOUT_S
        while is_alive(child) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not is_alive(child)


def test_a_terminated_simulator_ends_cleanly() -> None:
    with start_evm_process() as running:
        running.process.terminate()

        assert running.process.wait(timeout=END_TIMEOUT_S) == 0


def test_a_taken_port_is_an_error_that_names_it_and_the_way_out(process: EvmProcess) -> None:
    port = process.url.rpartition(":")[2]

    ended = subprocess.run(
        [sys.executable, "-m", "chain.simulators.evm", "--port", port],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert ended.returncode == 3
    assert ended.stdout == ""
    assert f"port {port} on 127.0.0.1 is already in use" in ended.stderr
    assert "--port" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_taken_port_leaves_nothing_behind() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        simulator = EvmSimulator(EvmSimulatorSettings(port=port))
        with pytest.raises(PortTaken, match=str(port)):
            await simulator.start()

    await simulator.start()
    await simulator.stop()


async def test_two_simulators_at_once_are_two_chains(
    session: aiohttp.ClientSession, process: EvmProcess
) -> None:
    with start_evm_process("--chain-id", "5") as other:
        first, second = JsonRpc(process.url, session), JsonRpc(other.url, session)
        await first.call("anvil_reset")
        await first.call("anvil_mine", "0x3")

        assert process.url != other.url
        assert await first.number("eth_blockNumber") == 3
        assert await second.number("eth_blockNumber") == 0
        assert await second.number("eth_chainId") == 5


async def test_the_same_seed_and_timestamp_give_the_same_hashes(
    session: aiohttp.ClientSession,
) -> None:
    heads = []
    for _ in range(2):
        simulator = EvmSimulator(EvmSimulatorSettings(port=0, seed=7, timestamp=1_700_000_000))
        rpc = JsonRpc(await simulator.start(), session)
        raw = sign_transaction(dev_account(0), 0, to=dev_account(1).address, value=5)
        await rpc.call("eth_sendRawTransaction", raw)
        await rpc.call("anvil_reorg", 1, [[raw, 0]])
        heads.append((await rpc.call("eth_getBlockByNumber", "latest", True))["hash"])
        await simulator.stop()

    assert heads[0] == heads[1]


async def test_cheap_calls_are_answered_while_a_long_one_runs(
    simulator: EvmSimulator, session: aiohttp.ClientSession
) -> None:
    rpc = JsonRpc(simulator.url, session)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        started = loop.time()
        long = group.create_task(rpc.call("anvil_mine", hex(1_000)))
        async with session.ws_connect(simulator.ws_url) as socket_:
            await asyncio.sleep(0.05)
            began = loop.time()
            await socket_.send_json(
                {"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}
            )
            await socket_.receive_json()
            waited = loop.time() - began
            still_running = not long.done()

        await long
        whole = loop.time() - started

    assert still_running
    assert waited < whole / 2
    assert await rpc.number("eth_blockNumber") == 1_000


async def test_a_plain_get_is_told_what_to_do(
    simulator: EvmSimulator, session: aiohttp.ClientSession
) -> None:
    async with session.get(simulator.url) as response:
        assert response.status == 405
        assert "POST" in await response.text()


async def test_a_notification_is_performed_and_not_answered(
    simulator: EvmSimulator, session: aiohttp.ClientSession
) -> None:
    rpc = JsonRpc(simulator.url, session)
    async with session.post(simulator.url, json={"jsonrpc": "2.0", "method": "evm_mine"}) as answer:
        assert (answer.status, await answer.read()) == (204, b"")

    assert await rpc.number("eth_blockNumber") == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param("{bad", -32700, id="not-json"),
        pytest.param("[]", -32600, id="empty-batch"),
        pytest.param("5", -32600, id="not-an-object"),
        pytest.param('{"jsonrpc":"2.0","id":1}', -32600, id="no-method"),
        pytest.param(
            '{"jsonrpc":"2.0","id":1,"method":"evm_mine","params":{"a":1}}', -32600, id="named"
        ),
        pytest.param("[" + ",".join(["{}"] * 1001) + "]", -32600, id="batch-too-large"),
    ],
)
async def test_a_malformed_request_is_answered_with_its_code(
    simulator: EvmSimulator, session: aiohttp.ClientSession, body: Any, code: int
) -> None:
    async with session.post(simulator.url, data=body) as response:
        answer = await response.json()

    assert answer["error"]["code"] == code


async def test_subscribing_over_http_is_refused(
    simulator: EvmSimulator, session: aiohttp.ClientSession
) -> None:
    with pytest.raises(RpcFailed, match="needs a WebSocket"):
        await JsonRpc(simulator.url, session).call("eth_subscribe", "newHeads")


async def test_an_unknown_subscription_is_refused(
    simulator: EvmSimulator, session: aiohttp.ClientSession
) -> None:
    async with session.ws_connect(simulator.ws_url) as socket_:
        await socket_.send_json(
            {"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["weather"]}
        )
        answer = await socket_.receive_json()

    assert answer["error"]["message"] == "no 'weather' subscription in eth namespace"


async def test_a_reader_too_slow_for_its_notifications_is_cut_off(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTION_BACKLOG", 10)
    simulator = EvmSimulator(EvmSimulatorSettings(port=0))
    rpc = JsonRpc(await simulator.start(), session)
    async with subscribe(session, simulator.ws_url, "newHeads") as heads:
        # One call makes more blocks than the backlog holds: they arrive in one go.
        await rpc.call("anvil_mine", hex(50))
        message = await heads.socket.receive(timeout=END_TIMEOUT_S)
    await simulator.stop()

    assert message.type is aiohttp.WSMsgType.CLOSE
    assert message.data == aiohttp.WSCloseCode.TRY_AGAIN_LATER


async def test_stopping_closes_open_websockets(session: aiohttp.ClientSession) -> None:
    simulator = EvmSimulator(EvmSimulatorSettings(port=0))
    await simulator.start()
    async with session.ws_connect(simulator.ws_url) as socket_:
        await simulator.stop()
        message = await socket_.receive(timeout=5)

    assert message.type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}


async def test_web3_reads_and_writes_over_http(simulator: EvmSimulator) -> None:
    client = AsyncWeb3(AsyncHTTPProvider(simulator.url))
    accounts = list(await client.eth.accounts)

    sent = await client.eth.send_transaction(
        {"from": accounts[0], "to": accounts[1], "value": Wei(5)}
    )
    receipt = await client.eth.wait_for_transaction_receipt(sent)
    block = await client.eth.get_block(receipt["blockNumber"], full_transactions=True)
    history = await client.eth.fee_history(1, "latest", [50])

    assert receipt["status"] == 1
    transactions: list[Any] = list(block["transactions"])
    assert [one["hash"] for one in transactions] == [sent]
    assert len(history["baseFeePerGas"]) == 2
    assert await client.eth.get_block_receipts(1) == [receipt]
    assert await client.eth.get_logs({"fromBlock": 0}) == []
    await client.provider.disconnect()


async def test_web3_subscribes_over_the_websocket(
    simulator: EvmSimulator, session: aiohttp.ClientSession
) -> None:
    rpc = JsonRpc(simulator.url, session)
    heads: list[Any] = []
    async with AsyncWeb3(WebSocketProvider(simulator.ws_url)) as client:
        await client.eth.subscribe("newHeads")
        await rpc.call("evm_mine")
        async with asyncio.timeout(END_TIMEOUT_S):
            async for message in client.socket.process_subscriptions():
                heads.append(message["result"])
                break

    assert [head["number"] for head in heads] == [1]


async def test_the_end_of_the_parent_is_the_end_of_its_pipe() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", buffering=0) as stream:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(wait_for_parent_end(stream))
            os.write(write_end, b"bytes mean nothing")
            await asyncio.sleep(0.05)
            assert not waiting.done()
            os.close(write_end)


async def test_a_stream_that_is_no_pipe_cannot_tell_the_end_of_the_parent(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"")
    with path.open("rb") as stream, pytest.raises(BadInput, match="not a pipe"):
        await wait_for_parent_end(stream)


async def test_serving_ends_with_a_signal() -> None:
    seen = []

    def ready(info: dict[str, Any]) -> None:
        seen.append(info)
        os.kill(os.getpid(), signal.SIGTERM)

    await serve(EvmSimulatorSettings(port=0), ready=ready)

    assert seen[0]["event"] == "ready"


def test_a_process_that_cannot_start_is_reported() -> None:
    with (
        pytest.raises(OutsideUnavailable, match="ended with code 2"),
        start_evm_process("--nonsense"),
    ):
        pytest.fail("it started")


def test_the_command_line_describes_the_settings() -> None:
    options = command.build_parser().parse_args(
        ["--port", "0", "--seed", "9", "--no-mining", "--block-time", "2", "--timestamp", "5"]
    )

    settings = command.read_settings(options)

    assert (settings.port, settings.seed, settings.timestamp) == (0, 9, 5)
    assert (settings.automine, settings.block_time_s) == (False, 2.0)


async def test_two_processes_answer_the_same_script_byte_for_byte(
    session: aiohttp.ClientSession,
) -> None:
    alice, bob = dev_account(0), dev_account(1)
    raw = sign_transaction(alice, 0, to=bob.address, value=5, chain_id=4711)
    bumped = sign_transaction(alice, 1, to=bob.address, max_fee_per_gas=20 * GWEI, chain_id=4711)
    script: list[tuple[str, list[Any]]] = [
        ("eth_sendRawTransaction", [raw]),
        ("evm_snapshot", []),
        ("evm_setAutomine", [False]),
        ("eth_sendRawTransaction", [bumped]),
        ("eth_sendRawTransaction", [bumped]),
        ("txpool_content", []),
        ("anvil_mine", ["0x3"]),
        ("anvil_reorg", [3, [[bumped, 1]]]),
        ("eth_getLogs", [{"fromBlock": "0x0"}]),
        ("evm_increaseTime", [60]),
        ("anvil_setBalance", [bob.address, "0x1"]),
        ("evm_mine", []),
        ("debug_traceBlockByNumber", ["latest", {"tracer": "callTracer"}]),
        ("eth_feeHistory", ["0x4", "latest", [10, 50]]),
        ("eth_getBlockByNumber", ["latest", True]),
        ("evm_revert", ["0x0"]),
        ("eth_getBlockByNumber", ["pending", True]),
        ("eth_nothing", []),
    ]
    transcripts = []
    for _ in range(2):
        with start_evm_process(
            *("--chain-id", "4711", "--seed", "9", "--timestamp", "1700000000")
        ) as process:
            said = []
            async with subscribe(session, process.ws_url, "newHeads") as heads:
                for number, (method, params) in enumerate(script):
                    body = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                    async with session.post(process.url, json=body) as response:
                        said.append(await response.read())
                said += [orjson.dumps(await heads.next()) for _ in range(8)]
            transcripts.append(said)

    assert transcripts[0] == transcripts[1]
    assert hex(4711).encode() in b"".join(transcripts[0])
