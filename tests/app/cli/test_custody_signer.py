"""The commands about the signer, against a signer that runs."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from app.local.processes import Processes, python_module
from custody.signer.testing import SEED, rules_for, write_signer_files
from registry.testing import DEMO_OPERATORS, demo_founding
from tests.app.cli.conftest import Cli


@pytest.fixture
def signer(causeway_processes: Processes, tmp_path: Path) -> Iterator[str]:
    founding = demo_founding()
    rules = rules_for(founding.chains, founding.chain_assets, DEMO_OPERATORS)
    files = write_signer_files(tmp_path, rules, seed=SEED, random=secrets.token_bytes)
    socket = str(tmp_path / "s")
    child = causeway_processes.start(
        python_module("signer", "custody.signer", "--socket", socket, *files.options)
    )
    yield socket
    causeway_processes.stop(child)


def test_a_change_of_limits_goes_from_two_people_to_the_signer(
    cli: Cli, house: object, keys: dict[str, Path], signer: str, tmp_path: Path
) -> None:
    before = json.loads(cli("custody", "signer", "health", "--signer", signer, "--json").out)
    limits = {**before["in_force"]["limits"], "version": 2, "fee_cap_max": "12345"}
    (tmp_path / "limits.json").write_text(json.dumps(limits))
    kept = tmp_path / "kept"
    assert cli("custody", "signer", "checkpoint", "--signer", signer, "--out", str(kept)).code == 0
    people = ["--as", "ada", "--key", str(keys["ada"])]
    people += ["--approver", "ben", "--approver-key", str(keys["ben"])]
    command = ["custody", "signer", "change", "limits", str(tmp_path / "limits.json"), *people]

    assert cli(*command, "--dry-run").code == 0
    assert json.loads(cli("custody", "signer", "messages", "--json").out) == []
    assert cli(*command).code == 0
    handed = cli("custody", "signer", "control", "--signer", signer, "--json")

    assert (handed.code, json.loads(handed.out)) == (0, {"accepted": 1, "refused": {}})
    after = json.loads(cli("custody", "signer", "health", "--signer", signer, "--json").out)
    assert after["in_force"]["limits"]["fee_cap_max"] == "12345"
    assert after["records"] == before["records"] + 1
    shown = cli(
        "custody", "signer", "checkpoint", "--signer", signer, "--since", str(kept), "--json"
    )
    assert json.loads(shown.out)["size"] == str(after["records"])
    record = json.loads(cli("custody", "signer", "audit", "1", "--signer", signer, "--json").out)
    assert (record["kind"], record["body"]["body"]["version"]) == ("control", 2)
    # The same version again is another content of a version that is taken.
    (tmp_path / "limits.json").write_text(json.dumps({**limits, "fee_cap_max": "1"}))
    assert cli(*command).code == 0
    refused = cli("custody", "signer", "control", "--signer", signer, "--json")
    assert refused.code == 1
    assert list(json.loads(refused.out)["refused"].values()) == [
        "limits is at version 2; 2 is not the next"
    ]
    assert msgspec.json.decode(refused.out)["accepted"] == 0


def test_a_signer_that_does_not_answer_is_3(cli: Cli, tmp_path: Path) -> None:
    answer = cli("custody", "signer", "health", "--signer", str(tmp_path / "none"))

    assert answer.code == 3
    assert "the signer does not answer" in answer.err


def test_one_person_signs_no_change(cli: Cli, keys: dict[str, Path], tmp_path: Path) -> None:
    ada = str(keys["ada"])
    answer = cli(
        *("custody", "signer", "change", "limits", str(tmp_path / "x"), "--as", "ada"),
        *("--key", ada, "--approver", "ada", "--approver-key", ada),
    )

    assert answer.code == 1
    assert "two different people sign" in answer.err
