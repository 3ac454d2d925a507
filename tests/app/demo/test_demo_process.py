"""``causeway demo`` as its user runs it: a process of its own, interrupted, killed, run again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from chain.simulators.anvil import find_anvil

pytestmark = pytest.mark.timeout(240)

WAIT_S = 150
PROOFS = {
    "zero-sum",
    "journal-verified",
    "holds-itemised",
    "wallets-match-chain",
    "venues-match",
    "client-money-covered",
    "outbox-drained",
}
REPOSITORY = Path(__file__).resolve().parents[3]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of somebody who has set nothing."""
    kept = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "TMPDIR", "LANG"}}
    path = os.pathsep.join(
        part for part in kept["PATH"].split(os.pathsep) if not (Path(part) / "anvil").exists()
    )
    return {
        **kept,
        "PATH": path,
        "PYTHONPATH": str(REPOSITORY),
        "CAUSEWAY_STATE_DIR": str(folder / "state"),
        **more,
    }


def start(folder: Path, *options: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "causeway", "demo", *options],
        cwd=folder,
        env=environment(folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=WAIT_S)
    return process.returncode, output, errors


def wait_until_the_story_runs(folder: Path) -> list[int]:
    """Wait until every component runs, the signer last; return their process ids."""
    registry = folder / "state" / "demo" / "components" / "processes.json"
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            text = registry.read_text()
            if '"signer"' in text:
                return [int(word) for word in _numbers(json.loads(text))]
        time.sleep(0.05)
    raise AssertionError("the demo's components did not start")


def _numbers(document: object) -> Iterator[int]:
    if isinstance(document, Mapping):
        for key, value in document.items():
            if key == "pid":
                yield value
            else:
                yield from _numbers(value)
    elif isinstance(document, list):
        for item in document:
            yield from _numbers(item)


def lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state != "Z"
    return False


def wait_until_gone(pids: list[int]) -> list[int]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(map(lives, pids)):
        time.sleep(0.1)
    return [pid for pid in pids if lives(pid)]


def test_every_proof_holds_on_a_real_anvil(tmp_path: Path) -> None:
    anvil = find_anvil(os.environ, [REPOSITORY / ".cache" / "npm"])
    if anvil is None:
        assert os.environ.get("CAUSEWAY_REQUIRE_ANVIL") != "1", "anvil is required here"
        pytest.skip("no anvil: set ANVIL, or npm i --prefix .cache/npm @foundry-rs/anvil@1.7.1")

    code, output, errors = finish(start(tmp_path, "--json", CAUSEWAY_ANVIL=str(anvil)))

    assert code == 0, errors
    result = json.loads(output)
    assert result["evm"] == "anvil"
    assert {proof["name"] for proof in result["proofs"]} == PROOFS
    chapters = list(dict.fromkeys(line["chapter"] for line in result["timeline"]))
    assert chapters == [
        *("founding", "deposits", "desk", "settlement", "payout"),
        *("bitcoin", "proof"),
    ]
    assert [proof for proof in result["proofs"] if not proof["held"]] == []


def test_a_killed_demo_starts_clean_again_and_every_proof_holds(tmp_path: Path) -> None:
    killed = start(tmp_path)
    pids = wait_until_the_story_runs(tmp_path)
    killed.kill()
    killed.communicate()

    code, output, errors = finish(start(tmp_path))

    assert code == 0, errors
    assert "every proof held" in output
    assert "every run starts clean" in " ".join(errors.split())
    assert wait_until_gone(pids) == []


@pytest.fixture
def terminal() -> Iterator[None]:
    """Interrupts as at a terminal: a background job of a shell inherits that they are ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("terminal")
def test_a_second_demo_is_refused_a_folder_and_an_interrupted_one_leaves_nothing_running(
    tmp_path: Path,
) -> None:
    demo = start(tmp_path)
    pids = wait_until_the_story_runs(tmp_path)
    code, _, refused = finish(start(tmp_path))

    assert code == 3
    assert f"process {demo.pid}" in refused
    assert "CAUSEWAY_STATE_DIR" in refused

    demo.send_signal(signal.SIGINT)
    code, _, errors = finish(demo)

    assert code == 130
    assert "Traceback" not in errors
    assert wait_until_gone(pids) == []


@pytest.mark.parametrize("variable", ["CAUSEWAY_EVM_PORT", "CAUSEWAY_VENUE_PORT"])
def test_a_taken_port_is_named(tmp_path: Path, variable: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        code, _, errors = finish(start(tmp_path, **{variable: port}))

    assert code == 3
    assert port in errors
    assert "Traceback" not in errors


def test_a_database_that_does_not_answer_is_named(tmp_path: Path) -> None:
    url = "postgresql://nobody:hunter2@127.0.0.1:1/postgres"

    code, _, errors = finish(start(tmp_path, CAUSEWAY_DATABASE_URL=url))

    assert code == 3
    assert "PostgreSQL does not answer" in errors
    assert "CAUSEWAY_DATABASE_URL" in errors
    assert "hunter2" not in errors
    assert "Traceback" not in errors


def test_a_wrong_setting_is_a_usage_error(tmp_path: Path) -> None:
    code, _, errors = finish(start(tmp_path, CAUSEWAY_EVM_PORT="many"))

    assert code == 2
    assert "CAUSEWAY_EVM_PORT" in errors
