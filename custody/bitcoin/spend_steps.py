"""What the steps of the worker on Bitcoin have in common: their bench, and their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.addresses import parse_address
from chain.bitcoin.networks import network_of
from chain.bitcoin.ports import BitcoinReader
from chain.bitcoin.transactions import Outpoint
from chain.errors import WrongChain
from chain.follow import get_cursor
from custody.addresses import assign_address
from custody.bitcoin import coins
from custody.bitcoin.coin_model import Coin
from custody.bitcoin.cold_keys import input_weight
from custody.bitcoin.spend_model import Spend, SpendAttempt, SpentCoin
from custody.bitcoin.spend_moves import ATTEMPT
from custody.bitcoin.spend_plan import Drafted, Market, SpendPolicy
from custody.errors import NotPossible
from custody.model import AddressPurpose
from custody.payout_model import AttemptState
from custody.ports import PayoutSigner
from kernel.clock import Clock
from kernel.ids import derive_id
from registry.model import Wallet
from registry.queries import get_wallet

RETRY_AFTER: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class SpendBench:
    """What the worker works with."""

    engine: AsyncEngine
    node: BitcoinReader
    signer: PayoutSigner
    clock: Clock
    policy: SpendPolicy = field(default_factory=SpendPolicy)


@dataclass(frozen=True, slots=True)
class Stopped:
    """The spend goes no further now; *reason* says why, "" when all is well.

    Attributes:
        look_again: when the worker takes it up again.
        sent: its bytes were handed over.
    """

    reason: str
    look_again: timedelta = RETRY_AFTER
    sent: bool = False


async def look_at_market(node: BitcoinReader, policy: SpendPolicy) -> Market:
    """Return what the node says of prices.

    Raises:
        NodeTrouble: it cannot be relied on now.
    """
    rate = await node.fee_rate(policy.target_blocks)
    return Market(rate.rate, await node.min_relay_rate(), await node.incremental_rate())


async def require_network(node: BitcoinReader, chain: str, network_id: int) -> None:
    """Refuse a node of another network.

    Raises:
        WrongChain: it serves another one.
    """
    served = await node.chain_id()
    if served != network_id:
        raise WrongChain(f"the node serves network {served}, {chain} is {network_id}")


async def list_free_coins(conn: AsyncConnection, chain: str, wallet: str) -> tuple[SpentCoin, ...]:
    """Return the coins of a wallet that a new transaction may spend; its sending lock is held.

    Raises:
        NotPossible: the chain has never been followed.
    """
    tip = await get_cursor(conn, chain)
    if tip is None:
        raise NotPossible(f"{chain} has not been followed yet")
    holder = await get_wallet(conn, wallet)
    found = await coins.list_spendable(conn, chain, wallet, tip=tip)
    return tuple(to_spent(coin, holder) for coin in found)


def to_spent(coin: Coin, wallet: Wallet) -> SpentCoin:
    """Return a coin of *wallet* as an attempt spends it."""
    outpoint = Outpoint(coin.tx_id, coin.index)
    path = wallet.key_path(coin.branch, coin.address_index)
    return SpentCoin(outpoint, coin.amount, coin.address, path, input_weight(wallet))


async def lock_coins(
    conn: AsyncConnection, spend: Spend, taken: Sequence[SpentCoin], now: datetime
) -> None:
    """Take the coins for the spend.

    Raises:
        NotPossible: another one has a coin of them.
    """
    keys = [coin.outpoint for coin in taken]
    await coins.lock(conn, spend.id, keys, chain=spend.chain, now=now)


async def assign_change(
    conn: AsyncConnection, wallet: str, spend_id: UUID, now: datetime
) -> tuple[str, str]:
    """Return a fresh address of the wallet for change, and its key's path."""
    given = await assign_address(
        conn, wallet, purpose=AddressPurpose.CHANGE, reference=f"spend:{spend_id}", now=now
    )
    account = (await get_wallet(conn, wallet)).account_path
    return given.address, f"{account}/{given.branch}/{given.index}"


def script_of(address: str | None, chain_id: int) -> bytes | None:
    """Return the output script of an address of ours."""
    return None if address is None else parse_address(address, network_of(chain_id))


def build_attempt(spend: Spend, number: int, drafted: Drafted, now: datetime) -> SpendAttempt:
    """Return an attempt that is not signed."""
    return SpendAttempt(
        id=derive_id(spend.created_at, ATTEMPT, spend.id, number),
        spend_id=spend.id,
        number=number,
        chain=spend.chain,
        kind=drafted.kind,
        state=AttemptState.BUILT,
        tx_id=drafted.unsigned.tx_id,
        unsigned=drafted.encoded,
        coins=drafted.coins,
        change=drafted.change,
        fee=drafted.fee,
        weight=drafted.weight,
        raw=None,
        broadcasts=0,
        last_broadcast_at=None,
        detail="",
        built_at=now,
    )
