"""Fees, log filters, parameters and admission: the pure decisions of the simulator."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.simulators.evm.admission import require_admissible
from chain.simulators.evm.errors import InvalidParams, TransactionRefused
from chain.simulators.evm.fees import fee_history, next_base_fee, tips_at_percentiles
from chain.simulators.evm.logs import LogFilter
from chain.simulators.evm.model import Block, LogEntry, Receipt, Transaction
from chain.simulators.evm.params import Params, read_data, read_filter, read_quantity

GAS_LIMIT = 30_000_000


def transaction(*, tip: int = 1, fee: int = 100, gas: int = 21_000, value: int = 0) -> Transaction:
    return Transaction(bytes(32), bytes(20), 5, gas, fee, tip, bytes(20), value, b"", b"")


def block(
    *, number: int = 1, base_fee: int = 80, gas_used: int = 0, receipts: tuple[Receipt, ...] = ()
) -> Block:
    return Block(
        header=None,
        hash=bytes(32),
        parent_hash=bytes(32),
        number=number,
        timestamp=0,
        base_fee_per_gas=base_fee,
        gas_limit=GAS_LIMIT,
        gas_used=gas_used,
        receipts=receipts,
        state_root=bytes(32),
    )


def paid(tip: int, gas_used: int) -> Receipt:
    return Receipt(transaction(tip=tip, fee=1000), 0, 1, gas_used, 0, 0, None, (), 0, 0)


@pytest.mark.parametrize(
    ("gas_used", "base_fee", "following"),
    [
        pytest.param(GAS_LIMIT // 2, 1000, 1000, id="at-the-target"),
        pytest.param(0, 1000, 875, id="empty"),
        pytest.param(GAS_LIMIT, 1000, 1125, id="full"),
        pytest.param(GAS_LIMIT // 2 + 1, 7, 8, id="rises-by-at-least-one"),
        pytest.param(0, 7, 7, id="stops-falling-at-seven"),
    ],
)
def test_the_base_fee_follows_eip_1559(gas_used: int, base_fee: int, following: int) -> None:
    assert next_base_fee(block(gas_used=gas_used, base_fee=base_fee)) == following


@given(st.integers(0, 10**12), st.integers(0, GAS_LIMIT))
def test_the_base_fee_moves_by_an_eighth_at_most(base_fee: int, gas_used: int) -> None:
    following = next_base_fee(block(base_fee=base_fee, gas_used=gas_used))

    assert base_fee - base_fee // 8 <= following <= base_fee + max(base_fee // 8, 1)


def test_tips_are_weighted_by_gas() -> None:
    mined = block(gas_used=100, receipts=(paid(30, 10), paid(10, 60), paid(20, 30)))

    assert tips_at_percentiles(mined, [0, 60, 61, 90, 100]) == (10, 10, 20, 20, 30)
    assert tips_at_percentiles(block(), [50]) == (0,)


def test_the_fee_history_looks_one_block_ahead() -> None:
    history = fee_history([block(number=4), block(number=5, gas_used=GAS_LIMIT)], [])

    assert history.oldest_block == 4
    assert history.base_fees == (80, 80, 90)
    assert history.gas_used_ratios == (0.0, 1.0)
    assert history.rewards == ()


A, B, C = (bytes([n]) * 32 for n in (1, 2, 3))


@pytest.mark.parametrize(
    ("topics", "selected"),
    [
        pytest.param((), True, id="no-condition"),
        pytest.param((frozenset({A}),), True, id="first-matches"),
        pytest.param((None, frozenset({B})), True, id="any-first"),
        pytest.param((frozenset({A, C}), frozenset({B, C})), True, id="alternatives"),
        pytest.param((frozenset({B}),), False, id="first-differs"),
        pytest.param((None, None, None), False, id="too-few-topics"),
    ],
)
def test_topics_match_by_position(
    topics: tuple[frozenset[bytes] | None, ...], *, selected: bool
) -> None:
    log = LogEntry(address=bytes(20), topics=(A, B), data=b"")

    assert LogFilter(topics=topics).matches(log) is selected


def test_addresses_are_alternatives() -> None:
    log = LogEntry(address=b"\x07" * 20, topics=(), data=b"")

    assert LogFilter(frozenset({b"\x07" * 20, b"\x08" * 20})).matches(log)
    assert not LogFilter(frozenset({b"\x08" * 20})).matches(log)


@pytest.mark.parametrize(
    ("fields", "sender", "words"),
    [
        ({"gas": GAS_LIMIT + 1}, {}, "exceeds block gas limit"),
        ({"tip": 101}, {}, "max priority fee per gas higher than max fee per gas"),
        ({"gas": 20_999}, {}, "intrinsic gas too low: gas 20999, minimum needed 21000"),
        ({}, {"nonce": 6}, "nonce too low: next nonce 6, tx nonce 5"),
        ({"value": 1}, {"balance": 2_100_000}, "overshot 1"),
    ],
)
def test_an_inadmissible_transaction_is_refused_with_its_numbers(
    fields: dict[str, int], sender: dict[str, int], words: str
) -> None:
    facts = {"nonce": 5, "balance": 10**18} | sender

    with pytest.raises(TransactionRefused, match=words):
        require_admissible(
            transaction(**fields), intrinsic_gas=21_000, gas_limit=GAS_LIMIT, **facts
        )


def test_a_transaction_that_just_fits_is_admissible_also_behind_a_gap() -> None:
    require_admissible(
        transaction(), intrinsic_gas=21_000, gas_limit=GAS_LIMIT, nonce=3, balance=2_100_000
    )


@pytest.mark.parametrize(
    ("text", "number"),
    [("0x0", 0), ("0xff", 255), ("12", 12), (7, 7), ("0x" + "f" * 64, 2**256 - 1)],
)
def test_quantities_are_read(text: Any, number: int) -> None:
    assert read_quantity(text, "value") == number


@pytest.mark.parametrize(
    "text", ["", "0x", "0xzz", "1_000", " 1", "-1", "0x" + "f" * 65, None, True, 1.5, [], -3, "٣"]
)
def test_what_is_no_quantity_is_refused_by_name(text: Any) -> None:
    with pytest.raises(InvalidParams, match="invalid value"):
        read_quantity(text, "value")


@pytest.mark.parametrize("text", ["", "12", "0x1", "0xzz", None, 5, "0x12 34"])
def test_what_is_no_data_is_refused_by_name(text: Any) -> None:
    with pytest.raises(InvalidParams, match="invalid input"):
        read_data(text, "input", length=2)


@pytest.mark.parametrize(
    "body",
    [
        {"topics": "0x00"},
        {"topics": [None] * 5},
        {"topics": ["0x12"]},
        {"address": "0x12"},
        {"address": ["0x" + "00" * 20] * 1001},
    ],
)
def test_a_malformed_filter_is_refused(body: Any) -> None:
    with pytest.raises(InvalidParams):
        read_filter(body)


def test_an_empty_alternative_in_a_filter_means_any() -> None:
    assert read_filter({"topics": [[], None]}) == LogFilter(topics=(None, None))


def test_missing_parameters_are_named() -> None:
    params = Params("eth_getBalance", ("0x" + "00" * 20,))

    assert params.quantity(1, "height", default=9) == 9
    with pytest.raises(InvalidParams, match="eth_getBalance: missing parameter 1 \\(height\\)"):
        params.quantity(1, "height")
    with pytest.raises(InvalidParams, match="parameter 0 \\(full\\) must be true or false"):
        params.flag(0, "full")
