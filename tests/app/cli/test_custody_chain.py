"""``causeway custody chain``: halting is for one, going on is for two, and the life of it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.cli.custody_chain import second_reading
from chain.model import Following, FollowState
from tests.app.cli.conftest import Cli

As = Callable[..., tuple[str, ...]]


@pytest.fixture
def halted(cli: Cli, as_: As, house: object) -> None:
    """The chain, stopped by dan."""
    done = cli("custody", "chain", "halt", "--reason", "providers disagree", *as_("dan"), "--json")
    assert done.code == 0, done.err
    assert done.json["state"] == "halted"


def both(keys: dict[str, Path], one: str, two: str) -> tuple[str, ...]:
    return (
        *("--as", one, "--key", str(keys[one])),
        *("--approver", two, "--approver-key", str(keys[two])),
    )


def test_a_chain_nobody_follows_yet_is_running_and_has_no_height(cli: Cli, house: object) -> None:
    found = cli("custody", "chain", "status", "--json")

    assert (found.code, found.json["state"], found.json["height"]) == (0, "running", "")
    assert cli("custody", "chain", "status", "--chain", "nochain").code != 0


@pytest.mark.usefixtures("halted")
def test_two_operators_resume_a_halted_chain_and_its_life_is_told(
    cli: Cli, keys: dict[str, Path]
) -> None:
    resume = ("custody", "chain", "resume", "--reason", "seen", "--depth", "9")
    people = both(keys, "dan", "ada")

    rehearsed = cli(*resume, *people, "--dry-run", "--json")
    assert (rehearsed.code, rehearsed.json["state"]) == (0, "running")
    assert cli("custody", "chain", "status", "--json").json["state"] == "halted"

    assert cli(*resume, *people, "--json").json["state"] == "running"
    told = cli("custody", "chain", "explain", "--json").json
    assert [(line["event"], line["by"]) for line in told] == [
        ("ChainHalted", "dan"),
        ("ChainResumed", "dan"),
    ]
    assert "approved_by=ada" in told[1]["facts"]


@pytest.mark.usefixtures("halted")
@pytest.mark.parametrize("two", ["dan", "cleo"])
def test_one_operator_alone_or_one_without_the_role_cannot_resume(
    cli: Cli, keys: dict[str, Path], two: str
) -> None:
    resume = ("custody", "chain", "resume", "--reason", "seen")

    refused = cli(*resume, *both(keys, "dan", two))

    assert refused.code != 0
    assert cli("custody", "chain", "status", "--json").json["state"] == "halted"


def test_what_the_pool_and_strangers_send_is_counted(cli: Cli, house: object) -> None:
    for command in (("pool",), ("unregistered", "--days", "7")):
        found = cli("custody", "chain", *command, "--json")
        assert (found.code, found.json) == (0, [])
        assert cli("custody", "chain", *command, "--chain", "nochain").code != 0
    assert cli("custody", "chain", "unregistered", "--days", "0").code == 2


def test_a_second_reading_that_gets_no_further_is_shown() -> None:
    stands = Following("evm", FollowState.RUNNING, "", 41, 12, "block 42 does not answer")

    assert second_reading(stands) == (
        "done to block 41, no further for 12 turns: block 42 does not answer"
    )
    assert second_reading(Following("evm", FollowState.RUNNING, "", 41)) == "done to block 41"
    assert second_reading(Following("evm", FollowState.RUNNING)) == ""
