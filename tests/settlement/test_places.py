"""Where payments come from, and what each place is asked for: one payment, one place."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.model import Direction
from settlement.places import COVER, Asked, Place, asked_of, assign, promise, sum_needs
from trading.terms.model import Rail

EVM, BANK, BOOK = Rail.EVM, Rail.BANK, Rail.BOOK


@dataclass(frozen=True)
class Moves:
    rail: Rail
    direction: Direction
    amount: int = 5
    party: str = "acme"
    asset: str = "ETH"


def place(location: str, available: int, rail: Rail = EVM, asset: str = "ETH") -> Place:
    return Place(
        rail=rail, location=location, path=f"custody:{location}", asset=asset, available=available
    )


@pytest.mark.parametrize(
    ("story", "item", "expected"),
    [
        ("we pay on a chain", Moves(EVM, Direction.PAY), Asked(EVM, "ETH", 5)),
        ("we pay through a bank", Moves(BANK, Direction.PAY), Asked(BANK, "ETH", 5)),
        ("we are paid on a chain", Moves(EVM, Direction.RECEIVE), None),
        ("a client is credited", Moves(BOOK, Direction.PAY), Asked(BOOK, "ETH", 5, COVER)),
        (
            "a client gives what it has here",
            Moves(BOOK, Direction.RECEIVE),
            Asked(BOOK, "ETH", 5, "client:acme"),
        ),
        ("nothing moves", Moves(EVM, Direction.PAY, 0), None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_movement_takes_from_us(story: str, item: Moves, expected: Asked | None) -> None:
    assert asked_of(item) == expected


@pytest.mark.parametrize(
    ("story", "amounts", "funds", "expected"),
    [
        ("the fullest pays first", [5], {"a": 6, "b": 9}, ["b"]),
        ("of two that are alike, the first by name", [5], {"b": 9, "a": 9}, ["a"]),
        ("what is left counts", [5, 5], {"a": 6, "b": 9}, ["b", "a"]),
        ("a sum over wallets pays nothing", [10], {"a": 6, "b": 9}, ["b"]),
        ("there is no such place", [10], {}, [""]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_payment_has_one_place(
    story: str, amounts: list[int], funds: dict[str, int], expected: list[str]
) -> None:
    asked = [Asked(EVM, "ETH", amount) for amount in amounts]
    found = assign(asked, [place(name, amount) for name, amount in funds.items()])
    assert [one.location for one in found] == expected


def test_what_is_short_is_named_where_it_is_short() -> None:
    asked = [Asked(EVM, "ETH", 10), Asked(EVM, "ETH", 3), Asked(EVM, "USDT", 1)]
    places = [place("a", 6), place("b", 9), place("b", -4, asset="USDT")]

    needs = {
        (n.location, n.asset): (n.need, n.available, n.short) for n in sum_needs(asked, places)
    }

    assert needs == {("b", "ETH"): (10, 9, 1), ("a", "ETH"): (3, 6, 0), ("b", "USDT"): (1, 0, 1)}


def test_what_payouts_have_promised_is_not_there_twice() -> None:
    assert [p.available for p in promise([place("a", 6)], {("a", "ETH"): 4, ("a", "BTC"): 9})] == [
        2
    ]


@given(
    st.lists(st.integers(1, 10**30), max_size=12),
    st.dictionaries(st.sampled_from("abcd"), st.integers(-(10**20), 10**30), max_size=4),
)
def test_needs_add_up_to_what_is_asked_in_any_order_of_the_places(
    amounts: list[int], funds: dict[str, int]
) -> None:
    asked = [Asked(EVM, "ETH", amount) for amount in amounts]
    places = [place(name, amount) for name, amount in funds.items()]

    needs = sum_needs(asked, places)

    assert sum(need.need for need in needs) == sum(amounts)
    assert needs == sum_needs(asked, places[::-1])
