"""Child processes that never outlive their owner unnoticed.

Three lines of defence, because a ``kill -9`` runs no clean-up code:

1. A child's standard input is a pipe whose other end only we hold. It reads end-of-file when we are
   gone, however we died, and ends itself. A program that knows nothing of this runs under
   ``leash.py``, which does.
2. Every child is written to ``processes.json`` with its process id, start time and command. The
   next owner of the folder ends what is still there, after comparing the start time: process ids
   are reused.
3. A clean stop: SIGTERM and a closed pipe, then SIGKILL to the whole process group.

A child says that it is ready by one line of JSON on standard output. Both of its outputs go to
files below ``log/``, so that a child never blocks on, or dies of, a reader that is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from app.local import locks, process_table
from app.local.errors import LocalError, ProcessNotStarted
from kernel.private_files import FILE_MODE

READY_TIMEOUT_SECONDS: Final = 30.0
#: How long a child may take to end after SIGTERM before it is killed.
GRACE_SECONDS: Final = 5.0
KILL_TIMEOUT_SECONDS: Final = 5.0
READY_LINE_BYTES_MAX: Final = 64 * 1024
LOG_TAIL_LINES: Final = 12
LOG_TAIL_BYTES: Final = 16 * 1024
PARENT_PIPE_OPTION: Final = "--parent-pipe"
REGISTRY_NAME: Final = "processes.json"
LOCK_NAME: Final = "processes.lock"
LEASH: Final = Path(__file__).with_name("leash.py")


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to start, and how it tells that it is ready.

    Args:
        name: what people call it; also names its log files.
        command: program and arguments.
        probe: asked again and again until it says the child is ready; None: the ready line.
        leashed: the program does not watch its standard input itself.
        environment: variables on top of our own.
    """

    name: str
    command: tuple[str, ...]
    probe: Callable[[], bool] | None = None
    leashed: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_timeout_seconds: float = READY_TIMEOUT_SECONDS


@dataclass(frozen=True, slots=True)
class Registered:
    """A running child as the registry file knows it."""

    name: str
    pid: int
    identity: str
    command: tuple[str, ...]


@dataclass(slots=True)
class Child:
    """A child that reported that it is ready."""

    spec: ChildSpec
    registered: Registered
    ready: Mapping[str, Any]
    output: Path
    errors: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def pid(self) -> int:
        """The process id (of the leash, where there is one)."""
        return self.registered.pid

    def exit_code(self) -> int | None:
        """Return how it ended, or None while it runs."""
        return self.process.poll()


def python_module(
    name: str,
    module: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    ready_timeout_seconds: float = READY_TIMEOUT_SECONDS,
) -> ChildSpec:
    """Return the spec of one of our own modules: it watches the pipe and prints a ready line."""
    return ChildSpec(
        name=name,
        command=(sys.executable, "-m", module, *arguments, PARENT_PIPE_OPTION),
        environment=dict(environment or {}),
        ready_timeout_seconds=ready_timeout_seconds,
    )


def foreign_program(
    name: str,
    *command: str,
    probe: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    ready_timeout_seconds: float = READY_TIMEOUT_SECONDS,
) -> ChildSpec:
    """Return the spec of somebody else's program, kept on a leash and asked whether it is ready."""
    return ChildSpec(
        name=name,
        command=command,
        probe=probe,
        leashed=True,
        environment=dict(environment or {}),
        ready_timeout_seconds=ready_timeout_seconds,
    )


class Processes:
    """The children of one owner, kept in one folder; use it as a context manager.

    Entering ends what an earlier, killed owner left; `notices` says what that was.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.notices: list[str] = []
        self._children: list[Child] = []
        self._lock: int | None = None

    @property
    def children(self) -> tuple[Child, ...]:
        """The children started and not yet stopped, in the order of their start."""
        return tuple(self._children)

    def open(self) -> None:
        """Take the folder and end what a killed owner left in it.

        Raises:
            HomeInUse: another live process owns the folder.
        """
        try:
            (self.folder / "log").mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = locks.take(self.folder / LOCK_NAME, "runs its components in this folder")
        except OSError as error:
            raise LocalError(
                f"cannot use the folder for child processes: {error.strerror}",
                where=str(self.folder),
                remedy="Choose a folder that can be written (CAUSEWAY_STATE_DIR)",
            ) from error
        self._end_left_over()

    def start(self, spec: ChildSpec) -> Child:
        """Start a child and return when it is ready.

        Raises:
            ProcessNotStarted: it ended, said something else, or took too long; the message ends
                with what it wrote to standard error.
        """
        output = self.folder / "log" / f"{spec.name}.out"
        errors = self.folder / "log" / f"{spec.name}.err"
        process = self._launch(spec, output, errors)
        child = Child(
            spec=spec,
            registered=Registered(
                name=spec.name,
                pid=process.pid,
                identity=process_table.identity(process.pid) or "",
                command=spec.command,
            ),
            ready={},
            output=output,
            errors=errors,
            process=process,
        )
        self._children.append(child)
        self._write_registry()
        try:
            child.ready = _wait_ready(child)
        except BaseException:
            self.stop(child)
            raise
        return child

    def stop(self, child: Child, *, grace_seconds: float = GRACE_SECONDS) -> int:
        """End a child and return its exit code; harmless where it has ended already."""
        process = child.process
        if process.poll() is None:
            process.terminate()
        if process.stdin is not None:
            process.stdin.close()
        try:
            code = process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait(KILL_TIMEOUT_SECONDS)
        if child in self._children:
            self._children.remove(child)
            self._write_registry()
        return code

    def kill(self, child: Child) -> None:
        """Kill a child as the machine would (SIGKILL, no clean-up): for tests of faults."""
        process_table.send(child.pid, child.registered.identity, signal.SIGKILL, group=True)
        self.stop(child)

    def close(self) -> None:
        """End every child, the last started first, and give the folder free."""
        for child in reversed(self._children):
            self.stop(child)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _launch(self, spec: ChildSpec, output: Path, errors: Path) -> subprocess.Popen[bytes]:
        if shutil.which(spec.command[0]) is None:
            raise ProcessNotStarted(
                f"{spec.name} cannot be started: no such program",
                where=spec.command[0],
                remedy="Check that the program exists and may be executed",
            )
        leash = (sys.executable, "-I", "-S", str(LEASH)) if spec.leashed else ()
        # What a simulator says of itself when it is ready has keys in it: play money's, but keys.
        with open(output, "wb", opener=_for_us_alone) as out, errors.open("wb") as err:
            try:
                return subprocess.Popen(
                    [*leash, *spec.command],
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=err,
                    env={**os.environ, **spec.environment},
                    # A Ctrl-C in the terminal is for the owner, which then stops its children.
                    start_new_session=True,
                )
            except OSError as error:
                raise ProcessNotStarted(
                    f"{spec.name} cannot be started: {error.strerror}",
                    where=spec.command[0],
                    remedy="Check that the program exists and may be executed",
                ) from error

    def _end_left_over(self) -> None:
        for registered in self._read_registry():
            if not process_table.is_alive(registered.pid, registered.identity):
                continue
            _end(registered)
            self.notices.append(
                f"ended {registered.name} (pid {registered.pid}) that an earlier run left behind"
            )
        self._write_registry()

    def _read_registry(self) -> list[Registered]:
        try:
            rows = json.loads((self.folder / REGISTRY_NAME).read_text())
            return [
                Registered(
                    name=str(row["name"]),
                    pid=int(row["pid"]),
                    identity=str(row["identity"]),
                    command=tuple(row["command"]),
                )
                for row in rows
            ]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError):
            self.notices.append(
                f"could not read {self.folder / REGISTRY_NAME}; nothing in it was ended"
            )
            return []

    def _write_registry(self) -> None:
        path = self.folder / REGISTRY_NAME
        rows = [asdict(child.registered) for child in self._children]
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(rows, indent=1) + "\n")
        fresh.replace(path)


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Processes]:
    """Open and close `Processes` without blocking the event loop."""
    processes = Processes(folder)
    await asyncio.to_thread(processes.open)
    try:
        yield processes
    finally:
        await asyncio.shield(asyncio.to_thread(processes.close))


def _for_us_alone(path: str, flags: int) -> int:
    handle = os.open(path, flags, FILE_MODE)
    # It may be there already, from a time when others could read it.
    os.fchmod(handle, FILE_MODE)
    return handle


def _wait_ready(child: Child) -> Mapping[str, Any]:
    deadline = time.monotonic() + child.spec.ready_timeout_seconds
    while time.monotonic() < deadline:
        ended = child.exit_code() is not None
        if child.spec.probe is None:
            line = _first_line(child.output)
            if line is not None:
                return _parse_ready(child, line)
        elif not ended and child.spec.probe():
            return {}
        if ended:
            raise _not_started(child, f"ended with code {child.exit_code()} before it was ready")
        time.sleep(process_table.POLL_SECONDS)
    raise _not_started(child, f"was not ready after {child.spec.ready_timeout_seconds:g} s")


def _first_line(path: Path) -> bytes | None:
    with path.open("rb") as output:
        line = output.readline(READY_LINE_BYTES_MAX)
    return line if line.endswith(b"\n") or len(line) == READY_LINE_BYTES_MAX else None


def _parse_ready(child: Child, line: bytes) -> Mapping[str, Any]:
    try:
        ready = json.loads(line)
    except ValueError:
        ready = None
    if not isinstance(ready, dict):
        shown = line[:200].decode(errors="replace").strip()
        raise _not_started(child, f"said {shown!r} instead of its ready line")
    return ready


def _not_started(child: Child, what: str) -> ProcessNotStarted:
    return ProcessNotStarted(
        f"{child.spec.name} {what}",
        where=str(child.errors),
        remedy="It said: " + _tail(child.errors),
    )


def _tail(path: Path) -> str:
    with path.open("rb") as log:
        log.seek(0, os.SEEK_END)
        log.seek(max(0, log.tell() - LOG_TAIL_BYTES))
        text = log.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-LOG_TAIL_LINES:]) or "nothing"


def _end(registered: Registered) -> None:
    pid, identity = registered.pid, registered.identity
    for number, seconds in (
        (signal.SIGTERM, GRACE_SECONDS),
        (signal.SIGKILL, KILL_TIMEOUT_SECONDS),
    ):
        process_table.send(pid, identity, number, group=True)
        if process_table.wait_gone(pid, identity, timeout_seconds=seconds):
            return
    raise LocalError(
        f"{registered.name} (pid {pid}) of an earlier run cannot be ended",
        where=" ".join(registered.command),
        remedy="End it by hand and start again",
    )
