"""``causeway settle run``: a rehearsal changes nothing; however many call it, a slot is opened once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.app.cli.conftest import Cli

pytestmark = pytest.mark.usefixtures("house")

As = Callable[[str], tuple[str, ...]]
RUN: Final = ("settle", "run", "--window", "noon", "--json")
PROGRAM: Final = (sys.executable, "-c", "from app.cli import main; main()")


def two_processes() -> list[dict[str, Any]]:
    """What two calls at once from a cron have to say."""
    started = [
        subprocess.Popen([*PROGRAM, *RUN], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    return [json.loads(out) for out, _ in ended]


def test_a_slot_is_opened_once_however_often_and_by_whomever(
    cli: Cli, as_: As, keys: dict[str, Path]
) -> None:
    unset = cli(*RUN)
    assert (unset.code, "nobody has set a window noon" in unset.err) == (1, True)
    made = cli(
        *("settle", "windows", "set", "noon", "--cut-off", "00:00", "--zone", "UTC"),
        *("--calendar", "always", *as_("ada")),
        *("--approver", "ben", "--approver-key", str(keys["ben"])),
    )
    assert made.code == 0, made.err
    early = cli(*RUN, "--date", "2199-01-01")
    assert (early.code, "the cut-off of noon on 2199-01-01 is at" in early.err) == (1, True)
    deal = ("desk", "deal", "acme", "--sell", "1 ETH", "--price", "3000 USDT", "--ref", "one")
    sold = cli(*deal, "--reason", "as agreed", *as_("dan"))
    assert sold.code == 0, sold.err

    rehearsed = cli(*RUN, "--dry-run")
    assert rehearsed.code == 0, rehearsed.err
    told = rehearsed.json
    assert (told["dry_run"], told["opened"], len(told["cycles"])) == (True, 1, 1)
    assert cli("settle", "cycles", "--json").json == []

    both = two_processes()
    again = cli(*RUN).json

    # A midnight between the calls brings the next slot, and that one once too.
    cycles = cli("settle", "cycles", "--json").json
    dates = {item["value_date"] for item in cycles}
    assert sum(one["opened"] for one in both) + again["opened"] == len(cycles) == len(dates)
    assert dates >= {item["date"] for item in told["cycles"]}
    assert again["failed"] == {}
    assert again["payouts"] == again["held"] == 0
