"""What is chosen, what replaces it, and how its fee is shared: pure decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.bitcoin.scripts import witness_script
from chain.bitcoin.transactions import Outpoint
from custody.bitcoin.spend_model import SpendAttempt, SpendPayout, SpentCoin, share_fee
from custody.bitcoin.spend_plan import (
    Market,
    Replaced,
    SpendPolicy,
    decide_bump,
    draft,
    fee_to_replace,
    plan_replacement,
)
from custody.payout_model import AttemptKind, AttemptState
from custody.payout_rules import Bump
from kernel.errors import BadInput

NOW = datetime(2026, 1, 5, tzinfo=UTC)
CHANGE = witness_script(0, bytes(20))


def coin(number: int, amount: int) -> SpentCoin:
    return SpentCoin(Outpoint(f"{number:064x}", 0), amount, "bcrt1", f"m/84'/1'/0'/0/{number}")


def attempt(number: int, *coins: SpentCoin, fee: int, at: datetime = NOW) -> SpendAttempt:
    drafted = draft([], coins, sum(item.amount for item in coins) - fee, CHANGE)
    return SpendAttempt(
        id=UUID(int=number),
        spend_id=UUID(int=9),
        number=number,
        chain="bitcoin",
        kind=AttemptKind.PAY,
        state=AttemptState.BROADCAST,
        tx_id=drafted.unsigned.tx_id,
        unsigned=drafted.encoded,
        coins=drafted.coins,
        change=drafted.change,
        fee=fee,
        weight=drafted.weight,
        raw=None,
        broadcasts=1,
        last_broadcast_at=at,
        detail="",
        built_at=at,
        signed_at=at,
    )


@given(fee=st.integers(1, 10**9), weights=st.lists(st.integers(100, 400), min_size=1, max_size=100))
def test_the_parts_of_a_fee_sum_exactly_and_none_is_off_by_more_than_one(
    fee: int, weights: list[int]
) -> None:
    parts = [
        SpendPayout(spend_id=UUID(int=1), payout_id=UUID(int=n), weight=weight, output=n)
        for n, weight in enumerate(weights, start=1)
    ]

    shares = share_fee(fee, parts)

    assert sum(shares.values()) == fee
    total = sum(weights)
    for part in parts:
        exact = fee * part.weight // total
        assert shares[part.payout_id] in {exact, exact + 1}


@given(
    amounts=st.lists(st.integers(2_000, 10**8), min_size=1, max_size=5),
    more=st.lists(st.integers(2_000, 10**8), max_size=5),
    fee=st.integers(200, 1_000),
    rate=st.integers(1_000, 400_000),
    step=st.integers(100, 5_000),
)
def test_a_replacement_spends_the_anchor_and_satisfies_bip_125(
    amounts: list[int], more: list[int], fee: int, rate: int, step: int
) -> None:
    first = attempt(1, *(coin(n, amount) for n, amount in enumerate(amounts)), fee=fee)
    free = [coin(100 + n, amount) for n, amount in enumerate(more)]
    market = Market(rate, 1_000, step)

    found = plan_replacement([first], [], free, market, cancels=True)

    if not isinstance(found, Replaced):
        assert sum(amounts) < 1_000 + fee_to_replace([first], first.weight, market)
        return
    new = draft([], found.coins, found.change, CHANGE, AttemptKind.CANCEL)
    assert first.coins[0] in new.coins
    assert set(new.coins) == set(first.coins)
    assert new.fee >= first.fee + -(-new.weight * step // 4_000)
    assert new.fee * first.weight > first.fee * new.weight
    assert new.fee == found.fee


def test_the_rule_waits_offers_more_and_then_calls_people() -> None:
    policy, calm = SpendPolicy(), Market(5_000, 1_000, 1_000)
    first = attempt(1, coin(1, 10**8), fee=1_000)
    spike = Market(30_000, 1_000, 1_000)

    assert decide_bump([first], calm, policy, NOW + timedelta(minutes=39)) is Bump.NOT_YET
    assert decide_bump([first], calm, policy, NOW + timedelta(minutes=40)) is Bump.NOW
    assert decide_bump([first], spike, policy, NOW + timedelta(minutes=9)) is Bump.NOT_YET
    assert decide_bump([first], spike, policy, NOW + timedelta(minutes=10)) is Bump.NOW
    dear = Market(300_000, 1_000, 1_000)
    assert decide_bump([first], dear, policy, NOW + timedelta(hours=1)) is Bump.PEOPLE
    assert decide_bump([first], calm, policy, NOW + timedelta(hours=24)) is Bump.PEOPLE
    cancelling = SpendPolicy(cancel_after=timedelta(hours=2))
    assert decide_bump([first], calm, cancelling, NOW + timedelta(hours=2)) is Bump.CANCEL


def test_what_pools_do_not_take_any_more_is_bumped_soon() -> None:
    first = attempt(1, coin(1, 10**8), fee=150)
    full = Market(1_000, 3_000, 1_000)

    assert decide_bump([first], full, SpendPolicy(), NOW + timedelta(minutes=10)) is Bump.NOW


@pytest.mark.parametrize(
    "values",
    [
        {"rate_max": 0},
        {"fee_max": 0},
        {"bump_after": timedelta(0)},
        {"deadline": timedelta(minutes=1)},
        {"times_first_max": 0},
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        SpendPolicy(**values)
