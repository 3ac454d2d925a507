"""Decimal texts as ticks and units: exact, whichever way they are read, or refused."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from kernel.money import Asset
from marketdata.errors import OffGrid
from marketdata.grid import TEXT_MAX, Grid, is_plain
from marketdata.model import Instrument
from marketdata.testing import eth_usdt


def instrument(base_scale: int = 18) -> Instrument:
    return replace(eth_usdt(), base=Asset("ETH", base_scale), lot=1)


quantities = st.one_of(
    st.decimals(0, 10**12, places=8).map(lambda number: f"{number:.8f}"),
    st.tuples(st.integers(0, 10**9), st.text("0123456789", max_size=8)).map(
        lambda parts: f"{parts[0]}.{parts[1]}" if parts[1] else str(parts[0])
    ),
)


@given(
    texts=st.lists(quantities, max_size=8),
    base_scale=st.sampled_from((6, 8, 18)),
    decimals=st.sampled_from((0, 2, 8)),
)
def test_quantities_are_exact_and_what_is_below_our_smallest_unit_is_cut_off(
    texts: list[str], base_scale: int, decimals: int
) -> None:
    grid = Grid(instrument(base_scale), decimals=decimals)

    rows = grid.rows([("2500.01", text) for text in texts])

    assert rows == grid.plain_rows([("2500.01", text) for text in texts])
    assert [units for _, units in rows] == [
        int(Decimal(text) * Decimal(10) ** base_scale) for text in texts
    ]
    assert {ticks for ticks, _ in rows} <= {250_001}


@pytest.mark.parametrize("text", ["2500.01", "2500.01000000", "002500.01"])
def test_a_price_has_the_same_ticks_however_many_zeros_it_is_written_with(text: str) -> None:
    assert Grid(instrument()).ticks(text) == 250_001


@pytest.mark.parametrize("text", ["2500.001", "2500.01000001", "0", "0.00000000", "0.001"])
def test_a_price_between_two_ticks_is_refused(text: str) -> None:
    grid = Grid(instrument())

    for read in (grid.rows, grid.plain_rows):
        with pytest.raises(OffGrid):
            read([("2500.01", "1.00000000"), (text, "1.00000000")])


def test_a_tick_may_be_wider_than_the_last_decimal() -> None:
    grid = Grid(replace(instrument(), tick=5))

    assert grid.ticks("2500.05") == 50_001
    with pytest.raises(OffGrid):
        grid.ticks("2500.04")


NO_NUMBERS = [
    "",
    ".",
    "-1.00000000",
    "+1.00000000",
    " 1.00000000",
    "1_0.00000000",
    "1.0000_000",
    "1.2.34567890",
    "1e5",
    "1.00000e-1",
    "NaN",
    "Infinity",
    "0x10",
    "1,00000000",
    "²",
    "9" * (TEXT_MAX + 1),
    "9" * 5_000,
]


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_decimal_number_is_refused_as_quantity_and_as_price(text: str) -> None:
    grid = Grid(instrument())

    is_read_plainly = is_plain(orjson.dumps(text))
    for read in (grid.rows, grid.plain_rows)[: 1 + is_read_plainly]:
        with pytest.raises(BadInput):
            read([("2500.01", "1.00000000"), ("2500.02", text)])
        with pytest.raises(BadInput):
            read([(text, "1.00000000")])


@pytest.mark.parametrize("text", [r'"\u0031.00000000"', r'"\t1.00000000"', '"٣.00000000"'])
def test_escapes_and_other_digits_are_not_read_plainly(text: str) -> None:
    assert not is_plain(text.encode())
    assert is_plain(b'{"stream":"ethusdt@depth@100ms","data":["2500.01000000"]}')


def test_prices_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marketdata.grid.REMEMBERED_MAX", 3)
    grid = Grid(instrument())

    seen = [grid.ticks(f"25{n:02}.00") for n in (*range(10), *range(10))]

    assert seen == [250_000 + 100 * n for n in range(10)] * 2
    assert len(grid._ticks) <= 3  # the bound is what this is about
