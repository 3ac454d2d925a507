"""What a policy says: fields, groups, windows and limits, without a database."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from custody.payout_model import ControlState, DestinationKind, Quorum
from custody.payout_policy import (
    check_document,
    decide,
    find_windows,
    groups_of,
    is_complete,
    with_block_all,
)
from custody.policy_documents import (
    facts_from_document,
    facts_to_document,
    from_document,
    to_document,
)
from custody.policy_model import (
    APPROVERS,
    BLOCK_ALL,
    SERVICES,
    Action,
    ApprovalPolicy,
    Miss,
    Per,
    PolicyDocument,
    PolicyRule,
    RequestFacts,
    VelocityLimit,
    Window,
)
from kernel.errors import BadInput
from registry.model import Role
from registry.testing import operator

AT = datetime(2026, 1, 5, tzinfo=UTC)
DAY = 86_400
PAYEE = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
ASKED = RequestFacts(
    initiator="dan",
    claim="client",
    party="acme",
    chain="evm",
    asset="ETH",
    wallet="client-pool",
    destination=PAYEE,
    destination_kind=DestinationKind.EOA,
    destination_age_s=DAY,
    amount=10,
)
GROUPS = {"treasury": ("ada", "eve"), "compliance": ("cleo", "eve"), "desk": ("dan",)}


def policy(*rules: PolicyRule, **more: Any) -> ApprovalPolicy:
    document = with_block_all(PolicyDocument(rules=rules, groups=GROUPS, **more))
    check_document(document)
    return ApprovalPolicy(
        version=7,
        document=document,
        state=ControlState.ACTIVE,
        proposed_by="ada",
        proposed_at=AT,
    )


def test_the_first_rule_that_matches_decides_and_the_last_blocks() -> None:
    rules = policy(
        PolicyRule(claim="client", asset="ETH", amount_max=10, approvals=1),
        PolicyRule(claim="client", approvals=3),
        PolicyRule(claim="own", approvals=2),
    )

    said = [
        decide(rules, facts)
        for facts in (
            ASKED,
            replace(ASKED, amount=11),
            replace(ASKED, claim="own", party=None),
            replace(ASKED, claim="payable"),
        )
    ]

    assert [(item.rule, item.action) for item in said] == [
        (1, Action.APPROVE),
        (2, Action.APPROVE),
        (3, Action.APPROVE),
        (4, Action.BLOCK),
    ]
    assert [item.required for item in said[:3]] == [
        (Quorum(APPROVERS, 1),),
        (Quorum(APPROVERS, 3),),
        (Quorum(APPROVERS, 2),),
    ]
    assert said[3].reason == "no rule of approval policy 7 covers 10 of ETH for a payable"
    assert said[1].misses == (Miss(1, ("amount_max",)),)
    assert said[3].misses == (Miss(1, ("claim",)), Miss(2, ("claim",)), Miss(3, ("claim",)))


MATCHING: list[dict[str, Any]] = [
    {"claim": "client"},
    {"party": "acme"},
    {"initiator": "dan"},
    {"initiator": "group:desk"},
    {"chain": "evm"},
    {"asset": "ETH"},
    {"wallet": "client-pool"},
    {"destination": PAYEE},
    {"destination": "eoa"},
    {"destination_age_min_s": DAY},
    {"amount_max": 10},
]
MISSING: list[dict[str, Any]] = [
    {"claim": "held"},
    {"party": "birch"},
    {"initiator": "ben"},
    {"initiator": "group:treasury"},
    {"chain": "evm2"},
    {"asset": "USDT"},
    {"wallet": "house-hot"},
    {"destination": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"},
    {"destination": "contract"},
    {"destination_age_min_s": DAY + 1},
    {"amount_max": 9},
]


@pytest.mark.parametrize("fields", MATCHING, ids=str)
def test_a_rule_matches_by_each_of_its_fields(fields: dict[str, Any]) -> None:
    assert decide(policy(PolicyRule(**fields)), ASKED).rule == 1


@pytest.mark.parametrize("fields", MISSING, ids=str)
def test_a_rule_misses_by_each_of_its_fields_and_says_which(fields: dict[str, Any]) -> None:
    said = decide(policy(PolicyRule(**fields)), ASKED)

    assert (said.rule, said.action) == (2, Action.BLOCK)
    assert said.misses == (Miss(1, tuple(fields)),)


def test_a_rule_that_blocks_stands_before_those_that_would_let_pass() -> None:
    said = decide(policy(PolicyRule(party="acme", action=Action.BLOCK), PolicyRule()), ASKED)

    assert (said.action, said.required) == (Action.BLOCK, ())
    assert said.reason == "rule 1 of approval policy 7 blocks it"


def test_what_a_rule_allows_a_service_completes_or_any_approver() -> None:
    allowed = policy(PolicyRule(action=Action.ALLOW), services=("robot",))
    said = decide(allowed, ASKED)

    assert said.required == (Quorum(SERVICES, 1),)
    people = {
        "robot": operator("robot", Role.APPROVER),
        "ben": operator("ben", Role.APPROVER),
        "dan": operator("dan", Role.DEALER),
    }
    groups = {code: groups_of(allowed.document, item) for code, item in people.items()}
    assert groups == {
        "robot": frozenset({SERVICES}),
        "ben": frozenset({SERVICES, APPROVERS}),
        "dan": frozenset({"desk"}),
    }
    assert is_complete(said.required, {"robot": groups["robot"]})
    assert not is_complete((Quorum(APPROVERS, 1),), {"robot": groups["robot"]})


WINDOW = Window("ETH", DAY, "*", "acme")


def test_an_amount_over_a_window_counts_what_is_reserved_of_the_party() -> None:
    rules = policy(PolicyRule(amount_max=100, window_s=DAY), PolicyRule(approvals=2))

    assert find_windows(rules.document, ASKED) == {WINDOW}
    assert decide(rules, replace(ASKED, reserved={WINDOW: 90})).rule == 1
    assert decide(rules, replace(ASKED, reserved={WINDOW: 91})).rule == 2


def test_a_window_of_a_rule_that_does_not_match_is_not_added_up() -> None:
    rules = policy(PolicyRule(asset="USDT", amount_max=1, window_s=DAY), PolicyRule())

    assert find_windows(rules.document, ASKED) == set()
    assert decide(rules, ASKED).rule == 2


@pytest.mark.parametrize(("per", "party"), [(Per.PARTY, "acme"), (Per.ALL, None)])
def test_a_limit_holds_whatever_rule_matches(per: Per, party: str | None) -> None:
    limit = VelocityLimit(asset="ETH", amount_max=100, window_s=DAY, per=per)
    limited = policy(PolicyRule(action=Action.ALLOW), limits=(limit,))
    window = Window("ETH", DAY, "*", party)

    within = decide(limited, replace(ASKED, reserved={window: 90}))
    beyond = decide(limited, replace(ASKED, reserved={window: 91}))

    assert find_windows(limited.document, ASKED) == {window}
    assert (within.action, beyond.action) == (Action.ALLOW, Action.BLOCK)
    assert beyond.reason == (
        "limit 1 of approval policy 7: 91 ETH are reserved in 86400 seconds, 10 more would exceed 100"
    )
    assert find_windows(limited.document, replace(ASKED, claim="own", party=None)) == set()


BAD: list[dict[str, Any]] = [
    {"rules": ()},
    {"rules": (PolicyRule(approvals=0),)},
    {"rules": (PolicyRule(approvals=11),)},
    {"rules": (PolicyRule(amount_max=0),)},
    {"rules": (PolicyRule(),) * 200},
    {"rules": (PolicyRule(claim="withdrawal"),)},
    {"rules": (PolicyRule(window_s=DAY),)},
    {"rules": (PolicyRule(window_s=59, amount_max=1),)},
    {"rules": (PolicyRule(window_s=32 * DAY, amount_max=1),)},
    {"rules": (PolicyRule(expires_s=0),)},
    {"rules": (PolicyRule(groups=(Quorum("nobody", 1),)),)},
    {"rules": (PolicyRule(groups=(Quorum("treasury", 3),)),)},
    {"rules": (PolicyRule(groups=(Quorum("treasury", 1), Quorum("treasury", 1))),)},
    {"rules": (PolicyRule(groups=(Quorum(SERVICES, 1),)),)},
    {"rules": (PolicyRule(action=Action.ALLOW, groups=(Quorum("treasury", 1),)),)},
    {"rules": (PolicyRule(initiator="group:nobody"),)},
    {"rules": (BLOCK_ALL, PolicyRule())},
    {"rules": (PolicyRule(),), "groups": {"approvers": ("ada",)}},
    {"rules": (PolicyRule(),), "groups": {"a": ()}},
    {"rules": (PolicyRule(),), "services": ("ada",)},
    {"rules": (PolicyRule(),), "cooling_off_min_s": -1},
    {"rules": (PolicyRule(),), "limits": (VelocityLimit(asset="ETH", amount_max=1, window_s=1),)},
]


@pytest.mark.parametrize("document", BAD, ids=lambda item: str(item)[:60])
def test_a_policy_that_means_nothing_or_too_much_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        check_document(with_block_all(PolicyDocument(**{"groups": GROUPS, **document})))


def test_the_rule_that_blocks_everything_cannot_be_removed() -> None:
    without = PolicyDocument(rules=(PolicyRule(),))
    named = PolicyDocument(rules=(PolicyRule(), replace(BLOCK_ALL, name="the end")))

    assert with_block_all(without).rules[-1] == BLOCK_ALL
    assert with_block_all(with_block_all(without)) == with_block_all(without)
    assert with_block_all(named) == with_block_all(without)


def test_a_policy_and_its_facts_are_read_as_they_are_written() -> None:
    rules = policy(
        PolicyRule(
            name="daily",
            initiator="group:desk",
            amount_max=2**200,
            window_s=DAY,
            per=Per.ALL,
            groups=(Quorum("treasury", 1), Quorum("compliance", 1)),
            expires_s=3_600,
        ),
        services=("robot",),
        limits=(VelocityLimit(asset="ETH", amount_max=2**100, window_s=DAY),),
        cooling_off_min_s=DAY,
    )
    facts = replace(ASKED, amount=2**200, reserved={WINDOW: 5, replace(WINDOW, party=None): 6})

    assert from_document(to_document(rules.document)) == rules.document
    assert facts_from_document(facts_to_document(facts)) == facts


def test_nobody_counts_for_two_groups() -> None:
    """One is of both groups; with anybody else of either the two places can be filled."""
    required = (Quorum("treasury", 1), Quorum("compliance", 1))
    groups = {"ada": frozenset({"treasury"}), "cleo": frozenset({"compliance"})}
    eve = {"eve": frozenset({"treasury", "compliance"})}

    assert not is_complete(required, eve)
    assert not is_complete(required, {"ada": groups["ada"], "ann": groups["ada"]})
    for other, theirs in groups.items():
        for both in ({**eve, other: theirs}, {other: theirs, **eve}):
            assert is_complete(required, both)


@example([("a", 1), ("b", 1)], {"p": frozenset("ab")})
@example([("a", 2)], {"p": frozenset("a"), "q": frozenset("b")})
@example([("a", 1), ("b", 1)], {"p": frozenset("ab"), "q": frozenset("a")})
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 2)), max_size=3),
    st.dictionaries(st.sampled_from("pqrst"), st.frozensets(st.sampled_from("abc")), max_size=5),
)
def test_quorums_are_complete_exactly_where_some_seating_is(
    wanted: list[tuple[str, int]], approvers: dict[str, frozenset[str]]
) -> None:
    required = tuple(Quorum(group, number) for group, number in wanted)
    places = [item.group for item in required for _ in range(item.approvals)]
    seatings = itertools.permutations(approvers, len(places))

    assert is_complete(required, approvers) == any(
        all(place in approvers[code] for place, code in zip(places, seating, strict=True))
        for seating in seatings
    )
