"""A folder from which somebody else takes files to the bank (EBICS clients and SFTP jobs work so).

A file appears there whole or not at all: it is written under another name, made durable, and linked. That
name is one writer's own: a name that two share, or that a killed one has left, may be the very file that
is there already, and would be written over under the eyes of whoever takes it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from banks.submission import Outcome, Submission


@dataclass(frozen=True, slots=True)
class FolderGateway:
    """Puts files into *folder*, which exists."""

    folder: Path

    async def submit(self, name: str, content: bytes) -> Submission:
        """Put the file there; the same bytes under the same name are there already."""
        try:
            return await asyncio.to_thread(_put, self.folder, name, content)
        except OSError as error:
            return Submission(Outcome.UNKNOWN, f"the folder took nothing: {error}")


def _put(folder: Path, name: str, content: bytes) -> Submission:
    target = folder / name
    draft = folder / f".{name}.{os.getpid()}-{threading.get_ident()}.part"
    if target.parent != folder or name.startswith("."):
        return Submission(Outcome.REFUSED, f"{name!r} is no name of a file")
    draft.unlink(missing_ok=True)
    with draft.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, target)
    except FileExistsError:
        if target.read_bytes() != content:
            return Submission(Outcome.REFUSED, f"{name} is there with other bytes")
    finally:
        draft.unlink(missing_ok=True)
    _keep(folder)
    return Submission(Outcome.TAKEN)


def _keep(folder: Path) -> None:
    """Make the folder's new entry durable."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
