"""Find and start a real bitcoind on regtest: Bitcoin's own consensus and relay rules, on loopback.

bitcoind is not a dependency: it is used where it is found. ``scripts/fetch-bitcoind`` extracts one
from Debian's archive, without root and without touching the system's libraries.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from chain.simulators.programs import end_program, find_program
from kernel.errors import OutsideUnavailable

BITCOIND_VARIABLE: Final = "BITCOIND"
"""Names the binary to use; wins over everything else."""

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 20.0
CALL_TIMEOUT_S: Final = 60.0
POLL_INTERVAL_S: Final = 0.05
COOKIE: Final = Path("regtest/.cookie")
LOG: Final = Path("regtest/debug.log")
FALLBACK_FEE: Final = "0.0002"

OPTIONS: Final = (
    "-regtest",
    "-server",
    # The node's own default is the legacy kind of address.
    "-addresstype=bech32",
    "-rpcbind=127.0.0.1",
    "-rpcallowip=127.0.0.1",
    "-listen=0",
    "-dnsseed=0",
    f"-fallbackfee={FALLBACK_FEE}",
    "-txindex=1",
    "-printtoconsole=0",
)


class NodeRefusal(OutsideUnavailable):
    """The node answered a call with an error."""

    def __init__(self, method: str, code: int, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"bitcoind refuses {method}: {message}", where=f"code {code}")


async def ask(
    session: aiohttp.ClientSession,
    url: str,
    cookie: tuple[str, str],
    method: str,
    params: Sequence[Any],
) -> Any:
    """Return the result of a call of bitcoind's JSON-RPC.

    Raises:
        NodeRefusal: the node answered with an error.
    """
    body = {"jsonrpc": "1.0", "id": 1, "method": method, "params": list(params)}
    headers = {"Authorization": aiohttp.encode_basic_auth(*cookie)}
    async with session.post(url, json=body, headers=headers) as response:
        answer = await response.json(content_type=None)
    if answer.get("error") is not None:
        raise NodeRefusal(method, answer["error"]["code"], answer["error"]["message"])
    return answer["result"]


@dataclass(frozen=True, slots=True)
class Bitcoind:
    """A running bitcoind on regtest.

    Attributes:
        folder: its data; the cookie that lets callers in lies there.
    """

    url: str
    folder: Path
    pid: int
    session: aiohttp.ClientSession

    @property
    def cookie(self) -> tuple[str, str]:
        """Return user and password, which are new at every start."""
        user, _, password = (self.folder / COOKIE).read_text().partition(":")
        return user, password

    async def call(self, method: str, *params: Any) -> Any:
        """Return the result of a call.

        Raises:
            NodeRefusal: the node answered with an error.
        """
        return await ask(self.session, self.url, self.cookie, method, params)


def find_bitcoind(env: Mapping[str, str], search: Sequence[Path]) -> Path | None:
    """Return the bitcoind to use: ``BITCOIND``, else one on ``PATH``, else a fetched one, else None.

    *search* are folders that ``scripts/fetch-bitcoind`` may have filled.

    Raises:
        BadInput: ``BITCOIND`` is set and names no file.
    """
    fetched = [folder / "bitcoind" for folder in search]
    return find_program(env, BITCOIND_VARIABLE, "bitcoind", fetched)


@contextlib.asynccontextmanager
async def start_bitcoind(
    binary: Path, folder: Path, *, arguments: Sequence[str] = ()
) -> AsyncIterator[Bitcoind]:
    """Run bitcoind on regtest for the length of a ``with`` block, with its data in *folder*.

    Raises:
        OutsideUnavailable: it did not answer in time; the end of its log is in the message.
    """
    _prepare(folder)
    port = _free_port()
    process = await asyncio.create_subprocess_exec(
        *(str(binary), *OPTIONS, f"-datadir={folder}", f"-rpcport={port}", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        try:
            node = Bitcoind(f"http://127.0.0.1:{port}", folder, process.pid, session)
            await _wait_until_answering(node, process)
            yield node
        finally:
            await end_program(process, STOP_TIMEOUT_S)


def _prepare(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # A cookie that a killed node left behind would be taken for the new one's.
    (folder / COOKIE).unlink(missing_ok=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _wait_until_answering(node: Bitcoind, process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_TIMEOUT_S):
            while process.returncode is None:
                try:
                    await node.call("getblockcount")
                except (OSError, aiohttp.ClientError, NodeRefusal):
                    await asyncio.sleep(POLL_INTERVAL_S)
                else:
                    return
    log = node.folder / LOG
    said = log.read_text(errors="replace")[-500:].strip() if log.is_file() else "silent"
    raise OutsideUnavailable(
        f"bitcoind did not start to answer: {said}", remedy="Run the same binary by hand"
    )
