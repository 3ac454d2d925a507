"""Deposits on a real bitcoind: new coins, forks, double spends, and the scan of what is unspent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.gateway import BitcoinGateway
from chain.bitcoin.networks import REGTEST
from chain.simulators.bitcoind import COOKIE, Bitcoind
from custody.bitcoin.coin_model import COINBASE_MATURITY
from custody.bitcoin.scan_reconciliation import reconcile_coins
from custody.bitcoin.testing import CHAIN, POOL
from custody.model import client_account
from custody.reconciliation_model import Run
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post
from ledger.testing import enforce_lock_order
from tests.custody.bitcoin.coin_house import BOOK, COIN, CoinHouse

MINER = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
FEE = 20_000


@dataclass
class RealHouse(CoinHouse):
    """The house on a real node."""

    bitcoind: Bitcoind = field(kw_only=True)

    async def call(self, method: str, *params: Any) -> Any:
        return await self.bitcoind.call(method, *params)

    async def generate(self, blocks: int, to: str = MINER) -> list[str]:
        made: list[str] = await self.call("generatetoaddress", blocks, to)
        return made

    async def fund(self) -> None:
        """Give the node's own wallet coins that can be spent."""
        await self.call("createwallet", "w")
        await self.generate(1, await self.call("getnewaddress"))
        await self.generate(COINBASE_MATURITY)

    async def send(self, address: str, satoshi: int, *, spend: Any = None, fee: int = FEE) -> str:
        """Send from the wallet; return the transaction's id. *spend* names a transaction to replace."""
        if spend is None:
            inputs = [(await self.call("listunspent", 1))[0]]
            amount = inputs[0]["amount"]
        else:
            raw = await self.call("getrawtransaction", spend, 1)
            inputs = [{"txid": i["txid"], "vout": i["vout"]} for i in raw["vin"]]
            paid = (await self.call("getmempoolentry", spend))["fees"]["base"]
            amount = round(sum(out["value"] for out in raw["vout"]) + paid, 8)
        rest = round(Decimal(str(amount)) * COIN) - satoshi - fee
        outputs = [
            {address: str(Decimal(satoshi) / COIN)},
            {await self.call("getnewaddress"): str(Decimal(rest) / COIN)},
        ]
        plain = [{"txid": i["txid"], "vout": i["vout"]} for i in inputs]
        made = await self.call("createrawtransaction", plain, outputs, 0, True)
        signed = await self.call("signrawtransactionwithwallet", made)
        sent: str = await self.call("sendrawtransaction", signed["hex"])
        return sent

    async def reconcile(self) -> Run:
        return await reconcile_coins(self.engine, self.gateway, CHAIN, book=BOOK, now=self.now)


@pytest.fixture
async def house(engine: AsyncEngine, bitcoind: Bitcoind) -> AsyncIterator[RealHouse]:
    async with BitcoinGateway(
        bitcoind.url, chain=CHAIN, network=REGTEST, cookie=bitcoind.folder / COOKIE
    ) as gateway:
        with enforce_lock_order(engine):
            made = RealHouse(engine, reader=gateway, bitcoind=bitcoind)
            await made.open()
            await made.fund()
            yield made


async def test_a_deposit_is_credited_and_reconciled_on_a_real_node(house: RealHouse) -> None:
    await house.send(house.acme, COIN)
    await house.follow()
    assert (await house.look_at_the_pool()).seen == 1
    await house.generate(3)
    await house.catch_up()

    assert await house.states() == ["credited"]
    assert [str(item.state) for item in await house.pending()] == ["included"]
    made = await house.reconcile()
    assert made.is_clean
    assert {f.wallet: f.chain for f in made.figures}[POOL] == COIN


async def test_a_deep_fork_takes_a_credited_deposit_that_was_spent_and_the_client_owes_it(
    house: RealHouse,
) -> None:
    """A conflicting double spend of a deposit: its block is orphaned, and another spends its coin."""
    paid = await house.send(house.acme, COIN)
    (holding, *_) = await house.generate(6)
    await house.catch_up()
    assert await house.states() == ["credited"]

    async def spent(conn: AsyncConnection) -> None:
        ends = (client_account("acme"), "equity:capital")
        await ensure_accounts(conn, BOOK, {(path, "BTC") for path in ends}, now=house.now)
        line = transfer(derive_id(house.now, "spent"), *ends, 60_000_000, "BTC", code="spent")
        await post(conn, BOOK, [line], now=house.now)

    await house.do(spent)
    await house.call("invalidateblock", holding)
    # The transaction waits again; a stranger's replacement takes its coin elsewhere.
    await house.send(MINER, COIN, spend=paid, fee=10 * FEE)
    await house.generate(8)
    await house.catch_up()

    (deposit,) = await house.deposits()
    assert (str(deposit.state), deposit.shortfall) == ("reversed", 60_000_000)
    balances = await house.balances()
    assert balances["receivable:acme:reorg"] == (60_000_000, 0)
    assert "custody:btc-pool" not in balances
    assert [str(coin.state) for coin in await house.coins()] == ["orphaned"]
    assert (await house.reconcile()).is_clean


async def test_a_fork_that_mines_a_deposit_again_leaves_one_deposit(house: RealHouse) -> None:
    await house.send(house.acme, COIN)
    (holding, *_) = await house.generate(4)
    await house.catch_up()
    await house.call("invalidateblock", holding)
    # To somebody else: the very same block would be the invalid one again.
    await house.generate(6, await house.call("getnewaddress"))
    await house.catch_up()

    (deposit,) = await house.deposits()
    assert (str(deposit.state), deposit.epoch, deposit.shortfall) == ("credited", 2, 0)
    balances = await house.balances()
    assert balances["client:acme"] == balances["custody:btc-pool"] == (COIN, 0)
    assert [str(coin.state) for coin in await house.coins()] == ["unspent"]
    assert (await house.reconcile()).is_clean


async def test_an_unconfirmed_deposit_that_is_replaced_on_a_real_node_is_seen_as_replaced(
    house: RealHouse,
) -> None:
    await house.follow()
    first = await house.send(house.acme, COIN)
    assert (await house.look_at_the_pool()).seen == 1
    await house.send(MINER, COIN, spend=first, fee=10 * FEE)

    assert (await house.look_at_the_pool()).replaced == 1
    await house.generate(3)
    await house.catch_up()
    assert (await house.look_at_the_pool()).replaced == 0
    assert await house.deposits() == []
    assert [str(item.state) for item in await house.pending()] == ["replaced"]


async def test_new_coins_are_credited_at_the_block_from_which_the_node_lets_them_be_spent(
    house: RealHouse,
) -> None:
    """Maturity by the node's own consensus, held against ours block by block."""
    (holding,) = await house.generate(1, house.acme)
    (own,) = await house.generate(1, await house.call("getnewaddress"))
    coinbase = (await house.call("getblock", own, 1))["tx"][0]
    plain = [{"txid": coinbase, "vout": 0}]
    made = await house.call("createrawtransaction", plain, [{MINER: "1"}])
    raw = (await house.call("signrawtransactionwithwallet", made))["hex"]

    await house.generate(COINBASE_MATURITY - 2)
    await house.catch_up()
    assert await house.states() == ["credited"]
    (verdict,) = await house.call("testmempoolaccept", [raw], 0)
    assert verdict["reject-reason"] == "bad-txns-premature-spend-of-coinbase"
    (deposit,) = await house.deposits()
    assert deposit.block_hash == holding
    assert await house.spendable() == [deposit.amount]

    await house.generate(1)
    (verdict,) = await house.call("testmempoolaccept", [raw], 0)
    assert verdict["allowed"]
