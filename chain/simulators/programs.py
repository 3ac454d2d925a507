"""Programs of other people that are used where they are found: how each is found, and how it is ended."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from kernel.errors import BadInput


def find_program(
    env: Mapping[str, str], variable: str, name: str, candidates: Iterable[Path]
) -> Path | None:
    """Return the program: what *variable* names, else *name* on ``PATH``, else the first candidate.

    None if there is none.

    Raises:
        BadInput: *variable* is set and names no file.
    """
    named = env.get(variable)
    if named:
        if not Path(named).is_file():
            raise BadInput(
                f"{variable} names {named}, which is not a file",
                remedy=f"Set {variable} to the {name} binary, or unset it",
            )
        return Path(named)
    on_path = shutil.which(name, path=env.get("PATH", ""))
    if on_path is not None:
        return Path(on_path)
    return next((path for path in candidates if path.is_file()), None)


async def end_program(process: asyncio.subprocess.Process, timeout_s: float) -> None:
    """End a process that we started: asked first, killed when it takes longer than that."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(timeout_s):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
