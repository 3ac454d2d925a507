"""The chain of coins of a simulated house: wallets on it, what strangers pay, what is paid to whom."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from random import Random
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.bitcoin.testing import ScriptedBitcoin
from chain.bitcoin.transactions import Transaction
from chain.follow import follow, get_cursor
from custody.addresses import assign_address, watch_list
from custody.bitcoin.testing import BTC, CHAIN, HOT, POOL
from custody.deposits import advance_deposits
from custody.inclusion import apply_step
from custody.model import AddressPurpose
from custody.policy import ConfirmationPolicy
from custody.testing import allow
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from tests.settlement.desk import BOOK, CONFIRMATIONS, Desk

PAYEES: Final = {
    "acme": ("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn"),
    "cedar": (
        "bcrt1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqc8gma6",
        "2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc",
    ),
}
"""Where clients are paid coins: one address of every kind."""
ELSEWHERE: Final = "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry"
"""A stranger's."""
GIVER: Final = "birch"
"""Who pays in what becomes the desk's own: it bears the fees."""
OPENING: Final = (
    ("acme", 3 * 10**8),
    ("acme", 10**8),
    ("cedar", 2 * 10**8),
    ("cedar", 5 * 10**7),
    (GIVER, 10**8),
)
"""Satoshi that are there in the morning, a coin each."""


class Coins:
    """A node of Bitcoin, the deposit addresses there, and what strangers have paid to them.

    Attributes:
        hot: an address of the house's own wallet.
        paid_in: (party, asset, satoshi) by transaction.
    """

    def __init__(self) -> None:
        self.node = ScriptedBitcoin()
        self.addresses: dict[str, str] = {}
        self.hot = ""
        self.paid_in: dict[str, tuple[str, str, int]] = {}

    def deposit(self, party: str, amount: int) -> Transaction:
        """Return a stranger's payment to a party's address; nobody has sent it yet."""
        made = self.node.pay((self.addresses[party], amount))
        self.paid_in[made.tx_id] = (party, BTC.code, amount)
        return made

    @property
    def mined(self) -> list[Transaction]:
        """Return what is on the chain now."""
        return [item for block in self.node.transactions for item in block]

    def mend(self) -> None:
        """End every fault of the node."""
        node = self.node
        node.faults.clear()
        node.lag = node.lose_broadcasts = node.refuse_broadcasts = 0
        node.rate, node.relay_rate = 5_000, 1_000


def move_fees(node: ScriptedBitcoin, random: Random) -> str:
    """Let the price of a block change; now and then nobody knows it."""
    node.rate = random.choice([1_000, 5_000, 12_000, 30_000, None])
    return f"{node.rate} sat/kvB"


async def open_coins(desk: Desk) -> Coins:
    """Found the wallets, and let the opening coins arrive and be credited."""
    coins = Coins()
    await desk.do(partial(_addresses, coins, now=desk.now))
    for party, amount in OPENING:
        coins.node.mine(coins.deposit(party, amount))
    for _ in range(CONFIRMATIONS):
        coins.node.mine()
    await _credit(desk, coins)
    await desk.do(partial(_capital, now=desk.now))
    return coins


async def _addresses(coins: Coins, conn: AsyncConnection, *, now: datetime) -> None:
    for wallet in (POOL, HOT):
        given = await assign_address(conn, wallet, purpose=AddressPurpose.HOT, now=now)
        coins.hot = given.address
    for party in sorted({party for party, _ in OPENING}):
        given = await assign_address(
            conn, POOL, purpose=AddressPurpose.DEPOSIT, party=party, now=now
        )
        coins.addresses[party] = given.address
    for party, payees in PAYEES.items():
        for payee in payees:
            await allow(conn, party, payee, now=now, chain=CHAIN)


async def _credit(desk: Desk, coins: Coins) -> None:
    await follow(
        desk.engine,
        coins.node,
        CHAIN,
        watch=lambda conn: watch_list(conn, CHAIN),
        apply=lambda conn, step: apply_step(conn, step, book=BOOK, now=desk.now),
        now=desk.now,
    )
    tip = await desk.do(lambda conn: get_cursor(conn, CHAIN))
    assert tip is not None
    await advance_deposits(
        desk.engine,
        CHAIN,
        book=BOOK,
        tip=tip,
        finalized=await coins.node.finalized_height(),
        policy=ConfirmationPolicy.uniform(CONFIRMATIONS),
        now=desk.now,
    )


async def _capital(conn: AsyncConnection, *, now: datetime) -> None:
    capital = sum(amount for party, amount in OPENING if party == GIVER)
    given = transfer(
        *(derive_id(now, "simulation", "coins"), f"client:{GIVER}", "equity:capital"),
        *(capital, BTC.code),
        code="test.capital",
    )
    await ensure_accounts(conn, BOOK, {("equity:capital", BTC.code)}, now=now)
    require_applied(await post(conn, BOOK, [given], now=now))
