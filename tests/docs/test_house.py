"""The files shown in docs/house.md are read by the code that reads them in production."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from app.workers.house_file import parse_house
from custody.compliance.address_list import AddressList
from custody.compliance.travel_rule import TravelRule
from custody.policy import ConfirmationPolicy
from registry.testing import USDT

PAGE = Path(__file__).resolve().parents[2] / "docs" / "house.md"
BLOCK = re.compile(r"```(?P<kind>toml|json)\n(?P<text>.*?)```", re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    return [(found["kind"], found["text"]) for found in BLOCK.finditer(PAGE.read_text())]


def test_the_house_file_on_the_page_is_a_house_file() -> None:
    (_, text), *_ = blocks()

    house = parse_house(tomllib.loads(text), PAGE)

    assert [window.name for window in house.windows] == ["afternoon"]
    assert house.address_list == PAGE.parent / "addresses.json"
    assert house.travel_rule == PAGE.parent / "travel-rule.json"
    assert (house.service, house.service_key) == ("auto", PAGE.parent / "auto.key")


def test_the_policy_and_the_list_on_the_page_can_be_read() -> None:
    _, (_, policy), (_, listed), (_, travel_rule) = blocks()

    assert ConfirmationPolicy.parse(policy, {"USDT": USDT}).version == 3
    assert AddressList.parse(listed).number == 1
    assert TravelRule.parse(travel_rule, {"USDT": USDT}).thresholds == {"USDT": 1_000_000_000}
