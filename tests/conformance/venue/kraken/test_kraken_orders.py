"""Cards of orders on Kraken: what an unmodified ccxt class must be able to do with them.

Each test is a card: its docstring has the number, the prerequisite, the action, the expectation.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import ccxt
import ccxt.async_support
import pytest

from venues.simulator.testing import SimulatorProcess

Kraken: TypeAlias = ccxt.async_support.kraken
BTC = "BTC/USD"
FAR_BELOW = 40_000
FAR_ABOVE = 80_000


@pytest.fixture
def client_id(request: pytest.FixtureRequest) -> str:
    """A short UUID made of the card's name."""
    return uuid.uuid5(uuid.NAMESPACE_URL, request.node.name).hex


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110  another process knows
            await asyncio.sleep(0.02)


async def trade_here(rest: Kraken) -> None:
    """Triggers look at the last trade: let it be at the price that every card starts with."""
    await rest.create_order(BTC, "market", "buy", 0.001)


async def place_limit(rest: Kraken, **params: Any) -> str:
    order = await rest.create_order(BTC, "limit", "buy", 0.5, FAR_BELOW, params)
    return str(order["id"])


async def test_limit_order_rests_and_holds_its_cost(rest: Kraken) -> None:
    """K10. Given funds. Limit buy below the market. Open; price x volume is held."""
    before = await rest.fetch_balance()

    order_id = await place_limit(rest)

    after, order = await rest.fetch_balance(), await rest.fetch_order(order_id)
    assert (order["status"], order["price"], order["amount"]) == ("open", FAR_BELOW, 0.5)
    assert order["filled"] == 0
    assert after["USD"]["used"] - before["USD"]["used"] == pytest.approx(20_000, rel=0.01)
    assert after["USD"]["total"] == before["USD"]["total"]
    await rest.cancel_order(order_id)
    assert (await rest.fetch_balance())["USD"]["used"] == before["USD"]["used"]


async def test_market_orders_pay_their_fee_in_the_quote_currency(rest: Kraken) -> None:
    """K11. Given liquidity. Market buy and sell. Closed; both fees in USD."""
    bought = await rest.create_order(BTC, "market", "buy", 0.5)
    sold = await rest.create_order(BTC, "market", "sell", 0.5)

    for order_id in (bought["id"], sold["id"]):
        order = await rest.fetch_order(order_id)
        assert (order["status"], order["filled"]) == ("closed", 0.5)
        assert order["fee"]["currency"] == "USD"
        assert float(order["fee"]["cost"]) == pytest.approx(float(order["cost"]) * 0.004, rel=1e-6)


async def test_fee_can_be_charged_in_the_base_currency(rest: Kraken) -> None:
    """K12. oflags fcib, market buy. The ledger's fee is in BTC."""
    order = await rest.create_order(BTC, "market", "buy", 0.5, None, {"oflags": "fcib"})

    trades = {trade["id"] for trade in (await rest.fetch_order(order["id"]))["trades"]}
    entries = [e for e in await rest.fetch_ledger("BTC") if e["referenceId"] in trades]
    assert sum(entry["fee"]["cost"] for entry in entries) == pytest.approx(0.002)
    assert {entry["fee"]["currency"] for entry in entries} == {"BTC"}


async def test_an_order_of_quote_size_is_filled_within_it(rest: Kraken) -> None:
    """K13. Market buy with a cost of 1,000 USD (viqc). Filled for at most that."""
    order = await rest.create_market_order_with_cost(BTC, "buy", 1_000)

    found = await rest.fetch_order(order["id"])
    assert found["status"] == "closed"
    assert 990 < found["cost"] <= 1_000


async def test_an_order_is_found_by_its_client_id(rest: Kraken, client_id: str) -> None:
    """K14. Place under a client id, cancel. It is in the open list, then in the closed one."""
    order_id = await place_limit(rest, clientOrderId=client_id)

    found = await rest.fetch_open_orders(BTC, params={"clientOrderId": client_id})
    assert [(o["id"], o["clientOrderId"]) for o in found] == [(order_id, client_id)]
    await rest.cancel_order(order_id)
    assert await rest.fetch_open_orders(BTC, params={"clientOrderId": client_id}) == []
    closed = await rest.fetch_closed_orders(BTC, params={"clientOrderId": client_id})
    assert [(o["id"], o["status"]) for o in closed] == [(order_id, "canceled")]


async def test_a_client_id_is_unique_among_open_orders_only(rest: Kraken, client_id: str) -> None:
    """K15. The same client id on another pair: refused while the first is open, taken after.

    ccxt knows no class of its own for this text: whoever sends again must look for the first order.
    """
    first = await place_limit(rest, clientOrderId=client_id)

    with pytest.raises(ccxt.ExchangeError, match="cl_ord_id not unique"):
        await rest.create_order("ETH/USD", "limit", "buy", 1, 2_000, {"clientOrderId": client_id})

    await rest.cancel_order(first)
    second = await place_limit(rest, clientOrderId=client_id)
    closed = await rest.fetch_closed_orders(BTC, params={"clientOrderId": client_id})
    assert second != first
    assert [o["id"] for o in closed] == [first]


async def test_an_order_is_cancelled_by_its_client_id(rest: Kraken, client_id: str) -> None:
    """K16. cancel_order with a client id. Cancelled; a second time it is not found."""
    order_id = await place_limit(rest, clientOrderId=client_id)

    answer = await rest.cancel_order("", None, {"clientOrderId": client_id})

    assert answer["info"]["result"]["count"] == 1
    assert (await rest.fetch_order(order_id))["status"] == "canceled"
    with pytest.raises(ccxt.OrderNotFound):
        await rest.cancel_order("", None, {"clientOrderId": client_id})


async def test_orders_are_named_by_a_user_reference(rest: Kraken) -> None:
    """K17. Two orders under one userref. Both are listed by it and cancelled by it."""
    ids = {await place_limit(rest, userref=4711) for _ in range(2)}

    assert {o["id"] for o in await rest.fetch_open_orders(BTC, params={"userref": 4711})} == ids
    answer = await rest.cancel_order("", None, {"userref": 4711})
    assert answer["info"]["result"]["count"] == 2


async def test_unknown_orders_are_not_found(rest: Kraken) -> None:
    """K18. Cancel or fetch an id that nobody gave out. OrderNotFound."""
    with pytest.raises(ccxt.OrderNotFound):
        await rest.cancel_order("OQCLML-BW3P3-BUCMWZ")
    with pytest.raises(ccxt.OrderNotFound):
        await rest.fetch_order("OQCLML-BW3P3-BUCMWZ")


async def test_post_only_is_refused_when_it_would_trade(rest: Kraken) -> None:
    """K19. Post-only buy above the market, then below it. Refused; resting."""
    with pytest.raises(ccxt.ExchangeError, match="Post only order"):
        await rest.create_order(BTC, "limit", "buy", 0.5, FAR_ABOVE, {"postOnly": True})

    order_id = await place_limit(rest, postOnly=True)
    found = await rest.fetch_order(order_id)
    assert (found["status"], found["postOnly"]) == ("open", True)


async def test_ioc_trades_what_it_can_and_ends(rest: Kraken) -> None:
    """K20. IOC sell far above the best bid. Canceled with nothing traded."""
    order = await rest.create_order(BTC, "limit", "sell", 1, FAR_ABOVE, {"timeInForce": "IOC"})

    found = await rest.fetch_order(order["id"])
    assert (found["status"], found["filled"]) == ("canceled", 0)


async def test_fok_is_filled_whole_or_not_at_all(rest: Kraken) -> None:
    """K21. FOK buys larger than one level's limit, and within it. Canceled; closed."""
    best = (await rest.fetch_order_book(BTC))["asks"][0][0]
    fok = {"timeInForce": "FOK"}

    large = await rest.create_order(BTC, "limit", "buy", 40, best, fok)
    small = await rest.create_order(BTC, "limit", "buy", 0.01, best, fok)

    assert (await rest.fetch_order(large["id"]))["filled"] == 0
    assert (await rest.fetch_order(small["id"]))["status"] == "closed"


async def test_gtd_expires_by_itself(rest: Kraken) -> None:
    """K22. GTD order good for a second. Expired soon after."""
    order_id = await place_limit(rest, timeInForce="GTD", expiretm="+1")

    async def expired() -> bool:
        return str((await rest.fetch_order(order_id))["status"]) == "expired"

    await until(expired)


async def test_a_stop_loss_waits_for_its_price(rest: Kraken, venue: SimulatorProcess) -> None:
    """K23. Stop-loss sell below the market; the market trades down. Untouched, then closed."""
    await trade_here(rest)
    order = await rest.create_order(BTC, "market", "sell", 0.5, None, {"stopLossPrice": 59_000})
    waiting = await rest.fetch_order(order["id"])

    venue.control("POST", "mid", {"symbol": "BTCUSD", "price": "58000.0"})
    await rest.create_order(BTC, "market", "sell", 0.01)

    assert (waiting["status"], waiting["stopLossPrice"]) == ("open", 59_000)
    assert waiting["info"]["descr"]["ordertype"] == "stop-loss"
    assert (await rest.fetch_order(order["id"]))["status"] == "closed"


async def test_stop_loss_and_take_profit_with_limits_rest_once_triggered(
    rest: Kraken, venue: SimulatorProcess
) -> None:
    """K24. Take-profit-limit sell and stop-loss-limit buy above; the market rises. Both are live."""
    await trade_here(rest)
    profit = await rest.create_order(BTC, "limit", "sell", 0.5, 70_000, {"takeProfitPrice": 61_000})
    stop = await rest.create_order(BTC, "limit", "buy", 0.5, 50_000, {"stopLossPrice": 61_000})

    venue.control("POST", "mid", {"symbol": "BTCUSD", "price": "62000.0"})
    await rest.create_order(BTC, "market", "buy", 0.01)

    for order_id, kind in ((profit["id"], "take-profit-limit"), (stop["id"], "stop-loss-limit")):
        info = (await rest.fetch_order(order_id))["info"]
        assert (info["status"], info["misc"], info["descr"]["ordertype"]) == (
            "open",
            "stopped",
            kind,
        )


async def test_a_trailing_stop_follows_the_market(rest: Kraken, venue: SimulatorProcess) -> None:
    """K25. Trailing stop sell, 1 % behind. Up 5 %, down 2 %: closed above the first price."""
    await trade_here(rest)
    order = await rest.create_order(
        BTC, "market", "sell", 0.1, None, {"trailingPercent": "1", "trigger": "last"}
    )
    for price in ("63000.0", "61500.0"):
        venue.control("POST", "mid", {"symbol": "BTCUSD", "price": price})
        await rest.create_order(BTC, "market", "buy", 0.01)

    found = await rest.fetch_order(order["id"])
    assert found["status"] == "closed"
    assert found["average"] > 61_000


async def test_an_iceberg_shows_only_a_part(rest: Kraken) -> None:
    """K26. Iceberg buy of 2 showing 0.2. The book has 0.2 at its price; the order is of 2."""
    order = await rest.create_order(
        BTC, "iceberg", "buy", 2, None, {"price": "59990.1", "displayvol": "0.2"}
    )

    book = await rest.fetch_order_book(BTC)
    shown = {price: amount for price, amount, *_ in book["bids"]}
    assert shown[59_990.1] == pytest.approx(0.2)
    found = await rest.fetch_order(order["id"])
    assert (found["status"], found["amount"], found["filled"]) == ("open", 2, 0)


async def test_orders_are_placed_and_cancelled_in_batches(rest: Kraken) -> None:
    """K27. create_orders with three, cancel_orders with two of them. One stays open."""
    row: Any = {"symbol": BTC, "type": "limit", "side": "buy", "amount": 0.1, "price": FAR_BELOW}

    placed = await rest.create_orders([row, row, row])
    ids = [order["id"] for order in placed]
    cancelled = await rest.cancel_orders(ids[:2])

    assert cancelled[0]["info"]["result"]["count"] == 2
    assert [o["id"] for o in await rest.fetch_open_orders(BTC)] == ids[2:]


async def test_an_edited_order_keeps_its_id(rest: Kraken, client_id: str) -> None:
    """K28. edit_order with another amount and price. Same id and client id, new terms."""
    order_id = await place_limit(rest, clientOrderId=client_id)

    answer = await rest.edit_order(order_id, BTC, "limit", "buy", 0.4, 41_000)

    found = await rest.fetch_order(order_id)
    assert answer["info"]["amend_id"].startswith("T")
    assert (found["id"], found["clientOrderId"]) == (order_id, client_id)
    assert (found["amount"], found["price"], found["status"]) == (0.4, 41_000, "open")


async def test_the_older_edit_makes_a_new_order(rest: Kraken) -> None:
    """K29. EditOrder. The old order is cancelled; another one with another id stands."""
    order_id = await place_limit(rest)

    answer = await rest.privatePostEditOrder(
        {"txid": order_id, "pair": "XBTUSD", "volume": "0.3", "price": "42000"}
    )

    new_id = answer["result"]["txid"]
    assert answer["result"]["originaltxid"] == order_id
    assert (await rest.fetch_order(order_id))["status"] == "canceled"
    assert (await rest.fetch_order(new_id))["amount"] == 0.3


async def test_all_orders_are_cancelled_at_once(rest: Kraken) -> None:
    """K30. Three open orders. cancel_all_orders. None is open."""
    for _ in range(3):
        await place_limit(rest)

    answer = await rest.cancel_all_orders()

    assert answer[0]["info"]["result"]["count"] == 3
    assert await rest.fetch_open_orders() == []


async def test_the_dead_mans_switch_fires_unless_it_is_set_again(rest: Kraken) -> None:
    """K31. cancel_all_orders_after one second, an open order. Canceled by itself."""
    order_id = await place_limit(rest)
    await rest.cancel_all_orders_after(60_000)
    off = await rest.cancel_all_orders_after(0)
    await rest.cancel_all_orders_after(1_000)

    async def cancelled() -> bool:
        return str((await rest.fetch_order(order_id))["status"]) == "canceled"

    assert off["result"]["triggerTime"] == "0"
    await until(cancelled)


async def test_what_the_account_cannot_pay_is_refused(rest: Kraken) -> None:
    """K32. A buy of more than the balance; a sell of more than there is. InsufficientFunds."""
    with pytest.raises(ccxt.InsufficientFunds):
        await rest.create_order(BTC, "limit", "buy", 1_000, 59_000)
    with pytest.raises(ccxt.InsufficientFunds):
        await rest.create_order(BTC, "limit", "sell", 1_000, 61_000)


async def test_a_validation_places_nothing(rest: Kraken) -> None:
    """K33. AddOrder with validate. A description, no id, no order."""
    answer = await rest.privatePostAddOrder(
        {
            "pair": "XXBTZUSD",
            "type": "buy",
            "ordertype": "limit",
            "volume": "0.5",
            "price": "40000",
            "validate": "true",
        }
    )

    assert answer["result"] == {"descr": {"order": "buy 0.50000000 XBTUSD @ limit 40000.0"}}
    assert await rest.fetch_open_orders() == []


async def test_an_order_is_refused_after_its_deadline(rest: Kraken, client_id: str) -> None:
    """K34. A deadline a second ago, and in five seconds. Refused and not placed; placed."""

    def at(seconds: int) -> str:
        return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()  # noqa: TID251  the venue runs on this machine's clock

    with pytest.raises(ccxt.ExchangeError, match="Deadline elapsed"):
        await place_limit(rest, clientOrderId=client_id, deadline=at(-1))
    assert await rest.fetch_open_orders(BTC, params={"clientOrderId": client_id}) == []

    assert await place_limit(rest, clientOrderId=client_id, deadline=at(5))


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"leverage": "3"}, "Margin trading not allowed"),
        ({"reduceOnly": True}, "Reduce only"),
        ({"close": {"ordertype": "limit", "price": 1}}, "Invalid arguments:close"),
        ({"clientOrderId": "much-longer-than-it-may-be"}, "Invalid arguments:cl_ord_id"),
    ],
)
async def test_what_spot_does_not_have_is_refused(
    rest: Kraken, params: dict[str, Any], complaint: str
) -> None:
    """K35. Margin, reduce-only, close conditions, an illegal client id. Refused."""
    with pytest.raises(ccxt.ExchangeError, match=complaint):
        await place_limit(rest, **params)
