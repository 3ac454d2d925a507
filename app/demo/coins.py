"""Chapter: Bitcoin. The same house on a chain of outputs: deposits, own change, a payment, the proof."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from app.demo.deposits import ACME
from app.demo.founding import CONFIRMATIONS, DEPTH, attribute_capital
from app.demo.settling import allow
from app.demo.stage import BOOK, Stage
from app.workers.bitcoin_watcher import BitcoinWatcher
from chain.bitcoin.gateway import BitcoinGateway
from chain.bitcoin.networks import REGTEST
from custody.addresses import list_addresses
from custody.bitcoin.coins import list_coins
from custody.bitcoin.scan_reconciliation import compare_coins
from custody.bitcoin.testing import BTC, CHAIN, HOT, POOL
from custody.deposit_model import Deposit, DepositState
from custody.deposits import list_deposits
from custody.model import AddressPurpose
from custody.payout_model import PayoutRequest, PayoutState
from custody.pending import list_pending
from custody.policy import ConfirmationPolicy
from custody.ports import ControlledSigner
from custody.reconciliation_model import Reconciled
from kernel.errors import OutsideUnavailable

OUTSIDE: Final = "bcrt1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqc8gma6"
"""A wallet of acme's own, of a kind that the house itself does not use (taproot)."""
TURNS_MAX: Final = 12


async def open_bitcoin(stage: Stage, signer: ControlledSigner) -> None:
    """Wire the watcher of the chain, if there is one in this world."""
    node = stage.world.bitcoin
    if node is None:
        return
    gateway = BitcoinGateway(node.url, chain=CHAIN, network=REGTEST, cookie=node.cookie_file)
    await gateway.chain_id()
    stage.wire_bitcoin(
        gateway,
        BitcoinWatcher(
            engine=stage.world.engine,
            node=gateway,
            signer=signer,
            clock=stage.clock,
            chain=CHAIN,
            book=BOOK,
            policy=ConfirmationPolicy.uniform(DEPTH),
            payout_requirement=CONFIRMATIONS,
        ),
    )
    await node.mine()
    await stage.bitcoin.turn()


async def move_bitcoin(stage: Stage) -> None:
    """Acme pays in and takes out BTC; the desk's own coins pay the fees."""
    if stage.world.bitcoin is None:
        stage.note("left out: libbitcoinkernel is not installed here")
        return
    hot = await stage.address(HOT, AddressPurpose.HOT)
    pool = await stage.address(POOL, AddressPurpose.HOT)
    acme = await stage.address(POOL, AddressPurpose.DEPOSIT, ACME)
    stage.note(f"acme gets the deposit address {acme}", "BIP 84, derived by two libraries")
    await stage.world.bitcoin.fund(hot, stage.units("1 BTC"), blocks=DEPTH)
    await stage.bitcoin.turn()
    for deposit in await _deposits(stage, DepositState.UNATTRIBUTED):
        await attribute_capital(stage, deposit)
    await _true_up(stage, pool)
    await _pay_in(stage, acme)
    await _take_out(stage)


async def compare(stage: Stage) -> Sequence[Reconciled]:
    """Return what ledger and node say of the Bitcoin wallets, at one block."""
    if stage.world.bitcoin is None:
        return ()
    await stage.bitcoin.follow()
    return await compare_coins(stage.world.engine, stage.bitcoin.node, CHAIN, book=BOOK)


async def _pay_in(stage: Stage, acme: str) -> None:
    node = stage.world.bitcoin
    assert node is not None
    replaced = await node.fund(acme, stage.units("0.4 BTC"), blocks=0)
    await stage.bitcoin.turn()
    seen = await stage.do(partial(list_pending, chain=CHAIN))
    stage.note(f"acme's {stage.money(seen[0].amount, BTC.code)} wait in the pool: seen, not booked")
    await node.replace(replaced)
    await stage.bitcoin.turn()
    (gone,) = await stage.do(partial(list_pending, chain=CHAIN))
    stage.note(
        f"its sender takes them back by a transaction that pays us nothing: {gone.state}, "
        "and nothing was ever credited",
        replaced,
    )
    paid = await node.fund(acme, stage.units("0.5 BTC"))
    await stage.bitcoin.turn()
    await node.reorganise(1, keep=[paid])
    await stage.bitcoin.turn()
    for _ in range(DEPTH):
        await node.mine()
        await stage.bitcoin.turn()
    (deposit,) = await _deposits(stage, DepositState.CREDITED)
    stage.note(
        f"acme pays {stage.money(deposit.amount, deposit.asset)}, a fork mines it again, and it is "
        f"credited once, in its epoch {deposit.epoch}",
        f"output {deposit.position.removeprefix('vout:')} of {deposit.tx_hash}",
    )


async def _true_up(stage: Stage, pool: str) -> None:
    await _payout(
        stage,
        PayoutRequest(
            client_ref="btc-true-up-1",
            claim=f"own:{POOL}",
            source_wallet=HOT,
            asset=BTC.code,
            amount=stage.units("0.1 BTC"),
            destination=pool,
            requested_by="ada",
            reason="house coins into the client pool: fees are never paid with clients' coins",
        ),
    )
    stage.note("0.1 BTC of the house move to the client pool; the change is the house's again")


async def _take_out(stage: Stage) -> None:
    await allow(stage, ACME, OUTSIDE, chain=CHAIN)
    before = await stage.balance("expense:network-fee", BTC.code)
    await _payout(
        stage,
        PayoutRequest(
            client_ref="btc-withdrawal-1",
            claim=f"client:{ACME}",
            source_wallet=POOL,
            asset=BTC.code,
            amount=stage.units("0.2 BTC"),
            destination=OUTSIDE,
            requested_by="dan",
            reason="asked for by acme",
        ),
    )
    after = await stage.balance("expense:network-fee", BTC.code)
    ours = await stage.do(partial(list_addresses, chain=CHAIN, wallet=POOL))
    change = {item.address for item in ours if item.purpose is AddressPurpose.CHANGE}
    back = sum(
        coin.amount
        for coin in await stage.do(partial(list_coins, chain=CHAIN, wallet=POOL))
        if coin.address in change and coin.spent_by is None
    )
    stage.note(
        f"acme takes 0.2 BTC out; {stage.money(back, BTC.code)} come back as change to an "
        f"address used once, and the fee is {stage.money(after.posted - before.posted, BTC.code)}",
        f"deposits of acme: {len(await _deposits(stage, DepositState.CREDITED))}, as before",
    )


async def _payout(stage: Stage, request: PayoutRequest) -> None:
    node = stage.world.bitcoin
    assert node is not None
    payout = await stage.approve(await stage.request(request), "ben")
    await stage.bitcoin.turn()
    for _ in range(TURNS_MAX):
        if (await stage.find(payout)).state is PayoutState.CONFIRMED:
            return
        await node.mine()
        await stage.bitcoin.turn()
    found = await stage.find(payout)
    raise OutsideUnavailable(f"payout {payout.id} is {found.state} after {TURNS_MAX} blocks")


async def _deposits(stage: Stage, state: DepositState) -> list[Deposit]:
    return await stage.do(partial(list_deposits, chain=CHAIN, state=state))
