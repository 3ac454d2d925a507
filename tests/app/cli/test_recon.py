"""Reconciliation of the house through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.app.cli.conftest import Cli

As = Callable[[str], tuple[str, ...]]


@pytest.mark.usefixtures("house")
def test_what_nobody_speaks_about_is_a_break_that_somebody_takes_on_and_two_resolve(
    cli: Cli, as_: As, keys: dict[str, Path]
) -> None:
    rehearsed = cli("recon", "run", "--dry-run", "--json")
    assert (rehearsed.code, rehearsed.json["result"]) == (1, "unknown")
    assert cli("recon", "runs", "--json").json == []

    made = cli("recon", "run", "--json")
    assert made.code == 1, made.err
    assert cli("recon", "explain", made.json["id"], "--json").json == made.json
    assert cli("recon", "runs", "--json").json[0]["sha256"] == made.json["sha256"]
    first, *rest = cli("recon", "breaks", "--json").json
    assert (first["state"], first["kind"], first["days"]) == ("open", "unknown", "0")

    given = cli("recon", "assign", first["id"], "--to", "cleo", *as_("ada"), "--json")
    assert (given.code, given.json["assigned"]) == (0, "cleo"), given.err
    signed = (*as_("cleo"), "--second", "ada", "--second-key", str(keys["ada"]))
    reason = ("--reason", "the node is set up on Monday")
    alone = cli("recon", "resolve", first["id"], *reason, *as_("ada"), *signed[-4:])
    assert (alone.code, "cannot approve" in alone.err) == (1, True)
    done = cli("recon", "resolve", first["id"], *reason, *signed, "--json")
    assert (done.json["state"], done.json["signed_by"]) == ("resolved", "cleo, ada")
    life = cli("recon", "explain", first["id"], "--json").json["history"]
    assert [line["event"] for line in life] == ["BreakFound", "BreakAssigned", "BreakResolved"]

    assert len(cli("recon", "breaks", "--json").json) == len(rest)
    assert len(cli("recon", "breaks", "--state", "resolved", "--json").json) == 1
    assert "Its life" in cli("recon", "explain", first["id"]).out
    assert cli("recon", "run").out.count("unknown/") == len(rest) + 1


@pytest.mark.usefixtures("house")
def test_an_id_of_nothing_and_a_state_of_nothing_are_said(cli: Cli) -> None:
    nothing = cli("recon", "explain", "00000000-0000-0000-0000-000000000001")
    assert (nothing.code, "there is no break" in nothing.err) == (1, True)
    assert "state of a break" in cli("recon", "breaks", "--state", "asleep").err
