"""Rules of the fault proxy: when they strike, and what they are refused for."""

from __future__ import annotations

from typing import Any

import pytest

from chain.simulators.faults.book import RuleBook
from chain.simulators.faults.lies import at_height, forged_hash
from chain.simulators.faults.model import Fault, Rule, read_rules, rule_json
from kernel.errors import BadInput


@pytest.mark.parametrize(
    ("rule", "struck"),
    [
        (Rule(fault=Fault.SLOW), "xxxxxx"),
        (Rule(fault=Fault.SLOW, skip=2), "..xxxx"),
        (Rule(fault=Fault.SLOW, times=2), "xx...."),
        (Rule(fault=Fault.SLOW, every=2), "x.x.x."),
        (Rule(fault=Fault.SLOW, skip=1, every=3, times=1), ".x...."),
        (Rule(fault=Fault.SLOW, times=0), "......"),
        (Rule(fault=Fault.SLOW, methods=("eth_get*",)), "xxxxxx"),
        (Rule(fault=Fault.SLOW, methods=("net_*", "eth_getLogs")), "......"),
        (Rule(fault=Fault.NO_TRACES), "......"),
    ],
)
def test_a_rule_strikes_by_count_and_never_by_chance(rule: Rule, struck: str) -> None:
    book = RuleBook()
    book.set(rule)

    met = [bool(book.meet_call("eth_getBalance")) for _ in range(6)]

    assert "".join("x" if one else "." for one in met) == struck
    assert book.calls["eth_getBalance"] == 6


def test_several_rules_strike_one_call_and_each_counts_for_itself() -> None:
    slow, stale = Rule(fault=Fault.SLOW, times=1), Rule(fault=Fault.STALE_HEAD)
    book = RuleBook()
    book.set(slow)
    book.add(stale)

    assert book.meet_call("eth_call") == (slow, stale)
    assert book.meet_call("eth_call") == (stale,)
    book.clear()
    assert book.meet_call("eth_call") == ()


def test_notifications_are_counted_apart_from_calls() -> None:
    book = RuleBook()
    book.set(Rule(fault=Fault.DROP_NOTIFICATIONS, methods=("newHeads",), times=1))

    assert book.meet_call("newHeads") == ()
    assert book.meet_notification("logs") == ()
    assert len(book.meet_notification("newHeads")) == 1
    assert book.meet_notification("newHeads") == ()


def test_rules_are_shown_as_they_may_be_set_again() -> None:
    rules = (
        Rule(fault=Fault.STALE_HEAD, blocks=3, every=2),
        Rule(fault=Fault.REFUSE, methods=("eth_call",), code=-32005, message="no", seconds=0.5),
    )

    shown = [rule_json(rule) for rule in rules]

    assert shown[0] == {"fault": "stale-head", "every": 2, "blocks": 3}
    assert read_rules(shown) == rules


@pytest.mark.parametrize(
    "body",
    [
        {},
        ["slow"],
        [{"fault": "haunted"}],
        [{}],
        [{"fault": "slow", "sekonds": 1}],
        [{"fault": "slow", "seconds": "1"}],
        [{"fault": "slow", "seconds": -1}],
        [{"fault": "slow", "times": True}],
        [{"fault": "slow", "every": 0}],
        [{"fault": "slow", "methods": 3}],
        [{"fault": "forged-hash"}],
        [{"fault": "stale-head", "blocks": 1.5}],
        [{"fault": "slow"}] * 1_001,
    ],
)
def test_what_is_no_rule_is_refused(body: Any) -> None:
    with pytest.raises(BadInput):
        read_rules(body)


@pytest.mark.parametrize(
    ("method", "params", "seen"),
    [
        ("eth_call", [{}], [{}, "0x5"]),
        ("eth_call", [{}, "pending"], [{}, "0x5"]),
        ("eth_call", [{}, "0x2"], [{}, "0x2"]),
        ("eth_getBlockByNumber", ["latest", False], ["0x5", False]),
        ("eth_getBlockByNumber", ["finalized", False], ["finalized", False]),
        ("eth_getStorageAt", ["0xaa", "0x0"], ["0xaa", "0x0", "0x5"]),
        ("eth_feeHistory", ["0x4", "latest", []], ["0x4", "0x5", []]),
        ("eth_getLogs", [{"fromBlock": "0x1", "toBlock": "0x9"}], [{"fromBlock": "0x1", "toBlock": "0x5"}]),
        ("eth_getLogs", [{"blockHash": "0xaa"}], [{"blockHash": "0xaa"}]),
        ("eth_chainId", [], []),
    ],
)  # fmt: skip
def test_a_stale_node_takes_an_old_block_for_the_head(
    method: str, params: list[Any], seen: list[Any]
) -> None:
    assert at_height(method, params, 5) == seen


def test_a_hash_forged_twice_is_the_true_one() -> None:
    true = "0x" + "0f" * 32

    assert forged_hash(true) == "0x" + "f0" * 32
    assert forged_hash(forged_hash(true)) == true
