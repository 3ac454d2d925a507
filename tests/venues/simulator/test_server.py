"""The server in this process: start, stop, control endpoint, what is no part of ccxt's surface."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from venues.simulator.__main__ import main
from venues.simulator.commands import SetDeadMan
from venues.simulator.errors import PortTaken, SimulatorError
from venues.simulator.server import VenueSimulator
from venues.simulator.settings import DialectName, VenueSimulatorSettings


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
        ("fund", {"asset": "ETH", "amount": "-1"}, "not a plain decimal"),
        ("fund", {"asset": "DOGE", "amount": "1"}, "no asset 'DOGE'"),
        ("fund", {"asset": "ETH", "amount": "1", "account": "x"}, "no account 'x'"),
        ("mid", {"symbol": "ETHUSDT", "price": "0"}, "below one tick"),
        ("mid", {"symbol": "NOPE", "price": "1"}, "no symbol 'NOPE'"),
        ("withdrawal", {"id": "x", "status": "LOST"}, "COMPLETED, REJECTED or FAILED"),
        ("withdrawal", {"id": "x"}, "UNKNOWN_WITHDRAWAL"),
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


async def test_bytes_that_are_no_text_are_no_error_of_the_server(
    venue: VenueSimulator, http: aiohttp.ClientSession
) -> None:
    headers = {"X-MBX-APIKEY": venue.accounts[0].api_key, "Content-Type": "text/plain"}
    wanted = {"/api/v3/order": -1022, "/control/step": None}
    for path, code in wanted.items():
        data = b"timestamp=1&signature=x&symbol=\xff\xfe"
        async with http.post(venue.url + path, data=data, headers=headers) as answer:
            assert answer.status == 400
            assert (await answer.json()).get("code") == code


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
        (["--symbol", "SOL/USDT:tick=0.01:lot=0:min=5:mid=150"], "lot and mid must be positive"),
        (["--more-accounts", "desk"], "account name is used twice"),
        (["--faults", "7:2"], "the rate is from 0 to 1"),
        (["--faults", "nowhere.json"], "name a JSON file, or write seed:rate"),
        (["--replay", "nowhere.jsonl"], "cannot be read"),
        (["--replay-speed", "0"], "above 0"),
        (["--dialect", "kraken", "--balance", "BTC"], "write it like"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: list[str], complaint: str
) -> None:
    code = main(["--data-dir", str(tmp_path), *line])

    assert code == 1
    assert complaint in capsys.readouterr().err


async def test_several_venues_of_several_dialects_run_at_once(tmp_path: Path) -> None:
    venues = [
        VenueSimulator(
            VenueSimulatorSettings(
                data_dir=tmp_path / name, dialect=DialectName(dialect), seed=seed, fsync=False
            )
        )
        for name, dialect, seed in (("a", "binance", 1), ("b", "kraken", 2), ("c", "kraken", 3))
    ]
    urls = [await venue.start() for venue in venues]
    states = []
    for url in urls:
        async with aiohttp.ClientSession(url) as http:
            states.append((await ask(http, "GET", "/control/state"))[1])
    for venue in venues:
        await venue.stop()

    assert [state["dialect"] for state in states] == ["binance", "kraken", "kraken"]
    assert list(states[1]["symbols"]) == ["BTCUSD", "ETHUSD", "BTCUSDT", "ETHUSDT"]
    assert len(set(urls)) == 3


async def test_many_orders_share_one_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        waits.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    simulator = VenueSimulator(VenueSimulatorSettings(data_dir=tmp_path, step_interval_ms=0))
    await simulator.start()
    waits.clear()
    core = simulator.core
    for number in range(50):
        core.execute(SetDeadMan(core.accepted_at(), "desk", 2**60 + number))
    before = list(waits)
    await core.settled()
    shared = len(waits)
    await simulator.stop()

    assert before == []
    assert 1 <= shared <= 2


async def test_nobody_is_answered_before_the_disk_has_what_was_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = VenueSimulator(VenueSimulatorSettings(data_dir=tmp_path, step_interval_ms=0))
    await simulator.start()
    written = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda _: written.wait(5))
    async with aiohttp.ClientSession(simulator.url) as http, asyncio.TaskGroup() as tasks:
        funded = tasks.create_task(ask(http, "POST", "/control/fund", asset="ETH", amount="1"))
        await asyncio.sleep(0.05)
        read = tasks.create_task(ask(http, "GET", "/api/v3/ping"))
        await asyncio.sleep(0.05)
        early = (funded.done(), read.done())
        written.set()
        late = (await funded, await read)
    monkeypatch.undo()
    await simulator.stop()

    assert early == (False, False)
    assert [status for status, _ in late] == [200, 200]
