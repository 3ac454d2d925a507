"""Files with secrets: only their owner may open them, and a new content is there whole or not at all.

Reading refuses a file that anybody else may read or write, that belongs to somebody else, that is a
link, or that lies in a folder where anybody may put another one in its place.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from kernel.envelope import KEY_BYTES
from kernel.errors import Refused, SecretUnreadable
from kernel.redaction import KNOWN

FILE_MODE: Final = 0o600
FILE_BYTES_MAX: Final = 16_384
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def read_private_file(path: Path) -> bytes:
    """Return the content of a file that nobody but its owner, who is us, can open or replace.

    Raises:
        SecretUnreadable: it is not there, or not private; says what to do.
    """
    _check_folder(path.parent)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise SecretUnreadable(f"cannot open it: {error.strerror}", where=str(path)) from error
    with os.fdopen(handle, "rb") as file:
        _check_file(os.fstat(file.fileno()), path)
        content = file.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise SecretUnreadable(f"longer than {FILE_BYTES_MAX} bytes", where=str(path))
    return content


def read_kek(path: Path) -> bytes:
    """Read a key-encryption key: 32 bytes as 64 hexadecimal digits, in a file of mode 0600."""
    try:
        key = bytes.fromhex(read_private_file(path).decode("ascii"))
    except ValueError:
        # The error's own text quotes what it read, which may be most of a key.
        raise SecretUnreadable("a KEK file holds hexadecimal digits", where=str(path)) from None
    if len(key) != KEY_BYTES:
        raise SecretUnreadable(f"a KEK has {KEY_BYTES} bytes", where=str(path))
    KNOWN.remember(key.hex())
    return key


def write_new_file(path: Path, content: bytes) -> None:
    """Write a file of mode 0600, to disk before returning; never over an existing one.

    Raises:
        Refused: a file of that name is there.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
    except FileExistsError as error:
        raise Refused(
            "a file is there already", where=str(path), remedy="Name another file"
        ) from error
    except OSError as error:
        raise SecretUnreadable(f"cannot make it: {error.strerror}", where=str(path)) from error
    _write_through(handle, content)
    _sync_folder(path.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Put *content* in place of the file's: after a crash the old or the new one is there, whole.

    The new content is on disk under another name before it takes the file's name (rename(2)), and
    the folder is on disk before this returns.
    """
    passing = path.with_name(f".{path.name}.new")
    # What an interrupted replacement left behind was never anybody's file.
    passing.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    _write_through(os.open(passing, flags, FILE_MODE), content)
    passing.replace(path)
    _sync_folder(path.parent)


def _check_file(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SecretUnreadable("not a plain file", where=str(path))
    if stat.S_IMODE(status.st_mode) & OTHERS:
        raise SecretUnreadable("others may read it", where=str(path), remedy=f"chmod 600 {path}")
    if status.st_uid != os.geteuid():
        raise SecretUnreadable(
            "it belongs to another user", where=str(path), remedy="Run as its owner"
        )


def _check_folder(folder: Path) -> None:
    try:
        status = folder.stat()
    except OSError as error:
        raise SecretUnreadable(f"cannot open: {error.strerror}", where=str(folder)) from error
    # Whoever may write to the folder can put another of our files there, unless it is sticky (/tmp).
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise SecretUnreadable(
            "anybody may put another file into this folder",
            where=str(folder),
            remedy=f"chmod o-w {folder}",
        )


def _write_through(handle: int, content: bytes) -> None:
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
