"""Alerts through the command line: who is told, a trial, and taking it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.app.cli.conftest import Cli

As = Callable[[str], tuple[str, ...]]
POLICY = """\
escalate_minutes = 10
[[channel]]
name = "desk"
kind = "webhook"
target = "https://example.com/hook"
[[channel]]
name = "head"
kind = "email"
target = "head@example.com"
[[route]]
level = 1
channel = "desk"
[[route]]
level = 2
channel = "head"
kinds = ["cut_off_unfunded", "run_missed"]
"""


@pytest.mark.usefixtures("house")
def test_two_people_say_who_is_told_and_a_trial_is_taken_on(
    cli: Cli, as_: As, keys: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "alerts.toml"
    file.write_text(POLICY)
    two = (*as_("ada"), "--approver", "ben", "--approver-key", str(keys["ben"]), "--json")

    assert cli("alerts", "policy", "show", "--json").json == []
    done = cli("alerts", "policy", "set", str(file), *two)
    assert done.code == 0, done.err
    again = cli("alerts", "policy", "set", str(file), *two).json
    assert [(r["version"], r["level"], r["channel"], r["kinds"]) for r in again] == [
        ("1", "1", "desk", "all"),
        ("1", "2", "head", "cut_off_unfunded, run_missed"),
    ]

    trial = cli("alerts", "test", *as_("dan"), "--json").json
    (listed,) = cli("alerts", "list", "--json").json
    assert (listed["id"], listed["kind"], listed["state"]) == (trial["id"], "test", "raised")
    taken = cli("alerts", "ack", trial["id"], "--reason", "it came", *as_("dan"), "--json").json
    assert (taken["state"], taken["by"]) == ("cleared", "dan")
    assert cli("alerts", "list", "--json").json == []
    assert len(cli("alerts", "list", "--all", "--json").json) == 1
    assert cli("alerts", "list", "--all", "--before", trial["id"], "--json").json == []
    late = cli("alerts", "ack", trial["id"], *as_("ada"))
    assert (late.code, "dan has taken" in late.err) == (1, True)


@pytest.mark.usefixtures("house")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("https://", "http://"), "open line"),
        (("head@example.com", "head office"), "no address for mail"),
        (('channel = "desk"', 'channel = "dusk"'), "'dusk', which there is not"),
        (("run_missed", "run_mist"), "run_mist"),
        (("escalate_minutes = 10", "escalate_minutes = 0"), "not possible"),
        (("escalate_minutes", "minutes"), "the key minutes"),
        (('name = "desk"\n', ""), "does not say 'name'"),
        (("[[channel]]", "[[channel"), "cannot be read"),
    ],
)
def test_what_a_policy_cannot_be_is_said_with_its_file(
    cli: Cli,
    as_: As,
    keys: dict[str, Path],
    tmp_path: Path,
    change: tuple[str, str],
    said: str,
) -> None:
    file = tmp_path / "alerts.toml"
    file.write_text(POLICY.replace(*change, 1))
    two = (*as_("ada"), "--approver", "ben", "--approver-key", str(keys["ben"]))

    refused = cli("alerts", "policy", "set", str(file), *two)

    assert refused.code != 0
    assert said in refused.err
    assert "Traceback" not in refused.err
