"""The address list: read whole or not at all, and compared as addresses are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from custody.compliance.address_list import NOBODY_LISTED, AddressList, Listed
from custody.compliance.model import Answer, Direction, Question, Verdict
from kernel.errors import BadInput
from kernel.ids import stable_id

SENDER = "0x00000000000000000000000000000000DeaDBeef"
ID = stable_id("case")


def question(address: str = SENDER, way: Direction = Direction.IN, chain: str = "evm") -> Question:
    return Question(ID, way, chain, address, "acme")


def parse(**line: Any) -> AddressList:
    return AddressList.parse(json.dumps({"version": 3, "addresses": [line]}))


def test_a_list_is_read_with_its_version() -> None:
    found = parse(address=SENDER, reason="stolen", direction="in", chain="evm")

    assert found == AddressList(3, (Listed(SENDER, "stolen", Direction.IN, "evm"),))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 1}',
        '{"version": "1", "addresses": []}',
        '{"version": true, "addresses": []}',
        '{"version": 0, "addresses": []}',
        '{"version": 1, "addresses": [7]}',
        '{"version": 1, "addresses": [{"address": ""}]}',
        '{"version": 1, "addresses": [{"address": "0x1", "direction": "up"}]}',
        '{"version": 1, "addresses": [{"address": "0x1", "allow": "yes"}]}',
        '{"version": 1, "addresses": [], "allow": "all"}',
    ],
)
def test_a_list_that_is_half_understood_screens_nobody_and_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="list"):
        AddressList.parse(text)


@pytest.mark.parametrize(
    ("asked", "verdict"),
    [
        (question(), Verdict.HIT),
        (question(SENDER.lower()), Verdict.HIT),
        (question(SENDER.upper().replace("0X", "0x")), Verdict.HIT),
        (question(way=Direction.OUT), Verdict.CLEAR),
        (question(chain="other"), Verdict.CLEAR),
        (question("0x70997970C51812dc3A010C7d01b50e0d17dc79C8"), Verdict.CLEAR),
    ],
)
async def test_a_line_speaks_about_its_address_direction_and_chain(
    asked: Question, verdict: Verdict
) -> None:
    listed = parse(address=SENDER, reason="stolen", direction="in", chain="evm")

    (answer,) = await listed.screen([asked])

    assert answer.verdict is verdict
    assert NOBODY_LISTED.answer(asked) == Answer(Verdict.CLEAR)


def test_a_line_without_direction_and_chain_speaks_about_all() -> None:
    listed = AddressList.blocking(9, {SENDER}, "stolen")

    for way in Direction:
        answer = listed.answer(question(way=way, chain="other"))
        assert answer == Answer(Verdict.HIT, f"{SENDER} is on list version 9: stolen")
