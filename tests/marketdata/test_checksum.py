"""Kraken's book checksums: the examples of its documents, and books that are checked with them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from kernel.money import Asset
from marketdata.book import BookOutcome, L2Book, StitchRule
from marketdata.checksum import crc32_of_texts, kraken_checksum
from marketdata.events import GapReason, Rows
from marketdata.grid import Grid
from marketdata.model import Instrument
from marketdata.testing import eth_usdt

V2 = 3310070434
V1 = 974947235

V2_ASKS = [
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
V2_BIDS = [
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
V1_ASKS = [(f"0.{ticks:05}", "0.00000500") for ticks in range(5005, 5055, 5)]
V1_BIDS = [
    (f"0.{ticks:05}", "0.00000500")
    for ticks in (5000, 4995, 4990, 4980, 4975, 4970, 4965, 4960, 4955, 4950)
]


def btc_usd(base_scale: int = 8, *, price_scale: int = 1) -> Instrument:
    return replace(
        eth_usdt("kraken"),
        symbol="BTC/USD",
        base=Asset("BTC", base_scale),
        quote=Asset("USD", 2),
        price_scale=price_scale,
        lot=1,
    )


def checked_book(asks: Rows, bids: Rows, checksum: int, **scales: int) -> BookOutcome:
    book = L2Book(
        "kraken",
        "BTC/USD",
        StitchRule.SNAPSHOT_DELTA,
        depth=10,
        checksum=kraken_checksum(**({"price_step": 1} | scales)),
    )
    return book.snapshot(1, bids, asks, checksum=checksum)


@pytest.mark.parametrize(
    ("asks", "bids", "expected"), [(V2_ASKS, V2_BIDS, V2), (V1_ASKS, V1_BIDS, V1)]
)
def test_the_documents_examples_give_the_documents_checksums(
    asks: list[tuple[str, str]], bids: list[tuple[str, str]], expected: int
) -> None:
    assert crc32_of_texts(asks, bids) == expected


@pytest.mark.parametrize(
    ("base_scale", "scales"),
    [(8, {}), (18, {"units_per_lot": 10**10}), (10, {"units_per_lot": 100})],
)
def test_a_book_of_ticks_and_units_has_the_checksum_of_the_texts(
    base_scale: int, scales: dict[str, int]
) -> None:
    grid = Grid(btc_usd(base_scale))

    outcome = checked_book(grid.rows(V2_ASKS), grid.rows(V2_BIDS), V2, **scales)

    assert outcome is BookOutcome.APPLIED


def test_coarser_units_of_ours_and_wider_ticks_give_the_same_digits() -> None:
    one_tick_is_two = replace(btc_usd(price_scale=1), tick=2)
    texts = [("10.2", "0.50000000"), ("10.4", "2.00000000")]
    grid = Grid(replace(one_tick_is_two, base=Asset("X", 6)))
    checksum = kraken_checksum(price_step=2, lots_per_unit=100)

    assert checksum((), grid.rows(texts)) == crc32_of_texts(texts, [])


def test_only_the_best_ten_levels_count_and_the_book_is_cut_to_its_depth_first() -> None:
    grid = Grid(btc_usd())
    asks = (*grid.rows(V2_ASKS), (452_996, 5))
    bids = (*grid.rows(V2_BIDS), (452_765, 5))

    assert checked_book(asks[::-1], bids[::-1], V2) is BookOutcome.APPLIED


def test_a_wrong_checksum_empties_the_book_and_is_a_gap_of_that_name() -> None:
    grid = Grid(btc_usd())
    book = L2Book(
        "kraken",
        "BTC/USD",
        StitchRule.SNAPSHOT_DELTA,
        depth=10,
        checksum=kraken_checksum(price_step=1),
    )
    book.snapshot(1, grid.rows(V2_BIDS), grid.rows(V2_ASKS), checksum=V2)

    outcome = book.apply(0, 0, (), ((452_852, 100_001),), V2)

    assert outcome is BookOutcome.CHECKSUM
    assert outcome.gap_reason is GapReason.CHECKSUM
    assert book.view(datetime(2026, 1, 5, tzinfo=UTC)) is None
    assert book.apply(0, 0, (), (), V2) is BookOutcome.GAP


def test_several_changes_of_one_level_in_a_message_are_made_before_the_checksum_is() -> None:
    grid = Grid(btc_usd())
    book = L2Book(
        "kraken",
        "BTC/USD",
        StitchRule.SNAPSHOT_DELTA,
        depth=10,
        checksum=kraken_checksum(price_step=1),
    )
    book.snapshot(1, grid.rows(V2_BIDS), grid.rows(V2_ASKS), checksum=V2)
    best = (452_852, 100_000)

    assert book.apply(0, 0, (), ((452_852, 7), (452_852, 0), best), V2) is BookOutcome.APPLIED


levels = st.dictionaries(st.integers(1, 10**7), st.integers(1, 10**15), min_size=1, max_size=15)


@given(asks=levels, bids=levels)
def test_integers_have_the_digits_of_their_texts(
    asks: dict[int, int], bids: dict[int, int]
) -> None:
    def texts(side: Rows) -> list[tuple[str, str]]:
        return [(f"{t // 10}.{t % 10}", f"{u // 10**8}.{u % 10**8:08}") for t, u in side]

    best_asks = tuple(sorted(asks.items())[:10])
    best_bids = tuple(sorted(bids.items(), reverse=True)[:10])

    found = kraken_checksum(price_step=1)(best_bids, best_asks)

    assert found == crc32_of_texts(texts(best_asks), texts(best_bids))


@pytest.mark.parametrize(
    "scales",
    [
        {"price_step": 0},
        {"price_step": 1, "units_per_lot": 0},
        {"price_step": 1, "units_per_lot": 10, "lots_per_unit": 10},
    ],
)
def test_scales_that_cannot_be_are_refused(scales: dict[str, int]) -> None:
    with pytest.raises(BadInput):
        kraken_checksum(**scales)
