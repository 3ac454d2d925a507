"""A house wallet whose key lives in a token, through the whole machine, on real nodes."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pkcs11
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.evm.addresses import address_from_node, address_of_public_key
from chain.evm.gateway import EvmGateway
from chain.simulators.testing import deploy_test_dollar, dev_account, sign_transaction
from custody.addresses import assign_address
from custody.key_retirement import retire_key, retirement_bytes
from custody.model import AddressPurpose
from custody.payout_model import Payout, PayoutState
from custody.payouts import explain
from custody.reconciliation import reconcile
from custody.reconciliation_model import Run
from custody.signer.backends.pkcs11 import TokenKeys
from custody.signer.certificates import write_house
from custody.signer.client import SignerClient
from custody.signer.hd_keys import PrivateNode
from custody.signer.keystore import seal, write_keystore
from custody.signer.testing import SEED, rules_for
from custody.token_wallets import ask_token_wallet, require_token_key
from kernel.clock import ManualClock, SystemClock
from registry.model import Wallet, WalletPurpose
from registry.testing import DEMO_OPERATORS, change, demo_founding, operator_keypair, wallets
from tests.custody.payout_world import BOOK, ETH, PAYEE, USDT, RealWorld, found_house
from tests.custody.rebalance.treasury_world import Treasury
from tests.custody.signer.softhsm import CONFIGURATION, LABEL, make_token
from tests.custody.signer.test_token_process import House, node, running
from tests.custody.test_payout_processes import fund

SUCCESSOR = "m/44'/60'/3'"
NEXT = Wallet(
    *("vault-2", "evm", "house", WalletPurpose.HOT),
    account_xpub=PrivateNode.from_seed(SEED).derive(SUCCESSOR).xpub(),
    account_path=SUCCESSOR,
)
GAS = ETH // 100


def make_house(folder: Path, token: str) -> House:
    """Make a token with one key, a keystore with the other wallets' accounts, and rules."""
    hsm = make_token(folder)
    hsm.start_anew()
    with TokenKeys.open(hsm.module, LABEL, hsm.pin) as keys:
        sender = address_of_public_key(keys.make_key("hot"))
    pkcs11.lib(str(hsm.module)).finalize()
    kek = secrets.token_bytes(32)
    founding = demo_founding(token=token)
    public = PrivateNode.from_seed(SEED).public_key.hex()
    vault = Wallet(
        *("vault", "evm", "house", WalletPurpose.HOT), token_key="hot", token_public_key=public
    )
    rules = rules_for(
        founding.chains,
        founding.chain_assets,
        DEMO_OPERATORS,
        wallets=(*wallets(), vault, NEXT),
    )
    for name, content in (("kek", kek.hex().encode()), ("rules", msgspec.json.encode(rules))):
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(content)
    sealed = seal(SEED, kek, key_id="next", random=secrets.token_bytes, accounts=[0, 1, 2, 3])
    write_keystore(folder / "keystore", sealed)
    tls = write_house(folder, "127.0.0.1", SystemClock().now())
    return House(folder, hsm, tls, sender, kek)


@asynccontextmanager
async def desk(kind: str, engine: AsyncEngine, folder: Path) -> AsyncIterator[RealWorld]:
    """A funded house before a real node and a real signer, with the token's wallet approved."""
    async with (
        node(kind) as rpc,
        EvmGateway(rpc.url, chain="evm", network_id=31_337) as gateway,
    ):
        token = address_from_node(
            await deploy_test_dollar(rpc, dev_account(9), supply=10**9 * USDT)
        )
        house = make_house(folder, token)
        async with running(house, [], "--init") as signer:
            world = RealWorld(
                *(engine, gateway, signer, ManualClock(SystemClock().now())),
                token=token,
                rpc=rpc,
                vault=signer,
            )
            await world.run(lambda conn: found_house(conn, world))
            await add_wallets(world, signer)
            assert world.hot["vault"] == house.sender
            await fund(rpc, world)
            await rpc.call("evm_setAutomine", False)
            world.start_height = await rpc.number("eth_blockNumber") + 1
            await world.mine()
            yield world


async def add_wallets(world: RealWorld, signer: SignerClient) -> None:
    now = world.clock.now()
    vault = await ask_token_wallet(
        signer, "vault", chain="evm", owner="house", purpose=WalletPurpose.HOT, label="hot"
    )
    # Whoever approves asks the signer again.
    address = await require_token_key(signer, vault)

    async def add(conn: AsyncConnection) -> None:
        for wallet in (vault, NEXT):
            await change(conn, wallet, now=now)
            given = await assign_address(conn, wallet.code, purpose=AddressPurpose.HOT, now=now)
            world.hot[wallet.code] = given.address

    await world.run(add)
    assert world.hot["vault"] == address


async def carried_out(world: RealWorld, *payouts: Payout) -> list[PayoutState]:
    """Sign, send, mine and confirm; return where each payout is then."""
    await world.advance()
    await world.mine(3)
    await world.confirm()
    await world.assert_rule_two()
    return [(await world.get(payout)).state for payout in payouts]


async def agreed(world: RealWorld) -> Run:
    """Reconcile every wallet; nothing differs."""
    run = await reconcile(world.engine, world.gateway, "evm", book=BOOK, now=world.clock.now())
    assert [(item.wallet, item.asset) for item in run.figures if item.difference] == []
    assert run.items == ()
    return run


@pytest.mark.parametrize("kind", ["simulator", "anvil"])
async def test_a_wallet_of_a_token_is_paid_swept_into_pays_and_is_retired(
    kind: str, engine: AsyncEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIGURATION, str(tmp_path / "softhsm2.conf"))
    async with desk(kind, engine, tmp_path) as world:
        await receive(world)
        await sweep_into(world)
        await pay(world)
        await retire(world)


async def receive(world: RealWorld) -> None:
    """A stranger's coins on the wallet's address are its coins, and nobody's claim."""
    assert world.rpc is not None
    giver = dev_account(5)
    raw = sign_transaction(giver, 0, to=world.hot["vault"], value=ETH)
    await world.rpc.call("eth_sendRawTransaction", raw)
    await world.mine(3)
    await Treasury(world).credit()
    await world.assert_rule_two()
    assert (await world.books())["custody:vault", "ETH"] == (ETH, 0, 0)
    assert (await world.books())["suspense:unattributed:evm", "ETH"] == (ETH, 0, 0)
    await agreed(world)


async def sweep_into(world: RealWorld) -> None:
    own = {
        "claim": "own:vault",
        "source_wallet": "house-hot",
        "destination": world.hot["vault"],
    }
    moves = [
        await world.approved(client_ref="sweep-1", asset="USDT", amount=900 * USDT, **own),
        await world.approved(client_ref="sweep-2", amount=3 * ETH, **own),
    ]
    assert await carried_out(world, *moves) == [PayoutState.CONFIRMED] * 2
    books = await world.books()
    assert books["custody:vault", "ETH"] == (4 * ETH, 0, 0)
    assert books["custody:vault", "USDT"] == (900 * USDT, 0, 0)
    await agreed(world)


async def pay(world: RealWorld) -> None:
    payout = await world.approved(
        client_ref="pay",
        claim="payable:birch:netted",
        source_wallet="vault",
        asset="USDT",
        amount=600 * USDT,
    )
    assert (payout.sender, payout.sender_path) == (world.hot["vault"], "hot")
    assert await carried_out(world, payout) == [PayoutState.CONFIRMED]
    assert (await world.books())["custody:vault", "USDT"] == (300 * USDT, 0, 0)
    head = await world.gateway.head()
    assert await world.gateway.balance(PAYEE, world.token, at=head) == 600 * USDT
    await agreed(world)


async def retire(world: RealWorld) -> None:
    await world.run(lambda conn: _retired(conn, world))
    refused = await world.approved(
        client_ref="late",
        claim="payable:birch:netted",
        source_wallet="vault",
        asset="USDT",
        amount=100 * USDT,
    )
    assert await carried_out(world, refused) == [PayoutState.REJECTED]
    own = {"source_wallet": "vault", "claim": "own:vault-2", "destination": world.hot["vault-2"]}
    moves = [
        await world.approved(client_ref="out-1", asset="USDT", amount=300 * USDT, **own),
        await world.approved(client_ref="out-2", amount=4 * ETH - GAS, **own),
    ]
    assert await carried_out(world, *moves) == [PayoutState.CONFIRMED] * 2
    story = await world.run(lambda conn: explain(conn, refused.id))
    assert any("key at hot is retired" in moment.what for moment in story.timeline)
    books = await world.books()
    assert ("custody:vault", "USDT") not in books
    assert books["custody:vault-2", "USDT"] == (300 * USDT, 0, 0)
    # From the successor payouts go on.
    payout = await world.approved(
        client_ref="next",
        claim="payable:birch:netted",
        source_wallet="vault-2",
        asset="USDT",
        amount=300 * USDT,
    )
    assert await carried_out(world, payout) == [PayoutState.CONFIRMED]
    await agreed(world)


async def _retired(conn: AsyncConnection, world: RealWorld) -> None:
    payload = retirement_bytes("hot", SUCCESSOR, "on its day")
    signatures = {code: operator_keypair(code).sign(payload) for code in ("ada", "ben")}
    await retire_key(
        conn,
        "hot",
        SUCCESSOR,
        signatures=signatures,
        reason="on its day",
        now=world.clock.now(),
    )
