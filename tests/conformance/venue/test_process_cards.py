"""Cards of the process: ready line, end with the parent, crash in the middle of an order."""

import asyncio
import hmac
import itertools
import json
import random
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import ccxt
import ccxt.async_support
import ccxt.pro
import pytest

from kernel.clock import SystemClock, to_unix_ms
from venues.simulator.testing import (
    SimulatorNotReady,
    SimulatorProcess,
    ccxt_settings,
    point_ccxt_at,
)

ETH = "ETH/USDT"
ORDER = "/api/v3/order"


def client_of(venue: SimulatorProcess) -> ccxt.async_support.binance:
    exchange = ccxt.async_support.binance(ccxt_settings(venue.ready))
    point_ccxt_at(exchange, venue.url, venue.ws_url)
    return exchange


def truth_of(venue: SimulatorProcess) -> Any:
    """The true state without what depends on the moment of asking."""
    state = venue.state()
    return state["accounts"], state["symbols"], state["step"]


def test_the_ready_line_says_what_a_parent_needs(venue: SimulatorProcess) -> None:
    """P01. Start. One JSON line with URLs, keys, symbols, pid."""
    ready = venue.ready

    assert (ready["event"], ready["component"]) == ("ready", "venue")
    assert ready["ws_url"] == ready["url"].replace("http", "ws")
    assert ready["symbols"] == ["ETHUSDT", "BTCUSDT"]
    assert {"api_key", "secret", "pid"} <= set(ready)


def test_keys_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    """P02. Start twice with one seed, once with another. Equal keys; other keys."""
    keys = []
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        with SimulatorProcess(tmp_path / name, "--seed", seed) as process:
            keys.append(process.ready["api_key"])

    assert keys[0] == keys[1] != keys[2]


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    """P03. Close the child's standard input. It ends by itself with exit code 0."""
    with SimulatorProcess(tmp_path) as process:
        process.close_parent_pipe()

        assert process.wait() == 0


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """P04. Start on a port in use. Exit, with the port and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(SimulatorNotReady, match=rf"port {port} .*choose another port"):
            SimulatorProcess(tmp_path, port=port).start()


def test_a_data_directory_of_other_settings_is_refused(tmp_path: Path) -> None:
    """P05. Start on a directory written under another seed. Exit, saying what differs."""
    with SimulatorProcess(tmp_path, "--seed", "1"):
        pass

    with pytest.raises(SimulatorNotReady, match=r"seed.*differ.*--data-dir"):
        SimulatorProcess(tmp_path, "--seed", "2").start()


def test_a_stopped_venue_comes_back_as_it_was(tmp_path: Path) -> None:
    """P06. Move the market, fund, stop, start. Same state, same port."""
    with SimulatorProcess(tmp_path, "--step-ms", "0") as process:
        process.control("POST", "step", {"count": 50})
        process.control("POST", "fund", {"asset": "ETH", "amount": "1.5"})
        before, url = truth_of(process), process.url
        assert process.stop() == 0

        process.start()

        assert truth_of(process) == before
        assert process.url == url


@pytest.mark.parametrize(
    ("kind", "exists"), [("hang_before_accept", False), ("hang_after_accept", True)]
)
async def test_a_kill_in_the_middle_of_an_order_loses_nothing(
    tmp_path: Path,
    kind: str,
    exists: bool,  # noqa: FBT001  a table
) -> None:
    """P07. Kill -9 while an order hangs, start again. There if it was accepted, else not."""
    with SimulatorProcess(tmp_path, "--step-ms", "50") as process:
        client = client_of(process)
        try:
            await client.load_markets()
            process.fault(kind, ORDER, method="POST")
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(place(client, "p07"))
                await until(lambda: process.control("GET", "faults") == [])
                before = process.state()["accounts"]
                process.kill()
            assert sending.result() is None

            process.start()

            orders = process.state()["accounts"]["desk"]["orders"]
            assert [order["clientOrderId"] for order in orders] == (["p07"] if exists else [])
            assert process.state()["accounts"] == before
        finally:
            await client.close()


async def test_a_kill_under_load_keeps_exactly_what_was_accepted(tmp_path: Path) -> None:
    """P08. Kill -9 under a stream of orders, twice. All answered orders, none not sent, no change."""
    with SimulatorProcess(tmp_path, "--step-ms", "20") as process:
        client = client_of(process)
        answered: dict[str, str] = {}
        sent: list[str] = []
        try:
            await client.load_markets()
            async with asyncio.TaskGroup() as tasks:
                for worker in range(4):
                    tasks.create_task(trade_until_dead(client, worker, sent, answered))
                await until(lambda: len(answered) >= 40)
                process.kill()
            process.start()

            first = truth_of(process)
            orders = {o["clientOrderId"]: str(o["orderId"]) for o in first[0]["desk"]["orders"]}
            assert answered.items() <= orders.items()
            assert orders.keys() <= set(sent)
            assert_balances_follow_from_fills(first[0]["desk"])
            process.kill()
            process.start()
            assert truth_of(process)[0] == first[0]
        finally:
            await client.close()


async def test_what_was_answered_on_any_socket_survives_every_kill(tmp_path: Path) -> None:
    """P12. Kill -9 at two moments under orders on eight sockets. All answered ones, with no change."""
    answered: dict[str, int] = {}
    sent: set[str] = set()
    chance = random.Random(12)
    with SimulatorProcess(tmp_path, "--step-ms", "0", "--more-accounts", "other") as process:
        for life in range(2):
            before = len(answered)
            async with asyncio.TaskGroup() as tasks:
                for lane in range(8):
                    name = f"p12-{life}-{lane}"
                    tasks.create_task(order_until_dead(process.ready, name, sent, answered))
                await until(lambda: len(answered) > before + 60)  # noqa: B023  awaited at once
                await asyncio.sleep(chance.random() / 20)
                process.kill()
            process.start()

            accounts = truth_of(process)[0]
            orders = {
                o["clientOrderId"]: o["orderId"] for a in accounts.values() for o in a["orders"]
            }
            assert answered.items() <= orders.items()
            assert orders.keys() <= sent
        before_kill = truth_of(process)
        process.kill()
        process.start()
        assert truth_of(process) == before_kill


async def order_until_dead(
    ready: dict[str, Any], lane: str, sent: set[str], answered: dict[str, int]
) -> None:
    """Send orders on a connection of its own, three at a time, until it breaks."""
    address = urlsplit(ready["url"])
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    accounts = ready["accounts"]
    try:
        for number in itertools.count(0, 3):
            for position in range(number, number + 3):
                name = f"{lane}-{position}"
                sent.add(name)
                writer.write(order_bytes(accounts[position % len(accounts)], name, position))
            for _ in range(3):
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                assert length is not None
                answer = json.loads(await reader.readexactly(int(length[1])))
                answered[answer["clientOrderId"]] = answer["orderId"]
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()


def order_bytes(account: dict[str, Any], name: str, position: int) -> bytes:
    """A signed order near the middle of the market."""
    body = urlencode(
        {
            "symbol": "ETHUSDT",
            "side": "BUY" if position % 3 else "SELL",
            "type": "LIMIT",
            "timeInForce": "GTC",
            "quantity": "0.1",
            "price": f"{2_990 + position % 20}.5",
            "newClientOrderId": name,
            "newOrderRespType": "ACK",
            "recvWindow": 60_000,
            "timestamp": to_unix_ms(SystemClock().now()),
        }
    )
    signature = hmac.digest(account["secret"].encode(), body.encode(), "sha256").hex()
    content = f"{body}&signature={signature}"
    head = (
        f"POST /api/v3/order HTTP/1.1\r\nHost: venue\r\nX-MBX-APIKEY: {account['api_key']}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return (head + content).encode()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a fact about another process, which no event of this one can tell."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  see above
            await asyncio.sleep(0.01)


async def watch_until_it_breaks(client: ccxt.pro.binance) -> None:
    while True:
        await client.watch_order_book(ETH)


async def place(client: ccxt.async_support.binance, client_id: str) -> str | None:
    try:
        order = await client.create_order(
            ETH, "market", "buy", 0.1, None, {"clientOrderId": client_id}
        )
    except ccxt.NetworkError:
        return None
    return str(order["id"])


async def trade_until_dead(
    client: ccxt.async_support.binance, worker: int, sent: list[str], answered: dict[str, str]
) -> None:
    number = 0
    while True:
        client_id = f"p08-{worker}-{number}"
        number += 1
        sent.append(client_id)
        order_id = await place(client, client_id)
        if order_id is None:
            return
        answered[client_id] = order_id


def assert_balances_follow_from_fills(account: Any) -> None:
    """Start + bought - sold - fees, in units of 1e-8, is what the account has."""
    units = {"ETH": 1_000 * 10**8, "USDT": 5_000_000 * 10**8}
    for fill in account["fills"]:
        sign = 1 if fill["isBuyer"] else -1
        units["ETH"] += sign * exact(fill["qty"])
        units["USDT"] -= sign * exact(fill["quoteQty"])
        units[fill["commissionAsset"]] -= exact(fill["commission"])
    assert units == {asset: exact(account["balances"][asset]["free"]) for asset in units}


def exact(text: str) -> int:
    whole, _, fraction = text.partition(".")
    return int(whole + fraction.ljust(8, "0"))


async def test_streams_come_back_after_a_restart(tmp_path: Path) -> None:
    """P10. Kill -9 while watching a book, start again. NetworkError once; then ids go on rising."""
    with SimulatorProcess(tmp_path) as process:
        client = ccxt.pro.binance(ccxt_settings(process.ready))
        point_ccxt_at(client, process.url, process.ws_url)
        try:
            async with asyncio.timeout(20):
                before = (await client.watch_order_book(ETH))["nonce"]
                process.kill()
                with pytest.raises(ccxt.NetworkError):
                    await watch_until_it_breaks(client)
                process.start()
                after = (await client.watch_order_book(ETH))["nonce"]
        finally:
            await client.close()

    assert after >= before


def test_other_symbols_and_accounts_can_be_given(tmp_path: Path) -> None:
    """P11. Start with another symbol and a second account. Both are there, with keys of their own."""
    symbol = "SOL/USDC:tick=0.01:lot=0.001:min=5:mid=150"
    options = ("--symbol", symbol, "--more-accounts", "other", "--balance", "USDC=1000", "SOL=2.5")
    with SimulatorProcess(tmp_path, *options) as process:
        accounts = process.state()["accounts"]

        assert process.ready["symbols"] == ["SOLUSDC"]
        assert [spec["name"] for spec in process.ready["accounts"]] == ["desk", "other"]
        assert len({spec["api_key"] for spec in process.ready["accounts"]}) == 2
        assert accounts["other"]["balances"]["SOL"]["free"] == "2.50000000"


def test_it_starts_quickly(tmp_path: Path) -> None:
    """P09. Start on an empty directory. Ready in a second or so; the bound is for busy machines."""
    started = time.monotonic()
    with SimulatorProcess(tmp_path):
        assert time.monotonic() - started < 8.0
