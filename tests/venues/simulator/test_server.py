"""The server in this process: start, stop, control endpoint, what is no part of ccxt's surface."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from venues.simulator.__main__ import main
from venues.simulator.errors import PortTaken, SimulatorError
from venues.simulator.server import VenueSimulator
from venues.simulator.settings import VenueSimulatorSettings


@pytest.fixture
def options(tmp_path: Path) -> VenueSimulatorSettings:
    return VenueSimulatorSettings(data_dir=tmp_path, step_interval_ms=0, fsync=False)


@pytest_asyncio.fixture
async def venue(options: VenueSimulatorSettings) -> AsyncIterator[VenueSimulator]:
    simulator = VenueSimulator(options)
    await simulator.start()
    yield simulator
    await simulator.stop()


@pytest_asyncio.fixture
async def http(venue: VenueSimulator) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(venue.url) as session:
        yield session


async def ask(
    http: aiohttp.ClientSession, method: str, path: str, /, **body: Any
) -> tuple[int, Any]:
    async with http.request(method, path, json=body or None) as answer:
        return answer.status, await answer.json()


async def test_it_starts_stops_and_starts_again(options: VenueSimulatorSettings) -> None:
    simulator = VenueSimulator(options)
    for _ in range(2):
        url = await simulator.start()
        async with aiohttp.ClientSession(url) as http:
            assert await ask(http, "GET", "/api/v3/ping") == (200, {})
        await simulator.stop()


async def test_a_taken_port_is_named(
    venue: VenueSimulator, options: VenueSimulatorSettings, tmp_path: Path
) -> None:
    port = int(venue.url.rpartition(":")[2])
    second = VenueSimulator(replace(options, port=port, data_dir=tmp_path / "second"))

    with pytest.raises(PortTaken, match=f"port {port} .* another port"):
        await second.start()


async def test_what_broke_inside_is_raised_by_stop(options: VenueSimulatorSettings) -> None:
    simulator = VenueSimulator(replace(options, step_interval_ms=1))
    await simulator.start()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    del simulator.core.state.markets["ETHUSDT"].quotes
    await asyncio.wait_for(simulator.stopping.wait(), 5)

    with pytest.raises(AttributeError):
        await simulator.stop()


async def test_it_cannot_be_used_before_it_is_started(options: VenueSimulatorSettings) -> None:
    with pytest.raises(SimulatorError, match="not running"):
        await VenueSimulator(options).stop()


@pytest.mark.parametrize(
    ("verb", "body", "complaint"),
    [
        ("nonsense", {}, "no control verb"),
        ("faults", {"kind": "earthquake", "path": "/"}, "earthquake"),
        ("fund", {"asset": "ETH"}, "'amount' must be a text"),
        ("fund", {"asset": "ETH", "amount": "-1"}, "Illegal characters"),
        ("fund", {"asset": "DOGE", "amount": "1"}, "no asset 'DOGE'"),
        ("fund", {"asset": "ETH", "amount": "1", "account": "x"}, "no account 'x'"),
        ("mid", {"symbol": "ETHUSDT", "price": "0"}, "below one tick"),
        ("mid", {"symbol": "NOPE", "price": "1"}, "no symbol 'NOPE'"),
        ("withdrawal", {"id": "x", "status": "LOST"}, "COMPLETED, REJECTED or FAILED"),
        ("withdrawal", {"id": "x"}, "-4029"),
        ("step", {"count": 10**9}, "from 0 to"),
        ("deposit-address", {"asset": "ETH", "network": "TRON", "address": "a"}, "no network"),
    ],
)
async def test_control_says_what_is_wrong(
    http: aiohttp.ClientSession, verb: str, body: dict[str, Any], complaint: str
) -> None:
    status, answer = await ask(http, "POST", f"/control/{verb}", **body)

    assert status == 400
    assert complaint in answer["error"]


async def test_a_balance_can_be_overwritten_for_proofs(http: aiohttp.ClientSession) -> None:
    await ask(http, "POST", "/control/balance", asset="ETH", free="0.5")

    _, state = await ask(http, "GET", "/control/state")
    assert state["accounts"]["desk"]["balances"]["ETH"] == {
        "free": "0.50000000",
        "locked": "0.00000000",
    }


async def test_withdrawn_quotes_leave_an_empty_book(http: aiohttp.ClientSession) -> None:
    await ask(http, "POST", "/control/withdraw-quotes", symbol="ETHUSDT")

    _, book = await ask(http, "GET", "/api/v3/depth?symbol=ETHUSDT")
    assert (book["bids"], book["asks"]) == ([], [])
    await ask(http, "POST", "/control/step")
    _, book = await ask(http, "GET", "/api/v3/depth?symbol=ETHUSDT&limit=5")
    assert (len(book["bids"]), len(book["asks"])) == (5, 5)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v3/nothing", 404, -1000),
        ("/api/v3/depth", 400, -1102),
        ("/api/v3/depth?symbol=NOPE", 400, -1121),
        ("/api/v3/depth?symbol=ETHUSDT&limit=x", 400, -1100),
        ("/api/v3/depth?symbol=ETHUSDT&symbol=BTCUSDT", 400, -1101),
        ("/api/v3/klines?symbol=ETHUSDT&interval=2s", 400, -1120),
        ("/api/v3/account", 401, -2014),
    ],
)
async def test_bad_requests_get_the_venues_codes(
    http: aiohttp.ClientSession, path: str, status: int, code: int
) -> None:
    answered, body = await ask(http, "GET", path)

    assert (answered, body["code"]) == (status, code)


async def test_the_weight_limit_can_be_enforced(options: VenueSimulatorSettings) -> None:
    simulator = VenueSimulator(replace(options, weight_limit_1m=3, enforce_weight=True))
    url = await simulator.start()
    async with aiohttp.ClientSession(url) as http:
        codes = [(await ask(http, "GET", "/api/v3/ping"))[0] for _ in range(5)]
    await simulator.stop()

    assert codes == [200, 200, 200, 429, 429]


async def test_combined_streams_wrap_frames_with_their_name(
    venue: VenueSimulator, http: aiohttp.ClientSession
) -> None:
    async with http.ws_connect("/stream?streams=ethusdt@depth@100ms/btcusdt@trade") as socket:
        await ask(http, "POST", "/control/mid", symbol="ETHUSDT", price="3100.00")
        frame = await asyncio.wait_for(socket.receive_json(), 5)

    assert frame["stream"] == "ethusdt@depth@100ms"
    assert frame["data"]["e"] == "depthUpdate"


@pytest.mark.parametrize(
    ("path", "request_text", "expected"),
    [
        ("/ws", "not json", {"error": {"code": 3, "msg": "Invalid JSON"}}),
        ("/ws", '{"method":"DANCE","id":7}', {"id": 7}),
        ("/ws", '{"method":"SUBSCRIBE","params":[1],"id":8}', {"id": 8}),
        ("/ws", '{"method":"SUBSCRIBE","params":["a@trade"],"id":9}', {"result": None, "id": 9}),
        ("/ws-api/v3", '{"method":"time","id":"a"}', {"status": 200, "id": "a"}),
        ("/ws-api/v3", '{"method":"DANCE","id":"b"}', {"status": 400, "id": "b"}),
        ("/ws-api/v3", "[]", {"status": 400, "id": None}),
    ],
)
async def test_socket_requests_are_answered(
    http: aiohttp.ClientSession, path: str, request_text: str, expected: dict[str, Any]
) -> None:
    async with http.ws_connect(path) as socket:
        await socket.send_str(request_text)
        answer = await asyncio.wait_for(socket.receive_json(), 5)

    assert expected.items() <= answer.items()


async def test_stop_closes_open_sockets(options: VenueSimulatorSettings) -> None:
    simulator = VenueSimulator(options)
    url = await simulator.start()
    async with aiohttp.ClientSession(url) as http, http.ws_connect("/ws/ethusdt@trade") as socket:
        await simulator.stop()
        message = await asyncio.wait_for(socket.receive(), 5)

    assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (["--balance", "ETH"], "balance 'ETH': write it like"),
        (["--symbol", "SOL"], "symbol 'SOL': write it like"),
        (["--symbol", "SOL/USDT:tick=0.00001:lot=0.0001:min=5:mid=150"], "is not whole"),
        (["--more-accounts", "desk"], "account name is used twice"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: list[str], complaint: str
) -> None:
    code = main(["--data-dir", str(tmp_path), *line])

    assert code == 1
    assert complaint in capsys.readouterr().err
