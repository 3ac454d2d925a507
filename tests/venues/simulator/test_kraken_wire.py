"""Kraken on the raw wire: what ccxt does not reach."""

import asyncio
import itertools
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from venues.simulator.kraken import auth
from venues.simulator.server import VenueSimulator
from venues.simulator.settings import DialectName, VenueSimulatorSettings, symbol_from_text
from venues.simulator.testing import control

MARKETS = (
    symbol_from_text("BTC/USD:tick=0.1:lot=0.00001:min=5:mid=60000"),
    symbol_from_text("ETH/USD:tick=0.01:lot=0.0001:min=5:mid=3000"),
)
ORDER: dict[str, Any] = {
    "pair": "XBTUSD",
    "type": "buy",
    "ordertype": "limit",
    "volume": "0.5",
    "price": "40000",
}

# Numbers of frames as they were written, with every zero.
_EXACT = msgspec.json.Decoder(float_hook=str)


class Client:
    """Signs requests and reads answers, nothing else."""

    def __init__(self, http: aiohttp.ClientSession, api_key: str, secret: str) -> None:
        self.http = http
        self.api_key = api_key
        self.secret = secret
        self.nonces = itertools.count(1)

    async def post(self, name: str, nonce: int | None = None, **sent: Any) -> Any:
        path = f"/0/private/{name}"
        used = str(next(self.nonces) if nonce is None else nonce)
        body = urlencode({"nonce": used, **sent})
        sign = auth.signature(self.secret, path, used, body)
        headers = {
            "API-Key": self.api_key,
            "API-Sign": sign,
            "Content-Type": "application/x-www-form-urlencoded",
        }
        async with self.http.post(path, data=body, headers=headers) as answer:
            assert answer.status == 200
            return await answer.json()

    async def get(self, name: str, **sent: Any) -> Any:
        async with self.http.get(f"/0/public/{name}", params=sent) as answer:
            return await answer.json()


class Socket:
    """Sends requests and waits for frames, in order."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.req_ids = itertools.count(1)

    async def frame(self) -> Any:
        async with asyncio.timeout(20):
            return _EXACT.decode(await self.socket.receive_str())

    async def frame_of(self, channel: str, kind: str = "update") -> Any:
        while True:
            frame = await self.frame()
            if (frame.get("channel"), frame.get("type")) == (channel, kind):
                return frame

    async def ask(self, method: str, **params: Any) -> Any:
        req_id = next(self.req_ids)
        await self.socket.send_json({"method": method, "params": params, "req_id": req_id})
        while (answer := await self.frame()).get("req_id") != req_id:
            pass
        return answer


@pytest.fixture
def options(tmp_path: Path) -> VenueSimulatorSettings:
    return VenueSimulatorSettings(
        data_dir=tmp_path,
        dialect=DialectName.KRAKEN,
        symbols=MARKETS,
        step_interval_ms=0,
        depth_interval_ms=20,
        fsync=False,
    )


@pytest_asyncio.fixture
async def venue(options: VenueSimulatorSettings) -> AsyncIterator[VenueSimulator]:
    simulator = VenueSimulator(options)
    await simulator.start()
    yield simulator
    await simulator.stop()


@pytest_asyncio.fixture
async def client(venue: VenueSimulator) -> AsyncIterator[Client]:
    spec = venue.accounts[0]
    async with aiohttp.ClientSession(venue.url) as http:
        yield Client(http, spec.api_key, spec.secret)


@pytest_asyncio.fixture
async def public(client: Client) -> AsyncIterator[Socket]:
    async with client.http.ws_connect("/v2") as socket:
        yield Socket(socket)


@pytest_asyncio.fixture
async def private(client: Client) -> AsyncIterator[Socket]:
    async with client.http.ws_connect("/auth/v2") as socket:
        yield Socket(socket)


async def token_of(client: Client) -> str:
    return str((await client.post("GetWebSocketsToken"))["result"]["token"])


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded; charset=nope", "text/plain"])
async def test_bytes_that_are_no_text_are_refused_in_the_venues_words(
    client: Client, kind: str
) -> None:
    headers = {"API-Key": client.api_key, "API-Sign": "x", "Content-Type": kind}
    async with client.http.post(
        "/0/private/Balance", data=b"nonce=1\xff\xfe", headers=headers
    ) as answer:
        assert (answer.status, await answer.json()) == (200, {"error": ["EAPI:Invalid signature"]})


async def test_a_cursor_of_no_trades_leads_to_the_first(client: Client) -> None:
    before = (await client.get("Trades", pair="XBTUSD"))["result"]["last"]
    for volume in ("0.01", "0.02"):
        await client.post("AddOrder", pair="XBTUSD", type="buy", ordertype="market", volume=volume)

    page = (await client.get("Trades", pair="XBTUSD", since=before, count="1"))["result"]

    assert [row[1] for row in page["XXBTZUSD"]] == ["0.01000000"]


async def test_terms_below_what_was_traded_end_an_amended_order_and_refuse_an_edited_one(
    client: Client,
) -> None:
    depth = (await client.get("Depth", pair="XBTUSD", count="1"))["result"]["XXBTZUSD"]
    price, shown, _ = depth["asks"][0]
    volume = str(Decimal(shown) + Decimal("0.5"))
    placed = await client.post("AddOrder", **ORDER | {"price": price, "volume": volume})
    [txid] = placed["result"]["txid"]

    edited = await client.post("EditOrder", txid=txid, pair="XBTUSD", volume="0.01")
    amended = await client.post("AmendOrder", txid=txid, order_qty="0.01")

    assert edited == {"error": ["EGeneral:Invalid arguments:volume"]}
    assert amended["error"] == []
    found = (await client.post("QueryOrders", txid=txid))["result"][txid]
    assert (found["status"], Decimal(found["vol_exec"])) == ("canceled", Decimal(shown))


async def test_a_nonce_is_used_up_even_by_a_refused_request(client: Client) -> None:
    assert (await client.post("AddOrder", nonce=10))["error"] != []

    assert await client.post("Balance", nonce=10) == {"error": ["EAPI:Invalid nonce"]}
    assert (await client.post("Balance", nonce=11))["error"] == []


async def test_a_late_request_is_refused_once_a_higher_nonce_was_seen(client: Client) -> None:
    await client.post("Balance", nonce=200)

    late = await client.post("AddOrder", nonce=100, **ORDER)

    assert late == {"error": ["EAPI:Invalid nonce"]}
    assert (await client.post("OpenOrders", nonce=201))["result"] == {"open": {}}


async def test_wrong_keys_and_signatures_are_told_apart(client: Client) -> None:
    stranger = Client(client.http, "stranger", client.secret)
    forger = Client(client.http, client.api_key, "c2VjcmV0")

    assert await stranger.post("Balance") == {"error": ["EAPI:Invalid key"]}
    assert await forger.post("Balance") == {"error": ["EAPI:Invalid signature"]}
    assert await client.post("Nonsense") == {"error": ["EGeneral:Unknown method"]}


async def test_a_json_body_is_signed_like_a_form(client: Client) -> None:
    path, nonce = "/0/private/AddOrder", "77"
    body = msgspec.json.encode({"nonce": int(nonce), **ORDER}).decode()
    headers = {
        "API-Key": client.api_key,
        "API-Sign": auth.signature(client.secret, path, nonce, body),
        "Content-Type": "application/json",
    }

    async with client.http.post(path, data=body, headers=headers) as answer:
        placed = await answer.json()

    assert placed["error"] == []
    assert placed["result"]["descr"]["order"] == "buy 0.50000000 XBTUSD @ limit 40000.0"


async def test_calls_over_the_limit_are_refused_and_orders_are_not(
    options: VenueSimulatorSettings,
) -> None:
    simulator = VenueSimulator(replace(options, enforce_weight=True))
    await simulator.start()
    spec = simulator.accounts[0]
    async with aiohttp.ClientSession(simulator.url) as http:
        client = Client(http, spec.api_key, spec.secret)
        answers = [await client.post("Balance") for _ in range(25)]
        placed = await client.post("AddOrder", **ORDER)
    await simulator.stop()

    assert {"error": ["EAPI:Rate limit exceeded"]} in answers
    assert answers[0]["error"] == []
    assert placed["error"] == []


async def test_placing_and_cancelling_at_once_runs_into_the_engines_limit(
    options: VenueSimulatorSettings,
) -> None:
    simulator = VenueSimulator(replace(options, enforce_weight=True))
    await simulator.start()
    spec = simulator.accounts[0]
    async with aiohttp.ClientSession(simulator.url) as http:
        client = Client(http, spec.api_key, spec.secret)
        errors: list[str] = []
        while not errors:
            placed = await client.post("AddOrder", **ORDER)
            errors = placed["error"]
            if not errors:
                cancelled = await client.post("CancelOrder", txid=placed["result"]["txid"][0])
                assert cancelled["result"] == {"count": 1}
        other = await client.post("AddOrder", **(ORDER | {"pair": "ETHUSD", "price": "2000"}))
    await simulator.stop()

    assert errors == ["EOrder:Rate limit exceeded"]
    assert other["error"] == []


async def test_every_checksum_holds_when_the_updates_are_applied(
    public: Socket, venue: VenueSimulator
) -> None:
    await public.ask("subscribe", channel="book", symbol=["BTC/USD"], depth=10)
    row = (await public.frame_of("book", "snapshot"))["data"][0]
    sides: dict[str, dict[str, str]] = {
        side: {level["price"]: level["qty"] for level in row[side]} for side in ("asks", "bids")
    }
    assert row["checksum"] == crc(sides)

    for move in range(30):
        mid = {"symbol": "BTCUSD", "price": f"{60_000 + 37 * (1 + move % 7)}.0"}
        await asyncio.to_thread(control, venue.url, "POST", "mid", mid)
        row = (await public.frame_of("book"))["data"][0]
        for side in ("asks", "bids"):
            for level in row[side]:
                sides[side].pop(level["price"], None)
                if Decimal(level["qty"]):
                    sides[side][level["price"]] = level["qty"]
            kept = sorted(sides[side], key=Decimal, reverse=side == "bids")[:10]
            sides[side] = {price: sides[side][price] for price in kept}
        assert row["checksum"] == crc(sides)


def crc(sides: dict[str, dict[str, str]]) -> int:
    """As the venue's guide says it, written a second time."""
    text = ""
    for side in ("asks", "bids"):
        prices = sorted(sides[side], key=Decimal, reverse=side == "bids")
        for price in prices[:10]:
            text += price.replace(".", "").lstrip("0")
            text += sides[side][price].replace(".", "").lstrip("0")
    return zlib.crc32(text.encode())


async def test_a_second_subscriber_does_not_disturb_the_first(
    client: Client, public: Socket, venue: VenueSimulator
) -> None:
    await public.ask("subscribe", channel="book", symbol=["BTC/USD"], depth=10)
    snapshot = (await public.frame_of("book", "snapshot"))["data"][0]
    async with client.http.ws_connect("/v2") as raw:
        second = Socket(raw)
        mid = {"symbol": "BTCUSD", "price": "60500.0"}
        await asyncio.to_thread(control, venue.url, "POST", "mid", mid)
        await second.ask("subscribe", channel="book", symbol=["BTC/USD"], depth=10)
        late = (await second.frame_of("book", "snapshot"))["data"][0]

    update = (await public.frame_of("book"))["data"][0]
    assert snapshot["checksum"] != late["checksum"]
    assert update["checksum"] == late["checksum"]


async def test_a_connection_is_greeted_and_answers_pings(public: Socket) -> None:
    greeting = await public.frame()
    pong = await public.ask("ping")

    assert greeting["data"][0]["system"] == "online"
    assert (pong["method"], "success" in pong) == ("pong", False)


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"channel": "book", "symbol": ["FOO/BAR"]}, "Currency pair not supported FOO/BAR"),
        ({"channel": "book", "symbol": ["BTC/USD"], "depth": 7}, "depth not supported"),
        ({"channel": "ohlc", "symbol": ["BTC/USD"], "interval": 2}, "interval not supported"),
        ({"channel": "news", "symbol": ["BTC/USD"]}, "news not supported"),
        ({"channel": "book", "symbol": "BTC/USD"}, "symbol"),
        ({"channel": "executions", "token": "x"}, "Try ws-auth.kraken.com"),
    ],
)
async def test_a_subscription_that_cannot_be_is_refused(
    public: Socket, params: dict[str, Any], error: str
) -> None:
    answer = await public.ask("subscribe", **params)

    assert answer["success"] is False
    assert error in answer["error"]


async def test_a_subscription_is_made_once_and_ended(public: Socket) -> None:
    trade = {"channel": "trade", "symbol": ["BTC/USD", "ETH/USD"]}
    first = await public.ask("subscribe", **trade)
    again = await public.ask("subscribe", **trade)
    ended = await public.ask("unsubscribe", channel="trade", symbol=["ETH/USD"])
    gone = await public.ask("unsubscribe", channel="book", symbol=["ETH/USD"])

    assert first["result"] == {"channel": "trade", "snapshot": False, "symbol": "BTC/USD"}
    assert again["error"] == "Already subscribed"
    assert ended["success"] is True
    assert gone["error"] == "Subscription Not Found"


async def test_instruments_tell_increments_and_minimums(public: Socket) -> None:
    await public.socket.send_json({"method": "subscribe", "params": {"channel": "instrument"}})
    data = (await public.frame_of("instrument", "snapshot"))["data"]

    pair = data["pairs"][0]
    assert (pair["symbol"], pair["price_increment"], pair["qty_increment"]) == (
        "BTC/USD",
        "0.1",
        "0.00001",
    )
    assert pair["cost_min"] in (5, "5")


async def test_an_order_is_reported_step_by_step(client: Client, private: Socket) -> None:
    token = await token_of(client)
    await private.socket.send_json(
        {"method": "subscribe", "params": {"channel": "executions", "token": token}}
    )
    await private.frame_of("executions", "snapshot")
    market = ORDER | {"ordertype": "market", "cl_ord_id": "step-by-step"}
    await client.post("AddOrder", **market)

    frames: list[Any] = []
    while not frames or frames[-1]["data"][0]["exec_type"] != "filled":
        frames.append(await private.frame_of("executions"))

    rows = [frame["data"][0] for frame in frames]
    steps = [row["exec_type"] for row in rows]
    assert steps[:2] == ["pending_new", "new"]
    assert set(steps[2:-1]) == {"trade"}
    assert [frame["sequence"] for frame in frames] == list(range(2, len(frames) + 2))
    assert {row["cl_ord_id"] for row in rows} == {"step-by-step"}
    assert rows[2]["order_status"] == "partially_filled"
    assert rows[2]["fees"][0]["asset"] == "USD"
    assert rows[-1]["cum_qty"] == "0.50000"
    assert "symbol" not in rows[1]


async def test_balances_tell_the_ledger(client: Client, private: Socket) -> None:
    token = await token_of(client)
    await private.socket.send_json(
        {"method": "subscribe", "params": {"channel": "balances", "token": token}}
    )
    snapshot = await private.frame_of("balances", "snapshot")
    await client.post("AddOrder", **(ORDER | {"ordertype": "market"}))
    update = await private.frame_of("balances")

    ledger = (await client.post("Ledgers"))["result"]["ledger"]
    rows = {row["ledger_id"]: row for row in update["data"]}
    assert (snapshot["sequence"], update["sequence"]) == (1, 2)
    assert set(rows) <= set(ledger)
    assert {row["type"] for row in rows.values()} == {"trade"}
    trades = (await client.post("TradesHistory"))["result"]["trades"]
    assert {row["ref_id"] for row in rows.values()} <= set(trades)


async def test_trading_over_the_socket_has_every_verb(client: Client, private: Socket) -> None:
    token = await token_of(client)
    order = {"order_type": "limit", "side": "buy", "order_qty": 0.5, "limit_price": 40000}
    mine = {"symbol": "BTC/USD", "token": token}

    added = await private.ask("add_order", **order, **mine, cl_ord_id="socket-1")
    edited = await private.ask(
        "edit_order", order_id=added["result"]["order_id"], order_qty=0.4, **mine
    )
    rows = [order | {"cl_ord_id": f"batch-{n}"} for n in range(3)]
    batch = await private.ask("batch_add", orders=rows, **mine)
    named = [row["order_id"] for row in batch["result"]]
    cancelled = await private.ask("batch_cancel", orders=named[:2], token=token)
    by_client_id = await private.ask("cancel_order", cl_ord_id=["batch-2"], token=token)
    unknown = await private.ask("cancel_order", order_id=[named[0]], token=token)
    switch = await private.ask("cancel_all_orders_after", timeout=60, token=token)
    everything = await private.ask("cancel_all", token=token)

    assert added["result"]["cl_ord_id"] == "socket-1"
    assert edited["result"]["original_order_id"] == added["result"]["order_id"]
    assert cancelled["orders_cancelled"] == 2
    assert by_client_id["result"] == {"cl_ord_id": "batch-2"}
    assert unknown["error"] == "EOrder:Unknown order"
    assert switch["result"]["triggerTime"] > switch["result"]["currentTime"]
    assert everything["result"] == {"count": 1}


async def test_stops_over_the_socket_have_triggers(client: Client, private: Socket) -> None:
    token = await token_of(client)
    await private.socket.send_json(
        {"method": "subscribe", "params": {"channel": "executions", "token": token}}
    )
    stop = {"order_type": "stop-loss", "side": "sell", "order_qty": 0.5, "symbol": "BTC/USD"}
    await private.socket.send_json(
        {
            "method": "add_order",
            "params": {**stop, "triggers": {"price": 59000.0}, "token": token},
        }
    )

    row = (await private.frame_of("executions"))["data"][0]
    assert row["triggers"]["price"] == "59000.0"
    assert (row["triggers"]["status"], row["order_type"]) == ("untriggered", "stop-loss")


async def test_a_socket_without_a_good_token_is_refused(private: Socket) -> None:
    subscribed = await private.ask("subscribe", channel="executions", token="made-up")
    traded = await private.ask("cancel_all", token="made-up")
    public_one = await private.ask("subscribe", channel="trade", symbol=["BTC/USD"])

    assert subscribed["error"] == "ESession:Invalid session"
    assert traded["error"] == "ESession:Invalid session"
    assert "Try ws.kraken.com" in public_one["error"]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("status_503", "EService:Unavailable"),
        ("timeout_1007_after_accept", "EService:Timeout"),
        ("unexpected_1006_after_accept", "EGeneral:Internal error"),
        ("rate_limited_429", "EAPI:Rate limit exceeded"),
    ],
)
async def test_faults_speak_krakens_words(
    client: Client, venue: VenueSimulator, kind: str, error: str
) -> None:
    fault = {"kind": kind, "path": "/0/private/AddOrder"}
    await asyncio.to_thread(control, venue.url, "POST", "faults", fault)

    async with client.http.post("/0/private/AddOrder") as answer:
        body = await answer.json()

    assert body == {"error": [error]}


async def test_an_unknown_outcome_was_accepted(client: Client, venue: VenueSimulator) -> None:
    fault = {"kind": "timeout_1007_after_accept", "path": "/0/private/AddOrder"}
    await asyncio.to_thread(control, venue.url, "POST", "faults", fault)

    answer = await client.post("AddOrder", **ORDER, cl_ord_id="unknown-1")

    found = await client.post("OpenOrders", cl_ord_id="unknown-1")
    assert answer == {"error": ["EService:Timeout"]}
    assert len(found["result"]["open"]) == 1


async def test_orders_keep_their_ids_and_terms_over_a_restart(
    options: VenueSimulatorSettings,
) -> None:
    simulator = VenueSimulator(options)
    await simulator.start()
    spec = simulator.accounts[0]
    shown = []
    for start in (False, True):
        if start:
            await simulator.start()
        async with aiohttp.ClientSession(simulator.url) as http:
            client = Client(http, spec.api_key, spec.secret)
            if not start:
                placed = await client.post("AddOrder", **ORDER, userref=9, oflags="post,fcib")
                assert placed["error"] == []
            shown.append((await client.post("OpenOrders"))["result"])
        await simulator.stop()

    assert shown[0] == shown[1]
    row = next(iter(shown[0]["open"].values()))
    assert (row["userref"], row["oflags"]) == (9, "fcib,post")


async def test_a_token_is_over_after_a_quarter_of_an_hour_unless_it_is_used(
    client: Client, private: Socket, venue: VenueSimulator
) -> None:
    used, unused = await token_of(client), await token_of(client)
    await private.ask("subscribe", channel="balances", token=used)
    venue.core.skew_ms = 16 * 60 * 1_000

    late = await private.ask("cancel_all", token=unused)
    still = await private.ask("cancel_all", token=used)

    assert late["error"] == "ESession:Invalid session"
    assert still["result"] == {"count": 0}


async def test_a_key_that_may_not_trade_opens_no_trading_socket(
    venue: VenueSimulator, client: Client, private: Socket
) -> None:
    key = venue.accounts[0].keys[0]
    withdrawer = Client(client.http, key.api_key, key.secret)

    refused = await withdrawer.post("GetWebSocketsToken")
    told = (await withdrawer.post("GetApiKeyInfo"))["result"]["permissions"]

    assert refused == {"error": ["EGeneral:Permission denied"]}
    assert "withdraw-funds" in told
    assert "modify-trades" not in told
    assert (await withdrawer.post("AddOrder", **ORDER))["error"] == ["EGeneral:Permission denied"]


@pytest.mark.parametrize(
    ("kind", "sequences"),
    [("duplicate_report", [2, 2, 3]), ("reports_out_of_order", [3, 2]), ("ws_gap", [3])],
)
async def test_reports_can_be_repeated_swapped_and_lost(
    client: Client, private: Socket, venue: VenueSimulator, kind: str, sequences: list[int]
) -> None:
    token = await token_of(client)
    await private.ask("subscribe", channel="executions", token=token)
    fault = {"kind": kind, "path": "user/executions"}
    await asyncio.to_thread(control, venue.url, "POST", "faults", fault)

    await client.post("AddOrder", **ORDER)

    seen = [(await private.frame_of("executions"))["sequence"] for _ in sequences]
    assert seen == sequences


async def test_a_wrong_checksum_is_sent_on_demand(public: Socket, venue: VenueSimulator) -> None:
    await public.ask("subscribe", channel="book", symbol=["BTC/USD"])
    truth = (await public.frame_of("book", "snapshot"))["data"][0]["checksum"]
    fault = {"kind": "wrong_checksum", "path": "book/BTC/USD"}
    await asyncio.to_thread(control, venue.url, "POST", "faults", fault)
    seen = []
    for price in ("60500.0", "60600.0"):
        mid = {"symbol": "BTCUSD", "price": price}
        await asyncio.to_thread(control, venue.url, "POST", "mid", mid)
        seen.append((await public.frame_of("book"))["data"][0]["checksum"])

    await public.ask("unsubscribe", channel="book", symbol=["BTC/USD"])
    await public.ask("subscribe", channel="book", symbol=["BTC/USD"])
    now = (await public.frame_of("book", "snapshot"))["data"][0]["checksum"]
    assert truth not in seen
    assert seen[1] == now
    assert seen[0] != now


async def test_only_closing_steps_are_reported_when_no_more_is_asked_for(
    client: Client, private: Socket
) -> None:
    token = await token_of(client)
    await private.ask("subscribe", channel="executions", token=token, order_status=False)
    placed = await client.post("AddOrder", **ORDER)
    txid = placed["result"]["txid"][0]
    await client.post("AmendOrder", txid=txid, order_qty="0.4")
    await client.post("CancelOrder", txid=txid)

    rows = [(await private.frame_of("executions"))["data"][0] for _ in range(2)]
    assert [row["exec_type"] for row in rows] == ["new", "canceled"]
    assert rows[1]["reason"] == "User requested"


async def test_an_amended_order_is_reported_whole(client: Client, private: Socket) -> None:
    token = await token_of(client)
    placed = await client.post("AddOrder", **ORDER)
    await private.ask("subscribe", channel="executions", token=token, ratecounter=True)
    snapshot = await private.frame_of("executions", "snapshot")
    await client.post(
        "AmendOrder", txid=placed["result"]["txid"][0], order_qty="0.4", limit_price="41000"
    )

    row = (await private.frame_of("executions"))["data"][0]
    assert [r["exec_type"] for r in snapshot["data"]] == ["new"]
    assert (row["exec_type"], row["order_qty"], row["limit_price"]) == (
        "amended",
        "0.40000",
        "41000.0",
    )
    assert row["rate_counter"] >= 1


async def test_a_withheld_order_is_denied_in_every_query(
    client: Client, venue: VenueSimulator
) -> None:
    placed = await client.post("AddOrder", **ORDER, cl_ord_id="withheld")
    withheld = {"symbol": "BTCUSD", "client_order_id": "withheld"}
    await asyncio.to_thread(control, venue.url, "POST", "withhold", withheld)

    hidden = [
        (await client.post("OpenOrders"))["result"]["open"],
        (await client.post("ClosedOrders"))["result"]["closed"],
        (await client.post("QueryOrders", txid=placed["result"]["txid"][0]))["result"],
    ]
    await asyncio.to_thread(control, venue.url, "DELETE", "withhold")

    assert hidden == [{}, {}, {}]
    assert len((await client.post("OpenOrders"))["result"]["open"]) == 1
