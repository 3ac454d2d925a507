"""Cards of Binance's own Python client over REST: its models are the judge of every answer.

The client parses each answer into a typed model; an answer that does not fit is only warned of, so
a card fails on that warning. Each test is a card: number, prerequisite, action, expectation.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from binance_common.configuration import ConfigurationRestAPI
from binance_common.errors import (
    BadRequestError,
    ClientError,
    RateLimitBanError,
    TooManyRequestsError,
    UnauthorizedError,
)
from binance_sdk_spot import Spot
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.venues.in_thread import SimulatorThread
from venues.simulator.testing import SimulatorProcess

ETH: Final = "ETHUSDT"
BTC: Final = "BTCUSDT"
LOW: Final = 2_000.0
NEVER: Final = 987_654_321


def client(venue: SimulatorProcess, **changes: Any) -> Any:
    settings = {"api_key": venue.ready["api_key"], "api_secret": venue.ready["secret"]}
    configuration = ConfigurationRestAPI(
        base_path=venue.url, timeout=10_000, retries=0, **(settings | changes)
    )
    return Spot(config_rest_api=configuration).rest_api


@pytest.fixture(scope="module")
def api(venue: SimulatorProcess) -> Iterator[Any]:
    found = client(venue)
    yield found
    found._session.close()


@pytest.fixture(autouse=True)
def still_market(api: Any, venue: SimulatorProcess) -> None:
    """Nothing moves but by the card itself; the last trades are at the middle of the books."""
    venue.control("POST", "maker", {"paused": True})
    for symbol, price in ((ETH, "3000.00"), (BTC, "60000.00")):
        venue.control("POST", "mid", {"symbol": symbol, "price": price})
        api.new_order(symbol=symbol, side="BUY", type="MARKET", quantity=0.01)


@pytest.fixture(autouse=True)
def nothing_is_misread(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The client warns of answers that do not fit its models, and returns them raw."""
    with caplog.at_level(logging.WARNING):
        yield
    told = [record.getMessage() for record in caplog.records if record.name == "root"]
    assert not [text for text in told if "response" in text], told


def fresh(symbol: str = ETH, **order: Any) -> dict[str, Any]:
    """An order that rests far below the market."""
    plain = {"symbol": symbol, "side": "BUY", "type": "LIMIT", "time_in_force": "GTC"}
    return {**plain, "quantity": 0.5, "price": LOW, **order}


PUBLIC: Final[dict[str, Callable[[Any], Any]]] = {
    "time": lambda api: api.time(),
    "exchange_info": lambda api: api.exchange_info(),
    "exchange_info_of_some": lambda api: api.exchange_info(symbols=[ETH, BTC]),
    "depth": lambda api: api.depth(symbol=ETH, limit=5),
    "trades": lambda api: api.get_trades(symbol=ETH),
    "historical_trades": lambda api: api.historical_trades(symbol=ETH, from_id=1, limit=2),
    "agg_trades": lambda api: api.agg_trades(symbol=ETH),
    "klines": lambda api: api.klines(symbol=ETH, interval="1m"),
    "ui_klines": lambda api: api.ui_klines(symbol=ETH, interval="1M", time_zone="8"),
    "avg_price": lambda api: api.avg_price(symbol=ETH),
    "day": lambda api: api.ticker24hr(symbol=ETH),
    "days": lambda api: api.ticker24hr(),
    "day_mini": lambda api: api.ticker24hr(symbol=ETH, type="MINI"),
    "trading_day": lambda api: api.ticker_trading_day(symbol=ETH),
    "trading_days": lambda api: api.ticker_trading_day(symbols=[ETH, BTC]),
    "price": lambda api: api.ticker_price(symbol=ETH),
    "prices": lambda api: api.ticker_price(),
    "book": lambda api: api.ticker_book_ticker(symbol=ETH),
    "books": lambda api: api.ticker_book_ticker(symbols=[ETH, BTC]),
    "window": lambda api: api.ticker(symbol=ETH, window_size="4h"),
    "windows": lambda api: api.ticker(symbols=[ETH, BTC]),
    "block_trades": lambda api: api.historical_block_trades(symbol=ETH, from_id=1),
}

SIGNED: Final[dict[str, Callable[[Any], Any]]] = {
    "account": lambda api: api.get_account(),
    "account_without_zeros": lambda api: api.get_account(omit_zero_balances=True),
    "commission": lambda api: api.account_commission(symbol=ETH),
    "order_limits": lambda api: api.rate_limit_order(),
    "open_orders": lambda api: api.get_open_orders(),
    "all_orders": lambda api: api.all_orders(symbol=ETH),
    "my_trades": lambda api: api.my_trades(symbol=ETH),
    "open_lists": lambda api: api.open_order_list(),
    "all_lists": lambda api: api.all_order_list(),
    "allocations": lambda api: api.my_allocations(symbol=ETH),
    "prevented": lambda api: api.my_prevented_matches(symbol=ETH, order_id=1),
    "filters": lambda api: api.my_filters(symbol=ETH),
}


@pytest.mark.parametrize("name", [*PUBLIC, *SIGNED])
def test_every_query_is_answered_as_the_client_models_it(api: Any, name: str) -> None:
    """O01. Given a trade and an open order. Each query. Parsed into its model, nothing missing."""
    api.new_order(symbol=ETH, side="BUY", type="MARKET", quantity=0.1)
    order = api.new_order(**fresh()).data()

    answer = {**PUBLIC, **SIGNED}[name](api)

    assert answer.status == 200
    data = answer.data()
    assert not isinstance(data, dict)
    assert any(limit.rateLimitType == "REQUEST_WEIGHT" for limit in answer.rate_limits)
    api.delete_order(symbol=ETH, order_id=order.order_id)


def test_every_interval_has_candles(api: Any) -> None:
    """O02. Given a trade. klines of all intervals. The last candle closes at the trade's price."""
    last = float(
        api.new_order(**fresh(type="MARKET", time_in_force=None, price=None)).data().fills[-1].price
    )

    for interval in [
        "1s",
        "1m",
        "3m",
        "5m",
        "15m",
        "30m",
        "1h",
        "2h",
        "4h",
        "6h",
        "8h",
        "12h",
        "1d",
        "3d",
        "1w",
        "1M",
    ]:
        row = api.klines(symbol=ETH, interval=interval, limit=1).data()[-1]
        assert float(row[4]) == last, interval
        assert row[0] <= row[6]


@pytest.mark.parametrize(
    ("order", "status"),
    [
        ({"type": "LIMIT"}, "NEW"),
        ({"type": "LIMIT_MAKER", "time_in_force": None}, "NEW"),
        ({"type": "MARKET", "time_in_force": None, "price": None}, "FILLED"),
        ({"type": "LIMIT", "price": 3_100.0, "time_in_force": "IOC"}, "FILLED"),
        ({"type": "LIMIT", "price": 3_100.0, "time_in_force": "FOK"}, "FILLED"),
        ({"type": "LIMIT", "time_in_force": "FOK"}, "EXPIRED"),
        ({"type": "STOP_LOSS", "time_in_force": None, "price": None, "stop_price": 3_500.0}, "NEW"),
        ({"type": "STOP_LOSS_LIMIT", "price": 3_600.0, "stop_price": 3_500.0}, "NEW"),
        ({"type": "TAKE_PROFIT", "time_in_force": None, "price": None, "stop_price": LOW}, "NEW"),
        ({"type": "TAKE_PROFIT_LIMIT", "stop_price": 2_100.0}, "NEW"),
        (
            {"type": "STOP_LOSS", "time_in_force": None, "price": None, "trailing_delta": 100},
            "NEW",
        ),
        ({"type": "LIMIT", "iceberg_qty": 0.1}, "NEW"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.get("type", ""),
)
def test_every_order_type_is_placed_found_and_ended(
    api: Any, order: dict[str, Any], status: str
) -> None:
    """O03. Each type of order. Place with strategy, query, cancel. Same fields all the way."""
    sent = fresh(**order, strategy_id=7, strategy_type=1_000_001, new_order_resp_type="RESULT")
    placed = api.new_order(
        **{key: value for key, value in sent.items() if value is not None}
    ).data()

    found = api.get_order(symbol=ETH, order_id=placed.order_id).data()

    assert (placed.status, found.status) == (status, status)
    assert found.type == order["type"]
    assert (found.strategy_id, found.strategy_type) == (7, 1_000_001)
    assert float(found.stop_price) == order.get("stop_price", 0.0)
    assert found.trailing_delta == order.get("trailing_delta")
    assert float(found.iceberg_qty) == order.get("iceberg_qty", 0.0)
    if status == "NEW":
        assert api.delete_order(symbol=ETH, order_id=placed.order_id).data().status == "CANCELED"


def test_a_stop_waits_off_the_book_and_then_trades(api: Any, venue: SimulatorProcess) -> None:
    """O04. Sell stop below the market. The price trades through it. Filled; before: not working."""
    stop = api.new_order(
        symbol=BTC, side="SELL", type="STOP_LOSS", quantity=0.01, stop_price=59_000.0
    ).data()
    waiting = api.get_order(symbol=BTC, order_id=stop.order_id).data()

    venue.control("POST", "mid", {"symbol": BTC, "price": "58000.00"})
    api.new_order(symbol=BTC, side="SELL", type="MARKET", quantity=0.01)

    filled = api.get_order(symbol=BTC, order_id=stop.order_id).data()
    assert (waiting.status, waiting.is_working) == ("NEW", False)
    assert (filled.status, filled.is_working) == ("FILLED", True)
    assert float(filled.cummulative_quote_qty) < 590


def test_a_stop_that_would_trigger_at_once_is_refused(api: Any) -> None:
    """O05. Sell stop above the market. -2010, nothing placed."""
    with pytest.raises(BadRequestError) as refused:
        api.new_order(symbol=BTC, side="SELL", type="STOP_LOSS", quantity=0.01, stop_price=61_000.0)

    assert refused.value.status_code == -2010
    assert "trigger immediately" in str(refused.value)


def test_a_test_order_tells_commission_and_places_nothing(api: Any) -> None:
    """O06. order/test with and without rates. Rates; the same open orders as before."""
    before = len(api.get_open_orders(symbol=ETH).data())

    plain = api.order_test(**fresh())
    rates = api.order_test(**fresh(), compute_commission_rates=True).data()

    assert plain.status == 200
    assert float(rates.standard_commission_for_order.maker) == 0.001
    assert len(api.get_open_orders(symbol=ETH).data()) == before


def test_an_order_shrinks_where_it_stands(api: Any) -> None:
    """O07. Amend to a smaller quantity. Same order id, new client id, one amendment on record."""
    order = api.new_order(**fresh(new_client_order_id="before-amend")).data()

    answer = api.order_amend_keep_priority(symbol=ETH, order_id=order.order_id, new_qty=0.2).data()
    found = api.get_order(symbol=ETH, order_id=order.order_id).data()
    changes = api.order_amendments(symbol=ETH, order_id=order.order_id).data()

    assert answer.amended_order.orig_client_order_id == "before-amend"
    assert (float(answer.amended_order.qty), float(found.orig_qty)) == (0.2, 0.2)
    assert found.client_order_id == answer.amended_order.client_order_id != "before-amend"
    assert [(float(row.orig_qty), float(row.new_qty)) for row in changes] == [(0.5, 0.2)]
    with pytest.raises(BadRequestError, match="increase"):
        api.order_amend_keep_priority(symbol=ETH, order_id=order.order_id, new_qty=0.4)
    api.delete_order(symbol=ETH, order_id=order.order_id)


def test_cancel_and_replace_is_one_request(api: Any) -> None:
    """O08. cancelReplace of an open and of an unknown order. Both succeed; both fail; half fails."""
    first = api.new_order(**fresh()).data()

    both = api.order_cancel_replace(
        **fresh(price=2_100.0),
        cancel_replace_mode="STOP_ON_FAILURE",
        cancel_order_id=first.order_id,
    ).data()
    with pytest.raises(BadRequestError) as neither:
        api.order_cancel_replace(
            **fresh(), cancel_replace_mode="STOP_ON_FAILURE", cancel_order_id=NEVER
        )
    with pytest.raises(ClientError, match="partially"):
        api.order_cancel_replace(
            **fresh(), cancel_replace_mode="ALLOW_FAILURE", cancel_order_id=NEVER
        )

    assert (both.cancel_result, both.new_order_result) == ("SUCCESS", "SUCCESS")
    assert both.cancel_response.order_id == first.order_id
    assert both.new_order_response.status == "NEW"
    assert neither.value.status_code == -2022
    assert {row.status for row in api.delete_open_orders(symbol=ETH).data()} == {"CANCELED"}


def test_cancel_restrictions_are_kept(api: Any) -> None:
    """O09. Cancel ONLY_PARTIALLY_FILLED of an untouched order. -2011, still open."""
    order = api.new_order(**fresh()).data()

    with pytest.raises(BadRequestError, match="cancel restrictions"):
        api.delete_order(
            symbol=ETH, order_id=order.order_id, cancel_restrictions="ONLY_PARTIALLY_FILLED"
        )

    ended = api.delete_order(symbol=ETH, order_id=order.order_id, cancel_restrictions="ONLY_NEW")
    assert ended.data().status == "CANCELED"


def test_one_order_of_an_oco_ends_the_other(api: Any, venue: SimulatorProcess) -> None:
    """O10. Sell OCO around the market; the price rises. The limit is filled, the stop expired."""
    placed = api.order_list_oco(
        symbol=BTC,
        side="SELL",
        quantity=0.01,
        above_type="LIMIT_MAKER",
        above_price=61_000.0,
        below_type="STOP_LOSS",
        below_stop_price=59_000.0,
        list_client_order_id="an-oco",
    ).data()
    listed = [row.order_list_id for row in api.open_order_list().data()]

    venue.control("POST", "mid", {"symbol": BTC, "price": "62000.00"})

    found = api.get_order_list(orig_client_order_id="an-oco").data()
    states = {
        row.type: row.status
        for row in (api.get_order(symbol=BTC, order_id=leg.order_id).data() for leg in found.orders)
    }
    assert (placed.contingency_type, placed.list_order_status) == ("OCO", "EXECUTING")
    assert len(placed.order_reports) == 2
    assert placed.order_list_id in listed
    assert found.list_order_status == "ALL_DONE"
    assert states == {"LIMIT_MAKER": "FILLED", "STOP_LOSS": "EXPIRED"}


def test_an_oco_is_cancelled_as_one(api: Any) -> None:
    """O11. The deprecated OCO form; cancel the list; upside-down prices. Both ended; refused."""
    placed = api.order_oco(
        symbol=BTC,
        side="SELL",
        quantity=0.01,
        price=61_000.0,
        stop_price=59_000.0,
        stop_limit_price=58_900.0,
        stop_limit_time_in_force="GTC",
    ).data()

    ended = api.delete_order_list(symbol=BTC, order_list_id=placed.order_list_id).data()

    assert {report.status for report in ended.order_reports} == {"CANCELED"}
    with pytest.raises(BadRequestError, match="relationship of the prices"):
        api.order_oco(symbol=BTC, side="BUY", quantity=0.01, price=61_000.0, stop_price=59_000.0)


def test_pending_orders_begin_when_the_working_one_is_filled(
    api: Any, venue: SimulatorProcess
) -> None:
    """O12. OTO and OTOCO below the market; the price falls. Pending before, new after."""
    working = {
        "symbol": BTC,
        "working_type": "LIMIT",
        "working_side": "BUY",
        "working_price": 58_000.0,
        "working_quantity": 0.01,
        "working_time_in_force": "GTC",
        "pending_side": "SELL",
        "pending_quantity": 0.005,
    }
    simple = api.order_list_oto(
        **working, pending_type="LIMIT", pending_price=70_000.0, pending_time_in_force="GTC"
    ).data()
    forked = api.order_list_otoco(
        **working,
        pending_above_type="LIMIT_MAKER",
        pending_above_price=70_000.0,
        pending_below_type="STOP_LOSS",
        pending_below_stop_price=50_000.0,
    ).data()
    before = [report.status for report in (*simple.order_reports, *forked.order_reports)]

    venue.control("POST", "mid", {"symbol": BTC, "price": "57000.00"})

    after = [
        api.get_order(symbol=BTC, order_id=leg.order_id).data().status
        for leg in (*simple.orders, *forked.orders)
    ]
    assert before == ["NEW", "PENDING_NEW", "NEW", "PENDING_NEW", "PENDING_NEW"]
    assert after == ["FILLED", "NEW", "FILLED", "NEW", "NEW"]
    api.delete_open_orders(symbol=BTC)


@pytest.mark.parametrize(
    ("mode", "maker", "taker"),
    [
        ("NONE", "FILLED", "FILLED"),
        ("EXPIRE_MAKER", "EXPIRED_IN_MATCH", "NEW"),
        ("EXPIRE_TAKER", "NEW", "EXPIRED_IN_MATCH"),
        ("EXPIRE_BOTH", "EXPIRED_IN_MATCH", "EXPIRED_IN_MATCH"),
    ],
)
def test_an_account_does_not_trade_with_itself(
    api: Any, venue: SimulatorProcess, mode: str, maker: str, taker: str
) -> None:
    """O13. Two own orders cross in an empty book, per mode. Ended as the mode says, on record."""
    venue.control("POST", "withdraw-quotes", {"symbol": BTC})
    first = api.new_order(**fresh(BTC, price=60_000.0, quantity=0.01)).data()
    second = api.new_order(
        **fresh(BTC, price=60_000.0, quantity=0.01, side="SELL"), self_trade_prevention_mode=mode
    ).data()

    states = [
        api.get_order(symbol=BTC, order_id=order.order_id).data().status
        for order in (first, second)
    ]
    prevented = api.my_prevented_matches(symbol=BTC, order_id=second.order_id).data()

    assert states == [maker, taker]
    assert len(prevented) == (0 if mode == "NONE" else 1)
    assert {row.self_trade_prevention_mode for row in prevented} <= {mode}
    for order, state in zip((first, second), states, strict=True):
        if state == "NEW":
            api.delete_order(symbol=BTC, order_id=order.order_id)


def test_orders_and_fills_are_paged_by_id_and_by_time(api: Any) -> None:
    """O14. Three fills. From an id, from a time, of an order; bad combinations refused."""
    orders = [
        api.new_order(symbol=ETH, side="BUY", type="MARKET", quantity=0.1).data() for _ in range(3)
    ]
    ids = [order.order_id for order in orders]

    listed = api.all_orders(symbol=ETH, order_id=ids[1], limit=1).data()
    fills = api.my_trades(symbol=ETH, order_id=ids[1]).data()
    rest = api.my_trades(symbol=ETH, from_id=fills[0].id, limit=2).data()
    since = api.my_trades(symbol=ETH, start_time=orders[0].transact_time, limit=1_000).data()

    assert [row.order_id for row in listed] == [ids[1]]
    assert {fill.order_id for fill in fills} == {ids[1]}
    assert rest[0].id == fills[0].id
    assert set(ids) <= {fill.order_id for fill in since}
    with pytest.raises(BadRequestError) as refused:
        api.my_trades(symbol=ETH, from_id=1, start_time=1)
    assert refused.value.status_code == -1128
    with pytest.raises(BadRequestError) as too_long:
        api.all_orders(symbol=ETH, start_time=1, end_time=200_000_000)
    assert too_long.value.status_code == -1127


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"type": "MARKET", "time_in_force": None}, -1106),
        ({"price": None}, -1102),
        ({"side": "SIDEWAYS"}, -1117),
        ({"type": "LOTTERY"}, -1116),
        ({"time_in_force": "GTX"}, -1115),
        ({"stop_price": 1.0}, -1106),
        ({"type": "STOP_LOSS_LIMIT"}, -1102),
        ({"type": "STOP_LOSS_LIMIT", "trailing_delta": 5}, -1013),
        ({"strategy_type": 1}, -1134),
        ({"iceberg_qty": 0.5}, -2010),
        ({"iceberg_qty": 0.001}, -1013),
        ({"time_in_force": "IOC", "iceberg_qty": 0.1}, -1014),
        ({"symbol": "NOPE"}, -1121),
        ({"symbol": "no!"}, -1100),
        ({"recv_window": 60_001.0}, -1131),
    ],
    ids=str,
)
def test_orders_that_make_no_sense_are_refused(api: Any, change: dict[str, Any], code: int) -> None:
    """O15. A wrong, missing or superfluous parameter each. The venue's code, nothing placed."""
    order = {key: value for key, value in fresh(**change).items() if value is not None}

    with pytest.raises(BadRequestError) as refused:
        api.new_order(**order)

    assert refused.value.status_code == code


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_requests_are_signed_with_private_keys(venue: SimulatorProcess, kind: str) -> None:
    """O16. Register a public key; trade with the private one; then with another. Placed; -1022."""
    keys = [
        generate_private_key(65_537, 2_048) if kind == "rsa" else Ed25519PrivateKey.generate()
        for _ in range(2)
    ]
    pems = [
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        for key in keys
    ]
    public = keys[0].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    name = (kind + "key" * 20)[:64]
    venue.control("POST", "key", {"api_key": name, "public_key": public.decode()})

    good = client(venue, api_key=name, api_secret=None, private_key=pems[0])
    bad = client(venue, api_key=name, api_secret=None, private_key=pems[1])

    order = good.new_order(**fresh(new_client_order_id=f"signed-by-{kind}")).data()
    assert good.delete_order(symbol=ETH, order_id=order.order_id).data().status == "CANCELED"
    with pytest.raises(BadRequestError) as refused:
        bad.get_account()
    assert refused.value.status_code == -1022
    good._session.close()
    bad._session.close()


def test_a_key_may_do_what_it_is_allowed_to(venue: SimulatorProcess) -> None:
    """O17. A reading key. Account answered; order -2015."""
    name, secret = "readonly" * 8, "s" * 64
    venue.control("POST", "key", {"api_key": name, "secret": secret, "permissions": ["read"]})
    reading = client(venue, api_key=name, api_secret=secret)

    assert reading.get_account().data().account_type == "SPOT"
    with pytest.raises(UnauthorizedError) as refused:
        reading.new_order(**fresh())
    assert refused.value.status_code == -2015
    reading._session.close()


def go_on(api: Any, despite: type[Exception] = ZeroDivisionError) -> None:
    """Ask for the heaviest thing again and again."""
    for _ in range(100):
        with contextlib.suppress(despite):
            api.depth(symbol=ETH, limit=5_000)


def test_a_client_over_the_limit_is_told_to_wait_and_then_banned(tmp_path: Path) -> None:
    """O18. Given enforced limits. Go on and on. 429 with Retry-After, then 418 for minutes."""
    with SimulatorThread(tmp_path, "--enforce-weight", "--step-ms", "0") as strict:
        api = client(strict)
        with pytest.raises(TooManyRequestsError) as limited:
            go_on(api)
        with pytest.raises(RateLimitBanError) as banned:
            go_on(api, despite=TooManyRequestsError)
        api._session.close()

    assert limited.value.retry_after in range(1, 61)
    assert banned.value.retry_after in range(61, 121)
