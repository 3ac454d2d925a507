"""What the house file may say of market data, and what it may not."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.workers.house_file import parse_house
from app.workers.index_prices import load_hierarchies
from app.workers.market_data_file import CHANNELS, RUNGS
from kernel.errors import BadInput
from marketdata.events import Channel
from marketdata.hierarchy import DEFAULT, Source
from marketdata.price_model import Purpose

HOUSE: dict[str, Any] = {
    "chain": "evm",
    "book": 1,
    "signer_socket": "signer.sock",
    "confirmations": "confirmations.json",
    "payout_depth": 6,
    "start_height": 0,
}
FEED: dict[str, Any] = {"venue": "binance", "connector": "binance", "symbols": ["ETHUSDT"]}
PATH = Path("/etc/causeway/house.toml")


def test_a_house_without_sections_streams_and_records_nothing() -> None:
    house = parse_house(HOUSE, PATH)

    assert house.feeds == ()
    assert house.market_data.recordings is None
    assert house.market_data.metrics_port is None


def test_a_feed_says_where_and_what_and_the_rest_has_defaults() -> None:
    house = parse_house(
        {
            **HOUSE,
            "marketdata": {"recordings": "tape", "retention_days": 30, "metrics_port": 9464},
            "feed": [{**FEED, "symbols": ["ETHUSDT", "BTCUSDT", "ETHUSDT"], "candle_seconds": 300}],
        },
        PATH,
    )

    (feed,) = house.feeds
    assert feed.symbols == ("ETHUSDT", "BTCUSDT")
    assert feed.channels == ("book", "trades", "best")
    assert feed.candle == timedelta(minutes=5)
    assert house.market_data.recordings == PATH.parent / "tape"
    assert house.market_data.retention == timedelta(days=30)
    assert house.market_data.metrics_port == 9464


def test_the_channels_are_those_that_machines_know() -> None:
    assert set(CHANNELS) == {str(channel) for channel in Channel}


@pytest.mark.parametrize(
    ("feed", "says"),
    [
        ({}, "does not say connector"),
        ({**FEED, "symbol": "ETHUSDT"}, "has the key symbol"),
        ({**FEED, "symbols": []}, "symbols is"),
        ({**FEED, "symbols": "ETHUSDT"}, "symbols is"),
        ({**FEED, "channels": ["books"]}, "no channel 'books'"),
        ({**FEED, "silence_seconds": 0}, "silence_seconds is 0"),
        ({**FEED, "check_seconds": True}, "check_seconds is True"),
        ({**FEED, "venue": ""}, "venue is ''"),
        ("binance", "keys below"),
    ],
)
def test_a_feed_that_cannot_be_is_refused_by_its_key(feed: object, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        parse_house({**HOUSE, "feed": [feed]}, PATH)


def test_one_venue_has_one_feed() -> None:
    with pytest.raises(BadInput, match="two sections"):
        parse_house({**HOUSE, "feed": [FEED, FEED]}, PATH)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"retention_days": -1}, "retention_days"),
        ({"metrics_port": 70_000}, "metrics_port"),
        ({"recordings": 5}, "recordings"),
        ({"backfill": "yes"}, "backfill"),
        ({"folder": "x"}, "has the key folder"),
        ([], "keys below"),
    ],
)
def test_a_section_of_market_data_that_cannot_be_is_refused_by_its_key(
    table: object, says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        parse_house({**HOUSE, "marketdata": table}, PATH)


INDEX: dict[str, Any] = {
    "base": "ETH",
    "quote": "USDT",
    "venues": ["binance", "kraken"],
    "venues_min": 2,
}
KRAKEN: dict[str, Any] = {"venue": "kraken", "connector": "kraken", "symbols": ["ETH/USDT"]}


def test_an_index_is_made_of_venues_whose_books_are_streamed() -> None:
    house = parse_house({**HOUSE, "feed": [FEED, KRAKEN], "index": [INDEX]}, PATH)

    (index,) = house.indexes
    assert (index.name, index.venues, index.weights) == ("ETH/USDT", ("binance", "kraken"), (1, 1))
    assert index.age_max == timedelta(seconds=5)


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ({**INDEX, "venues": ["binance", "okx"]}, "streams books of okx"),
        ({**INDEX, "venues": ["binance", "again"]}, "binance and again are one venue"),
        ({**INDEX, "venues_min": 3}, "more than there are venues"),
        ({**INDEX, "weights": [1]}, "one number for each venue"),
        ({**INDEX, "weights": [1, 0]}, "weights is 0"),
        ({**INDEX, "every_seconds": 0}, "every_seconds is 0"),
        ({**INDEX, "base": ""}, "base is ''"),
        ({**INDEX, "pair": "x"}, "has the key pair"),
        ({"base": "ETH"}, "does not say quote"),
    ],
)
def test_an_index_that_cannot_be_is_refused_by_its_key(index: object, says: str) -> None:
    feeds = [FEED, KRAKEN, {**FEED, "venue": "again"}]

    with pytest.raises(BadInput, match=says):
        parse_house({**HOUSE, "feed": feeds, "index": [index]}, PATH)


def test_an_index_needs_books_not_trades_alone() -> None:
    feeds = [FEED, {**KRAKEN, "channels": ["trades"]}]

    with pytest.raises(BadInput, match="streams books of kraken"):
        parse_house({**HOUSE, "feed": feeds, "index": [INDEX]}, PATH)


def test_one_pair_has_one_index() -> None:
    with pytest.raises(BadInput, match="index of one pair"):
        parse_house({**HOUSE, "feed": [FEED, KRAKEN], "index": [INDEX, INDEX]}, PATH)


PRICE: dict[str, Any] = {"base": "ETH", "quote": "EUR", "rungs": ["override", "cross", "manual"]}


def test_a_pair_has_the_rungs_that_the_file_gives_it_and_the_others_the_usual_ones() -> None:
    house = parse_house({**HOUSE, "price": [{**PRICE, "max_age_seconds": 30}]}, PATH)

    found = load_hierarchies(house.prices)

    of_pair = found.of("ETH", "EUR")
    assert [rung.source for rung in of_pair.rungs] == ["override", "cross", "manual"]
    assert {rung.age_max for rung in of_pair.rungs} == {timedelta(seconds=30)}
    assert of_pair.pivots == DEFAULT.pivots
    assert found.of("ETH", "USDT") == DEFAULT
    assert load_hierarchies((), within=timedelta(hours=1)).of("ETH", "EUR").rungs[1].age_max == (
        timedelta(hours=1)
    )


def test_one_venue_settles_nothing_whatever_the_file_says() -> None:
    house = parse_house({**HOUSE, "price": [{**PRICE, "rungs": ["venue-mid", "index"]}]}, PATH)

    (mid, index) = load_hierarchies(house.prices).of("ETH", "EUR").rungs
    assert Purpose.SETTLEMENT not in mid.purposes
    assert Purpose.SETTLEMENT in index.purposes


@pytest.mark.parametrize(
    ("price", "says"),
    [
        ({**PRICE, "rungs": ["index", "guess"]}, "no rung 'guess'"),
        ({**PRICE, "rungs": []}, "rungs is"),
        ({**PRICE, "rungs": ["index", "index"]}, "index twice"),
        ({**PRICE, "max_age_seconds": 0}, "max_age_seconds is 0"),
        ({**PRICE, "pivots": [""]}, "pivots is"),
        ({**PRICE, "quote": "ETH"}, "no price in itself"),
        ({**PRICE, "venues": []}, "has the key venues"),
        ({"base": "ETH"}, "does not say quote"),
    ],
)
def test_rungs_that_cannot_be_are_refused_by_their_key(price: object, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        parse_house({**HOUSE, "price": [price]}, PATH)


def test_a_pair_has_one_section() -> None:
    with pytest.raises(BadInput, match="price of one pair"):
        parse_house({**HOUSE, "price": [PRICE, PRICE]}, PATH)


def test_the_rungs_are_those_that_prices_have() -> None:
    assert set(RUNGS) == {str(source) for source in Source}
