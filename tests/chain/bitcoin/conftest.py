"""A real bitcoind on regtest, with coins to spend."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chain.simulators.bitcoind import Bitcoind, find_bitcoind, start_bitcoind

REPOSITORY = Path(__file__).resolve().parents[3]
REQUIRED = os.environ.get("CAUSEWAY_REQUIRE_BITCOIND") == "1"


@pytest.fixture
def bitcoind_binary() -> Path:
    binary = find_bitcoind(os.environ, [REPOSITORY / ".cache" / "bitcoind"])
    if binary is None:
        reason = "no bitcoind: run scripts/fetch-bitcoind, or set BITCOIND"
        if REQUIRED:
            pytest.fail(reason)
        pytest.skip(reason)
    return binary


@pytest.fixture
async def bitcoind(bitcoind_binary: Path, tmp_path: Path) -> AsyncIterator[Bitcoind]:
    async with start_bitcoind(bitcoind_binary, tmp_path / "node") as node:
        yield node
