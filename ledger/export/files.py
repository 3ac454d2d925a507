"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kernel.errors import BadInput

_READ_BYTES: Final = 1 << 20


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """Give a path beside *target* to write to; it takes the name of *target* when the block ends.

    It is on the disk before it has the name. After an error nothing is left, and what *target* was
    before is still there.

    Raises:
        BadInput: the file cannot be written there.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise BadInput(
            f"cannot write {target}: {error.strerror or error}",
            remedy="Name a file in a folder that exists and may be written to",
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fingerprint(path: Path) -> tuple[int, str]:
    """Return the length of a file in bytes and its SHA-256 in hex."""
    digest, length = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
            length += len(piece)
    return length, digest.hexdigest()
