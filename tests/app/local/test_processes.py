"""Child processes: ready lines, clean ends, and what a kill -9 leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.local import process_table
from app.local.errors import HomeInUse, LocalError, ProcessNotStarted
from app.local.processes import (
    LEASH,
    REGISTRY_NAME,
    ChildSpec,
    Processes,
    foreign_program,
    opened,
    python_module,
)

WELL_BEHAVED = """
import json, os, sys
print(json.dumps({"port": 4711, "seed": os.environ.get("SEED")}), flush=True)
print("x" * 200_000, flush=True)
sys.stdin.read()
"""
STUBBORN = """
import json, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(json.dumps({}), flush=True)
time.sleep(60)
"""
OWNER = """
import sys, time
from pathlib import Path
from app.local.processes import ChildSpec, Processes, foreign_program
processes = Processes(Path(sys.argv[1]))
processes.open()
if sys.argv[2] == "foreign":
    child = processes.start(foreign_program("sleeper", "sleep", "60", probe=lambda: True))
else:
    child = processes.start(ChildSpec("child", (sys.executable, "-c", sys.argv[2])))
print(child.pid, flush=True)
time.sleep(60)
"""


def python(name: str, program: str, *, timeout: float = 10.0) -> ChildSpec:
    return ChildSpec(name, (sys.executable, "-c", program), ready_timeout_seconds=timeout)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as opened_processes:
        yield opened_processes


def killed_owner(folder: Path, program: str) -> tuple[int, str]:
    """Let another process start a child and kill that process; return the child's pid and identity."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder), program], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    identity = process_table.identity(pid)
    assert identity is not None
    owner.kill()
    owner.communicate()
    return pid, identity


def test_a_child_is_ready_when_it_says_so_and_ends_when_asked(processes: Processes) -> None:
    child = processes.start(
        ChildSpec("venue", (sys.executable, "-c", WELL_BEHAVED), environment={"SEED": "7"})
    )

    assert child.ready == {"port": 4711, "seed": "7"}
    assert child.exit_code() is None
    assert list(processes.children) == [child]
    [row] = json.loads((processes.folder / REGISTRY_NAME).read_text())
    assert (row["name"], row["pid"]) == ("venue", child.pid)

    assert processes.stop(child) in {0, -signal.SIGTERM}
    assert list(processes.children) == []
    assert json.loads((processes.folder / REGISTRY_NAME).read_text()) == []
    assert process_table.identity(child.pid) is None


def test_our_own_modules_are_told_to_watch_the_pipe() -> None:
    spec = python_module("venue", "venues.simulator", "--port", "0")

    assert spec.command == (
        *(sys.executable, "-m", "venues.simulator", "--port", "0"),
        "--parent-pipe",
    )


def test_a_child_that_ends_early_is_quoted(processes: Processes) -> None:
    program = "import sys; sys.exit('port 4711 is taken')"

    with pytest.raises(ProcessNotStarted, match=r"venue ended with code 1 .*port 4711 is taken"):
        processes.start(python("venue", program))

    assert processes.children == ()


def test_a_child_that_says_something_else_is_quoted_and_ended(processes: Processes) -> None:
    with pytest.raises(ProcessNotStarted, match="said 'hello' instead of its ready line"):
        processes.start(python("venue", "import time; print('hello', flush=True); time.sleep(60)"))

    assert processes.children == ()


def test_a_child_that_takes_too_long_is_ended(processes: Processes) -> None:
    started = time.monotonic()

    with pytest.raises(ProcessNotStarted, match=r"was not ready after 0.3 s"):
        processes.start(python("venue", "import time; time.sleep(60)", timeout=0.3))

    assert time.monotonic() - started < 10
    assert processes.children == ()


def test_a_program_that_does_not_exist_is_named(processes: Processes) -> None:
    with pytest.raises(ProcessNotStarted, match="/no/such/anvil"):
        processes.start(foreign_program("anvil", "/no/such/anvil-itself", probe=lambda: True))


def test_a_child_that_does_not_listen_is_killed(processes: Processes) -> None:
    child = processes.start(python("stubborn", STUBBORN))

    assert processes.stop(child, grace_seconds=0.2) == -signal.SIGKILL


def test_a_killed_child_is_noticed(processes: Processes) -> None:
    child = processes.start(python("venue", WELL_BEHAVED))

    processes.kill(child)

    assert child.exit_code() == -signal.SIGKILL
    assert processes.children == ()


def test_closing_ends_every_child(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        pids = [processes.start(python(name, WELL_BEHAVED)).pid for name in ("a", "b")]

    assert [process_table.identity(pid) for pid in pids] == [None, None]


def test_a_child_ends_by_itself_when_its_owner_is_killed(tmp_path: Path) -> None:
    pid, identity = killed_owner(tmp_path, WELL_BEHAVED)

    assert process_table.wait_gone(pid, identity, timeout_seconds=10)
    with Processes(tmp_path) as processes:
        assert processes.notices == []


def test_a_foreign_program_ends_when_the_owner_of_its_leash_is_killed(tmp_path: Path) -> None:
    pid, identity = killed_owner(tmp_path, "foreign")

    assert process_table.wait_gone(pid, identity, timeout_seconds=10)


def test_a_child_that_outlived_a_killed_owner_is_ended_by_the_next_and_it_says_so(
    tmp_path: Path,
) -> None:
    program = "import json, time; print(json.dumps({}), flush=True); time.sleep(60)"
    pid, identity = killed_owner(tmp_path, program)
    assert process_table.is_alive(pid, identity)

    with Processes(tmp_path) as processes:
        assert processes.notices == [f"ended child (pid {pid}) that an earlier run left behind"]
        assert not process_table.is_alive(pid, identity)


def test_a_process_that_only_has_the_same_id_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        row = {"name": "venue", "pid": stranger.pid, "identity": "boot:1", "command": ["sleep"]}
        (tmp_path / REGISTRY_NAME).write_text(json.dumps([row]))

        with Processes(tmp_path) as processes:
            assert processes.notices == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("text", ["{", "{}", '[{"pid": 1}]', '["x"]', "null"])
def test_a_damaged_registry_ends_nothing_and_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / REGISTRY_NAME).write_text(text)

    with Processes(tmp_path) as processes:
        assert all("nothing in it was ended" in notice for notice in processes.notices)
        assert len(processes.notices) == (0 if text == "{}" else 1)


def test_a_folder_has_one_live_owner(processes: Processes) -> None:
    with pytest.raises(HomeInUse, match=f"process {os.getpid()} "):
        Processes(processes.folder).open()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(LocalError, match="file/state"):
        Processes(tmp_path / "file" / "state").open()


async def test_children_can_be_kept_from_an_event_loop(tmp_path: Path) -> None:
    async with opened(tmp_path) as processes:
        pid = processes.start(python("venue", WELL_BEHAVED)).pid
    assert process_table.identity(pid) is None


class TestLeash:
    def test_the_code_of_the_program_is_passed_on(self) -> None:
        with self.leashed("sh", "-c", "exit 7") as leash:
            assert leash.wait(10) == 7

    def test_a_signal_becomes_a_code(self) -> None:
        with self.leashed("sh", "-c", "kill -KILL $$") as leash:
            assert leash.wait(10) == 128 + signal.SIGKILL

    def test_a_program_that_ignores_the_end_of_the_pipe_is_killed(
        self, processes: Processes, tmp_path: Path
    ) -> None:
        program = "trap '' TERM; touch ready; while :; do sleep 0.05; done"
        leash = self.leashed("sh", "-c", program, folder=tmp_path)
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        assert leash.stdin is not None
        leash.stdin.close()

        assert leash.wait(20) == 128 + signal.SIGKILL

    @pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) exists on Linux only")
    def test_a_killed_leash_takes_its_program_with_it(self, tmp_path: Path) -> None:
        leash = self.leashed(
            "sh", "-c", "echo $$ > pid.new; mv pid.new pid; exec sleep 60", folder=tmp_path
        )
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)
        pid = int((tmp_path / "pid").read_text())
        identity = process_table.identity(pid)
        assert identity is not None

        leash.kill()
        leash.communicate()

        assert process_table.wait_gone(pid, identity, timeout_seconds=10)

    @staticmethod
    def leashed(*command: str, folder: Path | None = None) -> subprocess.Popen[bytes]:
        impatient = (
            "import runpy, sys; leash = runpy.run_path(sys.argv[1]); "
            "leash['main'].__globals__['GRACE_SECONDS'] = 0.2; sys.exit(leash['main'](sys.argv[2:]))"
        )
        leash = [sys.executable, "-I", "-S", "-c", impatient, str(LEASH)]
        return subprocess.Popen([*leash, *command], stdin=subprocess.PIPE, cwd=folder)


class TestProcessTable:
    def test_a_process_has_one_identity_for_its_life(self) -> None:
        first = process_table.identity(os.getpid())

        assert first is not None
        assert process_table.identity(os.getpid()) == first
        assert process_table.identity(os.getppid()) not in {None, first}

    @pytest.mark.parametrize("pid", [0, -1, 2**22 + 1])
    def test_nobody_has_no_identity(self, pid: int) -> None:
        assert process_table.identity(pid) is None

    def test_a_process_that_waits_to_be_reaped_is_gone(self) -> None:
        with subprocess.Popen(["true"]) as child:
            identity_at_start = process_table.identity(child.pid)
            assert process_table.wait_gone(
                child.pid, identity_at_start or "ended already", timeout_seconds=10
            )

    def test_without_proc_the_identity_comes_from_ps(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(process_table, "PROC", tmp_path)

        first = process_table.identity(os.getpid())

        assert first
        assert process_table.identity(os.getpid()) == first
        assert process_table.identity(2**22 + 1) is None
        assert "python" in process_table.command_line(os.getpid())

    def test_waiting_for_a_process_that_stays_is_bounded(self) -> None:
        mine = process_table.identity(os.getpid())
        assert mine is not None

        assert process_table.wait_gone(os.getpid(), mine, timeout_seconds=0.1) is False
