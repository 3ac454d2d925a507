"""The two nodes the cards are played against: our simulator and a real anvil."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from chain.simulators.anvil import find_anvil, start_anvil
from chain.simulators.testing import EvmProcess, JsonRpc, NodeUnderTest, start_evm_process

REPOSITORY = Path(__file__).resolve().parents[3]
REQUIRE_ANVIL = os.environ.get("CAUSEWAY_REQUIRE_ANVIL") == "1"
SLOTS_IN_AN_EPOCH = 2


@pytest.fixture(scope="session")
def simulator_process() -> Iterator[EvmProcess]:
    arguments = ("--slots-in-an-epoch", str(SLOTS_IN_AN_EPOCH), "--timestamp", "1700000000")
    with start_evm_process(*arguments) as process:
        yield process


@pytest.fixture(params=["simulator", "anvil"])
async def node(request: pytest.FixtureRequest) -> AsyncIterator[NodeUnderTest]:
    async with aiohttp.ClientSession() as session:
        if request.param == "simulator":
            process: EvmProcess = request.getfixturevalue("simulator_process")
            rpc = JsonRpc(process.url, session)
            await rpc.call("anvil_reset")
            yield NodeUnderTest("simulator", rpc, session, process.ws_url)
            return
        binary = find_anvil(os.environ, [REPOSITORY / ".cache" / "npm", REPOSITORY])
        if binary is None:
            reason = "no anvil: npm i --prefix .cache/npm @foundry-rs/anvil@1.7.1, or set ANVIL"
            if REQUIRE_ANVIL:
                pytest.fail(reason)
            pytest.skip(reason)
        async with start_anvil(binary, slots_in_an_epoch=SLOTS_IN_AN_EPOCH) as anvil:
            yield NodeUnderTest("anvil", JsonRpc(anvil.url, session), session, anvil.ws_url)
