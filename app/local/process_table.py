"""Who is behind a process id: facts from the operating system's process table.

A process id alone proves nothing, because ids are reused. An *identity* is an opaque text that
two processes with the same id cannot share: the boot id and the start time in clock ticks from
``/proc`` (proc_pid_stat(5), field 22), or ``ps -o lstart=`` where there is no ``/proc``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

PROC = Path("/proc")
#: How often a waiting function looks again, in seconds.
POLL_SECONDS = 0.02
PS_TIMEOUT_SECONDS = 5.0


def identity(pid: int) -> str | None:
    """Return the identity of a live process, or None where it is gone or only waits to be reaped."""
    if pid <= 0:
        return None
    if (PROC / "self" / "stat").exists():
        return _identity_from_proc(pid)
    return _identity_from_ps(pid)


def command_line(pid: int) -> str:
    """Return the command line of a process as one line, empty where it cannot be read."""
    if (PROC / "self" / "cmdline").exists():
        try:
            raw = (PROC / str(pid) / "cmdline").read_bytes()
        except OSError:
            return ""
        return raw.replace(b"\0", b" ").decode(errors="replace").strip()
    return _ps("command=", pid)


def is_alive(pid: int, known_identity: str) -> bool:
    """Tell whether the process that was written down is still the one running under this id."""
    return identity(pid) == known_identity


def wait_gone(pid: int, known_identity: str, *, timeout_seconds: float) -> bool:
    """Wait until the process has gone; False where it is still there after the time."""
    deadline = time.monotonic() + timeout_seconds
    while is_alive(pid, known_identity):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def send(pid: int, known_identity: str, number: signal.Signals, *, group: bool = False) -> None:
    """Send a signal, but only to the process that was written down (or to the group it leads)."""
    if not is_alive(pid, known_identity):
        return
    with contextlib.suppress(ProcessLookupError):
        if group and os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def _identity_from_proc(pid: int) -> str | None:
    try:
        stat = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field is the command in brackets and may itself hold spaces and brackets.
    fields = stat.rpartition(")")[2].split()
    state, started_ticks = fields[0], fields[19]
    if state in {"Z", "X"}:
        return None
    return f"{_boot_id()}:{started_ticks}"


def _boot_id() -> str:
    try:
        return (PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
    except OSError:
        return "boot"


def _identity_from_ps(pid: int) -> str | None:
    state = _ps("state=", pid)
    if not state or state.startswith("Z"):
        return None
    return _ps("lstart=", pid) or None


def _ps(column: str, pid: int) -> str:
    try:
        answer = subprocess.run(
            ["ps", "-o", column, "-p", str(pid)],
            capture_output=True,
            text=True,
            timeout=PS_TIMEOUT_SECONDS,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()
