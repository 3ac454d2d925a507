"""Files that a command is given: their bytes, or only their hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kernel.errors import BadInput


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        BadInput: it cannot be read.
    """
    return hashlib.sha256(read_bytes(path)).hexdigest()


def read_bytes(path: Path) -> bytes:
    """Return what a file holds.

    Raises:
        BadInput: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"the file cannot be read: {error.strerror}", where=str(path)) from error
