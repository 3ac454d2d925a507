"""Three chains behind one port: the scripted one, our simulator and a real anvil."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp
import pytest

from chain.evm.addresses import address_from_node
from chain.evm.gateway import EvmGateway
from chain.evm.providers import Provider, ProviderSet, provider_set
from chain.ports import ChainGateway
from chain.simulators.anvil import find_anvil, start_anvil
from chain.simulators.testing import (
    EvmProcess,
    JsonRpc,
    deploy_test_dollar,
    dev_account,
    start_evm_process,
    transfer_token,
)
from chain.testing import ScriptedGateway

REPOSITORY = Path(__file__).resolve().parents[2]
REQUIRE_ANVIL = os.environ.get("CAUSEWAY_REQUIRE_ANVIL") == "1"
CHAIN_ID = 31337
ETHER = 10**18
TOKENS = 1_000_000
SCRIPTED_TOKEN = "0x5FbDB2315678afecb367f032d93F642f64180aa3"


class Stage(Protocol):
    """A chain on which the development accounts 0 and 1 have ether and half a million tokens each.

    Nothing is mined unless asked for.
    """

    token: str

    @property
    def gateway(self) -> ChainGateway:
        """The implementation under test."""
        ...

    async def mine(self) -> None:
        """Mine what waits."""
        ...

    async def reorg(self, depth: int, inclusions: Sequence[tuple[str, int]] = ()) -> None:
        """Replace *depth* blocks; raw transactions go into the new ones at their offsets."""
        ...


@dataclass
class ScriptedStage:
    gateway: ScriptedGateway
    token: str = SCRIPTED_TOKEN

    async def mine(self) -> None:
        self.gateway.mine_pool()

    async def reorg(self, depth: int, inclusions: Sequence[tuple[str, int]] = ()) -> None:
        blocks = [
            [self.gateway.read(bytes.fromhex(raw[2:])) for raw, place in inclusions if place == at]
            for at in range(depth)
        ]
        self.gateway.reorg(depth, blocks)


@dataclass
class NodeStage:
    gateway: EvmGateway
    token: str
    rpc: JsonRpc

    async def mine(self) -> None:
        await self.rpc.call("evm_mine")

    async def reorg(self, depth: int, inclusions: Sequence[tuple[str, int]] = ()) -> None:
        await self.rpc.call("anvil_reorg", depth, [list(pair) for pair in inclusions])


@dataclass
class ProvidersStage:
    """The node of another stage behind three addresses, of which two must agree."""

    gateway: ProviderSet
    node: NodeStage
    token: str

    async def mine(self) -> None:
        await self.node.mine()

    async def reorg(self, depth: int, inclusions: Sequence[tuple[str, int]] = ()) -> None:
        await self.node.reorg(depth, inclusions)


@dataclass(frozen=True)
class Node:
    """A node at height 0, on a socket."""

    kind: str
    url: str
    rpc: JsonRpc


def scripted_stage() -> ScriptedStage:
    gateway = ScriptedGateway(network_id=CHAIN_ID, tokens={SCRIPTED_TOKEN})
    for index in (0, 1):
        gateway.fund(dev_account(index).address, 10_000 * ETHER)
        gateway.fund(dev_account(index).address, TOKENS // 2, SCRIPTED_TOKEN)
    gateway.mine()
    return ScriptedStage(gateway)


@asynccontextmanager
async def node_stage(node: Node) -> AsyncIterator[NodeStage]:
    deployer = dev_account(9)
    token = await deploy_test_dollar(node.rpc, deployer, supply=TOKENS)
    for index in (0, 1):
        raw = transfer_token(
            deployer, index + 1, token, to=dev_account(index).address, amount=TOKENS // 2
        )
        await node.rpc.wait_receipt(await node.rpc.call("eth_sendRawTransaction", raw))
    await node.rpc.call("evm_setAutomine", False)
    async with EvmGateway(node.url, chain="evm", network_id=CHAIN_ID) as gateway:
        yield NodeStage(gateway, address_from_node(token), node.rpc)


@pytest.fixture(scope="session")
def simulator_process() -> Iterator[EvmProcess]:
    with start_evm_process() as process:
        yield process


@asynccontextmanager
async def open_node(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    async with aiohttp.ClientSession() as session:
        if kind == "simulator":
            process: EvmProcess = request.getfixturevalue("simulator_process")
            rpc = JsonRpc(process.url, session)
            await rpc.call("anvil_reset")
            yield Node(kind, process.url, rpc)
            return
        binary = find_anvil(os.environ, [REPOSITORY / ".cache" / "npm", REPOSITORY])
        if binary is None:
            reason = "no anvil: npm i --prefix .cache/npm @foundry-rs/anvil@1.7.1, or set ANVIL"
            if REQUIRE_ANVIL:
                pytest.fail(reason)
            pytest.skip(reason)
        async with start_anvil(binary) as anvil:
            yield Node(kind, anvil.url, JsonRpc(anvil.url, session))


@pytest.fixture(params=["simulator", "anvil"])
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    """A real socket: our simulator, then anvil."""
    async with open_node(request.param, request) as opened:
        yield opened


@pytest.fixture(params=["simulator", "anvil"])
async def evm(request: pytest.FixtureRequest) -> AsyncIterator[NodeStage]:
    """A stage on a real socket."""
    async with open_node(request.param, request) as opened, node_stage(opened) as stage:
        yield stage


@pytest.fixture(params=["scripted", "simulator", "anvil", "providers"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """Every implementation of the port."""
    if request.param == "scripted":
        yield scripted_stage()
        return
    kind = "simulator" if request.param == "providers" else request.param
    async with open_node(kind, request) as opened, node_stage(opened) as made:
        if request.param != "providers":
            yield made
            return
        # One node by three addresses: a provider that is named twice is refused.
        three = [Provider(f"{opened.url}/?{name}", name) for name in ("one", "two", "three")]
        async with provider_set(three, chain="evm", network_id=CHAIN_ID, quorum=2) as providers:
            yield ProvidersStage(providers, made, made.token)
