"""Cards of Binance's own Python client over WebSocket: its API, the user stream, market streams.

The client's models judge every answer and every event: a callback gets a model or the card fails.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final

import pytest
import pytest_asyncio
from binance_common.configuration import (
    ConfigurationWebSocketAPI,
    ConfigurationWebSocketStreams,
)
from binance_sdk_spot import Spot
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from venues.simulator.testing import SimulatorProcess

ETH: Final = "ETHUSDT"
SOON_S: Final = 20.0

# The client passes its timeout to aiohttp in a way aiohttp has moved on from.
pytestmark = pytest.mark.filterwarnings("ignore:parameter 'timeout' of type:DeprecationWarning")

ED_KEY: Final = "ed25519session" * 4


@pytest.fixture(autouse=True)
def still_market(venue: SimulatorProcess) -> None:
    venue.control("POST", "maker", {"paused": True})
    venue.control("POST", "mid", {"symbol": ETH, "price": "3000.00"})


@pytest.fixture(autouse=True)
def nothing_is_misread(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The client logs an event it cannot parse as an error, and goes on without it."""
    with caplog.at_level(logging.ERROR):
        yield
    assert not [r.getMessage() for r in caplog.records if "callback" in r.getMessage()]


@pytest_asyncio.fixture
async def api(venue: SimulatorProcess) -> AsyncIterator[Any]:
    configuration = ConfigurationWebSocketAPI(
        api_key=venue.ready["api_key"],
        api_secret=venue.ready["secret"],
        stream_url=f"{venue.ws_url}/ws-api/v3",
    )
    found: Any = Spot(config_ws_api=configuration).websocket_api
    await found.create_connection()
    yield found
    await found.close_connection()


@pytest_asyncio.fixture
async def session(venue: SimulatorProcess) -> AsyncIterator[Any]:
    """A client with an Ed25519 key, the only kind that may log on."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    venue.control("POST", "key", {"api_key": ED_KEY, "public_key": public.decode()})
    configuration = ConfigurationWebSocketAPI(
        api_key=ED_KEY, private_key=private, stream_url=f"{venue.ws_url}/ws-api/v3"
    )
    found: Any = Spot(config_ws_api=configuration).websocket_api
    await found.create_connection()
    yield found
    await found.close_connection()


@pytest_asyncio.fixture
async def streams(venue: SimulatorProcess) -> AsyncIterator[Any]:
    configuration = ConfigurationWebSocketStreams(stream_url=venue.ws_url)
    found: Any = Spot(config_ws_streams=configuration).websocket_streams
    await found.create_connection()
    yield found
    await found.close_connection()


def result(answer: Any) -> Any:
    """What an answer's model holds; the client returns a dict when the venue refused."""
    data = answer.data()
    assert not isinstance(data, dict), data
    if not hasattr(data, "result"):  # the client's model of exchangeInfo is of its result already
        return data
    assert data.status == 200
    return data.result


def refusal(answer: Any) -> Any:
    """The error of a refused request."""
    data = answer.data()
    assert isinstance(data, dict)
    return data["error"]


QUERIES: Final[dict[str, Callable[[Any], Awaitable[Any]]]] = {
    "time": lambda api: api.time(),
    "exchange_info": lambda api: api.exchange_info(symbols=[ETH, "BTCUSDT"]),
    "depth": lambda api: api.depth(symbol=ETH, limit=5),
    "recent": lambda api: api.trades_recent(symbol=ETH),
    "historical": lambda api: api.trades_historical(symbol=ETH, from_id=1),
    "aggregate": lambda api: api.trades_aggregate(symbol=ETH),
    "klines": lambda api: api.klines(symbol=ETH, interval="1m"),
    "ui_klines": lambda api: api.ui_klines(symbol=ETH, interval="1d"),
    "avg_price": lambda api: api.avg_price(symbol=ETH),
    "day": lambda api: api.ticker24hr(symbol=ETH),
    "trading_day": lambda api: api.ticker_trading_day(symbol=ETH),
    "window": lambda api: api.ticker(symbol=ETH, window_size="1h"),
    "price": lambda api: api.ticker_price(symbol=ETH),
    "book": lambda api: api.ticker_book(symbol=ETH),
    "account": lambda api: api.account_status(),
    "commission": lambda api: api.account_commission(symbol=ETH),
    "order_limits": lambda api: api.account_rate_limits_orders(),
    "open_orders": lambda api: api.open_orders_status(),
    "all_orders": lambda api: api.all_orders(symbol=ETH),
    "my_trades": lambda api: api.my_trades(symbol=ETH),
    "open_lists": lambda api: api.open_order_lists_status(),
    "all_lists": lambda api: api.all_order_lists(),
    "prevented": lambda api: api.my_prevented_matches(symbol=ETH, order_id=1),
    "filters": lambda api: api.my_filters(symbol=ETH),
}


async def test_every_query_is_answered_as_the_client_models_it(api: Any) -> None:
    """S01. Given a trade. Each query of the WebSocket API. Parsed, with the limits it touched."""
    result(await api.order_place(symbol=ETH, side="BUY", type="MARKET", quantity=0.1))

    for name, query in QUERIES.items():
        answer = await query(api)
        assert result(answer) is not None, name
        assert [limit.rateLimitType for limit in answer.rate_limits] == ["REQUEST_WEIGHT"], name


async def test_an_order_lives_over_the_socket(api: Any) -> None:
    """S02. Place, query, shrink, replace, cancel all, over one socket. Each as asked."""
    order = {"symbol": ETH, "side": "BUY", "type": "LIMIT", "time_in_force": "GTC"}
    answer = await api.order_place(**order, quantity=0.5, price=2_000.0)
    placed = result(answer)
    found = result(await api.order_status(symbol=ETH, order_id=placed.order_id))
    shrunk = result(
        await api.order_amend_keep_priority(symbol=ETH, order_id=placed.order_id, new_qty=0.3)
    )
    replaced = result(
        await api.order_cancel_replace(
            **order,
            cancel_replace_mode="STOP_ON_FAILURE",
            cancel_order_id=placed.order_id,
            quantity=0.2,
            price=2_100.0,
        )
    )
    changes = result(await api.order_amendments(symbol=ETH, order_id=placed.order_id))
    ended = result(await api.open_orders_cancel_all(symbol=ETH))

    assert {limit.rateLimitType for limit in answer.rate_limits} == {"ORDERS", "REQUEST_WEIGHT"}
    assert (placed.status, found.status) == ("NEW", "NEW")
    assert float(shrunk.amended_order.qty) == 0.3
    assert len(changes) == 1
    assert replaced.cancel_response.order_id == placed.order_id
    assert [row.order_id for row in ended] == [replaced.new_order_response.order_id]
    gone = refusal(await api.order_cancel(symbol=ETH, order_id=placed.order_id))
    assert gone["code"] == -2011


async def test_a_test_order_and_a_list_go_over_the_socket(api: Any) -> None:
    """S03. order.test, an OCO, its query, its cancel. Nothing placed; one list; ended."""
    tested = result(
        await api.order_test(
            symbol=ETH, side="BUY", type="MARKET", quantity=0.1, compute_commission_rates=True
        )
    )
    listed = result(
        await api.order_list_place_oco(
            symbol=ETH,
            side="SELL",
            quantity=0.1,
            above_type="LIMIT_MAKER",
            above_price=3_500.0,
            below_type="STOP_LOSS",
            below_stop_price=2_500.0,
        )
    )
    found = result(await api.order_list_status(order_list_id=listed.order_list_id))
    ended = result(await api.order_list_cancel(symbol=ETH, order_list_id=listed.order_list_id))

    assert tested.standard_commission_for_order.maker == "0.00100000"
    assert found.list_order_status == "EXECUTING"
    assert ended.list_order_status == "ALL_DONE"


async def test_a_session_needs_no_more_signatures(session: Any) -> None:
    """S04. Log on with an Ed25519 key, trade, subscribe, log out. Known since; then not."""
    nobody = result(await session.session_status())
    on = result(await session.session_logon())
    placed = result(await session.order_place(symbol=ETH, side="BUY", type="MARKET", quantity=0.1))
    subscribed = await session.user_data_stream_subscribe()
    listed = result(await session.session_subscriptions())
    during = result(await session.session_status())
    off = result(await session.session_logout())

    assert (nobody.api_key, on.api_key, off.api_key) == (None, ED_KEY, None)
    assert on.authorized_since >= on.connected_since
    assert placed.status == "FILLED"
    number = result(subscribed.response).subscription_id
    assert [row.subscription_id for row in listed] == [number]
    assert during.user_data_stream is True


async def test_only_ed25519_keys_log_on(api: Any) -> None:
    """S05. session.logon with an HMAC key. Refused."""
    assert refusal(await api.session_logon())["code"] == -4056


async def heard(stream: Any, act: Callable[[], Awaitable[Any]], enough: int) -> list[Any]:
    """Events of a user stream while something is done, until there are enough."""
    queue: asyncio.Queue[Any] = asyncio.Queue()
    stream.on("message", queue.put_nowait)
    await act()
    async with asyncio.timeout(SOON_S):
        return [(await queue.get()).actual_instance for _ in range(enough)]


async def test_an_account_hears_what_happens_to_it(api: Any, venue: SimulatorProcess) -> None:
    """S06. Subscribe by signature; trade, stop, deposit. Every event a model, in order."""
    subscribed = await api.user_data_stream_subscribe_signature()

    async def act() -> None:
        order = {"symbol": ETH, "quantity": 0.1}
        await api.order_place(**order, side="BUY", type="MARKET")
        stop = result(
            await api.order_place(**order, side="SELL", type="STOP_LOSS", stop_price=2_500.0)
        )
        await api.order_cancel(symbol=ETH, order_id=stop.order_id)
        await asyncio.to_thread(
            venue.control, "POST", "deposit", {"asset": "ETH", "amount": "1", "tx_id": "a"}
        )

    events = await heard(subscribed.stream, act, 9)

    kinds = [type(event).__name__ for event in events]
    reports = [event for event in events if type(event).__name__ == "ExecutionReport"]
    assert kinds.count("BalanceUpdate") == 1
    assert kinds.count("OutboundAccountPosition") == 4
    assert [(report.x, report.X) for report in reports] == [
        ("NEW", "NEW"),
        ("TRADE", "FILLED"),
        ("NEW", "NEW"),
        ("CANCELED", "CANCELED"),
    ]
    assert [report.w for report in reports] == [True, False, False, False]
    assert reports[2].c == reports[3].C
    assert float(reports[2].P) == 2_500.0


async def test_lists_are_told_of(api: Any) -> None:
    """S07. Place and cancel an OCO. listStatus at its start and its end."""
    subscribed = await api.user_data_stream_subscribe_signature()

    async def act() -> None:
        listed = result(
            await api.order_list_place_oco(
                symbol=ETH,
                side="SELL",
                quantity=0.1,
                above_type="LIMIT_MAKER",
                above_price=3_500.0,
                below_type="STOP_LOSS_LIMIT",
                below_stop_price=2_500.0,
                below_price=2_400.0,
                below_time_in_force="GTC",
            )
        )
        await api.order_list_cancel(symbol=ETH, order_list_id=listed.order_list_id)

    events = await heard(subscribed.stream, act, 8)

    statuses = [event for event in events if type(event).__name__ == "ListStatus"]
    assert [(event.l, event.L) for event in statuses] == [
        ("EXEC_STARTED", "EXECUTING"),
        ("ALL_DONE", "ALL_DONE"),
    ]
    assert len(statuses[0].O) == 2


async def test_changes_and_prevented_trades_are_told_of(api: Any, venue: SimulatorProcess) -> None:
    """S08. Shrink an order, then meet it with an own one. REPLACED under both ids; prevented."""
    venue.control("POST", "withdraw-quotes", {"symbol": ETH})
    subscribed = await api.user_data_stream_subscribe_signature()
    limit = {"symbol": ETH, "type": "LIMIT", "time_in_force": "GTC", "price": 3_000.0}

    async def act() -> None:
        first = result(
            await api.order_place(**limit, side="BUY", quantity=0.5, new_client_order_id="first-id")
        )
        await api.order_amend_keep_priority(
            symbol=ETH, order_id=first.order_id, new_qty=0.2, new_client_order_id="second-id"
        )
        taker = result(await api.order_place(**limit, side="SELL", quantity=0.1))
        await api.order_cancel(symbol=ETH, order_id=taker.order_id)

    events = await heard(subscribed.stream, act, 9)

    reports = [event for event in events if type(event).__name__ == "ExecutionReport"]
    assert [report.x for report in reports] == [
        "NEW",
        "REPLACED",
        "NEW",
        "TRADE_PREVENTION",
        "CANCELED",
    ]
    assert (reports[1].c, reports[1].C, reports[1].q) == ("second-id", "first-id", "0.20000000")
    assert reports[3].X == "EXPIRED_IN_MATCH"
    assert reports[2].i == reports[3].U
    assert (reports[3].pl, reports[3].pL) == ("0.10000000", "3000.00000000")


MARKET: Final[dict[str, Callable[[Any], Awaitable[Any]]]] = {
    "trade": lambda s: s.trade(symbol="ethusdt"),
    "aggTrade": lambda s: s.agg_trade(symbol="ethusdt"),
    "kline_1s": lambda s: s.kline(symbol="ethusdt", interval="1s"),
    "kline_1m": lambda s: s.kline(symbol="ethusdt", interval="1m"),
    "kline_1d_china": lambda s: s.kline_offset(symbol="ethusdt", interval="1d"),
    "miniTicker": lambda s: s.mini_ticker(symbol="ethusdt"),
    "!miniTicker": lambda s: s.all_mini_ticker(),
    "ticker": lambda s: s.ticker(symbol="ethusdt"),
    "ticker_1h": lambda s: s.rolling_window_ticker(symbol="ethusdt", window_size="1h"),
    "!ticker_4h": lambda s: s.all_market_rolling_window_ticker(window_size="4h"),
    "bookTicker": lambda s: s.book_ticker(symbol="ethusdt"),
    "avgPrice": lambda s: s.avg_price(symbol="ethusdt"),
    "depth5": lambda s: s.partial_book_depth(symbol="ethusdt", levels="5"),
    "depth20@100ms": lambda s: s.partial_book_depth(
        symbol="ethusdt", levels="20", update_speed="100ms"
    ),
    "depth": lambda s: s.diff_book_depth(symbol="ethusdt"),
    "depth@100ms": lambda s: s.diff_book_depth(symbol="ethusdt", update_speed="100ms"),
}


async def test_every_market_stream_is_heard(streams: Any, venue: SimulatorProcess) -> None:
    """S09. All market streams over one socket, a lively market. Each heard, parsed by its model."""
    first: dict[str, asyncio.Future[Any]] = {}
    loop = asyncio.get_running_loop()

    def hear(name: str) -> Callable[[Any], None]:
        def once(event: Any) -> None:
            if not first[name].done():
                first[name].set_result(event)

        return once

    async def listen(name: str, subscribe: Callable[[Any], Awaitable[Any]]) -> None:
        handle = await subscribe(streams)
        handle.on("message", hear(name))

    # At once: the client waits half a second after each request of its own accord.
    async with asyncio.TaskGroup() as tasks:
        for name, subscribe in MARKET.items():
            first[name] = loop.create_future()
            tasks.create_task(listen(name, subscribe))
    venue.control("POST", "maker", {"paused": False})
    async with asyncio.timeout(SOON_S):
        seen = {name: await future for name, future in first.items()}
    venue.control("POST", "maker", {"paused": True})

    assert not [name for name, event in seen.items() if isinstance(event, dict)]
    assert seen["kline_1m"].k.i == "1m"
    assert len(seen["depth5"].bids) == 5
    assert len(seen["depth20@100ms"].asks) == 20
    assert seen["depth@100ms"].u >= seen["depth@100ms"].U
    assert isinstance(seen["!miniTicker"], list)
    assert (await streams.list_subscribe())["result"]
