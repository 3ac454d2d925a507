"""Sharing out and converting: nothing is lost, nothing invented, and what is left has an owner."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from kernel.money import AMOUNT_MAX
from ledger.allocation import (
    Conversion,
    RoundingSide,
    Share,
    Tier,
    by_ratio,
    by_waterfall,
    conversion_chain,
    convert,
)

AT = datetime(2026, 1, 5, 9, tzinfo=UTC)
ROW = UUID("0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80")

amounts = st.one_of(
    st.integers(0, 100), st.integers(0, 10**30), st.just(AMOUNT_MAX), st.integers(0, AMOUNT_MAX)
)
weights = st.lists(st.integers(0, 10**20), min_size=1, max_size=12).filter(any)


def named(values: list[int]) -> list[tuple[str, int]]:
    return [(f"p{number}", value) for number, value in enumerate(values)]


@pytest.mark.parametrize(
    ("amount", "parts", "expected"),
    [
        (100, [1, 1, 1], [34, 33, 33]),
        (101, [1, 1, 1], [34, 34, 33]),
        (10, [7, 2, 1], [7, 2, 1]),
        (1, [1, 1], [1, 0]),
        (1, [1, 2], [0, 1]),
        (0, [1, 2], [0, 0]),
        (5, [0, 1], [0, 5]),
        (2, [1, 1, 1, 1], [1, 1, 0, 0]),
    ],
)
def test_an_amount_is_shared_by_largest_remainder(
    amount: int, parts: list[int], expected: list[int]
) -> None:
    assert [share.amount for share in by_ratio(amount, named(parts))] == expected


@given(amounts, weights)
def test_shares_by_ratio_add_up_and_are_nearest_to_their_due(
    amount: int, values: list[int]
) -> None:
    shares = by_ratio(amount, named(values))
    total = sum(values)

    assert sum(share.amount for share in shares) == amount
    for share, weight in zip(shares, values, strict=True):
        due = Fraction(amount * weight, total)
        assert abs(share.amount - due) < 1
        assert share.amount - share.leftover == due.__floor__()
        assert weight or share.amount == 0
    assert sum(share.leftover for share in shares) < len(shares)


@given(amounts, weights)
def test_the_leftover_goes_to_the_largest_remainders_and_to_the_first_of_equals(
    amount: int, values: list[int]
) -> None:
    total = sum(values)
    shares = by_ratio(amount, named(values))
    order = sorted(range(len(values)), key=lambda i: (-(amount * values[i] % total), i))
    lucky = [i for i in order if shares[i].leftover]

    assert lucky == order[: len(lucky)]


@given(
    amounts,
    st.lists(st.integers(0, 10**30), min_size=1, max_size=8),
    st.sampled_from(["p0", "house"]),
)
def test_a_waterfall_adds_up_and_fills_each_tier_before_the_next(
    amount: int, limits: list[int], owner: str
) -> None:
    tiers = [Tier(name, limit) for name, limit in named(limits)]
    shares = by_waterfall(amount, tiers, leftover_to=owner)

    assert sum(share.amount for share in shares) == amount
    by_name = {share.name: share for share in shares}
    assert owner in by_name
    assert all(share.leftover == 0 for name, share in by_name.items() if name != owner)
    assert by_name[owner].leftover == max(0, amount - sum(limits))
    filled = [by_name[tier.name].amount - by_name[tier.name].leftover for tier in tiers]
    for number, (got, limit) in enumerate(zip(filled, limits, strict=True)):
        assert got <= limit
        assert got == limit or not any(filled[number + 1 :])


def test_what_a_waterfall_leaves_is_told_apart_from_what_is_due() -> None:
    tiers = [Tier("senior", 60), Tier("junior", 30)]

    assert by_waterfall(100, tiers, leftover_to="junior") == (
        Share("senior", 60),
        Share("junior", 40, 10),
    )
    assert by_waterfall(70, tiers, leftover_to="equity") == (
        Share("senior", 60),
        Share("junior", 10),
        Share("equity", 0),
    )


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([], "between 1 and"),
        ([("a", 0)], "every weight"),
        ([("a", -1), ("b", 2)], "weight is 0"),
        ([("a", 1), ("a", 2)], "name of its own"),
        ([("", 1)], "name of its own"),
    ],
)
def test_weights_that_share_nothing_out_are_refused(
    parts: list[tuple[str, int]], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        by_ratio(10, parts)


@pytest.mark.parametrize("amount", [-1, AMOUNT_MAX + 1])
def test_an_amount_that_cannot_be_is_refused(amount: int) -> None:
    with pytest.raises(BadInput, match="to share out"):
        by_ratio(amount, [("a", 1)])
    with pytest.raises(BadInput, match="to share out"):
        by_waterfall(amount, [Tier("a", 1)], leftover_to="a")


def test_a_waterfall_names_who_owns_the_rest() -> None:
    with pytest.raises(BadInput, match="nobody owns"):
        by_waterfall(10, [Tier("a", 1)], leftover_to="")
    with pytest.raises(BadInput, match="limit"):
        by_waterfall(10, [Tier("a", -1)], leftover_to="a")


def conversion(amount: int, numerator: int, denominator: int, side: RoundingSide) -> Conversion:
    return Conversion(
        payer="client:acme",
        base="BTC",
        quote="USD",
        amount=amount,
        numerator=numerator,
        denominator=denominator,
        desk="otc",
        rounding=side,
    )


@given(
    st.integers(1, 10**40),
    st.integers(1, 10**12),
    st.integers(1, 10**12),
    st.sampled_from(RoundingSide),
)
def test_a_conversion_is_exact_but_for_one_unit_that_has_an_owner(
    amount: int, numerator: int, denominator: int, side: RoundingSide
) -> None:
    item = conversion(amount, numerator, denominator, side)
    parts = convert(item)
    due = Fraction(amount * numerator, denominator)

    assert parts.payer == (due.__ceil__() if side is RoundingSide.PAYER else due.__floor__())
    assert abs(parts.desk - due) <= Fraction(1, 2)
    assert parts.payer == parts.desk + parts.rounding
    assert abs(parts.rounding) <= 1

    legs = conversion_chain(item, correlation=ROW, at=AT)
    net: dict[tuple[str, str], int] = {}
    for leg in legs:
        net[leg.debit, leg.asset] = net.get((leg.debit, leg.asset), 0) - leg.amount
        net[leg.credit, leg.asset] = net.get((leg.credit, leg.asset), 0) + leg.amount
    assert net.get(("client:acme", "USD"), 0) == parts.payer
    assert net["client:acme", "BTC"] == -amount
    assert net["conversion:otc", "BTC"] == amount
    assert net.get(("conversion:otc", "USD"), 0) == -parts.desk
    assert net.get(("house:rounding", "USD"), 0) == -parts.rounding
    assert [leg.linked for leg in legs] == [True] * (len(legs) - 1) + [False]
    assert len({leg.id for leg in legs}) == len(legs)


@pytest.mark.parametrize(
    ("amount", "side", "payer", "desk", "rounding"),
    [
        (7, RoundingSide.DESK, 2, 2, 0),  # 7/3 = 2.33
        (7, RoundingSide.PAYER, 3, 2, 1),
        (8, RoundingSide.DESK, 2, 3, -1),  # 8/3 = 2.67
        (8, RoundingSide.PAYER, 3, 3, 0),
        (9, RoundingSide.DESK, 3, 3, 0),
        (1, RoundingSide.DESK, 0, 0, 0),
    ],
)
def test_the_unit_that_is_rounded_away_is_a_leg_of_its_own(
    amount: int, side: RoundingSide, payer: int, desk: int, rounding: int
) -> None:
    parts = convert(conversion(amount, 1, 3, side))

    assert (parts.payer, parts.desk, parts.rounding) == (payer, desk, rounding)


@pytest.mark.parametrize(
    ("amount", "numerator", "denominator"), [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, -1, 1)]
)
def test_a_rate_is_two_integers_above_zero(amount: int, numerator: int, denominator: int) -> None:
    with pytest.raises(BadInput, match="above zero"):
        convert(conversion(amount, numerator, denominator, RoundingSide.DESK))


def test_what_no_ledger_could_store_is_refused() -> None:
    with pytest.raises(BadInput, match="can be stored"):
        convert(conversion(AMOUNT_MAX, 2, 1, RoundingSide.DESK))
