"""Bitcoin on the command line: descriptors that are shown, and books held against the node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.bitcoin.gateway import BitcoinGateway
from chain.bitcoin.networks import REGTEST
from chain.simulators.bitcoin.testing import SimulatedNode, start_bitcoin_simulator
from custody.bitcoin.testing import CHAIN
from tests.app.cli.conftest import Cli
from tests.custody.bitcoin.coin_house import COIN, CoinHouse


@pytest.fixture
async def node() -> AsyncIterator[SimulatedNode]:
    async with start_bitcoin_simulator(seed=7) as simulator:
        yield simulator


@pytest.fixture
async def house(
    engine: AsyncEngine, environment: None, node: SimulatedNode
) -> AsyncIterator[CoinHouse]:
    async with BitcoinGateway(
        node.url, chain=CHAIN, network=REGTEST, cookie=node.cookie_file
    ) as gateway:
        house = await CoinHouse(engine, reader=gateway).open()
        await house.follow()
        await node.fund(house.acme, COIN, blocks=3)
        await house.catch_up()
        yield house


async def test_reconcile_asks_the_node_of_the_chain_that_is_named(
    cli: Cli, house: CoinHouse, node: SimulatedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconcile = ("custody", "reconcile", "--chain", "bitcoin", "--json")
    without = await asyncio.to_thread(cli, *reconcile)
    assert (without.code, "CAUSEWAY_BITCOIN_URL" in without.err) == (3, True)

    monkeypatch.setenv("CAUSEWAY_BITCOIN_URL", f"{node.url}#cookie={node.cookie_file}")
    answer = await asyncio.to_thread(cli, *reconcile)
    assert (answer.code, answer.json["result"]) == (0, "clean")
    figures = {line["wallet"]: line["chain"] for line in answer.json["wallets"]}
    assert figures["btc-pool"] == "1 BTC"

    # A block that the books have not read: nothing is compared, and nothing is called a difference.
    await node.fund(house.acme, COIN)
    behind = await asyncio.to_thread(cli, *reconcile)
    assert behind.code not in {0, 1}
    assert "Follow the chain" in behind.err


async def test_descriptors_are_shown_with_how_many_addresses_are_handed_out(
    cli: Cli, house: CoinHouse
) -> None:
    answer = await asyncio.to_thread(
        cli, "custody", "address", "descriptors", "--wallet", "btc-pool", "--json"
    )

    assert answer.code == 0
    assert [(line["branch"], line["handed out"]) for line in answer.json] == [
        ("0", "2"),
        ("1", "0"),
    ]
    assert all(line["descriptor"].startswith("wpkh(tpub") for line in answer.json)
    unknown = await asyncio.to_thread(
        cli, "custody", "address", "descriptors", "--wallet", "nowhere"
    )
    assert unknown.code != 0
