"""The simulated bitcoind as a process: its ready line, its end, and what a kill leaves."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chain.simulators.bitcoin.__main__ import build_parser, main, read_settings

END_TIMEOUT_S = 10.0
COMMAND = (sys.executable, "-m", "chain.simulators.bitcoin", "--port", "0")


class Process:
    """A running simulator and the calls to it."""

    def __init__(self, child: subprocess.Popen[str], ready: dict[str, Any]) -> None:
        self.child = child
        self.ready = ready

    def call(self, method: str, *params: Any) -> Any:
        cookie = Path(self.ready["cookie_file"]).read_bytes()
        request = urllib.request.Request(  # noqa: S310  our own on loopback
            self.ready["url"],
            data=json.dumps({"id": 1, "method": method, "params": params}).encode(),
            headers={"Authorization": "Basic " + base64.b64encode(cookie).decode()},
        )
        with urllib.request.urlopen(request, timeout=END_TIMEOUT_S) as response:  # noqa: S310
            return json.load(response)["result"]


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[Process]:
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        try:
            yield Process(child, json.loads(child.stdout.readline()))
        finally:
            child.kill()


def test_the_ready_line_says_where_it_is_and_how_to_get_in() -> None:
    with started("--seed", "3", "--timestamp", "1700000000") as process:
        assert process.ready["component"] == "bitcoin"
        assert process.ready["pid"] == process.child.pid
        assert process.call("getblockchaininfo")["chain"] == "regtest"
        assert process.call("uptime") == 0


@pytest.mark.parametrize("way", ["SIGINT", "SIGTERM", "stop"])
def test_it_ends_cleanly(way: str, tmp_path: Path) -> None:
    with started("--data-dir", str(tmp_path)) as process:
        if way == "stop":
            process.call("stop")
        else:
            process.child.send_signal(getattr(signal, way))
        assert process.child.wait(END_TIMEOUT_S) == 0
    assert not (tmp_path / "regtest" / ".cookie").exists()


def test_it_ends_with_its_parent() -> None:
    with started("--parent-pipe") as process:
        assert process.child.stdin is not None
        process.child.stdin.close()
        assert process.child.wait(END_TIMEOUT_S) == 0


def test_a_killed_node_comes_back_below_its_tip(tmp_path: Path) -> None:
    keeping = ("--data-dir", str(tmp_path), "--flush-blocks", "4", "--timestamp", "1700000000")
    with started(*keeping) as process:
        hashes = process.call("simulate_mine", 10)
        process.child.kill()
        process.child.wait(END_TIMEOUT_S)
    with started(*keeping) as process:
        assert process.ready["height"] == 8
        assert process.call("getbestblockhash") == hashes[7]
        assert process.call("simulate_mine", 2) == hashes[8:]


def test_a_killed_node_that_writes_each_block_loses_none_but_its_pool(tmp_path: Path) -> None:
    payee = "bcrt1qqqqsyqcyq5rqwzqfpg9scrgwpugpzysnard0ew"
    with started("--data-dir", str(tmp_path)) as process:
        process.call("simulate_fund", payee, "1.0", 0)
        height = process.call("getblockcount")
        process.child.kill()
        process.child.wait(END_TIMEOUT_S)
    with started("--data-dir", str(tmp_path)) as process:
        assert process.ready["height"] == height
        assert process.call("getrawmempool") == []


def test_a_taken_port_ends_it_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    with started() as process:
        port = process.ready["url"].rpartition(":")[2]
        assert main(["--port", port]) == 3
    assert f"port {port} on 127.0.0.1 is already in use" in capsys.readouterr().err


def test_options_become_settings() -> None:
    settings = read_settings(build_parser().parse_args(["--fee-rate", "2500", "--seed", "9"]))
    assert (settings.fee_rate, settings.seed, settings.port) == (2_500, 9, 18_443)
