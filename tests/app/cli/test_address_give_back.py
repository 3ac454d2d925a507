"""Addresses that a restore skipped, on the command line: shown, and given back by two people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from custody.skipped import ADDRESSES_SKIPPED
from tests.app.cli.conftest import Cli

As = Callable[[str], tuple[str, ...]]

pytestmark = pytest.mark.usefixtures("house")


def test_an_address_is_given_back_after_a_rehearsal_and_is_listed_then(
    cli: Cli, as_: As, keys: dict[str, Path]
) -> None:
    why = ("--reason", "the disk was lost")
    begun = cli("restore", "begin", "--since", "2026-01-01T00:00:00Z", *why, *as_("dan"))
    assert begun.code == 0, begun.err
    assign = ("custody", "address", "assign", "client-pool", "--party", "birch", *as_("dan"))
    birch = cli(*assign, "--json").json["path"]
    assert int(birch.removeprefix("0/")) >= ADDRESSES_SKIPPED

    both = (*as_("ada"), "--approver", "ben", "--approver-key", str(keys["ben"]))
    back = ("custody", "address", "give-back", "client-pool", "--party", "acme", *why, *both)
    rehearsed = cli(*back, "--index", "7", "--json", "--dry-run")
    assert rehearsed.code == 0, rehearsed.err
    assert len(cli("custody", "address", "list", "--json").json) == 1
    done = cli(*back, rehearsed.json["address"], "--json").json
    assert (done["path"], done["party"], done["arrivals"]) == ("0/7", "acme", "0")

    again = cli(*back, rehearsed.json["address"])
    assert again.code == 1
    assert "acme's since" in again.err
    listed = cli("custody", "address", "list", "--wallet", "client-pool", "--json").json
    assert [(item["path"], item["party"]) for item in listed] == [
        ("0/7", "acme"),
        (birch, "birch"),
    ]
    assert cli("custody", "address", "list", "--skipped", "--json").json == []
    status = cli("restore", "status", "--json")
    assert (status.code, status.json["unclaimed"]) == (1, [])
