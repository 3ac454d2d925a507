"""Kraken's spelling: signatures, checksums, ids, numbers, names, counters, new orders. No server."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching.model import SelfTradePrevention, Side, TimeInForce
from venues.simulator.decimals import UNIT
from venues.simulator.kraken import auth, ids, numbers
from venues.simulator.kraken.auth import Nonces
from venues.simulator.kraken.checksum import checksum
from venues.simulator.kraken.counters import Limits, Tier, Transaction
from venues.simulator.kraken.drafts import (
    Draft,
    command,
    note_of,
    require_client_id,
    require_deadline,
)
from venues.simulator.kraken.errors import KrakenRefusal
from venues.simulator.kraken.ids import Kind
from venues.simulator.kraken.names import Directory, Pair
from venues.simulator.model import AssetSpec, FeeIn, OrderType, SymbolSpec

BTC = SymbolSpec("BTCUSD", "BTC", "USD", UNIT // 10, UNIT // 100_000, 5 * UNIT, 600_000)
ETH = SymbolSpec("ETHUSDT", "ETH", "USDT", UNIT // 100, UNIT // 10_000, 5 * UNIT, 300_000)
PAIR = Pair(0, BTC)
LAST = 600_000

# The examples of the venue's own documentation.
DOCUMENTED_SECRET = (
    "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg=="
)
DOCUMENTED_BODY = "nonce=1616492376594&ordertype=limit&pair=XBTUSD&price=37500&type=buy&volume=1.25"
DOCUMENTED_SIGNATURE = (
    "4/dpxb3iT4tp/ZCVEwSnEsLxx0bqyhLpdfOpc6fn7OR8+UClSV5n9E6aSS8MPtnRfp32bAb0nmbRn6H8ndwLUQ=="
)
DOCUMENTED_ASKS = [
    ("45285.2", "0.00100000"),
    ("45286.4", "1.54571953"),
    ("45286.6", "1.54571109"),
    ("45289.6", "1.54560911"),
    ("45290.2", "0.15890660"),
    ("45291.8", "1.54553491"),
    ("45294.7", "0.04454749"),
    ("45296.1", "0.35380000"),
    ("45297.5", "0.09945542"),
    ("45299.5", "0.18772827"),
]
DOCUMENTED_BIDS = [
    ("45283.5", "0.10000000"),
    ("45283.4", "1.54582015"),
    ("45282.1", "0.10000000"),
    ("45281.0", "0.10000000"),
    ("45280.3", "1.54592586"),
    ("45279.0", "0.07990000"),
    ("45277.6", "0.03310103"),
    ("45277.5", "0.30000000"),
    ("45277.3", "1.54602737"),
    ("45276.6", "0.15445238"),
]


def limit(**changes: Any) -> Draft:
    draft = Draft(pair=PAIR, side=Side.BUY, type="limit", volume="0.5", price="59000.1")
    return replace(draft, **changes)


def refusal_of(draft: Draft) -> str:
    with pytest.raises(KrakenRefusal) as caught:
        command(draft, account="desk", at_ms=0, last_ticks=LAST)
    return caught.value.text


def test_the_documented_signature_is_ours() -> None:
    signed = auth.signature(
        DOCUMENTED_SECRET, "/0/private/AddOrder", "1616492376594", DOCUMENTED_BODY
    )

    assert signed == DOCUMENTED_SIGNATURE


def test_the_documented_checksum_is_ours() -> None:
    assert checksum(DOCUMENTED_ASKS, DOCUMENTED_BIDS) == 3310070434


def test_only_ten_levels_of_a_side_count_for_the_checksum() -> None:
    longer = [*DOCUMENTED_ASKS, ("46000.0", "1.00000000")]

    assert checksum(longer, DOCUMENTED_BIDS) == 3310070434


def test_a_nonce_must_rise_for_each_key() -> None:
    nonces = Nonces()
    nonces.accept("a", {"nonce": "5"})
    nonces.accept("b", {"nonce": 5})

    for nonce in ("5", "4", "", "x", "-6", "6.0"):
        with pytest.raises(KrakenRefusal, match="EAPI:Invalid nonce"):
            nonces.accept("a", {"nonce": nonce})
    assert nonces.accept("a", {"nonce": "6"}) == 6


def test_numbers_of_a_json_body_stay_the_texts_they_were() -> None:
    sent = auth.parameters("", '{"nonce":1,"price":0.10,"n":[{"q":1e-8}]}', "application/json")

    assert (sent["price"], sent["n"][0]["q"], sent["nonce"]) == ("0.10", "1e-8", 1)


@given(
    kind=st.sampled_from(Kind),
    number=st.integers(0, 2**64 - 1),
    part=st.integers(0, 2**16 - 1),
)
def test_ids_are_read_back(kind: Kind, number: int, part: int) -> None:
    text = ids.encode(kind, number, part)

    assert (len(text), text.count("-")) == (19, 2)
    assert ids.decode(kind, text) == (number, part)


@pytest.mark.parametrize("text", ["", "OAAAAA-AAAAA", "TAAAAA-AAAAA-AAAAAA", "O00000-AAAAA-AAAAAA"])
def test_what_is_no_order_id_is_none(text: str) -> None:
    assert ids.decode(Kind.ORDER, text) is None


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("1.5", 150_000_000),
        ("1e-8", 1),
        ("-0.00000001", -1),
        ("+2", 2 * UNIT),
        ("0.000000001", None),
        ("1_0", None),
        ("NaN", None),
        ("", None),
    ],
)
def test_decimals_are_read_exactly(text: str, units: int | None) -> None:
    assert numbers.units_of(text) == units


def test_times_are_read_to_the_millisecond() -> None:
    for at_ms in range(1_790_000_000_000, 1_790_000_001_000, 7):
        assert numbers.ms_from_rfc3339(numbers.rfc3339(at_ms)) == at_ms


def test_numbers_keep_the_zeros_of_their_precision() -> None:
    assert numbers.price(BTC, 590_000) == "59000.0"
    assert numbers.rest_price(BTC, 590_000) == "59000.00000"
    assert numbers.quantity(BTC, 150_000) == "1.50000"
    assert orjson.dumps([numbers.raw("0.10000")]) == b"[0.10000]"


def test_pairs_are_found_by_every_name() -> None:
    assets = {name: AssetSpec(name, ()) for name in ("BTC", "USD", "ETH", "USDT")}
    directory = Directory((BTC, ETH), assets)

    for name in ("XXBTZUSD", "XBTUSD", "XBT/USD", "BTC/USD"):
        assert directory.find(name) == PAIR
    assert directory.find("ETHUSDT") == Pair(1, ETH)
    assert directory.find("XETHZUSD") is None
    assert [directory.find_asset(n) for n in ("XXBT", "XBT", "BTC", "EUR")] == ["BTC"] * 3 + [None]


def test_calls_decay_at_the_tiers_rate() -> None:
    limits = Limits(Tier.INTERMEDIATE, enforced=True)

    assert all(limits.call("key", 1, 0) for _ in range(20))
    assert not limits.call("key", 1, 0)
    assert limits.call("other", 2, 0)
    assert not limits.call("key", 1, 1_999)
    assert limits.call("key", 1, 6_000)


def test_a_young_order_costs_more_to_cancel() -> None:
    ages_ms = (0, 4_999, 5_000, 10_000, 15_000, 45_000, 90_000, 300_000)

    assert [Transaction.CANCEL.points(age) for age in ages_ms] == [8, 8, 6, 5, 4, 2, 1, 0]
    assert [Transaction.AMEND.points(age) for age in ages_ms] == [4, 4, 3, 2, 1, 1, 1, 1]


def test_transactions_are_counted_per_pair() -> None:
    limits = Limits(Tier.INTERMEDIATE, enforced=True)
    assert limits.transaction("desk", "BTCUSD", 125, 0)

    assert not limits.transaction("desk", "BTCUSD", 1, 0)
    assert limits.transaction("desk", "ETHUSDT", 1, 0)
    assert limits.engine_level("desk", "BTCUSD", 10_000) == 102


@pytest.mark.parametrize(
    "text",
    [
        "6d47a5f0-6fd4-4b84-b56e-c23f0f689c20",
        "6d47a5f06fd44b84b56ec23f0f689c20",
        "my-order-001",
        "x" * 18,
    ],
)
def test_three_forms_of_a_client_id_are_taken(text: str) -> None:
    assert require_client_id(text) == text


@pytest.mark.parametrize(
    "text", ["x" * 19, "6d47a5f0-6fd4-4b84-b56e", "zz47a5f06fd44b84b56ec23f0f689c20"]
)
def test_other_client_ids_are_refused(text: str) -> None:
    with pytest.raises(KrakenRefusal, match="cl_ord_id"):
        require_client_id(text)


@pytest.mark.parametrize(
    ("deadline", "complaint"),
    [
        ("2026-01-01T00:00:10Z", None),
        ("2026-01-01T00:00:00.500Z", None),
        ("2026-01-01T00:00:00Z", "Deadline elapsed"),
        ("2026-01-01T00:01:01Z", "deadline"),
        ("2026-01-01T00:00:10", "deadline"),
        ("soon", "deadline"),
    ],
)
def test_a_deadline_closes_the_door(deadline: str, complaint: str | None) -> None:
    now_ms = numbers.ms_from_rfc3339("2026-01-01T00:00:00Z")
    assert now_ms is not None

    if complaint is None:
        require_deadline(deadline, now_ms)
    else:
        with pytest.raises(KrakenRefusal, match=complaint):
            require_deadline(deadline, now_ms)


def test_a_limit_order_becomes_the_cores() -> None:
    order = command(limit(userref=7), account="desk", at_ms=1, last_ticks=LAST)

    assert (order.symbol, order.type, order.price_ticks) == ("BTCUSD", OrderType.LIMIT, 590_001)
    assert (order.quantity_lots, order.time_in_force) == (50_000, TimeInForce.GTC)
    assert order.fee_in is FeeIn.QUOTE
    assert order.self_trade_prevention is SelfTradePrevention.EXPIRE_TAKER
    assert (note_of(order.note).userref, note_of(order.note).flags) == (7, ("fciq",))


@pytest.mark.parametrize(
    ("price", "ticks"),
    [("+100", 601_000), ("-2%", 588_000), ("-0.15", 599_999)],
)
def test_prices_may_be_relative_to_the_last_trade(price: str, ticks: int) -> None:
    order = command(limit(price=price), account="desk", at_ms=0, last_ticks=LAST)

    assert order.price_ticks == ticks


def test_a_stop_has_a_trigger_and_a_trailing_stop_a_distance() -> None:
    stop = limit(type="stop-loss-limit", trigger="58000", price="57000")
    trail = limit(type="trailing-stop", trigger="+1%", price="")
    both = limit(type="trailing-stop-limit", trigger="+100", price="-50")

    stopped = command(stop, account="desk", at_ms=0, last_ticks=LAST)
    trailed = command(trail, account="desk", at_ms=0, last_ticks=LAST)
    limited = command(both, account="desk", at_ms=0, last_ticks=LAST)

    assert (stopped.trigger_ticks, stopped.price_ticks) == (580_000, 570_000)
    assert (trailed.trailing_ppm, trailed.trailing_ticks) == (10_000, 0)
    assert (limited.trailing_ticks, limited.limit_offset_ticks) == (1_000, -500)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"volume": ""}, "EGeneral:Invalid arguments:volume"),
        ({"volume": "-1"}, "EGeneral:Invalid arguments:volume"),
        ({"volume": "0.000001"}, "up to 5 decimals"),
        ({"price": "59000.11"}, "up to 1 decimals"),
        ({"price": "0"}, "EGeneral:Invalid arguments:price"),
        ({"price": "abc"}, "EGeneral:Invalid arguments:price"),
        ({"volume": "0.00001"}, "EOrder:Cost minimum not met"),
        ({"client_order_id": "a", "userref": 1}, "mutually exclusive"),
        ({"flags": frozenset({"post"}), "good_till": "IOC"}, "oflags"),
        ({"flags": frozenset({"fcib", "fciq"})}, "oflags"),
        ({"type": "iceberg"}, "displayvol"),
        ({"good_till": "GTD"}, "expiretm"),
        ({"type": "trailing-stop", "trigger": "100"}, "price"),
        ({"type": "trailing-stop", "trigger": "-100"}, "price"),
    ],
)
def test_what_is_no_order_is_refused(changes: dict[str, Any], text: str) -> None:
    assert text in refusal_of(limit(**changes))
