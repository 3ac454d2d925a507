"""Find and start a real anvil, the reference the EVM simulator is measured against.

anvil is not a dependency: it is used where it is found. The npm package ``@foundry-rs/anvil``
brings one binary per platform in a package of its own, which runs without any install script::

    npm i --prefix .cache/npm @foundry-rs/anvil@1.7.1
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chain.simulators.programs import end_program, find_program
from kernel.errors import OutsideUnavailable

#: Names the binary to use; wins over everything else.
ANVIL_VARIABLE = "ANVIL"

PLATFORM_PACKAGES: Mapping[tuple[str, str], str] = {
    ("Linux", "x86_64"): "anvil-linux-amd64",
    ("Linux", "aarch64"): "anvil-linux-arm64",
    ("Darwin", "x86_64"): "anvil-darwin-amd64",
    ("Darwin", "arm64"): "anvil-darwin-arm64",
    ("Windows", "AMD64"): "anvil-win32-amd64",
}

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
POLL_INTERVAL_S = 0.02
MAX_OUTPUT_BYTES = 64 * 1024
LISTENING_PREFIX = "Listening on "


@dataclass(frozen=True, slots=True)
class Anvil:
    """A running anvil."""

    url: str
    ws_url: str
    pid: int


def find_anvil(env: Mapping[str, str], search: Sequence[Path]) -> Path | None:
    """Return the anvil to use: ``ANVIL``, else one on ``PATH``, else from npm; None if there is none.

    *search* are folders that may hold a ``node_modules``.

    Raises:
        BadInput: ``ANVIL`` is set and names no file.
    """
    package = PLATFORM_PACKAGES.get((platform.system(), platform.machine()), "")
    name = "anvil.exe" if platform.system() == "Windows" else "anvil"
    # A platform without a package has no candidate.
    folders = search if package else ()
    installed = [item / "node_modules" / "@foundry-rs" / package / "bin" / name for item in folders]
    return find_program(env, ANVIL_VARIABLE, "anvil", installed)


@contextlib.asynccontextmanager
async def start_anvil(
    binary: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    chain_id: int = 31337,
    slots_in_an_epoch: int = 32,
    arguments: Sequence[str] = (),
) -> AsyncIterator[Anvil]:
    """Run anvil for the length of a ``with`` block; port 0 takes any free one.

    Raises:
        OutsideUnavailable: it did not start to listen in time; its output is in the message.
    """
    command = [
        *(str(binary), "--host", host, "--port", str(port), "--chain-id", str(chain_id)),
        *("--slots-in-an-epoch", str(slots_in_an_epoch), *arguments),
    ]
    # anvil reports every call on its standard output: a file takes it all, a pipe would fill up.
    with tempfile.TemporaryFile() as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output.fileno(),
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            address = await _wait_until_listening(process, output.fileno())
            yield Anvil(f"http://{address}", f"ws://{address}", process.pid)
        finally:
            await end_program(process, STOP_TIMEOUT_S)


async def _wait_until_listening(process: asyncio.subprocess.Process, descriptor: int) -> str:
    text = ""
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while process.returncode is None:
                text = _read_from_start(descriptor)
                for line in text.splitlines(keepends=True):
                    if line.startswith(LISTENING_PREFIX) and line.endswith("\n"):
                        return line.removeprefix(LISTENING_PREFIX).strip()
                await asyncio.sleep(POLL_INTERVAL_S)
    except TimeoutError:
        pass
    raise OutsideUnavailable(
        f"anvil did not start to listen: {_read_from_start(descriptor)[-500:].strip() or 'silent'}",
        remedy="Run the same binary by hand; if the port is taken, choose another or 0",
    )


def _read_from_start(descriptor: int) -> str:
    return os.pread(descriptor, MAX_OUTPUT_BYTES, 0).decode(errors="replace")
