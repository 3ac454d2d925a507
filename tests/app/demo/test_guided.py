"""``causeway demo --guided`` by itself, as a process: every chapter proves something, and all of it holds."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from io import StringIO
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rich.console import Console

from app.demo.guided.chapters.exports import change_one_amount
from app.demo.guided.chapters.netting import blocking_funds
from app.demo.guided.programme import CHAPTERS
from app.demo.guided.run import choose_chapters
from app.demo.guided.screen import Screen
from app.demo.guided.told import Place, Proof, Told
from app.demo.stage import Happening
from app.faults.edges import Point, points
from kernel.errors import BadInput
from kernel.money import Asset
from tests.app.demo.test_demo_process import environment

pytestmark = pytest.mark.timeout(580)

WAIT_S = 560
AT = datetime(2026, 1, 5, 8, 9, 10, 123_000, UTC)
ASSETS = {"ETH", "USDT", "EUR"}
ON_A_COPY = {"policy"}
"""Chapters that move no money of the house."""


def guided(folder: Path, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "causeway", "demo", "--guided", *options],
        cwd=folder,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def test_the_whole_tour_by_itself_proves_every_chapter(tmp_path: Path) -> None:
    answer = guided(tmp_path, "--auto", "--json", "--seed", "7")

    assert answer.stdout, answer.stderr
    result = json.loads(answer.stdout)
    unproven = [
        f"{chapter['name']}: {proof['claim']}: {proof['detail']}"
        for chapter in result["chapters"]
        for proof in chapter["proofs"]
        if not proof["held"]
    ]
    assert (answer.returncode, unproven) == (0, []), answer.stderr
    assert [item["name"] for item in result["chapters"]] == [item.name for item in CHAPTERS]
    for chapter in result["chapters"]:
        assert chapter["held"], chapter["name"]
        assert chapter["words"], chapter["name"]
        _require_compared(chapter)
    crash = next(item for item in result["chapters"] if item["name"] == "crash")
    assert Point.parse(crash["facts"]["point"]) in points()


def _require_compared(chapter: dict[str, Any]) -> None:
    """What was shown last of where the money is adds up, with nothing missing or made up."""
    if chapter["name"] in ON_A_COPY:
        assert chapter["places"] == []
        return
    assert {place["asset"] for place in chapter["places"]} == ASSETS
    for place in chapter["places"]:
        there = sum(int(place[name]) for name in ("chain", "venue", "bank", "under_way"))
        assert int(place["difference"]) == 0, chapter["name"]
        assert int(place["ledger"]) == there > 0


async def test_a_transcript_reads_like_the_story_and_has_no_colours_in_a_pipe() -> None:
    written = StringIO()
    screen = Screen(Console(file=written, width=100), ["One", "Two"], asks=False)
    eth = Asset("ETH", 0)
    place = Place(asset=eth, ledger=7, chain=4, venue=2, bank=0, under_way=1, difference=0)
    told = Told("one", "One", proofs=[Proof("it is so", True, "1 of 1")])
    failed = Told("two", "Two", proofs=[Proof("it is not", False, "0 of 1")])

    async with screen.opened():
        screen.begin(0, "One", "What if?")
        screen.say("It happens.")
        screen.happened(Happening(AT, "one", "a block [is] mined", "0xabc"))
        screen.places([place])
        screen.proved(told.proofs[0])
        screen.proved(failed.proofs[0])
        assert await screen.choose("where", ["here", "there"], 1) == 1
        assert await screen.pause("Two")
    screen.sum_up([told, failed], seconds=3, chain="simulator")

    text = written.getvalue()
    assert "\x1b" not in text
    for part in (
        *("1 · One", "What if?", "It happens.", "08:09:10.123", "a block [is] mined", "0xabc"),
        *("ledger", "under way", "difference", "✔ proved", "✘ FAILED", "> 2 there"),
        "a proof FAILED: 2 in 2 chapters, 3 s, on simulator",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--auto"),
        (["--auto", "--chapter", "nothing"], "Choose of founding, chain, venue"),
    ],
)
def test_a_tour_that_cannot_begin_says_why_and_starts_nothing(
    tmp_path: Path, options: list[str], said: str
) -> None:
    answer = guided(tmp_path, *options)

    assert answer.returncode == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_options_of_the_guided_demo_are_refused_without_it(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "causeway", "demo", "--auto"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )

    assert answer.returncode == 2
    assert "--guided" in answer.stderr


def test_the_founding_comes_first_whatever_is_chosen() -> None:
    assert [item.name for item in choose_chapters(["guard", "chain"])] == [
        *("founding", "chain", "guard"),
    ]
    with pytest.raises(BadInput, match="no chapter 'crashes'"):
        choose_chapters(["crashes"])


@pytest.mark.parametrize(
    ("proofs", "held"),
    [
        ([], False),
        ([Proof("a", True, "")], True),
        ([Proof("a", True, ""), Proof("b", False, "")], False),
    ],
    ids=["nothing is claimed", "all of it holds", "one of it does not"],
)
def test_a_chapter_holds_only_if_it_claims_something_and_all_of_it_holds(
    proofs: list[Proof], *, held: bool
) -> None:
    assert Told("name", "title", proofs=proofs).held is held


@pytest.mark.parametrize("seed", range(20))
def test_the_money_that_is_left_blocks_the_queue_and_not_the_choice(seed: int) -> None:
    chance = Random(seed)
    amounts = [chance.randint(1, 12) for _ in range(chance.randint(3, 6))]
    funds = blocking_funds(amounts)

    in_order = 0
    for amount in amounts:
        if in_order + amount > funds:
            break
        in_order += amount
    sums = [sum(part) for size in range(len(amounts)) for part in combinations(amounts, size)]
    best = max(total for total in sums if total <= funds)
    assert best == funds < sum(amounts)
    assert in_order < best or len(set(amounts)) == 1


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        (
            "2026-01-05 balance Assets:Bank  12.00 ~ 0 EUR\n",
            "2026-01-05 balance Assets:Bank  112.00 ~ 0 EUR\n",
        ),
        (
            '    bank:a  0.00 "EUR" = -3.50 "EUR"\n',
            '    bank:a  0.00 "EUR" = -13.50 "EUR"\n',
        ),
    ],
    ids=["beancount", "hledger"],
)
def test_one_digit_more_in_an_asserted_balance(text: str, changed: str) -> None:
    assert change_one_amount(text) == changed
