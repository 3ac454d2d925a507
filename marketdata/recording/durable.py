"""Files that are whole or not there: written beside their place, synced, then renamed."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Final

DISK_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""What a disk says that has no room, or takes nothing more."""


def sync_folder(folder: Path) -> None:
    """Make the names in *folder* survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Make *folder* and those above it, and let their names survive a power cut."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        sync_folder(one.parent)


def sync_file(path: Path) -> None:
    """Make the contents of *path* survive a power cut."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def rename(unfinished: Path, path: Path) -> None:
    """Give a synced file its name, for good."""
    unfinished.replace(path)
    sync_folder(path.parent)


def sha256_of(path: Path) -> str:
    """Return the hash of a file's contents, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_all(fd: int, data: bytes) -> None:
    """Write all of *data*, however many calls the system wants for it."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
