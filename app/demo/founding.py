"""Chapter 1: the house is founded, its wallets are made, its capital arrives."""

from __future__ import annotations

import hashlib
from typing import Final

from app.demo.stage import BOOK, Stage
from app.workers.watcher import Watcher
from chain.bitcoin.networks import REGTEST
from chain.evm.gateway import EvmGateway
from chain.model import FollowPolicy
from custody.attribution import attribution_bytes
from custody.attributions import attribute
from custody.bitcoin.testing import BTC, with_bitcoin
from custody.bitcoin.testing import CHAIN as BITCOIN_CHAIN
from custody.compliance.address_list import AddressList
from custody.control_messages import AssetRule
from custody.deposit_model import Deposit, DepositState
from custody.deposits import list_deposits
from custody.model import AddressPurpose
from custody.payout_control import approve_policy, draft_policy, policy_bytes, propose_policy
from custody.payout_model import PayoutRequest
from custody.policy import ConfirmationPolicy, Requirement
from custody.policy_model import PolicyDocument, PolicyRule
from custody.signer.client import SignerClient
from custody.signer.rules import Rules
from ledger.posting import open_book
from registry.changes import found
from registry.testing import (
    DEMO_OPERATORS,
    ENTITY,
    ETH,
    EVM,
    USDT,
    demo_founding,
    operator_keypair,
)

ISSUER: Final = 0
TREASURY_ABROAD: Final = 9
"""The outside wallet from which the owners pay in the desk's capital."""

BLOCKED: Final = "0x00000000000000000000000000000000DeaDBeef"
"""A sender on the compliance list, who does not turn up in the story."""

CLIENT_POOL: Final = "client-pool"
SETTLEMENT: Final = "house-settlement"
HOT: Final = "house-hot"
TOKEN_SUPPLY: Final = 10_000_000 * 10**6
DEPTH: Final = 3
CONFIRMATIONS: Final = Requirement(DEPTH)


async def open_the_house(stage: Stage) -> SignerClient:
    """Found the registry, open the book, start the signer and wire the watcher; return the signer."""
    world, clock = stage.world, stage.clock
    token = await world.outsiders.deploy_token(
        ISSUER, name="Test Dollar", symbol="USDT", supply=TOKEN_SUPPLY
    )
    stage.note("an issuer outside deploys a token of 6 decimals", token)
    rules = signer_rules(world.outsiders.chain_id, token)
    signer = await world.start_signer(rules, house_seed(world.seed))
    xpubs = [await signer.account_xpub(f"m/44'/60'/{index}'") for index in range(3)]
    founding = demo_founding(token=token, network_id=world.outsiders.chain_id, xpubs=xpubs)
    if world.bitcoin is not None:
        paths = [f"m/84'/1'/{index}'" for index in range(3)]
        founding = with_bitcoin(founding, xpubs=[await signer.account_xpub(path) for path in paths])
    await stage.do(lambda conn: found(conn, founding, now=clock.now()))
    await stage.do(lambda conn: open_book(conn, BOOK, entity=ENTITY.code))
    stage.assets = {asset.code: asset for asset in founding.assets}
    stage.note(
        f"{ENTITY.name} is founded: {len(founding.operators)} operators, "
        f"{len(founding.wallets)} wallets, book {BOOK}",
        "keys are in the signer process only; the desk holds account xpubs",
    )
    await _approval_policy(stage)
    await _wire(stage, signer)
    return signer


async def pay_in_capital(stage: Stage) -> None:
    """Bring in the desk's own money: on chain, seen and attributed by two people; at the venue."""
    out = stage.world.outsiders
    hot = await stage.address(HOT, AddressPurpose.HOT)
    client_hot = await stage.address(CLIENT_POOL, AddressPurpose.HOT)
    await out.send_token(ISSUER, out.address(TREASURY_ABROAD), 1_000_000 * 10**6)
    await out.send_ether(TREASURY_ABROAD, hot, stage.units("60 ETH"))
    await out.mine()
    await out.send_token(TREASURY_ABROAD, hot, stage.units("100000 USDT"))
    await stage.mine_and_follow()
    for _ in range(DEPTH):
        await stage.mine_and_follow()
    for deposit in await stage.do(
        lambda conn: list_deposits(conn, chain=EVM, state=DepositState.UNATTRIBUTED)
    ):
        await attribute_capital(stage, deposit)
    true_up = await stage.payout(
        PayoutRequest(
            client_ref="true-up-1",
            claim=f"own:{CLIENT_POOL}",
            source_wallet=HOT,
            asset="ETH",
            amount=stage.units("8 ETH"),
            destination=client_hot,
            requested_by="ada",
            reason="house coins into the client pool before any client is credited by book",
        ),
        "ben",
    )
    stage.note(
        "8 ETH of the house move to the client pool, as an own transfer", f"payout {true_up.id}"
    )


def house_seed(seed: int) -> bytes:
    """Return the seed of the house's keys: the same number gives the same keys."""
    return hashlib.sha512(f"causeway demo seed {seed}".encode()).digest()


def signer_rules(chain_id: int, token: str) -> Rules:
    """Return what the signer is told by its own operators: chains, people, limits."""
    return Rules(
        version=1,
        chains={EVM: chain_id, BITCOIN_CHAIN: REGTEST.network_id},
        operators={o.code: o.public_key.hex() for o in DEMO_OPERATORS},
        fee_cap_max=str(ETH.parse("0.1")),
        assets=[
            AssetRule(
                chain_id=chain_id,
                asset="ETH",
                contract=None,
                amount_max=str(ETH.parse("50")),
                approvals=1,
            ),
            AssetRule(
                chain_id=chain_id,
                asset="USDT",
                contract=token,
                amount_max=str(USDT.parse("250000")),
                approvals=1,
            ),
            AssetRule(
                chain_id=REGTEST.network_id,
                asset=BTC.code,
                contract=None,
                amount_max=str(BTC.parse("2")),
                approvals=1,
            ),
        ],
    )


async def _approval_policy(stage: Stage) -> None:
    now = stage.clock.now()
    document = PolicyDocument(rules=(PolicyRule(approvals=1),))
    draft = await stage.do(lambda conn: draft_policy(conn, document, by="ada", now=now))
    by_ada, by_ben = (operator_keypair(code).sign(policy_bytes(draft)) for code in ("ada", "ben"))
    policy = await stage.do(
        lambda conn: propose_policy(conn, document, by="ada", signature=by_ada, now=now)
    )
    await stage.do(
        lambda conn: approve_policy(conn, policy.version, by="ben", signature=by_ben, now=now)
    )
    stage.note("approval policy 1: every payout needs one approver besides whoever asked for it")


async def _wire(stage: Stage, signer: SignerClient) -> None:
    world = stage.world
    gateway = EvmGateway(world.evm_url, chain=EVM, network_id=world.outsiders.chain_id)
    await gateway.chain_id()
    start = await world.outsiders.height()
    stage.wire(
        gateway,
        Watcher(
            engine=world.engine,
            gateway=gateway,
            signer=signer,
            clock=stage.clock,
            chain=EVM,
            book=BOOK,
            policy=ConfirmationPolicy.uniform(DEPTH),
            payout_requirement=CONFIRMATIONS,
            screening=AddressList.blocking(1, {BLOCKED}),
            follow_policy=FollowPolicy(start_height=start),
        ),
    )
    await stage.watcher.turn()


async def attribute_capital(stage: Stage, deposit: Deposit) -> None:
    """Let two people say that a deposit of nobody's is the owners'."""
    credit, reason = "equity:capital", "paid in by the owners"
    payload = attribution_bytes(deposit, credit, reason)
    await stage.do(
        lambda conn: attribute(
            conn,
            deposit.id,
            credit=credit,
            reason=reason,
            first="ada",
            first_signature=operator_keypair("ada").sign(payload),
            second="cleo",
            second_signature=operator_keypair("cleo").sign(payload),
            book=BOOK,
            now=stage.clock.now(),
        )
    )
    stage.note(
        f"{stage.money(deposit.amount, deposit.asset)} from a stranger are attributed to capital "
        "by two people",
        deposit.tx_hash,
    )
