"""What errors prove, and how Binance's texts become integers; no network."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kernel.errors import BadInput
from kernel.money import Asset
from matching.model import Side
from venues.ccxt import normalise
from venues.ccxt.classify import Failure
from venues.ccxt.endpoint import Endpoint
from venues.model import VenueStatus
from venues.streams.binance_frames import BinanceFrames
from venues.streams.model import FillSeen

ETH, USDT, BNB = Asset("ETH", 18), Asset("USDT", 6), Asset("BNB", 8)
ASSETS = {asset.code: asset for asset in (ETH, USDT, BNB)}


def test_a_reason_is_short_and_without_the_signature() -> None:
    failure = Failure(("X",), f"GET https://host/order?symbol=A&signature=0123abcd {'long ' * 200}")

    assert "0123abcd" not in failure.reason
    assert len(failure.reason) <= 300


TRADE: dict[str, Any] = {
    "symbol": "ETHUSDT",
    "id": "28457",
    "orderId": "100234",
    "price": "3000.01000000",
    "qty": "1.00010000",
    "quoteQty": "3000.31000100",
    "commission": "0.00100010",
    "commissionAsset": "ETH",
    "time": "1499865549590",
    "isBuyer": True,
    "isMaker": False,
    "isBestMatch": True,
}
SYMBOL: dict[str, Any] = {
    "symbol": "ETHUSDT",
    "baseAsset": "ETH",
    "quoteAsset": "USDT",
    "filters": [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1", "tickSize": "0.01000"},
        {"filterType": "LOT_SIZE", "minQty": "0.0010", "maxQty": "9000.0", "stepSize": "0.0001"},
        {"filterType": "NOTIONAL", "minNotional": "5.00000000"},
    ],
}
GRID = normalise.instrument(SYMBOL, ASSETS, "sim")


def test_an_instruments_grid_is_read_exactly() -> None:
    assert (GRID.price_scale, GRID.tick, GRID.lot) == (2, 1, 10**14)
    assert (GRID.lots_min, GRID.lots_max, GRID.min_notional) == (10, 90_000_000, 5_000_000)


def test_a_trade_is_read_exactly_and_what_is_finer_than_the_asset_is_dust() -> None:
    fill = normalise.trade(TRADE, GRID, ASSETS, "desk")

    assert (fill.side, fill.trade_id, fill.venue_order_id) == (Side.BUY, "28457", "100234")
    assert fill.base_units == 1_000_100_000_000_000_000
    assert (fill.quote_units, fill.quote_dust) == (3_000_310_001, 0)
    assert (fill.fee_asset, fill.fee_units, fill.fee_dust) == ("ETH", 1_000_100_000_000_000, 0)

    finer = normalise.trade({**TRADE, "quoteQty": "3000.3100011"}, GRID, ASSETS, "desk")
    assert (finer.quote_units, finer.quote_dust) == (3_000_310_002, 9 * 10**17)

    sold = normalise.trade(
        {**TRADE, "quoteQty": "3000.3100011", "isBuyer": False}, GRID, ASSETS, "desk"
    )
    assert (sold.quote_units, sold.quote_dust) == (3_000_310_001, 10**17)


def test_the_stream_and_the_list_give_the_same_fill() -> None:
    report = {
        "e": "executionReport",
        "x": "TRADE",
        "s": "ETHUSDT",
        "S": "BUY",
        "t": 28457,
        "i": 100234,
        "L": "3000.01000000",
        "l": "1.00010000",
        "Y": "3000.31000100",
        "n": "0.00100010",
        "N": "ETH",
        "m": False,
        "T": 1499865549590,
    }

    frames = BinanceFrames({GRID.symbol: GRID}, ASSETS, "desk")
    told = frames.read(
        {"event": {**report, "X": "FILLED", "z": "1.0001", "c": "cw1"}},
        datetime(2026, 1, 5, tzinfo=UTC),
    )

    assert told is not None
    assert told[0] == FillSeen(normalise.trade(TRADE, GRID, ASSETS, "desk"))


@pytest.mark.parametrize(
    "broken",
    [
        {"qty": 1.0001},
        {"qty": None},
        {"qty": "1,000"},
        {"qty": "1e99"},
        {"time": "yesterday"},
        {"isBuyer": "true"},
        {"commissionAsset": "DOGE"},
    ],
    ids=str,
)
def test_a_trade_that_cannot_be_read_exactly_is_not_read_at_all(broken: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        normalise.trade({**TRADE, **broken}, GRID, ASSETS, "desk")


def test_an_order_report_of_a_cancel_keeps_the_orders_own_client_id() -> None:
    info = {
        "origClientOrderId": "cw1",
        "clientOrderId": "made-by-the-cancel",
        "orderId": "7",
        "status": "CANCELED",
        "executedQty": "0.5",
    }

    report = normalise.order_report(info, ETH)

    assert report.client_order_id == "cw1"
    assert report.status is VenueStatus.CANCELLED
    assert report.executed_units == 5 * 10**17


@pytest.mark.parametrize("info", [None, "truncat", {}, {"status": "FILLED"}, {"status": "ODD"}])
def test_an_unreadable_order_report_is_refused(info: object) -> None:
    with pytest.raises(BadInput):
        normalise.order_report(info, ETH)


@pytest.mark.parametrize("order_id", ["\ud800", "7\x00"], ids=ascii)
def test_an_order_whose_name_no_database_can_hold_is_refused(order_id: str) -> None:
    info = {"clientOrderId": "cw1", "orderId": "7", "status": "NEW", "executedQty": "0"}

    assert normalise.order_report(info, ETH).venue_order_id == "7"
    with pytest.raises(BadInput, match="no text"):
        normalise.order_report({**info, "orderId": order_id}, ETH)


def test_a_quantity_in_scientific_notation_is_read_digit_for_digit() -> None:
    fill = normalise.trade({**TRADE, "qty": "1.5e-3", "commission": "1E-8"}, GRID, ASSETS, "desk")

    assert (fill.base_units, fill.fee_units) == (1_500_000_000_000_000, 10_000_000_000)


def test_balances_leave_out_zero_and_unknown_assets() -> None:
    rows = [
        {"asset": "USDT", "free": "1.00000050", "locked": "2.00000060"},
        {"asset": "ETH", "free": "0.00000000", "locked": "0.0"},
        {"asset": "DOGE", "free": "5", "locked": "0"},
    ]

    (found,) = normalise.balances(rows, ASSETS)

    assert (found.asset, found.free, found.locked) == ("USDT", 1_000_000, 2_000_000)
    assert found.dust == 11 * 10**17


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://host", "http://"])
def test_an_address_without_scheme_or_host_is_refused(url: str) -> None:
    with pytest.raises(BadInput):
        Endpoint(http_url=url)
