"""The full path with real processes: our EVM simulator, and the signer behind its socket."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.evm.addresses import address_from_node
from chain.evm.gateway import EvmGateway
from chain.simulators.testing import (
    JsonRpc,
    deploy_test_dollar,
    dev_account,
    sign_transaction,
    start_evm_process,
    transfer_token,
)
from custody.payout_model import PayoutState
from custody.signer.client import SignerClient
from custody.signer.testing import SEED, rules_for, write_signer_files
from kernel.clock import ManualClock, SystemClock
from registry.testing import DEMO_OPERATORS, demo_founding
from tests.custody.payout_world import ETH, OPENING, PAYEE, USDT, RealWorld, found_house

REPOSITORY = Path(__file__).parents[2]


@contextmanager
def signer_process(folder: Path, token: str) -> Iterator[SignerClient]:
    founding = demo_founding(token=token)
    rules = rules_for(founding.chains, founding.chain_assets, DEMO_OPERATORS)
    files = write_signer_files(folder, rules, seed=SEED, random=secrets.token_bytes)
    socket = folder / "signer"
    command = [sys.executable, "-m", "custody.signer", *files.options]
    with subprocess.Popen(
        [*command, "--socket", str(socket), "--parent-pipe"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["ready"]
        yield SignerClient(socket)
        child.stdin.close()
        assert child.wait(20) == 0


async def fund(rpc: JsonRpc, world: RealWorld) -> None:
    """Send the opening balances from accounts that are not ours, before the books begin."""
    for number, (debit, _, amount, asset) in enumerate(OPENING):
        to = world.hot[debit.removeprefix("custody:")]
        if asset == "ETH":
            giver = dev_account(number)
            raw = sign_transaction(giver, 0, to=to, value=amount)
        else:
            giver = dev_account(9)
            nonce = await rpc.number("eth_getTransactionCount", giver.address, "pending")
            raw = transfer_token(giver, nonce, world.token, to=to, amount=amount)
        await rpc.wait_receipt(await rpc.call("eth_sendRawTransaction", raw))


async def test_payouts_are_paid_through_a_real_node_and_a_real_signer(engine: AsyncEngine) -> None:
    with start_evm_process() as process, tempfile.TemporaryDirectory(prefix="cw") as folder:
        async with (
            aiohttp.ClientSession() as session,
            EvmGateway(process.url, chain="evm", network_id=31337) as gateway,
        ):
            rpc = JsonRpc(process.url, session)
            token = await deploy_test_dollar(rpc, dev_account(9), supply=10**9 * USDT)
            token = address_from_node(token)
            with signer_process(Path(folder), token) as signer:
                xpubs = [await signer.account_xpub(f"m/44'/60'/{n}'") for n in range(3)]
                world = RealWorld(
                    engine,
                    gateway,
                    signer,
                    ManualClock(SystemClock().now()),
                    token=token,
                    xpubs=tuple(xpubs),
                    rpc=rpc,
                    vault=signer,
                )
                await world.run(lambda conn: found_house(conn, world))
                await fund(rpc, world)
                await rpc.call("evm_setAutomine", False)
                world.start_height = await rpc.number("eth_blockNumber") + 1
                await pay(world)
                await reorganise(world)


async def pay(world: RealWorld) -> None:
    await world.mine()
    coins = await world.approved()
    tokens = await world.approved(
        claim="payable:birch:netted", source_wallet="house-hot", asset="USDT", amount=900 * USDT
    )
    report = await world.advance()
    assert (report.waiting, len(report.sent)) == ({}, 2)
    await world.mine()
    await world.assert_rule_two()
    await world.mine(2)
    await world.confirm()
    for payout in (coins, tokens):
        assert (await world.get(payout)).state is PayoutState.CONFIRMED
    assert world.rpc is not None
    assert await world.rpc.number("eth_getBalance", PAYEE, "latest") >= 2 * ETH


async def reorganise(world: RealWorld) -> None:
    assert world.rpc is not None
    payout = await world.approved(client_ref="w-2", asset="USDT", amount=3 * USDT)
    await world.advance()
    await world.mine()
    assert (await world.get(payout)).state is PayoutState.MINED
    await world.rpc.call("anvil_rollback", 1)
    await world.mine(2)
    await world.assert_rule_two()
    world.clock.advance(timedelta(hours=1))
    await world.advance()
    await world.mine(3)
    await world.confirm()
    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    await world.assert_rule_two()
