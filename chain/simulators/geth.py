"""Find and start a real geth in its development mode: the word on what a real node does.

geth is not a dependency: it is used where it is found. ``scripts/fetch-geth`` builds it from its Go
module. Its development chain has one funded account of its own, mines each transaction at once, and
knows none of anvil's methods: it is for the cards on what nodes do, not for the others.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chain.simulators.programs import find_program
from kernel.errors import OutsideUnavailable

#: Names the binary to use; wins over everything else.
GETH_VARIABLE = "GETH"
#: geth's development chain has this id, whatever one would like.
DEV_CHAIN_ID = 1337

STOP_TIMEOUT_S = 10.0
POLL_INTERVAL_S = 0.02
POLLS_MAX = 1_500
MAX_OUTPUT_BYTES = 256 * 1024

_HTTP = re.compile(r"HTTP server started +endpoint=(\S+)")
_WS = re.compile(r"WebSocket enabled +url=(\S+)")


@dataclass(frozen=True, slots=True)
class Geth:
    """A running geth."""

    url: str
    ws_url: str
    pid: int


def find_geth(env: Mapping[str, str], search: Sequence[Path]) -> Path | None:
    """Return the geth to use: ``GETH``, else on ``PATH``, else built by us; None if there is none.

    *search* are folders that may hold ``bin/geth``.

    Raises:
        BadInput: ``GETH`` is set and names no file.
    """
    built = [folder / "bin" / "geth" for folder in search]
    return find_program(env, GETH_VARIABLE, "geth", built)


@contextlib.contextmanager
def start_geth(binary: Path, *, arguments: Sequence[str] = ()) -> Iterator[Geth]:
    """Run ``geth --dev`` on free ports for the length of a ``with`` block; its chain is in memory.

    Raises:
        OutsideUnavailable: it did not start to listen in time; its output is in the message.
    """
    command = [
        *(str(binary), "--dev", "--ipcdisable", "--nodiscover", "--verbosity", "3"),
        *("--http", "--http.port", "0", "--http.api", "eth,net,web3,debug,txpool"),
        *("--ws", "--ws.port", "0", "--ws.api", "eth,net,web3", *arguments),
    ]
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            url, ws_url = _wait_until_listening(process, output.fileno())
            yield Geth(f"http://{url}", ws_url, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_listening(process: subprocess.Popen[bytes], descriptor: int) -> tuple[str, str]:
    text = ""
    for _ in range(POLLS_MAX):
        text = os.pread(descriptor, MAX_OUTPUT_BYTES, 0).decode(errors="replace")
        http, websocket = _HTTP.search(text), _WS.search(text)
        if http and websocket:
            return http[1], websocket[1]
        if process.poll() is not None:
            break
        time.sleep(POLL_INTERVAL_S)
    raise OutsideUnavailable(
        f"geth did not start to listen: {text[-500:].strip() or 'silent'}",
        remedy="Run the same binary by hand with --dev",
    )
