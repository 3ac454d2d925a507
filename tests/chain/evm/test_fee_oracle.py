"""Bids follow what recent blocks asked for, within bounds, whatever a node answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.errors import UnreadableAnswer
from chain.evm.fee_oracle import (
    GWEI,
    FeePolicy,
    RecentFees,
    grown,
    middle_quote,
    next_base_fee,
    parse_history,
    quote,
)
from chain.model import FeeQuote
from kernel.errors import BadInput

POLICY = FeePolicy(horizon_blocks=0, tip_min=1, tip_max=10 * GWEI, fee_max=100 * GWEI)


@pytest.mark.parametrize(
    ("base_fee", "tips", "suggested", "expected"),
    [
        pytest.param(7, (1, 2, 30), None, FeeQuote(9, 2), id="the median tip"),
        pytest.param(7, (1, 2, 3, 30), None, FeeQuote(9, 2), id="of an even number the lower"),
        pytest.param(7, (0, 0, 0), None, FeeQuote(8, 1), id="a floor for the tip"),
        pytest.param(7, (99 * GWEI,), None, FeeQuote(7 + 10 * GWEI, 10 * GWEI), id="a cap"),
        pytest.param(7, (), 5, FeeQuote(12, 5), id="no block says anything: the node's word"),
        pytest.param(7, (), None, FeeQuote(8, 1), id="nobody says anything: the floor"),
        pytest.param(7, (2,), 5, FeeQuote(9, 2), id="blocks count more than the node's word"),
        pytest.param(200 * GWEI, (5,), None, FeeQuote(100 * GWEI, 5), id="a cap on all of it"),
    ],
)
def test_a_bid_follows_recent_blocks_within_its_bounds(
    base_fee: int, tips: tuple[int, ...], suggested: int | None, expected: FeeQuote
) -> None:
    assert quote(RecentFees(base_fee, tips), POLICY, suggested_tip=suggested) == expected


def test_a_bid_stays_valid_for_its_horizon_of_full_blocks() -> None:
    policy = FeePolicy(horizon_blocks=3, tip_min=1)

    bid = quote(RecentFees(800, (5,)), policy)

    assert [grown(800, blocks) for blocks in range(4)] == [800, 900, 1012, 1138]
    assert bid == FeeQuote(1138 + 5, 5)


def test_even_a_base_fee_of_one_grows() -> None:
    assert grown(1, 2) == 3


@given(st.integers(0, 10**15), st.lists(st.integers(0, 10**15), max_size=20), st.integers(0, 20))
def test_no_answer_makes_a_bid_leave_its_bounds(base: int, tips: list[int], horizon: int) -> None:
    policy = FeePolicy(horizon_blocks=horizon, tip_min=10, tip_max=1000, fee_max=5000)

    bid = quote(RecentFees(base, tuple(tips)), policy)

    assert 10 <= bid.max_priority_fee_per_gas <= 1000
    assert bid.max_priority_fee_per_gas <= bid.max_fee_per_gas <= 5000
    if grown(base, horizon) + 1000 <= 5000:
        assert bid.max_fee_per_gas >= grown(base, horizon) + bid.max_priority_fee_per_gas


def test_empty_blocks_say_nothing_about_tips() -> None:
    answer = {
        "oldestBlock": "0x1",
        "baseFeePerGas": ["0x10", "0xe", "0xd", "0xc"],
        "gasUsedRatio": [0.5, 0, 0.0],
        "reward": [["0x3"], ["0x0"], ["0x0"]],
    }

    assert parse_history(answer) == RecentFees(12, (3,))
    del answer["reward"]
    assert parse_history(answer) == RecentFees(12, ())


@pytest.mark.parametrize(
    "change",
    [
        {"baseFeePerGas": ["0x1"]},
        {"baseFeePerGas": ["0x1", "x"]},
        {"baseFeePerGas": ["0x1", "0x" + "f" * 40]},
        {"baseFeePerGas": None},
        {"gasUsedRatio": 1},
        {"reward": []},
        {"reward": [["0x1", "0x2"]]},
        {"reward": [[]]},
        {"reward": [["0x" + "f" * 40]]},
        {"reward": {}},
    ],
)
def test_a_history_out_of_form_is_unreadable(change: dict[str, Any]) -> None:
    answer = {"baseFeePerGas": ["0x1", "0x1"], "gasUsedRatio": [0.1], "reward": [["0x1"]]}
    parse_history(answer)

    with pytest.raises(UnreadableAnswer):
        parse_history(answer | change)


def test_without_history_the_next_base_fee_is_the_present_one_grown_once() -> None:
    assert next_base_fee({"baseFeePerGas": hex(800)}) == 900
    with pytest.raises(UnreadableAnswer, match="EIP-1559"):
        next_base_fee({})


@pytest.mark.parametrize(
    ("fees", "expected"),
    [
        ([(10, 1), (11, 2), (12, 3)], (11, 2)),
        pytest.param([(10, 1), (11, 2), (10**18, 10**17)], (11, 2), id="one liar of three: high"),
        pytest.param([(10, 1), (11, 2), (0, 0)], (10, 1), id="one liar of three: low"),
        pytest.param([(10, 1), (10**18, 10**17)], (10, 1), id="of two the lower"),
        pytest.param([(10, 1)], (10, 1), id="one"),
    ],
)
def test_one_liar_cannot_make_us_bid_absurdly(
    fees: list[tuple[int, int]], expected: tuple[int, int]
) -> None:
    assert middle_quote([FeeQuote(*one) for one in fees]) == FeeQuote(*expected)


@pytest.mark.parametrize(
    "fields",
    [
        {"blocks": 0},
        {"blocks": 1_025},
        {"percentile": 101},
        {"horizon_blocks": 65},
        {"tip_min": 5, "tip_max": 4},
        {"fee_max": 1},
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(BadInput):
        FeePolicy(**fields)
