"""``causeway custody bump, cancel-signed``: through several providers, and rehearsed first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.simulators.testing import EvmProcess, JsonRpc, start_evm_process
from custody.payout_model import Payout, PayoutState
from tests.app.cli.conftest import Cli
from tests.custody.payout_world import ETH, World, make_world

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def node() -> Iterator[EvmProcess]:
    with start_evm_process() as process:
        yield process


@pytest.fixture
async def world(
    engine: AsyncEngine,
    environment: None,
    node: EvmProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[World]:
    """A desk whose node is reached by three providers, one of which does not answer."""
    named = f"{node.url}/?one#name=one {node.url}/?two#name=two {NOBODY}#name=three"
    monkeypatch.setenv("CAUSEWAY_EVM_URL", named)
    async with make_world(engine, tmp_path) as made:
        async with aiohttp.ClientSession() as session:
            rpc = JsonRpc(node.url, session)
            await rpc.call("anvil_setBalance", made.hot["client-pool"], hex(10 * ETH))
        yield made


@pytest.fixture
async def sent(world: World) -> Payout:
    """A payout whose bytes went out and that no block has."""
    payout = await world.approved()
    await world.advance()
    return await world.get(payout)


def both(keys: dict[str, Path], one: str, two: str) -> tuple[str, ...]:
    return (
        *("--as", one, "--key", str(keys[one])),
        *("--approver", two, "--approver-key", str(keys[two])),
    )


async def test_a_bump_is_rehearsed_and_then_made_though_one_provider_is_away(
    cli: Cli, keys: dict[str, Path], world: World, sent: Payout
) -> None:
    command = ("custody", "bump", str(sent.id), "--reason", "stuck")
    me = ("--as", "dan", "--key", str(keys["dan"]))

    rehearsed = cli(*command, *me, "--dry-run", "--json")
    assert (rehearsed.code, rehearsed.json["dry_run"]) == (0, True), rehearsed.err
    assert (await world.get(sent)).attempt == sent.attempt

    done = cli(*command, *me, "--json")
    assert done.code == 0, done.err
    assert (await world.get(sent)).attempt == sent.attempt + 1


async def test_a_cancellation_is_rehearsed_and_then_made_though_one_provider_is_away(
    cli: Cli, keys: dict[str, Path], world: World, sent: Payout
) -> None:
    command = ("custody", "cancel-signed", str(sent.id), "--reason", "to the wrong person")
    people, before = both(keys, "ada", "ben"), await world.books()

    rehearsed = cli(*command, *people, "--dry-run", "--json")
    assert (rehearsed.code, rehearsed.json["state"]) == (0, "cancelling"), rehearsed.err
    assert await world.get(sent) == sent
    assert await world.books() == before

    done = cli(*command, *people, "--json")
    assert (done.code, done.json["state"]) == (0, "cancelling"), done.err
    assert (await world.get(sent)).state is PayoutState.CANCELLING


async def test_one_person_rehearses_no_cancellation(
    cli: Cli, keys: dict[str, Path], sent: Payout
) -> None:
    people = both(keys, "ada", "ada")

    refused = cli("custody", "cancel-signed", str(sent.id), "--reason", "x", *people, "--dry-run")

    assert refused.code == 1
    assert "Traceback" not in refused.err
