"""Chapter 2: clients pay in; one deposit is reorganised away and mined again elsewhere."""

from __future__ import annotations

from typing import Final

from app.demo.founding import CLIENT_POOL, DEPTH, ISSUER
from app.demo.stage import Stage
from custody.deposit_model import Deposit, DepositState
from custody.deposits import list_deposits, list_inclusions
from custody.model import AddressPurpose
from kernel.errors import Refused

ACME, BIRCH = "acme", "birch"
ACME_WALLET: Final = 3
BIRCH_WALLET: Final = 4
STRANGER: Final = 5


async def clients_pay_in(stage: Stage) -> None:
    """Acme deposits ETH, birch USDT; birch's block is orphaned, and its deposit credited once."""
    out = stage.world.outsiders
    acme = await stage.address(CLIENT_POOL, AddressPurpose.DEPOSIT, ACME)
    birch = await stage.address(CLIENT_POOL, AddressPurpose.DEPOSIT, BIRCH)
    stage.note(f"acme gets the deposit address {acme}", "derived by two libraries, which agree")
    stage.note(f"birch gets the deposit address {birch}")
    for wallet in (ACME_WALLET, BIRCH_WALLET, STRANGER):
        await out.send_token(ISSUER, out.address(wallet), stage.units("100000 USDT"))
    await stage.mine_and_follow()

    await out.send_ether(ACME_WALLET, acme, stage.units("2 ETH"))
    await stage.mine_and_follow(DEPTH)
    await until_credited(stage, ACME)

    sent = await out.send_token(BIRCH_WALLET, birch, stage.units("20000 USDT"))
    await stage.mine_and_follow()
    seen = await newest_deposit(stage, BIRCH)
    stage.note(
        f"birch's {stage.money(seen.amount, seen.asset)} are included: incoming, not available",
        f"block {seen.height}, {await position_in_block(stage, sent.tx_hash)}",
    )
    await out.reorganise(1)
    await stage.watcher.turn()
    balance = await stage.balance(f"client:{BIRCH}", "USDT")
    if balance.incoming or balance.posted:
        raise Refused("the orphaned deposit is still in the books")
    stage.note("the block is reorganised away, and the deposit taken back in the books")

    # Another transfer is mined before it in the same block, so its log index is another one now.
    await out.forget(sent)
    await out.send_token(STRANGER, out.address(ISSUER), 1, tip_gwei=20)
    await out.call("eth_sendRawTransaction", sent.raw)
    await stage.mine_and_follow()
    again = await newest_deposit(stage, BIRCH)
    stage.note(
        f"it is mined again: the same deposit in its epoch {again.epoch}",
        f"block {again.height}, {await position_in_block(stage, sent.tx_hash)}",
    )
    await stage.mine_and_follow(DEPTH)
    await until_credited(stage, BIRCH)
    inclusions = await stage.do(lambda conn: list_inclusions(conn, again.id))
    stage.note(
        f"credited once, after {len(inclusions)} inclusions",
        f"deposit {again.id}, position {again.position} of its receipt both times",
    )


async def newest_deposit(stage: Stage, party: str) -> Deposit:
    """Return a party's newest deposit."""
    return (await stage.do(lambda conn: list_deposits(conn, party=party)))[-1]


async def until_credited(stage: Stage, party: str) -> None:
    """Follow the chain until a party's newest deposit is credited, and say so."""

    async def credited() -> bool:
        return (await newest_deposit(stage, party)).state is DepositState.CREDITED

    await stage.until(credited, f"the credit of {party}'s deposit")
    deposit = await newest_deposit(stage, party)
    balance = await stage.balance(f"client:{party}", deposit.asset)
    stage.note(
        f"{party} is credited with {stage.money(deposit.amount, deposit.asset)}; "
        f"available {stage.money(balance.available, deposit.asset)}",
        f"confirmed at depth {DEPTH}",
    )


async def position_in_block(stage: Stage, tx_hash: str) -> str:
    """Say where in its block the transaction's first log stands."""
    receipt = await stage.world.outsiders.call("eth_getTransactionReceipt", tx_hash)
    return f"log index {int(receipt['logs'][0]['logIndex'], 16)}"
