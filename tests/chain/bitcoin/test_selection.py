"""Coin selection against every possible choice, and its bounds."""

from __future__ import annotations

import random
from itertools import combinations
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.bitcoin.fees import (
    DUST_RATE,
    KEY_HASH_INPUT_WEIGHT,
    OVERHEAD_WEIGHT,
    RATE_MAX,
    dust_limit,
    fee_of,
    output_weight,
    rate_of,
    require_rate,
)
from chain.bitcoin.scripts import key_hash_script, script_hash_script, witness_script
from chain.bitcoin.selection import Coin, NotEnough, Selection, Terms, select
from chain.bitcoin.transactions import Outpoint, Output
from kernel.errors import BadInput

PAYEE = Output(0, witness_script(0, bytes(20)))
WEIGHT = OVERHEAD_WEIGHT + output_weight(PAYEE)
SETS = 300
SAME_AS_BEST = 0.95


def terms(rate: int, later_rate: int) -> Terms:
    return Terms(
        rate=rate,
        later_rate=later_rate,
        change_weight=output_weight(PAYEE),
        change_spend_weight=KEY_HASH_INPUT_WEIGHT,
        change_min=dust_limit(PAYEE.script),
    )


def coins(amounts: list[int]) -> list[Coin]:
    return [
        Coin(Outpoint(f"{number:064x}", 0), amount, KEY_HASH_INPUT_WEIGHT)
        for number, amount in enumerate(amounts)
    ]


def least_waste(have: list[Coin], amount: int, at: Terms) -> float:
    """Return the least waste over every subset, with change and without."""
    target, best = amount + fee_of(WEIGHT, at.rate), inf
    now, later = (fee_of(KEY_HASH_INPUT_WEIGHT, rate) for rate in (at.rate, at.later_rate))
    useful = [item for item in have if item.amount > now]
    for count in range(1, len(useful) + 1):
        for chosen in combinations(useful, count):
            excess = sum(item.amount - now for item in chosen) - target
            if excess < 0:
                continue
            best = min(best, count * (now - later) + excess)
            if excess >= at.change_fee + at.change_min:
                best = min(best, count * (now - later) + at.change_cost)
    return best


def check(found: Selection, amount: int, at: Terms) -> None:
    """Nothing appears or vanishes, and the fee is what the rate asks at least."""
    brought = sum(item.amount for item in found.coins)
    assert brought == amount + found.change + found.fee
    weight = WEIGHT + sum(item.weight for item in found.coins)
    weight += at.change_weight if found.change else 0
    assert found.fee >= fee_of(weight, at.rate)
    assert found.change == 0 or found.change >= at.change_min
    assert len({item.outpoint for item in found.coins}) == len(found.coins)


def test_the_choice_is_the_best_of_all_in_nearly_every_small_set() -> None:
    chance, same = random.Random(5), 0
    for _ in range(SETS):
        have = coins([chance.randint(500, 400_000) for _ in range(chance.randint(1, 11))])
        at = terms(chance.choice([1_000, 5_000, 20_000, 80_000]), chance.choice([2_000, 10_000]))
        amount = chance.randint(1_000, sum(item.amount for item in have))
        found, best = select(have, amount, WEIGHT, at), least_waste(have, amount, at)
        if isinstance(found, NotEnough):
            same += best == inf
            continue
        check(found, amount, at)
        assert found.waste >= best
        same += found.waste == best
    assert same / SETS >= SAME_AS_BEST


@given(
    amounts=st.lists(st.integers(1, 10**8), max_size=30),
    amount=st.integers(294, 10**9),
    rate=st.integers(100, 500_000),
    later=st.integers(100, 500_000),
    data=st.data(),
)
def test_nothing_appears_or_vanishes_and_the_order_of_coins_does_not_matter(
    amounts: list[int], amount: int, rate: int, later: int, data: st.DataObject
) -> None:
    have, at = coins(amounts), terms(rate, later)
    found = select(have, amount, WEIGHT, at)
    assert found == select(data.draw(st.permutations(have)), amount, WEIGHT, at)
    if isinstance(found, Selection):
        check(found, amount, at)
    else:
        assert found.available < found.needed


def test_a_set_that_needs_no_change_is_found() -> None:
    at = terms(10_000, 10_000)
    spend = fee_of(KEY_HASH_INPUT_WEIGHT, at.rate)
    have = coins([70_000 + spend, 30_000 + spend, 55_000, 900_000, 12_345])
    found = select(have, 100_000 - fee_of(WEIGHT, at.rate), WEIGHT, at)
    assert isinstance(found, Selection)
    assert {item.amount for item in found.coins} == {70_000 + spend, 30_000 + spend}
    assert found.change == 0


def test_a_coin_that_costs_more_than_it_brings_is_never_chosen() -> None:
    at = terms(50_000, 1_000)
    cost = fee_of(KEY_HASH_INPUT_WEIGHT, at.rate)
    found = select(coins([cost, cost - 1, 300_000, 200_000]), 400_000, WEIGHT, at)
    assert isinstance(found, Selection)
    assert min(item.amount for item in found.coins) > cost


def test_too_little_says_what_is_there_and_what_is_needed() -> None:
    at = terms(10_000, 10_000)
    found = select(coins([10_000, 20_000]), 50_000, WEIGHT, at)
    spend = fee_of(KEY_HASH_INPUT_WEIGHT, at.rate)
    assert found == NotEnough(30_000 - 2 * spend, 50_000 + fee_of(WEIGHT, at.rate))
    assert select([], 1, WEIGHT, at) == NotEnough(0, 1 + fee_of(WEIGHT, at.rate))


def test_cheap_times_use_the_inputs_they_may_and_no_more() -> None:
    at = terms(1_000, 50_000)
    have = coins([100_000] * 40)
    found = select(have, 1_000_000, WEIGHT, at, inputs_max=15)
    assert isinstance(found, Selection)
    assert len(found.coins) == 15
    assert isinstance(select(have, 3_000_000, WEIGHT, at, inputs_max=15), NotEnough)


def test_the_search_is_bounded_where_no_set_fits() -> None:
    """A set built to be searched for ever: two of each power of two, and an odd target."""
    have = coins([2**power * 1_000_000 + half for power in range(12) for half in (0, 1)])
    found = select(have, 2**12 * 1_000_000 - 3, WEIGHT, terms(10_000, 1_000), tries_max=1_000)
    assert isinstance(found, Selection)


@pytest.mark.parametrize(
    ("script", "limit"),
    [
        (key_hash_script(bytes(20)), 546),
        (script_hash_script(bytes(20)), 540),
        (witness_script(0, bytes(20)), 294),
        (witness_script(0, bytes(32)), 330),
        (witness_script(1, bytes(32)), 330),
        (b"\x6a\x01x", 0),
    ],
)
def test_dust_is_what_bitcoin_core_calls_dust(script: bytes, limit: int) -> None:
    assert dust_limit(script, DUST_RATE) == limit


def test_fees_are_rounded_up_and_absurd_rates_refused() -> None:
    assert fee_of(4, 1) == 1
    assert fee_of(400, 1_000) == 100
    assert fee_of(401, 1_000) == 101
    assert rate_of(141, 141) == 1_000
    for rate in (0, -1, RATE_MAX + 1):
        with pytest.raises(BadInput, match="fee rate"):
            require_rate(rate)
