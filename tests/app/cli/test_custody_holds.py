"""``causeway custody resume, abandon, thaw``, and what else of a transaction of Bitcoin people see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.bitcoin.addresses import address_of
from chain.bitcoin.blocks import FINAL_DEPTH
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.scripts import witness_script
from chain.simulators.bitcoin.testing import start_bitcoin_simulator
from custody.addresses import watch_list
from custody.bitcoin.spend_model import SpendState
from custody.bitcoin.testing import CHAIN
from custody.payout_model import Payout, PayoutState
from custody.pending import watch_coin_pool
from tests.app.cli.conftest import Cli
from tests.custody.bitcoin.spend_world import BTC, SpendWorld, make_spend_world

STRANGER = address_of(witness_script(0, bytes(32)), REGTEST) or ""


@pytest.fixture
async def world(
    engine: AsyncEngine, environment: None, tmp_path: Path
) -> AsyncIterator[SpendWorld]:
    async with make_spend_world(engine, tmp_path) as made:
        yield made


@pytest.fixture
async def held(world: SpendWorld) -> list[Payout]:
    """Two payouts of one transaction, a coin of which a stranger has spent."""
    payouts = await world.several(BTC, 50_000)
    await world.advance()
    coin = (await world.only()).current.coins[0]
    world.node.mine(world.node.pay((STRANGER, coin.amount - 500), spend=[coin.outpoint]))
    await world.follow()
    assert await world.states(payouts) == {"security_hold"}
    return payouts


def both(keys: dict[str, Path], one: str, two: str) -> tuple[str, ...]:
    return (
        *("--as", one, "--key", str(keys[one])),
        *("--approver", two, "--approver-key", str(keys[two])),
    )


async def test_two_people_resume_a_transaction_of_bitcoin_with_all_its_payouts(
    cli: Cli, keys: dict[str, Path], world: SpendWorld, held: list[Payout]
) -> None:
    world.node.rollback(1)
    world.node.mine()
    world.node.mine()
    await world.follow()
    command = ("custody", "resume", str(held[1].id), "--reason", "the block is gone", "--json")

    alone = cli(*command, *both(keys, "ada", "ada"))
    assert (alone.code, await world.states(held)) == (1, {"security_hold"}), alone.out
    rehearsed = cli(*command, *both(keys, "ada", "ben"), "--dry-run")
    assert (rehearsed.code, await world.states(held)) == (0, {"security_hold"}), rehearsed.err
    done = cli(*command, *both(keys, "ada", "ben"))

    assert done.code == 0, done.err
    assert {line["id"]: line["state"] for line in done.json} == {
        str(item.id): "signed" for item in held
    }
    assert (await world.only()).spend.state is SpendState.SIGNED
    await world.assert_exact()


async def test_a_transaction_of_bitcoin_is_given_up_when_the_theft_is_final(
    cli: Cli,
    keys: dict[str, Path],
    world: SpendWorld,
    held: list[Payout],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ("custody", "abandon", str(held[0].id), "--reason", "a stranger has the key")
    people = (*both(keys, "ada", "ben"), "--json")
    monkeypatch.delenv("CAUSEWAY_BITCOIN_URL", raising=False)
    without = cli(*command, *people)
    assert (without.code, "CAUSEWAY_BITCOIN_URL" in without.err) == (3, True)

    # Of the node only its height is asked here: the blocks of the world are in memory.
    async with start_bitcoin_simulator(seed=7) as node:
        monkeypatch.setenv("CAUSEWAY_BITCOIN_URL", f"{node.url}#cookie={node.cookie_file}")
        early = await asyncio.to_thread(cli, *command, *people)
        assert (early.code, "could still be mined" in early.err) == (1, True), early.err
        await node.fund(world.acme, BTC, blocks=FINAL_DEPTH)
        rehearsed = await asyncio.to_thread(cli, *command, *people, "--dry-run")
        assert (rehearsed.code, await world.states(held)) == (0, {"security_hold"}), rehearsed.err
        done = await asyncio.to_thread(cli, *command, *people)

    assert done.code == 0, done.err
    assert {line["state"] for line in done.json} == {"failed_on_chain"}
    assert await world.states(held) == {"failed_on_chain"}
    await world.assert_exact()


async def test_an_address_of_bitcoin_is_not_thawed_apart_from_its_transaction(
    cli: Cli, keys: dict[str, Path], world: SpendWorld, held: list[Payout]
) -> None:
    refused = cli(
        *("custody", "thaw", held[0].sender, "--chain", "bitcoin", "--reason", "looked at"),
        *both(keys, "ada", "ben"),
    )

    assert refused.code == 1
    assert "causeway custody resume" in refused.err
    assert await world.states(held) == {PayoutState.SECURITY_HOLD}


async def test_what_a_pool_shows_has_an_id_and_a_life_that_is_explained(
    cli: Cli, world: SpendWorld
) -> None:
    world.node.submit(world.node.pay((world.acme, BTC)))
    watch = await world.run(lambda conn: watch_list(conn, CHAIN))
    await watch_coin_pool(world.engine, world.node, CHAIN, watch, now=world.clock.now())

    (seen,) = cli("custody", "pending", "--json").json
    told = cli("custody", "explain", seen["id"], "--json")

    assert told.code == 0, told.err
    assert (told.json["kind"], told.json["state"]) == ("pending arrival", "seen")
    assert cli("custody", "stops", "--json").json == []
