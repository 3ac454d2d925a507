"""The calculation of a netting set, as tables and as properties; statements and answers as bytes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from registry.testing import ETH, USDT
from settlement.calculation import METHOD, Rules, calculate_set, members
from settlement.documents import inputs_json, inputs_of
from settlement.model import Direction, NetItem, Obligation, Run, RunState
from settlement.statements import (
    Answer,
    Verdict,
    answer_bytes,
    hash_of,
    read_answer,
    statement_of,
    write_answer,
)
from trading.terms.model import Rail

DAY = date(2026, 1, 5)
NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
RULES = Rules(
    netting_set="master@desk",
    rails={"USDT": Rail.EVM, "ETH": Rail.EVM},
    thresholds={"USDT": 1_000},
)


def owed(number: int, asset: str, signed: int) -> Obligation:
    """An obligation: positive amounts are owed to the desk, negative ones by it."""
    return Obligation(
        id=UUID(int=number),
        deal_id=UUID(int=1000 + number),
        leg=f"{asset}-{number}",
        party="acme",
        asset=asset,
        amount=abs(signed),
        direction=Direction.RECEIVE if signed > 0 else Direction.PAY,
        value_date=DAY,
        created_at=NOW,
    )


def lines(items: tuple[NetItem, ...]) -> list[str]:
    return [f"{i.asset} {i.direction} {i.amount}" for i in items]


@pytest.mark.parametrize(
    ("story", "obligations", "moves", "carried"),
    [
        (
            "both sides owe: one payment of the difference",
            [owed(1, "USDT", 600_300), owed(2, "USDT", -250_000)],
            ["USDT receive 350300"],
            [],
        ),
        (
            "assets never net",
            [owed(1, "USDT", 5_000), owed(2, "ETH", -10)],
            ["ETH pay 10", "USDT receive 5000"],
            [],
        ),
        ("below the threshold nothing moves", [owed(1, "USDT", 999)], [], ["USDT receive 999"]),
        ("at the threshold it does", [owed(1, "USDT", -1_000)], ["USDT pay 1000"], []),
        (
            "the net counts, not the gross",
            [owed(1, "USDT", 50_000), owed(2, "USDT", -49_500)],
            [],
            ["USDT receive 500"],
        ),
        (
            "what cancels out is discharged, not carried",
            [owed(1, "USDT", 50_000), owed(2, "USDT", -50_000)],
            ["USDT pay 0"],
            [],
        ),
        ("an asset without one", [owed(1, "ETH", 1)], ["ETH receive 1"], []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_netting_set_by_example(
    story: str, obligations: list[Obligation], moves: list[str], carried: list[str]
) -> None:
    result = calculate_set(obligations, RULES, value_date=DAY, version=1)

    assert (lines(result.items), lines(result.carried)) == (moves, carried)
    assert members((*result.items, *result.carried)) == {o.id for o in obligations}


@given(
    st.lists(st.tuples(st.sampled_from(["USDT", "ETH"]), st.integers(1, 10**30), st.booleans())),
    st.data(),
)
def test_order_changes_nothing_and_positions_are_what_they_were(
    drawn: list[tuple[str, int, bool]], data: st.DataObject
) -> None:
    made = [owed(n, a, x if up else -x) for n, (a, x, up) in enumerate(drawn, start=1)]
    mixed = data.draw(st.permutations(made))

    result = calculate_set(made, RULES, value_date=DAY, version=1)

    assert calculate_set(mixed, RULES, value_date=DAY, version=1) == result
    for item in (*result.items, *result.carried):
        signs = {Direction.RECEIVE: 1, Direction.PAY: -1}
        gross = sum(signs[o.direction] * o.amount for o in made if o.asset == item.asset)
        assert signs[item.direction] * item.amount == gross


@pytest.mark.parametrize(
    ("what", "rules"),
    [
        ("the set", replace(RULES, netting_set="other@desk")),
        ("a rail", replace(RULES, rails={"USDT": Rail.BOOK})),
        ("a threshold", replace(RULES, thresholds={"USDT": 2})),
    ],
)
def test_the_hash_of_the_inputs_counts_the_rules(what: str, rules: Rules) -> None:
    one = [owed(1, "USDT", 5_000)]

    before = calculate_set(one, RULES, value_date=DAY, version=1)

    assert calculate_set(one, rules, value_date=DAY, version=1).input_hash != before.input_hash


def test_inputs_come_back_as_they_were_kept() -> None:
    given_ = [owed(1, "USDT", 10**30), owed(2, "ETH", -7)]

    kept = inputs_of(json.loads(json.dumps(inputs_json(given_, RULES))))

    assert kept.rules == RULES
    again = calculate_set(kept.obligations, kept.rules, value_date=DAY, version=1)
    assert again == calculate_set(given_, RULES, value_date=DAY, version=1)
    assert again.method == METHOD


RUN = Run(
    id=UUID(int=77),
    book=1,
    value_date=DAY,
    window="noon",
    state=RunState.CALCULATED,
    version=1,
    created_at=NOW,
    party="acme",
    netting_set="master@desk",
)
ASSETS = {"USDT": USDT, "ETH": ETH}


def test_a_statement_has_the_same_bytes_for_ever() -> None:
    """Whoever changes the form changes `FORM` with it: what was signed has to be made again."""
    result = calculate_set(
        [owed(1, "USDT", 5_000), owed(2, "USDT", -20)], RULES, value_date=DAY, version=1
    )

    text = statement_of(
        RUN, result, [owed(1, "USDT", 5_000), owed(2, "USDT", -20)], ASSETS, party="acme"
    )

    assert hash_of(text) == "eed3c55798f120e98b91eb141a118b905accc7d7569d9ab34ff2d71eee1abadc"
    told = json.loads(text)
    assert told["net"][0]["direction"] == "from_you"
    assert (told["net"][0]["amount"], told["decimals"]) == ("4980", {"USDT": USDT.scale})


def test_a_statement_tells_a_party_nothing_of_another() -> None:
    other = replace(owed(2, "USDT", -20_000), party="birch")
    result = calculate_set([owed(1, "USDT", 5_000)], RULES, value_date=DAY, version=1)

    text = statement_of(RUN, result, [owed(1, "USDT", 5_000), other], ASSETS, party="acme")

    assert str(other.id) not in text


ANSWER = Answer(
    statement_sha256="0" * 64, party="acme", verdict=Verdict.AFFIRMED, signature=b"s" * 64
)
DISPUTE = replace(
    ANSWER, verdict=Verdict.DISPUTED, obligations=(UUID(int=2), UUID(int=1)), reason="price"
)


def test_answers_come_back_as_they_were_written() -> None:
    assert read_answer(write_answer(ANSWER)) == ANSWER
    assert read_answer(write_answer(DISPUTE)) == replace(
        DISPUTE, obligations=(UUID(int=1), UUID(int=2))
    )


@pytest.mark.parametrize(
    "other",
    [
        replace(ANSWER, statement_sha256="1" * 64),
        replace(ANSWER, party="birch"),
        replace(DISPUTE, reason="other"),
        replace(DISPUTE, obligations=(UUID(int=1),)),
    ],
)
def test_every_field_of_an_answer_is_signed(other: Answer) -> None:
    assert answer_bytes(other) not in {answer_bytes(ANSWER), answer_bytes(DISPUTE)}


def _with(answer: Answer, **fields: str) -> bytes:
    """An answer's file with other texts in it, as another program may write it."""
    return json.dumps({**json.loads(write_answer(answer)), **fields}).encode()


@pytest.mark.parametrize(
    ("story", "content"),
    [
        ("not JSON", b"agreed!"),
        ("not text", b"\xff\xfe"),
        ("a list", b"[]"),
        ("nothing", b"{}"),
        ("deep", b"[" * 100_000),
        ("too long", b" " * 1_000_001),
        ("a field more", write_answer(ANSWER).replace(b'"party"', b'"note": "", "party"')),
        ("a number", write_answer(ANSWER).replace(b'"acme"', b"7")),
        ("no verdict of ours", write_answer(ANSWER).replace(b"affirmed", b"maybe")),
        ("a short signature", write_answer(replace(ANSWER, signature=b"s"))),
        ("an affirmation that disputes", write_answer(replace(DISPUTE, verdict=Verdict.AFFIRMED))),
        ("a dispute of nothing", write_answer(replace(DISPUTE, obligations=()))),
        ("a dispute without a reason", write_answer(replace(DISPUTE, reason=" "))),
        ("a reason that cannot be kept", _with(DISPUTE, reason="a\0b")),
        ("half a character", _with(DISPUTE, reason="\ud800")),
        ("a hash that cannot be looked up", _with(ANSWER, statement_sha256="\0")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_answer_is_refused(story: str, content: bytes) -> None:
    # As libraries do that this process may have loaded: the interpreter's own guard is gone then.
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        with pytest.raises(BadInput):
            read_answer(content)
    finally:
        sys.setrecursionlimit(limit)
