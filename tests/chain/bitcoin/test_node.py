"""The transport before a bitcoind that starts, is too busy, or does not know us."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import chain.bitcoin.gateway
import chain.heads
import chain.jsonrpc
from chain.bitcoin.heads import BlockFeed
from chain.bitcoin.node import NodeRpc
from chain.bitcoin.quantities import as_hash, satoshi
from chain.errors import NodeUnavailable, UnreadableAnswer
from chain.jsonrpc import RpcRefusal
from chain.simulators.bitcoind import COOKIE, Bitcoind
from kernel.errors import BadInput
from tests.chain.bitcoin.liar import PASSWORD, USER, Liar, lying
from tests.chain.bitcoin.yard import MINER


@pytest.fixture
async def liar(bitcoind: Bitcoind, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Liar]:
    monkeypatch.setattr(chain.jsonrpc, "BACKOFF_BASE_S", 0.001)
    async with lying(bitcoind) as made:
        yield made


@pytest.fixture
async def rpc(liar: Liar) -> AsyncIterator[NodeRpc]:
    made = NodeRpc(liar.url, user=USER, password=PASSWORD, warm_up_s=0.6)
    yield made
    await made.close()


async def test_a_node_that_is_starting_is_waited_for_and_not_for_ever(
    liar: Liar, rpc: NodeRpc
) -> None:
    liar.errors = [(-28, "Loading block index…"), (-28, "Verifying blocks…")]
    assert await rpc.ask("getblockcount") == 0
    liar.errors = [(-28, "Verifying blocks…")] * 100
    with pytest.raises(RpcRefusal, match="Verifying"):
        await rpc.ask("getblockcount")
    assert len(liar.errors) > 90


async def test_a_node_that_is_too_busy_is_asked_again_after_a_pause(
    liar: Liar, rpc: NodeRpc
) -> None:
    liar.refuse = [(503, "Work queue depth exceeded")] * 2
    assert await rpc.ask("getblockcount") == 0
    liar.refuse = [(503, "Work queue depth exceeded")] * 3
    with pytest.raises(NodeUnavailable, match="503"):
        await rpc.ask("getblockcount")


async def test_what_is_sent_once_is_sent_once(liar: Liar, rpc: NodeRpc) -> None:
    liar.refuse = [(503, "Work queue depth exceeded")]
    with pytest.raises(NodeUnavailable):
        await rpc.ask_once("sendrawtransaction", "00")
    assert liar.asked == []


async def test_a_wrong_password_is_told_in_clear_words_without_it(bitcoind: Bitcoind) -> None:
    rpc = NodeRpc(bitcoind.url, user="watcher", password="not-the-secret", attempts=1)
    with pytest.raises(NodeUnavailable, match="does not let us in") as failure:
        await rpc.ask("getblockcount")
    assert "401" in failure.value.what
    assert "not-the-secret" not in f"{failure.value} {failure.value.remedy}"
    await rpc.close()


async def test_a_cookie_that_is_not_there_is_trouble_with_the_node(tmp_path: Path) -> None:
    rpc = NodeRpc("http://127.0.0.1:9", cookie=tmp_path / "none", attempts=1)
    with pytest.raises(NodeUnavailable, match="cookie cannot be read"):
        await rpc.ask("getblockcount")
    await rpc.close()


@pytest.mark.parametrize(("cookie", "password"), [(None, ""), (Path("/a"), "b")])
def test_there_is_one_way_in(cookie: Path | None, password: str) -> None:
    with pytest.raises(BadInput, match="cookie file or by user"):
        NodeRpc("http://a", cookie=cookie, password=password)


async def test_a_refusal_has_the_nodes_own_code_alone_and_in_a_batch(bitcoind: Bitcoind) -> None:
    rpc = NodeRpc(bitcoind.url, cookie=bitcoind.folder / COOKIE)
    with pytest.raises(RpcRefusal) as failure:
        await rpc.ask("getblockhash", 9)
    assert failure.value.code == -8
    refused, told = await rpc.ask_many([("getblockhash", (9,)), ("getblockcount", ())])
    assert isinstance(refused, RpcRefusal)
    assert (refused.code, told) == (-8, 0)
    await rpc.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"0.00000001", 1),
        (b"1e-8", 1),
        (b"20999999.97690000", 2_099_999_997_690_000),
        # As a float this is 2_051_123_456_789.9998…
        (b"20511.23456790", 2_051_123_456_790),
        (b"50", 5_000_000_000),
        (b"0.0", 0),
    ],
)
def test_amounts_are_exact(text: bytes, expected: int) -> None:
    rpc = NodeRpc("http://a", user="a", password="b")
    assert satoshi(rpc.read(text), "an amount") == expected


@pytest.mark.parametrize(
    "value",
    [
        "0.000000001",
        "-1.0",
        "21000000.00000001",
        "x",
        None,
        1.5,
        True,
        "1e400",
        "1e999999",
        "NaN",
        "0.1234567800000000000000000000000000001",
        "1" * 1_000_000,
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_amount_is_refused(value: object) -> None:
    with pytest.raises(UnreadableAnswer) as refused:
        satoshi(value, "an amount")
    assert len(refused.value.what) < 200


def test_a_wrong_value_is_shown_in_part_and_fit_to_be_stored() -> None:
    with pytest.raises(UnreadableAnswer) as refused:
        as_hash("\x00\ud800" * 1_000_000, "the hash")
    assert len(refused.value.what) < 200
    assert refused.value.what.isprintable()


async def test_a_new_block_wakes_whoever_waits(
    bitcoind: Bitcoind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain.heads, "GAP_MIN_S", 0.0)
    rpc = NodeRpc(bitcoind.url, cookie=bitcoind.folder / COOKIE)
    feed = BlockFeed([rpc])
    async with asyncio.TaskGroup() as group:
        running = group.create_task(feed.run())
        while not feed.opened:  # noqa: ASYNC110  the feed tells nobody that it listens
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert not await feed.wait(0.05)
        await bitcoind.call("generatetoaddress", 1, MINER.address)
        assert await feed.wait(5.0)
        running.cancel()
    await rpc.close()


async def test_a_scan_that_nobody_waits_for_any_more_is_ended_and_ours_is_made(
    liar: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain.bitcoin.gateway, "SCAN_WAIT_S", 0.001)
    busy = (-8, 'Scan already in progress, use action "abort" or "status"')
    gateway = liar.gateway()
    liar.errors = [busy] * 3
    assert (await gateway.scan([MINER.address])).coins == ()
    assert liar.asked == ["scantxoutset"] * 4
    liar.errors = [busy] * (chain.bitcoin.gateway.SCAN_WAITS + 2)
    with pytest.raises(NodeUnavailable, match="for somebody else"):
        await gateway.scan([MINER.address])
    # Once more than it was begun: somebody ended the other one.
    assert len(liar.asked) == 4 + chain.bitcoin.gateway.SCAN_WAITS + 2
    await gateway.close()
