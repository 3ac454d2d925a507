"""Cards of faults: what the client sees, and what is true."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeAlias, TypeVar

import ccxt
import ccxt.async_support
import ccxt.pro
import pytest

from venues.simulator.testing import SimulatorProcess

Rest: TypeAlias = ccxt.async_support.binance
Pro: TypeAlias = ccxt.pro.binance
ETH = "ETH/USDT"
ORDER = "/api/v3/order"
T = TypeVar("T")


async def soon(awaited: Awaitable[T], seconds: float = 20.0) -> T:
    async with asyncio.timeout(seconds):
        return await awaited


PATIENT_MS = 10_000
HURRIED_MS = 1_000
"""Only what hangs is given up: a request given up before it was read would never arrive."""


async def is_at_the_venue(rest: Rest, client_id: str) -> bool:
    rest.timeout = PATIENT_MS
    try:
        await rest.fetch_order("", ETH, {"clientOrderId": client_id})
    except ccxt.OrderNotFound:
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "error", "exists"),
    [
        ("hang_before_accept", ccxt.RequestTimeout, False),
        ("hang_after_accept", ccxt.RequestTimeout, True),
        ("reset_before", ccxt.ExchangeNotAvailable, False),
        ("reset_after_accept", ccxt.ExchangeNotAvailable, True),
        ("status_503", ccxt.OperationFailed, False),
        ("status_503_after_accept", ccxt.OperationFailed, True),
        ("html_502_after_accept", ccxt.ExchangeNotAvailable, True),
        ("html_504", ccxt.RequestTimeout, False),
        ("html_504_after_accept", ccxt.RequestTimeout, True),
        ("timeout_1007_after_accept", ccxt.RequestTimeout, True),
        ("unexpected_1006_after_accept", ccxt.OperationFailed, True),
        ("rate_limited_429", ccxt.DDoSProtection, False),
        ("banned_418", ccxt.DDoSProtection, False),
    ],
)
async def test_a_badly_answered_order_exists_or_not_as_scheduled(
    rest: Rest,
    venue: SimulatorProcess,
    kind: str,
    error: type[Exception],
    exists: bool,  # noqa: FBT001  a table
) -> None:
    """F01. Given one fault on POST order. Order. ccxt's class; the order exists or not."""
    await rest.load_markets()
    rest.timeout = HURRIED_MS if kind.startswith("hang") else PATIENT_MS
    client_id = f"f01-{kind}"[:36]
    venue.fault(kind, ORDER, method="POST", seconds=HURRIED_MS * 3 / 1000)

    with pytest.raises(error):
        await rest.create_order(ETH, "market", "buy", 0.1, None, {"clientOrderId": client_id})

    assert await is_at_the_venue(rest, client_id) is exists
    assert venue.control("GET", "faults") == []


async def test_a_truncated_answer_looks_like_success_without_an_id(
    rest: Rest, venue: SimulatorProcess
) -> None:
    """F02. Given a truncated 200. Order. No exception, id None; the order exists."""
    await rest.load_markets()
    venue.fault("truncated_200", ORDER, method="POST")

    order = await rest.create_order(ETH, "market", "buy", 0.1, None, {"clientOrderId": "f02"})

    assert order["id"] is None
    assert await is_at_the_venue(rest, "f02")


async def test_an_order_may_arrive_after_its_timeout(rest: Rest, venue: SimulatorProcess) -> None:
    """F03. Given a delay longer than the timeout. Order. Not found at first, there later."""
    await rest.load_markets()
    rest.timeout = HURRIED_MS
    venue.fault("delay_before_accept", ORDER, method="POST", seconds=3)
    with pytest.raises(ccxt.RequestTimeout):
        await rest.create_order(ETH, "market", "buy", 0.1, None, {"clientOrderId": "f03"})

    assert not await is_at_the_venue(rest, "f03")
    async with asyncio.timeout(20):
        while not await is_at_the_venue(rest, "f03"):  # noqa: ASYNC110  another process knows
            await asyncio.sleep(0.1)


async def test_an_order_older_than_its_window_never_arrives(
    rest: Rest, venue: SimulatorProcess
) -> None:
    """F04. Given a delay longer than recvWindow. Order. Refused for good: the door is closed."""
    await rest.load_markets()
    rest.timeout = 200
    venue.fault("delay_before_accept", ORDER, method="POST", seconds=0.8)
    with pytest.raises(ccxt.RequestTimeout):
        await rest.create_order(
            ETH, "market", "buy", 0.1, None, {"clientOrderId": "f04", "recvWindow": 300}
        )

    await asyncio.sleep(1.0)

    assert not await is_at_the_venue(rest, "f04")


async def test_faults_skip_and_count(rest: Rest, venue: SimulatorProcess) -> None:
    """F05. Given skip 1, count 2. Four requests. The second and third fail."""
    venue.fault("status_503", "/api/v3/time", skip=1, count=2)

    outcomes = []
    for _ in range(4):
        try:
            await rest.fetch_time()
            outcomes.append("ok")
        except ccxt.OperationFailed:
            outcomes.append("failed")

    assert outcomes == ["ok", "failed", "failed", "ok"]


async def watched_nonces(pro: Pro, count: int, seconds: float = 20.0) -> list[int]:
    nonces = []
    for _ in range(count):
        book = await soon(pro.watch_order_book(ETH), seconds)
        nonces.append(book["nonce"])
    return nonces


@pytest.mark.parametrize("kind", ["ws_silent", "ws_bad_json"])
async def test_a_dead_stream_raises_nothing(pro: Pro, venue: SimulatorProcess, kind: str) -> None:
    """F06. Given a silent socket or one broken frame. Watch. It hangs without an exception."""
    await watched_nonces(pro, 2)
    venue.fault(kind, "ethusdt@depth")

    with pytest.raises(TimeoutError):
        await watched_nonces(pro, 1_000, seconds=0.7)


async def test_a_gap_in_the_book_stream_is_noticed(pro: Pro, venue: SimulatorProcess) -> None:
    """F07. Given a dropped diff. Watch. ChecksumError, and the next watch starts afresh."""
    await watched_nonces(pro, 2)
    venue.fault("ws_drop", "ethusdt@depth")

    with pytest.raises(ccxt.ChecksumError):
        await watched_nonces(pro, 10)
    after = await watched_nonces(pro, 2)

    assert after == sorted(after)


async def test_a_diff_of_wrong_types_is_swallowed(pro: Pro, venue: SimulatorProcess) -> None:
    """F08. Given lists replaced by numbers. Watch. No exception, and the nonce goes on."""
    before = await watched_nonces(pro, 1)
    venue.fault("ws_wrong_types", "ethusdt@depth")

    after = await watched_nonces(pro, 3)

    assert after[-1] > before[-1]
    assert venue.control("GET", "faults") == []


async def test_a_closed_stream_raises_and_comes_back(pro: Pro, venue: SimulatorProcess) -> None:
    """F09. Given the server closes the socket. Watch. NetworkError; the next watch reconnects."""
    await watched_nonces(pro, 2)
    venue.fault("ws_close", "ethusdt@depth")

    with pytest.raises(ccxt.NetworkError):
        await watched_nonces(pro, 10)

    assert await watched_nonces(pro, 1)


@pytest.mark.parametrize(("kind", "count"), [("ws_duplicate", 20), ("ws_swap", 1)])
async def test_execution_reports_can_come_twice_or_swapped(
    rest: Rest, pro: Pro, venue: SimulatorProcess, kind: str, count: int
) -> None:
    """F10. Given duplicated or swapped user frames. One fill. my trades has it once, by its id."""
    await rest.load_markets()
    venue.fault(kind, "user", count=count)
    before = venue.user_subscriptions()
    async with asyncio.TaskGroup() as tasks:
        watching: asyncio.Task[Any] = tasks.create_task(soon(pro.watch_my_trades(ETH)))
        await venue.wait_for_user_stream(before)
        order = await rest.create_order(ETH, "market", "buy", 0.1)

    ids = [trade["id"] for trade in pro.myTrades if trade["order"] == order["id"]]
    assert watching.result()
    assert len(ids) == len(set(ids)) == 1
