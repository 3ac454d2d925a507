"""Raw frames of Binance's user data stream to events: exact, and never past what is documented."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from kernel.money import Asset
from marketdata.model import Instrument
from matching.model import Side
from registry.testing import ETH, USDT
from venues.model import VenueStatus
from venues.streams.binance_frames import BinanceFrames
from venues.streams.model import (
    BalanceSeen,
    FillSeen,
    FundsMoved,
    GapReason,
    OrderSeen,
    StreamGap,
    SymbolSeen,
)
from venues.streams.reading import decode

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
BNB = Asset("BNB", 8)
GRID = Instrument(
    venue="sim",
    symbol="ETHUSDT",
    base=ETH,
    quote=USDT,
    price_scale=2,
    tick=1,
    lot=10**14,
    lots_min=1,
    lots_max=10**9,
    min_notional=5_000_000,
)
FRAMES = BinanceFrames({"ETHUSDT": GRID}, {a.code: a for a in (ETH, USDT, BNB)}, "desk")

EXECUTION: dict[str, Any] = {
    "e": "executionReport",
    "E": 1767603600500,
    "s": "ETHUSDT",
    "c": "cw1",
    "S": "BUY",
    "C": "",
    "x": "TRADE",
    "X": "PARTIALLY_FILLED",
    "i": 4293153,
    "l": "0.30000000",
    "z": "0.50000000",
    "L": "3000.01000000",
    "n": "0.00030000",
    "N": "ETH",
    "T": 1767603600499,
    "t": 77,
    "m": False,
    "Y": "900.00300000",
}


def read(event: Any) -> Any:
    return FRAMES.read({"subscriptionId": 0, "event": event}, NOW)


def test_a_trade_is_a_fill_and_then_where_its_order_stands() -> None:
    seen, order = read(EXECUTION)

    assert isinstance(seen, FillSeen)
    assert isinstance(order, OrderSeen)
    fill = seen.fill
    assert (fill.trade_id, fill.venue_order_id, fill.side) == ("77", "4293153", Side.BUY)
    assert (fill.base_units, fill.quote_units) == (3 * 10**17, 900_003_000)
    assert (fill.fee_asset, fill.fee_units, fill.is_maker) == ("ETH", 3 * 10**14, False)
    assert fill.executed_at == datetime(2026, 1, 5, 9, 0, 0, 499_000, tzinfo=UTC)
    assert order.report.executed_units == 5 * 10**17
    assert order.report.status is VenueStatus.OPEN


def test_a_cancelled_order_is_known_by_the_name_it_had_before_the_cancel() -> None:
    (order,) = read(EXECUTION | {"x": "CANCELED", "X": "CANCELED", "c": "cancel-1", "C": "cw1"})

    assert (order.report.client_order_id, order.report.status) == ("cw1", VenueStatus.CANCELLED)


def test_reports_that_are_no_trades_make_no_fill() -> None:
    """Rows that are no fills appear among a user's trades: ccxt PR #30347."""
    for kind in ("NEW", "EXPIRED", "REJECTED", "TRADE_PREVENTION", "REPLACED"):
        events = read(EXECUTION | {"x": kind, "t": -1, "N": None, "l": "0.00000000"})
        assert [type(event) for event in events] == [OrderSeen]


def test_a_fee_without_its_asset_is_refused_and_never_guessed() -> None:
    """The currency of a fee is missing: ccxt #6236."""
    for missing in (None, ""):
        with pytest.raises(BadInput, match="'N'"):
            read(EXECUTION | {"N": missing})


def test_a_fee_in_a_third_asset_keeps_it() -> None:
    seen, _ = read(EXECUTION | {"N": "BNB", "n": "0.00000001"})

    assert (seen.fill.fee_asset, seen.fill.fee_units) == ("BNB", 1)


def test_a_trade_in_another_pair_than_the_first_is_never_dropped() -> None:
    """Only the trades of the first pair arrive: ccxt #18859, #8749, #19759."""
    assert read(EXECUTION | {"s": "BTCUSDT"}) == (SymbolSeen("BTCUSDT"),)


def test_balances_and_movements_are_exact() -> None:
    (seen,) = read(
        {
            "e": "outboundAccountPosition",
            "E": 1,
            "u": 1767603600499,
            "B": [
                {"a": "ETH", "f": "123456789.123456780000000001", "l": "0.10000000"},
                {"a": "DOGE", "f": "1", "l": "0"},
            ],
        }
    )
    moved = read({"e": "balanceUpdate", "a": "USDT", "d": "-100.50000000", "T": 1767603600499})

    assert isinstance(seen, BalanceSeen)
    (held,) = seen.balances
    assert (held.free, held.locked) == (123456789123456780000000001, 10**17)
    assert moved == (FundsMoved("USDT", -100_500_000, seen.at),)


def test_the_end_of_the_subscription_is_a_gap() -> None:
    assert read({"e": "eventStreamTerminated", "E": 1}) == (
        StreamGap(NOW, GapReason.REFUSED, "the venue ended the subscription"),
    )


def test_answers_to_requests_are_no_events() -> None:
    assert FRAMES.read({"id": "1", "status": 200, "result": {"subscriptionId": 0}}, NOW) is None


@pytest.mark.parametrize(
    "event",
    [
        5,
        [EXECUTION],
        {"e": "somethingNew"},
        EXECUTION | {"X": "UNHEARD_OF"},
        EXECUTION | {"t": True},
        EXECUTION | {"l": 5.5},
        EXECUTION | {"m": "false"},
        EXECUTION | {"N": "DOGE"},
        {"e": "outboundAccountPosition", "u": 1, "B": 5},
    ],
    ids=lambda e: str(e)[:40],
)
def test_a_frame_of_another_shape_is_refused(event: Any) -> None:
    with pytest.raises(BadInput):
        read(event)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["e", "event", "s", "X", "x", "B", "a"]), inner, max_size=5
            )
        ),
        max_leaves=8,
    )
)
def test_whatever_comes_is_read_or_refused(frame: Any) -> None:
    try:
        FRAMES.read(frame, NOW)
    except BadInput:
        return


@pytest.mark.parametrize("text", ["", "{", '{"a":}', "NaN", '{"a":Infinity}', "\x00"])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        decode(text)


def test_numbers_with_a_point_stay_the_text_they_were() -> None:
    assert decode('{"a":123456789.12345678000,"b":1e-05}') == {
        "a": "123456789.12345678000",
        "b": "1e-05",
    }
