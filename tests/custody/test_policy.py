from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.deposit_model import Deposit, DepositKind, DepositState, SourceClass
from custody.policy import ConfirmationPolicy, Requirement, Rule
from kernel.errors import BadInput
from kernel.ids import derive_id
from kernel.money import Asset

NOW = datetime(2026, 1, 5, tzinfo=UTC)
ASSETS = {"ETH": Asset("ETH", 18), "USDT": Asset("USDT", 6)}
TEXT = """
{"version": 3,
 "minimums": {"evm:USDT": "1.00"},
 "rules": [
   {"chain": "evm", "asset": "USDT", "minimum": "250,000", "finalized": true, "depth": 12},
   {"chain": "evm", "source": "known", "depth": 3},
   {"depth": 6}]}
"""
DEPOSIT = Deposit(
    id=derive_id(NOW, "deposit"),
    chain="evm",
    tx_hash="0x" + "11" * 32,
    position="log:0",
    contract=None,
    asset="USDT",
    amount=5_000_000,
    sender="0xABc",
    address="0xdef",
    wallet="client-pool",
    party="acme",
    credit="client:acme",
    epoch=1,
    block_hash="0x" + "22" * 32,
    height=100,
    postings=(),
    version=1,
    first_seen_at=NOW,
    state=DepositState.INCLUDED,
    kind=DepositKind.CLIENT,
    source=SourceClass.UNKNOWN,
)


def policy() -> ConfirmationPolicy:
    return ConfirmationPolicy.parse(TEXT, ASSETS)


@pytest.mark.parametrize(
    ("change", "rule", "wanted"),
    [
        ({}, 3, Requirement(6)),
        ({"source": SourceClass.KNOWN}, 2, Requirement(3)),
        ({"source": SourceClass.KNOWN, "chain": "other"}, 3, Requirement(6)),
        ({"amount": 250_000_000_000}, 1, Requirement(12, finalized=True)),
        ({"amount": 249_999_999_999}, 3, Requirement(6)),
        ({"amount": 250_000_000_000, "asset": "ETH"}, 3, Requirement(6)),
        (
            {"amount": 250_000_000_000, "source": SourceClass.KNOWN},
            1,
            Requirement(12, finalized=True),
        ),
    ],
)
def test_the_first_rule_that_matches_decides(
    change: dict[str, object], rule: int, wanted: Requirement
) -> None:
    deposit = replace(DEPOSIT, **change)  # type: ignore[arg-type]  # fields of the table above

    assert policy().require(deposit) == (rule, wanted)


def test_it_can_say_why() -> None:
    assert policy().explain(DEPOSIT) == (
        "policy version 3\n"
        "rule 1 does not match: amount 5000000 is below 250000000000\n"
        "rule 2 does not match: source is unknown, not known\n"
        "rule 3 matches: 6 blocks"
    )
    assert policy().explain(replace(DEPOSIT, amount=10**12)).endswith("12 blocks, finalized")


def test_what_is_below_the_minimum_is_told_by_chain_asset() -> None:
    assert policy().minimum("evm", "USDT") == 1_000_000
    assert policy().minimum("evm", "ETH") == 0
    assert policy().minimum("other", "USDT") == 0


@pytest.mark.parametrize(
    ("requirement", "height", "tip", "finalized", "met"),
    [
        (Requirement(1), 10, 10, 0, True),
        (Requirement(1), 11, 10, 0, False),
        (Requirement(3), 10, 11, 0, False),
        (Requirement(3), 10, 12, 0, True),
        (Requirement(1, finalized=True), 10, 99, 9, False),
        (Requirement(1, finalized=True), 10, 99, 10, True),
        (Requirement(5, finalized=True), 10, 12, 12, False),
    ],
)
def test_a_block_is_deep_enough_from_its_own_to_the_tip_both_counted(
    requirement: Requirement,
    height: int,
    tip: int,
    finalized: int,
    met: bool,  # noqa: FBT001  from the table
) -> None:
    assert requirement.is_met(height=height, tip=tip, finalized_height=finalized) is met


REQUIREMENTS = st.builds(Requirement, st.integers(1, 20), st.booleans())
HEIGHTS = st.integers(0, 40)


@given(REQUIREMENTS, REQUIREMENTS, HEIGHTS, HEIGHTS, HEIGHTS)
def test_what_is_raised_is_met_exactly_when_both_are(
    one: Requirement, other: Requirement, height: int, tip: int, finalized: int
) -> None:
    def met(requirement: Requirement) -> bool:
        return requirement.is_met(height=height, tip=tip, finalized_height=finalized)

    assert met(one.raised(other)) == (met(one) and met(other))


def document(**changes: object) -> str:
    return json.dumps(json.loads(TEXT) | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "not JSON"),
        ("[]", "version and rules"),
        ('{"version": 1}', "version and rules"),
        (document(rules=[]), "1 to 200 rules"),
        (document(rules=[{"depth": 1}] * 201), "1 to 200 rules"),
        (document(rules=[{"chain": "evm", "depth": 1}]), "does not match everything"),
        (document(rules=[{"depth": 1, "asset": "ETH", "minimum": "1"}]), "match everything"),
        (document(rules=[{"depth": 0}]), "rule 1 asks for depth 0"),
        (document(rules=[{"depth": 100_001}]), "depth 100001"),
        (document(rules=[{}]), "depth of rule 1 is None"),
        (document(rules=[{"depth": True}]), "depth of rule 1 is True"),
        (document(rules=[{"depth": 1.5}]), "depth of rule 1 is 1.5"),
        (document(rules=[{"depth": 1, "confirmations": 2}]), "'confirmations'"),
        (document(rules=[{"depth": 1, "finalized": "yes"}]), "finalized 'yes'"),
        (document(rules=[{"depth": 1, "source": "friend"}]), "source 'friend'"),
        (document(rules=[{"depth": 1, "asset": "DOGE"}]), "'DOGE', which is not registered"),
        (document(rules=[{"depth": 1, "minimum": "5"}]), "minimum and no asset"),
        (document(rules=[{"depth": 1, "asset": "ETH", "minimum": 5}]), "minimum of rule 1 is 5"),
        (document(rules=[{"depth": 1, "asset": "ETH", "minimum": "x"}]), "not an amount"),
        (document(rules=["any"]), "rule 1 is not an object"),
        (document(version=0), "version 0"),
        (document(version="3"), "version is '3'"),
        (document(minimums={"evm:DOGE": "1"}), "'DOGE', which is not registered"),
        (document(owner="me"), "'owner'"),
    ],
)
def test_a_policy_that_is_not_clear_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ConfirmationPolicy.parse(text, ASSETS)


def test_the_same_for_everything() -> None:
    assert ConfirmationPolicy.uniform(4) == ConfirmationPolicy(1, (Rule(Requirement(4)),))
