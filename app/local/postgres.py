"""An embedded PostgreSQL that belongs to one folder and one owner at a time.

Layout of the folder (*home*)::

    owner.lock       held with flock(2) by the live owner; a kill -9 releases it
    data/            the cluster; data.new/ while initdb runs (an interrupted one is begun again)
    run/             mode 0700: the Unix socket; the only way in, so `trust` is enough
    postgres.log     what the server said

The server listens on no TCP port. PostgreSQL refuses to run as root, so for root it runs as the
owner of the folder, else as `nobody`; where that account cannot reach the folder (a checkout below
a 0700 home), the cluster lies in a folder named after it below /var/lib/causeway, and a notice
says so.

What `start` finds, and what it does::

    nothing                          initdb, start                            INITIALISED
    a cluster, no server             start (crash recovery if there was one)  STARTED
    a cluster, its server running,
      whose owner was killed         take it over, nothing is restarted       ATTACHED
    a live owner                     HomeInUse
    a cluster of another major       refuse, or move it aside and initdb      MOVED_ASIDE
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import hashlib
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypedDict

from sqlalchemy import URL

from app.local import locks, process_table
from app.local.errors import DataDirectoryUnusable, HomeInUse, PostgresNotStarted
from app.local.postgres_binaries import Account, Binaries, find_binaries, readable_by

#: The cluster's superuser; only this module and tests use it.
SUPERUSER = "postgres"
#: Owns the schema and migrates it; deliberately not a superuser, as on a managed PostgreSQL.
OWNER = "causeway_owner"
DATABASE = "causeway"

#: Only names the socket file: nothing listens on TCP.
PORT = 5432
START_TIMEOUT_SECONDS = 60.0
KILL_TIMEOUT_SECONDS = 5.0
INIT_TIMEOUT_SECONDS = 120.0
#: SIGINT (fast shutdown), then SIGQUIT (immediate: recovery at next start), then SIGKILL.
STOP_STEPS: Final = ((signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
#: After a kill -9 of the postmaster its backends need a moment before the cluster is free again.
START_ATTEMPTS = 50
START_RETRY_SECONDS = 0.1
PROBE_TIMEOUT_SECONDS = 2.0
LOG_TAIL_LINES = 15
#: sun_path holds 108 bytes on Linux and 104 on macOS, with the final NUL.
SOCKET_PATH_BYTES_MAX = 103
UNREACHABLE_HOMES = Path("/var/lib/causeway")
FALLBACK_ACCOUNT = "nobody"

#: For the demo and anything that is to survive a crash.
DURABLE: Mapping[str, str] = {
    "jit": "off",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "timezone": "UTC",
}
#: For tests: a crash of the machine may lose everything, a kill of the server may not.
THROWAWAY: Mapping[str, str] = {
    **DURABLE,
    "autovacuum": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "max_wal_senders": "0",
    "max_wal_size": "2GB",
    "shared_buffers": "128MB",
    "synchronous_commit": "off",
    "wal_level": "minimal",
}

#: PostgreSQL frontend/backend protocol, StartupMessage, version 3.0.
_PROTOCOL_VERSION = 196608
_STILL_IN_USE = ("pre-existing shared memory block", "is still in use", "already exists")


class Origin(enum.StrEnum):
    """How `start` came to a running server."""

    INITIALISED = "initialised"
    STARTED = "started"
    ATTACHED = "attached"
    MOVED_ASIDE = "moved_aside"


class OldData(enum.StrEnum):
    """What to do with a cluster of another major version; it is never destroyed."""

    REFUSE = "refuse"
    MOVE_ASIDE = "move_aside"


class _Credentials(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Postmaster:
    """The server as its own ``postmaster.pid`` and the process table describe it."""

    pid: int
    identity: str
    socket_folder: Path
    ready: bool


class LocalPostgres:
    """A PostgreSQL server in a folder; use it as a (synchronous) context manager.

    Args:
        home: folder of the cluster, made if absent; see the module's docstring.
        binaries: PostgreSQL's programs; found through the environment when None.
        settings: server settings, given on the command line at each start.
        old_data: what to do with a cluster of another major version.
    """

    def __init__(
        self,
        home: Path,
        *,
        binaries: Binaries | None = None,
        settings: Mapping[str, str] = DURABLE,
        old_data: OldData = OldData.REFUSE,
    ) -> None:
        self.asked_home = home.absolute()
        self.settings = dict(settings)
        self.old_data = old_data
        self.origin: Origin | None = None
        #: What an operator should know about this start, one sentence each.
        self.notices: list[str] = []
        self._account = _account_for(self.asked_home)
        self.home = _reachable_home(self.asked_home, self._account)
        self.binaries = readable_by(binaries or find_binaries(os.environ), self._account)
        self._lock: int | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._postmaster: Postmaster | None = None

    @property
    def data(self) -> Path:
        """The cluster's data directory."""
        return self.home / "data"

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.home / "postgres.log"

    @property
    def socket_folder(self) -> Path:
        """The folder of the Unix socket."""
        return self._running().socket_folder

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self._running().pid

    def start(self) -> Origin:
        """Return when the server answers; see the table in the module's docstring.

        Raises:
            HomeInUse: another live process owns the folder.
            DataDirectoryUnusable: a cluster of another major, or one that is not ours to open.
            PostgresNotStarted: initdb or the server failed; the message ends with its log.
        """
        self._take_home()
        try:
            self.origin = self._start_owned()
        except BaseException:
            self._release_home()
            raise
        return self.origin

    def restart_if_dead(self) -> bool:
        """Start the server again after it was killed; False where it is alive and answers."""
        if self._find_postmaster() is not None and self._wait_ready(None):
            return False
        if self._server is not None:
            # Until a killed child is reaped, its process id answers and the new server waits for it.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(KILL_TIMEOUT_SECONDS)
        self._launch()
        return True

    def stop(self) -> None:
        """End the server (and only ours) and give the folder free."""
        if self._lock is None:
            return
        postmaster = self._find_postmaster()
        if postmaster is not None:
            self._end(postmaster)
        self._remove_socket_folder(postmaster or self._postmaster)
        self._postmaster = None
        self._release_home()

    def end_left_over(self) -> bool:
        """End the server that a killed owner left in the folder; False where there is none.

        Raises:
            HomeInUse: its owner is alive.
        """
        self._take_home()
        found = self._find_postmaster()
        self.stop()
        return found is not None

    def detach(self) -> None:
        """Give the folder free and leave the server running; a later `start` attaches to it."""
        self._release_home()

    def is_running(self) -> bool:
        """Tell whether the server is alive and lets a client in."""
        found = self._find_postmaster()
        return found is not None and found.ready and _answers(found.socket_folder)

    def url(self, database: str = DATABASE, *, user: str = OWNER) -> str:
        """Return the URL for SQLAlchemy with asyncpg."""
        return self._url("postgresql+asyncpg", database, user)

    def psql_url(self, database: str = DATABASE, *, user: str = OWNER) -> str:
        """Return the URL for psql and other libpq programs."""
        return self._url("postgresql", database, user)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _url(self, driver: str, database: str, user: str) -> str:
        url = URL.create(
            driver,
            username=user,
            database=database,
            query={"host": str(self.socket_folder), "port": str(PORT)},
        )
        return url.render_as_string(hide_password=False)

    def _running(self) -> Postmaster:
        if self._postmaster is None:
            raise PostgresNotStarted(
                "PostgreSQL is not running", where=str(self.home), remedy="Call start() first"
            )
        return self._postmaster

    def _start_owned(self) -> Origin:
        self.notices.clear()
        if self.home != self.asked_home:
            self.notices.append(
                f"user {self._name()} cannot reach {self.asked_home}; "
                f"the database lies in {self.home}"
            )
        if self._find_postmaster() is not None and self._wait_ready(None):
            self.notices.append(
                f"took over the PostgreSQL server (pid {self.pid}) that an earlier run left behind"
            )
            return Origin.ATTACHED
        origin = self._prepare_data()
        self._launch()
        return origin

    def _prepare_data(self) -> Origin:
        try:
            version = (self.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            return self._initialise()
        except OSError as error:
            raise DataDirectoryUnusable(
                f"cannot read the cluster: {error.strerror}",
                where=str(self.data),
                remedy="Run as the user that made it, or choose another folder",
            ) from error
        if version == str(self.binaries.major):
            if (self.data / "postmaster.pid").exists():
                self.notices.append(
                    "the PostgreSQL server of an earlier run was killed; its data is recovered"
                )
            return Origin.STARTED
        if self.old_data is OldData.REFUSE:
            raise DataDirectoryUnusable(
                f"the cluster was made by PostgreSQL {version}, "
                f"the programs here are PostgreSQL {self.binaries.version}",
                where=str(self.data),
                remedy=(
                    "Upgrade it with pg_upgrade, set CAUSEWAY_PG_BIN to programs of its version, "
                    "or move the folder away to start clean"
                ),
            )
        return self._move_aside(version)

    def _move_aside(self, version: str) -> Origin:
        number = 1
        while (aside := self.home / f"data.postgresql-{version}-{number}").exists():
            number += 1
        self.data.rename(aside)
        self.notices.append(
            f"moved a cluster of PostgreSQL {version} aside to {aside} and started clean"
        )
        self._initialise()
        return Origin.MOVED_ASIDE

    def _initialise(self) -> Origin:
        if self.data.exists() and any(self.data.iterdir()):
            raise DataDirectoryUnusable(
                "the folder is not empty and holds no cluster",
                where=str(self.data),
                remedy="Move it away or choose another folder",
            )
        fresh = self.home / "data.new"
        if fresh.exists():
            shutil.rmtree(fresh)
        durable = self.settings.get("fsync", "on") == "on"
        self._run(
            [
                str(self.binaries.initdb),
                f"--pgdata={fresh}",
                f"--username={SUPERUSER}",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-locale",
                "--no-instructions",
                *(["--data-checksums"] if durable else ["--no-sync"]),
            ],
            "",
        )
        # Single-user mode needs neither a client library nor a listening server.
        self._run(
            [str(self.binaries.postgres), "--single", "-j", "-D", str(fresh), SUPERUSER],
            f"CREATE ROLE {OWNER} LOGIN CREATEDB CREATEROLE;\n\n"
            f"CREATE DATABASE {DATABASE} OWNER {OWNER};\n\n",
        )
        fresh.rename(self.data)
        return Origin.INITIALISED

    def _launch(self) -> None:
        folder = self._socket_folder_for_start()
        for attempt in range(START_ATTEMPTS):
            self._drop_stale_lock_files(folder)
            log_size = self.log.stat().st_size if self.log.exists() else 0
            with self.log.open("ab") as log:
                if self._account is not None:
                    os.fchown(log.fileno(), self._account.uid, self._account.gid)
                self._server = subprocess.Popen(
                    self._server_command(folder),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.home,
                    env=_server_environment(),
                    # A Ctrl-C in the terminal is for the owner, which then stops the server.
                    start_new_session=True,
                    **self._credentials(),
                )
            if self._wait_ready(self._server):
                return
            said = self._log_since(log_size)
            if not any(phrase in said for phrase in _STILL_IN_USE):
                break
            if attempt + 1 < START_ATTEMPTS:
                time.sleep(START_RETRY_SECONDS)
        raise PostgresNotStarted(
            "PostgreSQL did not start",
            where=str(self.log),
            remedy="It said: " + self._log_tail(),
        )

    def _server_command(self, folder: Path) -> list[str]:
        command = [str(self.binaries.postgres), "-D", str(self.data)]
        fixed = {
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": str(folder),
            "unix_socket_permissions": "0700",
        }
        for name, value in {**self.settings, **fixed}.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _wait_ready(self, server: subprocess.Popen[bytes] | None) -> bool:
        """Wait for the server; False where the given child, or the server found, ended first."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            found = self._find_postmaster()
            if found is not None and found.ready and _answers(found.socket_folder):
                self._postmaster = found
                return True
            if server is not None and server.poll() is not None:
                return False
            if server is None and found is None:
                return False
            time.sleep(process_table.POLL_SECONDS)
        raise PostgresNotStarted(
            f"PostgreSQL was not ready after {START_TIMEOUT_SECONDS:.0f} s",
            where=str(self.log),
            remedy="It said: " + self._log_tail(),
        )

    def _find_postmaster(self) -> Postmaster | None:
        """Return our server if it is alive; what a killed one left in its pid file is not enough."""
        if self._server is not None:
            # Reaps it if it has ended: until then its process id would look alive.
            self._server.poll()
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            pid = int(lines[0])
        except (OSError, ValueError, IndexError):
            return None
        identity = process_table.identity(pid)
        if identity is None or not self._serves_us(pid):
            return None
        # Line 5 is the socket folder, line 8 the status (PostgreSQL's pidfile.h); both come late.
        folder = lines[4].strip() if len(lines) > 4 else ""
        status = lines[7].strip() if len(lines) > 7 else ""
        return Postmaster(
            pid=pid, identity=identity, socket_folder=Path(folder), ready=status == "ready"
        )

    def _serves_us(self, pid: int) -> bool:
        command = process_table.command_line(pid)
        return f"-D {self.data} " in f"{command} "

    def _drop_stale_lock_files(self, socket_folder: Path) -> None:
        # PostgreSQL overwrites the lock files of a dead process, but believes an id that was
        # reused or whose process only waits to be reaped. Its check of the shared memory remains.
        if self._find_postmaster() is not None:
            return
        for path in (
            self.data / "postmaster.pid",
            socket_folder / f".s.PGSQL.{PORT}.lock",
        ):
            try:
                os.kill(int(path.read_text().splitlines()[0]), 0)
            except (OSError, ValueError, IndexError):
                continue
            path.unlink(missing_ok=True)

    def _end(self, postmaster: Postmaster) -> None:
        for number, seconds in STOP_STEPS:
            process_table.send(postmaster.pid, postmaster.identity, number)
            if self._wait_ended(postmaster, seconds):
                return
        raise PostgresNotStarted(
            f"the PostgreSQL server (pid {postmaster.pid}) cannot be ended",
            where=str(self.home),
            remedy="Look at its log and at the machine's disks",
        )

    def _wait_ended(self, postmaster: Postmaster, seconds: float) -> bool:
        if self._server is not None and self._server.pid == postmaster.pid:
            try:
                self._server.wait(seconds)
            except subprocess.TimeoutExpired:
                return False
            return True
        return process_table.wait_gone(postmaster.pid, postmaster.identity, timeout_seconds=seconds)

    def _take_home(self) -> None:
        if self._lock is not None:
            raise HomeInUse(
                "this LocalPostgres is already started",
                where=str(self.home),
                remedy="Call start() once",
            )
        self._make_folder(self.home)
        path = self.home / "owner.lock"
        try:
            handle = locks.take(path, "is using this database folder")
        except OSError as error:
            raise DataDirectoryUnusable(
                f"cannot open the lock file: {error.strerror}",
                where=str(path),
                remedy="Run as the user that made it, or choose another folder",
            ) from error
        if self._account is not None:
            os.fchown(handle, self._account.uid, self._account.gid)
        self._lock = handle

    def _release_home(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _make_folder(self, folder: Path) -> None:
        try:
            for ancestor in reversed(folder.parents):
                if not ancestor.exists():
                    # Traversable, not listable: the server's account may be another than ours.
                    ancestor.mkdir()
                    ancestor.chmod(0o711 if self._account is not None else 0o700)
            folder.mkdir(mode=0o700, exist_ok=True)
            if self._account is not None:
                os.chown(folder, self._account.uid, self._account.gid)
        except OSError as error:
            raise DataDirectoryUnusable(
                f"cannot make the folder: {error.strerror}",
                where=str(folder),
                remedy="Choose a folder that can be written",
            ) from error

    def _socket_folder_for_start(self) -> Path:
        folder = self.home / "run"
        if len(os.fsencode(folder / f".s.PGSQL.{PORT}")) > SOCKET_PATH_BYTES_MAX:
            folder = Path(tempfile.mkdtemp(prefix="causeway-", dir="/tmp"))
        self._make_folder(folder)
        folder.chmod(0o700)
        return folder

    def _remove_socket_folder(self, postmaster: Postmaster | None) -> None:
        # Only a folder made for a path that was too long lies outside home.
        if postmaster is not None and postmaster.socket_folder.name.startswith("causeway-"):
            with contextlib.suppress(OSError):
                postmaster.socket_folder.rmdir()

    def _run(self, command: list[str], given: str) -> None:
        try:
            answer = subprocess.run(
                command,
                input=given,
                capture_output=True,
                text=True,
                timeout=INIT_TIMEOUT_SECONDS,
                cwd=self.home,
                env=_server_environment(),
                check=False,
                **self._credentials(),
            )
        except subprocess.TimeoutExpired as error:
            raise PostgresNotStarted(
                f"{Path(command[0]).name} took longer than {INIT_TIMEOUT_SECONDS:.0f} s",
                where=str(self.home),
                remedy="Look at the machine's disks and try again",
            ) from error
        # Single-user mode answers a failed statement on stderr and still exits with 0.
        if answer.returncode != 0 or "ERROR:" in answer.stderr or "FATAL:" in answer.stderr:
            raise PostgresNotStarted(
                f"{Path(command[0]).name} failed",
                where=str(self.home),
                remedy="It said: " + _one_line(answer.stderr or answer.stdout),
            )

    def _credentials(self) -> _Credentials:
        if self._account is None:
            return {}
        return {"user": self._account.uid, "group": self._account.gid, "extra_groups": []}

    def _name(self) -> str:
        return self._account.name if self._account is not None else "this user"

    def _log_since(self, offset: int) -> str:
        try:
            with self.log.open("rb") as log:
                log.seek(offset)
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def _log_tail(self) -> str:
        return _one_line(self._log_since(0))


@contextlib.asynccontextmanager
async def running(server: LocalPostgres) -> AsyncIterator[LocalPostgres]:
    """Start and stop a server without blocking the event loop."""
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        await asyncio.shield(asyncio.to_thread(server.stop))


def _account_for(home: Path) -> Account | None:
    """Return the account to run the server as: None (ourselves) unless we are root."""
    if os.geteuid() != 0:
        return None
    nearest = next(path for path in (home, *home.parents) if path.exists())
    for key in (nearest.stat().st_uid, FALLBACK_ACCOUNT):
        try:
            entry = pwd.getpwuid(key) if isinstance(key, int) else pwd.getpwnam(key)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise PostgresNotStarted(
        "PostgreSQL refuses to run as root and there is no ordinary user to run it as",
        where=f"no user `{FALLBACK_ACCOUNT}`",
        remedy="Run Causeway as an ordinary user, or give the folder to one",
    )


def _reachable_home(home: Path, account: Account | None) -> Path:
    if account is None or all(_may_traverse(path, account) for path in home.parents):
        return home
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return UNREACHABLE_HOMES / f"{home.name}-{digest}"


def _may_traverse(folder: Path, account: Account) -> bool:
    try:
        facts = folder.stat()
    except FileNotFoundError:
        return True
    if facts.st_uid == account.uid:
        return bool(facts.st_mode & 0o100)
    if facts.st_gid == account.gid:
        return bool(facts.st_mode & 0o010)
    return bool(facts.st_mode & 0o001)


def _server_environment() -> dict[str, str]:
    # PGDATA, PGPORT and their like would quietly change what the programs do.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C", "LANG": "C", "TZ": "UTC"}


def _answers(folder: Path) -> bool:
    """Log in over the socket as a client would: the only proof that a server serves.

    Wire format: StartupMessage, then AuthenticationOk ('R') or ErrorResponse ('E'), then Terminate
    (PostgreSQL documentation, "Message Formats").
    """
    words = b"user\0" + SUPERUSER.encode() + b"\0database\0" + SUPERUSER.encode() + b"\0\0"
    hello = struct.pack("!ii", 8 + len(words), _PROTOCOL_VERSION) + words
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(PROBE_TIMEOUT_SECONDS)
        try:
            client.connect(str(folder / f".s.PGSQL.{PORT}"))
            client.sendall(hello)
            answer = client.recv(1)
            if answer == b"R":
                client.sendall(struct.pack("!ci", b"X", 4))
        except OSError:
            return False
    return answer == b"R"


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-LOG_TAIL_LINES:]) or "nothing"
