"""The two nodes the cards are played against: our simulator and a real bitcoind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chain.simulators.bitcoin.testing import start_bitcoin_simulator
from chain.simulators.bitcoind import find_bitcoind, start_bitcoind
from tests.conformance.bitcoin.coins_at_hand import START, NodeUnderTest

REPOSITORY = Path(__file__).resolve().parents[3]
REQUIRED = os.environ.get("CAUSEWAY_REQUIRE_BITCOIND") == "1"


def binary() -> Path:
    found = find_bitcoind(os.environ, [REPOSITORY / ".cache" / "bitcoind"])
    if found is None:
        reason = "no bitcoind: run scripts/fetch-bitcoind, or set BITCOIND"
        if REQUIRED:
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def arguments(found: Path) -> tuple[str, ...]:
    """Return the options of a real node; Knots orders blocks by the age of coins unless told not to."""
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    by_fee = ("-blockprioritysize=0",) if "Knots" in said else ()
    return ("-disablewallet", f"-mocktime={START}", *by_fee)


@pytest.fixture(params=["simulator", "bitcoind"])
async def node(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[NodeUnderTest]:
    if request.param == "simulator":
        async with start_bitcoin_simulator() as simulated:
            await simulated.call("setmocktime", START)
            yield NodeUnderTest("simulator", simulated)
        return
    found = binary()
    async with start_bitcoind(found, tmp_path / "node", arguments=arguments(found)) as real:
        said = (await real.call("getnetworkinfo"))["subversion"]
        yield NodeUnderTest("knots" if "Knots" in said else "core", real)


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[tuple[NodeUnderTest, NodeUnderTest]]:
    """Both nodes at once, at the same mocked time."""
    found = binary()
    async with (
        start_bitcoin_simulator() as simulated,
        start_bitcoind(found, tmp_path / "node", arguments=arguments(found)) as real,
    ):
        await simulated.call("setmocktime", START)
        yield NodeUnderTest("simulator", simulated), NodeUnderTest("bitcoind", real)
