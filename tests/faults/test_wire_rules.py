"""What rules make of bytes, without a socket."""

from __future__ import annotations

from typing import Any

import pytest

from app.faults.wire_rules import (
    Fate,
    Fault,
    Lane,
    Rule,
    Step,
    Tally,
    Way,
    read_rules,
    rule_json,
    storm,
)
from kernel.errors import BadInput


def lane(*rules: Rule, way: Way = Way.TO_SERVER) -> Lane:
    made = Lane(way)
    made.put_under(rules)
    return made


def met(one: Lane, *pieces: bytes) -> list[Fate]:
    return [one.meet(piece) for piece in pieces]


@pytest.mark.parametrize(
    ("rules", "fates"),
    [
        ((), [Fate(b"abcd"), Fate(b"efgh")]),
        ((Rule(fault=Fault.DELAY, seconds=2.0),), [Fate(b"abcd", 2.0), Fate(b"efgh", 2.0)]),
        (
            (Rule(fault=Fault.DELAY, seconds=2.0, after_bytes=4),),
            [Fate(b"abcd"), Fate(b"efgh", 2.0)],
        ),
        ((Rule(fault=Fault.RATE, bytes_per_second=2),), [Fate(b"abcd", 2.0), Fate(b"efgh", 2.0)]),
        ((Rule(fault=Fault.SWALLOW, after_bytes=3),), [Fate(b"abc"), Fate(b"")]),
        (
            (Rule(fault=Fault.CUT, after_bytes=6),),
            [Fate(b"abcd"), Fate(b"ef", ends=Fault.CUT)],
        ),
        (
            (Rule(fault=Fault.RESET, after_bytes=6), Rule(fault=Fault.CUT, after_bytes=7)),
            [Fate(b"abcd"), Fate(b"ef", ends=Fault.RESET)],
        ),
        (
            (Rule(fault=Fault.CORRUPT, after_bytes=3, count=2),),
            [Fate(b"abce"), Fate(b"dfgh")],
        ),
        ((Rule(fault=Fault.SWALLOW, way=Way.TO_CLIENT),), [Fate(b"abcd"), Fate(b"efgh")]),
    ],
    ids=[
        "nothing", "late", "late-later", "slow", "swallowed", "cut", "sooner-end", "turned", "other-way",
    ],
)  # fmt: skip
def test_a_rule_decides_what_arrives(rules: tuple[Rule, ...], fates: list[Fate]) -> None:
    assert met(lane(*rules), b"abcd", b"efgh") == fates


def test_bytes_are_counted_from_the_moment_a_rule_is_in_force() -> None:
    one = lane()
    met(one, b"much that passed before")
    one.put_under([Rule(fault=Fault.CUT, after_bytes=2)])

    assert one.meet(b"abc") == Fate(b"ab", ends=Fault.CUT)


def test_a_lane_knows_that_it_lost_something() -> None:
    harmless = lane(Rule(fault=Fault.SWALLOW, after_bytes=4))
    met(harmless, b"abcd")
    assert not harmless.lost

    met(harmless, b"e")
    assert harmless.lost


def test_a_rule_spares_the_first_and_strikes_so_many() -> None:
    tally = Tally(Rule(fault=Fault.REFUSE, skip=2, times=2))

    assert [tally.meet() for _ in range(6)] == [False, False, True, True, False, False]
    assert (tally.seen, tally.struck) == (6, 2)


def test_a_storm_is_its_seed_and_ends_in_calm() -> None:
    assert storm(7, seconds=60) == storm(7, seconds=60)
    assert storm(7, seconds=60) != storm(8, seconds=60)
    steps = storm(7, seconds=60)
    assert steps[-1].rules == ()
    assert [step.at_s for step in steps] == sorted(step.at_s for step in steps)


def test_storms_know_every_fault() -> None:
    drawn = {rule.fault for step in storm(1, seconds=300) for rule in step.rules}

    assert drawn == set(Fault)


def test_rules_come_back_from_json_as_they_went() -> None:
    rules = (
        Rule(fault=Fault.CUT, way=Way.TO_CLIENT, skip=1, times=3, after_bytes=100),
        Rule(fault=Fault.DELAY, seconds=0.5),
    )

    assert read_rules([rule_json(rule) for rule in rules]) == rules
    assert isinstance(storm(1, seconds=1)[0], Step)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "a list"),
        ([{}], "an object with a fault"),
        ([{"fault": "burn"}], "no fault 'burn'"),
        ([{"fault": "cut", "way": "up"}], "no way 'up'"),
        ([{"fault": "cut", "port": 1}], "has no 'port'"),
        ([{"fault": "cut", "skip": -1}], "out of range"),
        ([{"fault": "cut", "skip": True}], "not of type"),
        ([{"fault": "delay", "seconds": "long"}], "not of type"),
        ([{"fault": "delay", "seconds": 1e9}], "at most"),
        ([{"fault": "rate", "bytes_per_second": 0}], "at least 1"),
        ([{"fault": "cut", "heard": "ä"}], "ASCII"),
        ([{"fault": "cut", "heard": 1}], "not of type"),
        ([{"fault": "cut"}] * 101, "at most 100"),
    ],
)
def test_what_is_no_rule_is_refused_with_its_reason(body: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        read_rules(body)
