"""No number becomes a float between the venue's JSON and our integers, whatever ccxt does with it."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import ccxt.async_support as ccxt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import venues.ccxt
from kernel.clock import SystemClock
from kernel.errors import BadInput
from kernel.money import Asset
from kernel.settings import Secret
from marketdata.model import Instrument
from venues.capabilities import Capabilities
from venues.ccxt.endpoint import Credentials, Endpoint
from venues.ccxt.gateway import READINGS
from venues.ccxt.instance import asking, exact_json, streaming
from venues.ccxt.texts import moment_of_rfc3339, moment_of_seconds, plain
from venues.model import DUST_SCALE, VenueBalance
from venues.records import BINANCE, BINANCE_US, KRAKEN, RECORDS

KEY = Credentials(api_key="key", secret=Secret("c2VjcmV0"))
FINE = Asset("BTC", 30)
"""Finer than any figure below, so that nothing is rounded."""

DIGITS = st.integers(min_value=0, max_value=10**15)
LITERALS = st.one_of(
    DIGITS.map(str),
    st.builds(lambda a, b: f"{a}.{b:08d}", DIGITS, st.integers(0, 10**8 - 1)),
    st.builds(lambda a, p: f"{a}e-{p}", st.integers(1, 10**6), st.integers(1, 20)),
    st.builds(lambda a, p: f"{a}E+{p}", st.integers(1, 10**6), st.integers(0, 12)),
    st.sampled_from(["1e-8", "1E+1", "0.10", "10", "0.30000000", "1.5e3", "0.1", "0e-8", "100e-2"]),
)
"""Numbers as JSON may write them; half of them are sent bare, half in quotes."""


def instance(record: Capabilities, url: str = "http://127.0.0.1:9") -> Any:
    return asking(record, KEY, Endpoint(http_url=url), timedelta(seconds=5), SystemClock())


def total(balance: VenueBalance | None) -> Decimal:
    if balance is None:
        return Decimal(0)
    assert balance.dust == 0
    return Decimal(balance.total).scaleb(-FINE.scale)


async def balance_through_the_wire(record: Capabilities, free: str, locked: str) -> Decimal:
    """Let the record's ccxt class ask a server for balances written with these literals."""

    async def account(request: web.Request) -> web.Response:
        if request.path.endswith("/account"):
            row = f'{{"asset":"BTC","free":{free},"locked":{locked}}}'
            text = f'{{"balances":[{row}]}}'
        else:
            text = "{}"
        return web.Response(text=text, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", account)
    async with TestServer(app) as server:
        exchange = instance(record, str(server.make_url("")).rstrip("/"))
        exchange.set_markets([])
        try:
            answer = await exchange.fetch_balance()
        finally:
            await exchange.close()
    held = READINGS[record.dialect].balances(answer, {"BTC": FINE})
    return total(held[0] if held else None)


@pytest.mark.parametrize("record", [BINANCE, BINANCE_US], ids=lambda record: record.ccxt_id)
async def test_a_number_that_no_float_can_hold_comes_through(record: Capabilities) -> None:
    """What `exact_json` is for: read as floats, the last digits would be other ones."""
    found = await balance_through_the_wire(record, "123456789012345.12345678", "0.1")

    assert found == Decimal("123456789012345.22345678")


@settings(max_examples=15, phases=(Phase.explicit, Phase.generate))  # each example is a server
@given(free=LITERALS, locked=LITERALS, quoted=st.booleans())
def test_any_decimal_comes_through_ccxts_class_digit_for_digit(
    free: str, locked: str, *, quoted: bool
) -> None:
    sent = [json.dumps(text) if quoted else text for text in (free, locked)]
    for record in (BINANCE, BINANCE_US):
        found = asyncio.run(balance_through_the_wire(record, *sent))

        assert found == Decimal(free) + Decimal(locked)


GRID = Instrument(
    venue="sim",
    symbol="BTCUSDT",
    base=FINE,
    quote=Asset("USDT", 30),
    price_scale=2,
    tick=1,
    lot=1,
    lots_min=1,
    lots_max=1,
    min_notional=0,
)


@given(quantity=LITERALS.filter(lambda text: Decimal(text) > 0), cost=LITERALS, fee=LITERALS)
def test_a_trade_that_ccxt_has_unified_keeps_every_digit(
    quantity: str, cost: str, fee: str
) -> None:
    text = (
        f'{{"id":7,"orderId":8,"price":"3.10","qty":{quantity},"quoteQty":{cost},'
        f'"commission":{fee},"commissionAsset":"USDT","time":1700000000123,'
        '"isBuyer":false,"isMaker":true}'
    )
    unified = UNIFYING.parse_trade(exact_json(text))

    fill = READINGS[BINANCE_US.dialect].fill(
        unified, GRID, {"BTC": FINE, "USDT": GRID.quote}, "desk"
    )

    scale = -GRID.quote.scale
    assert Decimal(fill.base_units).scaleb(scale) == Decimal(quantity)
    assert Decimal(fill.quote_units).scaleb(scale) == Decimal(cost)
    assert Decimal(fill.fee_units).scaleb(scale) == Decimal(fee)
    assert (fill.quote_dust, fill.fee_dust, DUST_SCALE) == (0, 0, 18)


UNIFYING = instance(BINANCE_US)


@given(text=LITERALS)
def test_a_plain_text_is_the_same_number(text: str) -> None:
    assert Decimal(plain(text)) == Decimal(text)
    assert "e" not in plain(text).lower()


@pytest.mark.parametrize(
    ("text", "shown"),
    [("1E+1", "10"), ("1e-8", "0.00000001"), ("0.10", "0.10"), ("-2.5e1", "-25"), ("12", "12")],
)
def test_a_plain_text_keeps_the_digits(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize(
    "text", ["", "1e99", "1e-99", "nan", "0x1", "1,5", "\u0661", ".5", "1e", "--1"]
)
def test_what_is_no_decimal_is_not_read(text: str) -> None:
    with pytest.raises(BadInput):
        plain(text)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_json_is_refused(number: str) -> None:
    with pytest.raises(ValueError, match="no number"):
        exact_json(f'{{"free":{number}}}')


@pytest.mark.parametrize(
    "text",
    ['{"code":-2010,"code":-1006}', '{"a":{"id":1,"id":2}}', "[" * 100_000, '{"a":' * 100_000],
    ids=["two codes", "two ids within", "deep lists", "deep objects"],
)
def test_json_that_says_two_things_or_has_no_bottom_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="JSON"):
        exact_json(text)


def test_the_stream_and_the_list_of_kraken_tell_the_same_time() -> None:
    listed, streamed = "1688667796.8802", "2023-07-06T18:23:16.880245Z"

    assert moment_of_seconds(listed) == moment_of_rfc3339(streamed)


@pytest.mark.parametrize("record", RECORDS.values())
def test_ccxts_class_is_used_as_it_is(record: Capabilities) -> None:
    """Whatever is set, is set on our instance; the class stays what it was."""
    made = getattr(ccxt, record.ccxt_id)
    made()  # the first one of a class gives it its other spellings of every name
    before = dict(vars(made))

    exchange = instance(record)

    assert type(exchange) is made
    assert dict(vars(made)) == before
    assert exchange.number is str
    assert made().number is float
    assert exchange.parse_json('{"a": 1.10, "b": 1e-8, "c": 7}') == {
        "a": "1.10",
        "b": "1e-8",
        "c": 7,
    }
    assert exchange.options["maxRetriesOnFailure"] == 0
    assert exchange.enableRateLimit is False


@pytest.mark.parametrize("record", RECORDS.values())
def test_ccxt_rounds_an_order_only_where_no_text_of_ours_is_written_over_it(
    record: Capabilities,
) -> None:
    told = []
    for wire in (record.wire, replace(record.wire, quantity_field="", price_field="")):
        exchange = instance(replace(record, wire=wire))
        grid = {"symbol": "ETH/USDT", "precision": {"amount": "0.01", "price": "0.01"}}
        exchange.set_markets([exchange.safe_market_structure(grid)])
        amount = exchange.amount_to_precision("ETH/USDT", "0.019")
        told.append((amount, exchange.price_to_precision("ETH/USDT", "1500.019")))

    assert told == [("0.019", "1500.019"), ("0.01", "1500.02")]


async def test_all_instances_of_a_key_draw_from_one_rising_sequence() -> None:
    clock, endpoint, wait = SystemClock(), Endpoint(), timedelta(seconds=1)
    pair = [asking(KRAKEN, KEY, endpoint, wait, clock) for _ in range(2)]
    stream = streaming(KRAKEN, KEY, endpoint, wait, clock)
    other = asking(
        KRAKEN, Credentials(api_key="other", secret=Secret("eA==")), endpoint, wait, clock
    )

    drawn = [exchange.incrementing_nonce() for exchange in (*pair, stream) * 50]
    signed = pair[0].sign("Balance", ["private"], "POST", {})

    assert drawn == sorted(set(drawn))
    assert int(signed["body"].split("=")[1]) > drawn[-1]
    assert other.incrementing_nonce() <= drawn[-1] + 1_000
    for exchange in (*pair, stream, other):
        await exchange.close()


async def test_a_keys_requests_go_out_one_at_a_time_whoever_makes_them() -> None:
    """A nonce that overtakes another on the way makes the venue refuse the later one."""
    drawn: list[int] = []
    under_way = most = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        drawn.append(int((await request.post())["nonce"].__str__()))
        await asyncio.sleep(0.001 * (len(drawn) % 3))
        under_way -= 1
        return web.json_response({"error": [], "result": {}})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        endpoint, wait = Endpoint(http_url=str(server.make_url(""))), timedelta(seconds=5)
        trader, reader = (asking(KRAKEN, KEY, endpoint, wait, SystemClock()) for _ in range(2))
        stream = streaming(KRAKEN, KEY, endpoint, wait, SystemClock())
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(trader.privatePostBalance({}))
                group.create_task(reader.privatePostOpenOrders({}))
                group.create_task(stream.privatePostGetWebSocketsToken({}))
        for exchange in (trader, reader, stream):
            await exchange.close()

    assert (most, len(drawn)) == (1, 24)
    assert drawn == sorted(drawn)


FLOAT_DOORS = {"float", "safe_float", "safe_number", "number_to_string", "parse_to_numeric"}
THE_DOOR = "decimal_text.py"
"""Where public floats of ccxt.pro become exact texts; it makes none itself."""


def test_no_module_that_reads_a_venue_calls_anything_that_makes_floats() -> None:
    folder = Path(inspect.getfile(venues.ccxt)).parent
    found = []
    for path in sorted(folder.glob("*.py")):
        if path.name == THE_DOOR:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "attr", getattr(node, "id", None))
            is_literal = isinstance(node, ast.Constant) and isinstance(node.value, float)
            if name in FLOAT_DOORS or is_literal:
                found.append(f"{path.name}:{getattr(node, 'lineno', 0)}")

    assert found == []
