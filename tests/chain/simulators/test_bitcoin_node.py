"""The simulated bitcoind by itself: seeds, faucet, faults, waiting calls, and pure decisions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import orjson
import pytest

from chain.bitcoin.addresses import address_of
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.scripts import witness_script
from chain.simulators.bitcoin.blocks import median_time, merkle_root, push_number, subsidy_at
from chain.simulators.bitcoin.errors import PortTaken
from chain.simulators.bitcoin.model import BitcoinSimulatorSettings
from chain.simulators.bitcoin.policy import format_money, has_high_s, is_push_only
from chain.simulators.bitcoin.scripts_json import disassemble
from chain.simulators.bitcoin.server import BitcoinSimulator
from chain.simulators.bitcoin.testing import SimulatedNode, bitcoins, start_bitcoin_simulator
from chain.simulators.bitcoin.wire import amount
from chain.simulators.bitcoind import NodeRefusal
from chain.simulators.faults.model import Fault, Rule
from chain.simulators.faults.proxy import FaultProxy, FaultProxySettings
from kernel.clock import ManualClock

START = 1_700_000_000
SATOSHI = 150_000_000
FOUND = address_of(witness_script(0, bytes(range(20))), REGTEST)
assert FOUND is not None
PAYEE: str = FOUND


@pytest.fixture
async def node() -> AsyncIterator[SimulatedNode]:
    async with start_bitcoin_simulator(timestamp=START) as running:
        yield running


async def blocks_of(seed: int) -> list[str]:
    async with start_bitcoin_simulator(seed=seed, timestamp=START) as running:
        hashes: list[str] = await running.call("generatetoaddress", 3, PAYEE)
        return hashes


async def test_a_seed_gives_the_same_chain_and_another_seed_another() -> None:
    assert await blocks_of(7) == await blocks_of(7)
    assert await blocks_of(7) != await blocks_of(8)


async def test_with_a_timestamp_every_block_is_a_second_later(node: SimulatedNode) -> None:
    hashes = await node.mine(3)
    times = [(await node.call("getblockheader", hash_))["time"] for hash_ in hashes]
    assert times == [START, START + 1, START + 2]


async def test_block_times_follow_the_clock_that_is_given() -> None:
    clock = ManualClock(datetime(2026, 1, 5, 9, 0, tzinfo=UTC))
    async with start_bitcoin_simulator(clock=clock) as node:
        [hash_] = await node.mine()
        header = await node.call("getblockheader", hash_)
        assert header["time"] == int(clock.now().timestamp())


async def test_the_faucet_pays_with_a_confirmation_or_without(node: SimulatedNode) -> None:
    confirmed = await node.fund(PAYEE, SATOSHI)
    waiting = await node.fund(PAYEE, SATOSHI, blocks=0)
    assert (await node.call("getrawtransaction", confirmed, 1))["confirmations"] == 1
    assert await node.call("getrawmempool") == [waiting]
    found = await node.call("scantxoutset", "start", [f"addr({PAYEE})"])
    assert found["total_amount"] == 1.5
    many = [await node.fund(PAYEE, 100 * SATOSHI) for _ in range(3)]
    assert len(set(many)) == 3


async def test_a_payment_of_the_faucet_is_taken_back(node: SimulatedNode) -> None:
    waiting = await node.fund(PAYEE, SATOSHI, blocks=0)
    replaced = await node.replace(waiting)
    assert await node.call("getrawmempool") == [replaced]
    await node.mine()
    assert (await node.call("scantxoutset", "start", [f"addr({PAYEE})"]))["unspents"] == []
    with pytest.raises(NodeRefusal, match="not in mempool"):
        await node.replace(waiting)


async def test_a_reorganisation_keeps_what_it_is_told_to(node: SimulatedNode) -> None:
    kept = await node.fund(PAYEE, SATOSHI)
    lost = await node.fund(PAYEE, SATOSHI)
    height = await node.call("getblockcount")
    made = await node.reorganise(2, keep=[kept])
    assert len(made) == 3
    assert await node.call("getblockcount") == height + 1
    assert await node.call("getrawmempool") == [lost]
    assert (await node.call("getrawtransaction", kept, 1))["blockhash"] == made[0]


async def test_a_full_pool_and_an_eviction_are_made_on_demand(node: SimulatedNode) -> None:
    cheap = await node.call("simulate_fund", PAYEE, bitcoins(SATOSHI), 0, "0.00002")
    dear = await node.call("simulate_fund", PAYEE, bitcoins(SATOSHI), 0, "0.0002")
    assert await node.call("simulate_setmempoolminfee", "0.0001") == [cheap]
    assert (await node.call("getmempoolinfo"))["mempoolminfee"] == 0.0001
    with pytest.raises(NodeRefusal, match="mempool min fee not met"):
        await node.call("simulate_fund", PAYEE, bitcoins(SATOSHI), 0, "0.00002")
    assert await node.call("simulate_evict", [dear]) == [dear]
    assert await node.call("getrawmempool") == []


async def test_a_fee_is_estimated_when_it_is_set(node: SimulatedNode) -> None:
    await node.call("simulate_setfeerate", "0.00025")
    assert await node.call("estimatesmartfee", 6) == {"feerate": 0.00025, "blocks": 6}
    await node.call("simulate_setfeerate", "0.00000001")
    assert (await node.call("estimatesmartfee", 1)) == {"feerate": 0.00001, "blocks": 2}
    await node.call("simulate_setfeerate", None)
    assert "errors" in await node.call("estimatesmartfee", 6)


async def test_a_node_that_warms_up_answers_minus_28() -> None:
    simulator = BitcoinSimulator(
        BitcoinSimulatorSettings(port=0, user="u", password="p", warm_up_s=0.5)
    )
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        starting = group.create_task(simulator.start())
        while simulator.url.endswith(":0"):  # noqa: ASYNC110  until it listens
            await asyncio.sleep(0.01)
        node = SimulatedNode(simulator.url, ("u", "p"), None, session)
        with pytest.raises(NodeRefusal, match="Loading block index") as refused:
            await node.call("getblockcount")
        assert refused.value.code == -28
        await starting
        assert await node.call("getblockcount") == 0
        await simulator.stop()


async def test_a_caller_that_waits_is_answered_when_the_node_stops() -> None:
    async with asyncio.TaskGroup() as group, start_bitcoin_simulator() as node:
        waiting = group.create_task(node.call("waitfornewblock", 60_000))
        await asyncio.sleep(0.1)
    assert waiting.result()["height"] == 0


async def test_a_taken_port_is_named() -> None:
    async with start_bitcoin_simulator() as node:
        port = int(node.url.rpartition(":")[2])
        with pytest.raises(PortTaken, match=f"port {port}"):
            await BitcoinSimulator(BitcoinSimulatorSettings(port=port)).start()


async def test_a_clean_end_keeps_chain_and_pool(tmp_path: Path) -> None:
    async with start_bitcoin_simulator(data_dir=tmp_path, timestamp=START) as node:
        waiting = await node.fund(PAYEE, SATOSHI, blocks=0)
        lost = await node.call("getbestblockhash")
        await node.call("invalidateblock", lost)
        await node.mine(1)
        tips = await node.call("getchaintips")
        assert (tmp_path / "regtest" / ".cookie").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "regtest" / ".cookie").exists()
    async with start_bitcoin_simulator(data_dir=tmp_path, timestamp=START) as node:
        again = await node.call("getchaintips")
        # Whether a branch was connected once is not kept.
        assert [tip["hash"] for tip in again] == [tip["hash"] for tip in tips]
        assert [tip["status"] for tip in again] == [tip["status"] for tip in tips]
        assert (await node.call("getrawtransaction", waiting, 1))["txid"] == waiting


async def test_a_record_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    async with start_bitcoin_simulator(data_dir=tmp_path, timestamp=START) as node:
        hashes = await node.mine(5)
    kept = tmp_path / "regtest" / "blocks.log"
    kept.write_bytes(kept.read_bytes()[:-7])
    async with start_bitcoin_simulator(data_dir=tmp_path, timestamp=START) as node:
        assert await node.call("getbestblockhash") == hashes[3]
        assert await node.mine(1) == hashes[4:]


async def test_the_fault_proxy_stands_before_it(node: SimulatedNode) -> None:
    user, password = node.cookie
    upstream = node.url.replace("://", f"://{user}:{password}@")
    rules = (
        Rule(fault=Fault.REFUSE, methods=("uptime",), code=-28, message="Loading block index…"),
        Rule(fault=Fault.ACCEPT_THEN_TIME_OUT, seconds=0.0),
    )
    waiting = await node.fund(PAYEE, SATOSHI, blocks=0)
    raw = await node.call("getrawtransaction", waiting)
    await node.call("simulate_evict", [waiting])
    settings = FaultProxySettings(port=0, upstream=upstream, rules=rules)
    async with FaultProxy(settings) as proxy:
        behind = SimulatedNode(proxy.url, node.cookie, None, node.session)
        assert await behind.call("getblockcount") == await node.call("getblockcount")
        with pytest.raises(NodeRefusal, match="Loading block index"):
            await behind.call("uptime")
        with pytest.raises(aiohttp.ClientError):
            await behind.call("sendrawtransaction", raw)
    assert await node.call("getrawmempool") == [waiting]


def test_amounts_are_printed_as_bitcoind_prints_them() -> None:
    printed = {
        1: b"0.00000001",
        5_000_000_000: b"50.00000000",
        0: b"0.00000000",
        -1: b"-0.00000001",
    }
    assert {value: orjson.dumps(amount(value)) for value in printed} == printed
    said = {5_000_000_000: "50.00", 208: "0.00000208", 150_000_000: "1.50", 7_000: "0.00007"}
    assert {value: format_money(value) for value in said} == said


def test_small_decisions_about_bytes() -> None:
    assert [subsidy_at(height) for height in (0, 149, 150, 300, 150 * 64)] == [
        *(50 * 10**8, 50 * 10**8, 25 * 10**8, 1_250_000_000, 0),
    ]
    assert [push_number(number).hex() for number in (0, 1, 16, 17, 111, 128, 300)] == [
        *("00", "51", "60", "0111", "016f", "028000", "022c01"),
    ]
    assert merkle_root(["aa" * 32]) == "aa" * 32
    assert median_time([1, 5, 3]) == 3
    assert median_time(list(range(20))) == 14
    assert is_push_only(bytes.fromhex("0161"))
    assert not is_push_only(bytes.fromhex("0261"))
    assert not is_push_only(bytes.fromhex("76"))
    assert not has_high_s(b"\x30" * 71)
    assert disassemble(bytes.fromhex("6a0161")) == "OP_RETURN 97"
    assert disassemble(bytes.fromhex("6a0181")) == "OP_RETURN -1"
