"""What a bare machine is told: the bootstrap script and the Makefile, with stubs for what is absent."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = ("cat", "cksum", "dirname", "rm", "mkdir", "env", "sh")


class Machine:
    """A checkout and a PATH with nothing on it but what is put there."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        self.programs = folder / "bin"
        self.programs.mkdir()
        (self.checkout / "scripts").mkdir(parents=True)
        for name in ("scripts/bootstrap", "scripts/fetch-anvil", "scripts/fetch-hledger"):
            shutil.copy(REPOSITORY / name, self.checkout / name)
        for name in ("pyproject.toml", "uv.lock"):
            (self.checkout / name).write_text("")
        for name in TOOLS:
            found = shutil.which(name)
            assert found is not None
            (self.programs / name).symlink_to(found)

    def add(self, name: str, body: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def run(self, script: str, **variables: str) -> tuple[int, str]:
        answer = subprocess.run(
            ["/bin/sh", str(self.checkout / "scripts" / script)],
            env={"PATH": str(self.programs), **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        return answer.returncode, answer.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


#: Stands for uv: remembers how it was called and makes what `bootstrap` looks for.
UV = """
echo "$@" >>"$0.calls"
mkdir -p .venv/bin
printf '#!/bin/sh\\n' >.venv/bin/python
chmod +x .venv/bin/python
"""


def test_without_python_it_says_what_to_install(machine: Machine) -> None:
    code, said = machine.run("bootstrap")

    assert code == 3
    assert "no Python 3.11 or newer on PATH" in said
    assert "apt-get install python3 python3-venv" in said


def test_an_old_python_does_not_count(machine: Machine) -> None:
    machine.add("python3", "exit 1")

    assert machine.run("bootstrap")[0] == 3
    code, said = machine.run("bootstrap", PYTHON="python3")
    assert code == 3
    assert "PYTHON=python3 is not a Python 3.11 or newer" in said


def test_a_newer_python_by_another_name_is_found(machine: Machine) -> None:
    machine.add("python3", "exit 1")
    machine.add("python3.13", "exit 0")
    machine.add("chmod", 'exec /bin/chmod "$@"')
    machine.add("uv", UV)

    code, said = machine.run("bootstrap")

    assert code == 0, said
    calls = (machine.programs / "uv.calls").read_text()
    assert f"--python {machine.programs / 'python3.13'}" in calls


def test_a_python_without_venv_and_pip_is_told_what_to_install(machine: Machine) -> None:
    machine.add(
        "python3", 'case "$1 $2" in "-m "*) echo "ensurepip is not available"; exit 1 ;; esac'
    )

    code, said = machine.run("bootstrap")

    assert code == 3
    assert "ensurepip is not available" in said
    assert "apt-get install python3-venv" in said
    assert not (machine.checkout / ".bootstrap").exists()


def test_a_python_with_pip_but_without_venv_is_enough(machine: Machine) -> None:
    install = 'mkdir -p .bootstrap/bin; cat "$(dirname "$0")/uv-stub" >.bootstrap/bin/uv'
    machine.add("chmod", 'exec /bin/chmod "$@"')
    machine.add("uv-stub", UV)
    machine.add(
        "python3",
        f'case "$1 $2 $3" in "-m venv "*) exit 1 ;; "-m pip install"*) {install}; '
        "chmod +x .bootstrap/bin/uv ;; esac",
    )

    code, said = machine.run("bootstrap")

    assert code == 0, said
    assert "--frozen" in (machine.checkout / ".bootstrap" / "bin" / "uv.calls").read_text()


def test_without_a_network_it_says_that_a_network_may_be_missing(machine: Machine) -> None:
    machine.add("python3", 'case "$1 $2 $3" in "-m venv "*|"-m pip install"*) exit 1 ;; esac')

    code, said = machine.run("bootstrap")

    assert code == 3
    assert "is there a network?" in said


def test_a_second_run_calls_nothing_until_the_lock_changes(machine: Machine) -> None:
    machine.add("python3", "exit 0")
    machine.add("chmod", 'exec /bin/chmod "$@"')
    machine.add("uv", UV)
    calls = machine.programs / "uv.calls"

    assert [machine.run("bootstrap")[0] for _ in range(3)] == [0, 0, 0]
    assert len(calls.read_text().splitlines()) == 1
    assert "sync --frozen --extra all" in calls.read_text()

    (machine.checkout / "uv.lock").write_text("changed")
    assert machine.run("bootstrap")[0] == 0
    assert len(calls.read_text().splitlines()) == 2

    (machine.checkout / ".venv" / "bin" / "python").unlink()
    assert machine.run("bootstrap")[0] == 0
    assert len(calls.read_text().splitlines()) == 3


def test_a_failed_installation_is_not_taken_for_done(machine: Machine) -> None:
    machine.add("python3", "exit 0")
    machine.add("uv", "exit 2")

    assert machine.run("bootstrap")[0] == 3
    assert not (machine.checkout / ".venv" / ".causeway-stamp").exists()


def test_anvil_may_be_absent_unless_it_is_demanded(machine: Machine) -> None:
    code, said = machine.run("fetch-anvil")
    assert code == 0
    assert "no node and npm on PATH" in said
    assert "skipped" in said

    code, said = machine.run("fetch-anvil", CAUSEWAY_REQUIRE_ANVIL="1")
    assert code == 3
    assert "CAUSEWAY_REQUIRE_ANVIL=1 demands it" in said


@pytest.mark.parametrize("how", ["ANVIL", "PATH"])
def test_an_anvil_that_is_there_is_not_fetched(machine: Machine, how: str) -> None:
    if how == "PATH":
        machine.add("anvil", "exit 0")

    assert machine.run("fetch-anvil", **({"ANVIL": "/opt/anvil"} if how == "ANVIL" else {})) == (
        0,
        "",
    )


def test_hledger_may_be_absent_unless_it_is_demanded(machine: Machine) -> None:
    code, said = machine.run("fetch-hledger")
    assert code == 0
    assert "no apt-get to fetch it with" in said
    assert "skipped" in said

    code, said = machine.run("fetch-hledger", CAUSEWAY_REQUIRE_HLEDGER="1")
    assert code == 3
    assert "CAUSEWAY_REQUIRE_HLEDGER=1 demands it" in said


def test_an_hledger_that_is_on_the_path_is_not_fetched(machine: Machine) -> None:
    machine.add("hledger", "exit 0")

    assert machine.run("fetch-hledger") == (0, "")


def test_the_help_names_every_target_for_people() -> None:
    said = subprocess.run(
        ["make", "--silent", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout

    named = re.findall(r"^  make (\w+) ", said, re.MULTILINE)
    assert named == [
        "help",
        "demo",
        "up",
        "test",
        "check",
        "bench",
        "soak",
        "crash",
        "guards",
        "clean",
    ]
