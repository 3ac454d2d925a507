"""A folder belongs to one process at a time: the lock file says to which."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from app.local.errors import HomeInUse

PID_BYTES_MAX: Final = 20


def take(path: Path, use: str) -> int:
    """Lock *path*, made if absent, write our process id into it, and return the descriptor.

    The lock ends when the descriptor is closed, however the process ends.

    Args:
        use: what the owner does with the folder, for whoever comes second.

    Raises:
        HomeInUse: names the process that has it.
        OSError: the file cannot be opened.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(handle, PID_BYTES_MAX).decode(errors="replace").strip()
        os.close(handle)
        raise HomeInUse(
            f"process {owner or 'unknown'} {use}",
            where=str(path.parent),
            remedy="Stop that process, or set CAUSEWAY_STATE_DIR to another folder",
        ) from error
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle
