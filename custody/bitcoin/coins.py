"""Coins of a wallet: which may be spent, and the locks that keep two payments off one coin."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import and_, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.bitcoin.transactions import Outpoint
from chain.model import Block
from custody.address_books import MOVABLE, RECEIPTS_MOVABLE
from custody.bitcoin import coin_store as store
from custody.bitcoin.coin_model import (
    COINBASE_MATURITY,
    Coin,
    CoinLock,
    CoinState,
)
from custody.bitcoin.coin_tables import coin, coin_lock
from custody.errors import NotPossible

SPENDABLE_MAX: Final = 20_000
"""Coins of one wallet that are looked at for one payment, at most: the largest."""
OWN_CONFIRMATIONS: Final = 1
"""Blocks that have to hold what our own transaction paid back to us."""

list_coins = store.list_coins
list_locks = store.list_locks
sum_unspent = store.sum_unspent


async def list_spendable(
    conn: AsyncConnection, chain: str, wallet: str, *, tip: Block, include: UUID | None = None
) -> list[Coin]:
    """Return the coins of a wallet that a new transaction may spend, the largest first.

    Spendable is what is mature, what no transaction of ours has taken, and what is the wallet's beyond
    doubt: an arrival that was credited, attributed or final by policy (what compliance holds, or what is
    nobody's yet, stays where it is), or what a transaction of ours paid back, once a block holds it.

    Args:
        tip: the block where the books are exact.
        include: a spend whose own coins are returned as well.
    """
    own = and_(coin.c.own.is_(True), coin.c.height <= tip.height + 1 - OWN_CONFIRMATIONS)
    mature = or_(coin.c.coinbase.is_(False), coin.c.height <= tip.height + 1 - COINBASE_MATURITY)
    taken = exists().where(
        coin_lock.c.chain == coin.c.chain,
        coin_lock.c.tx_id == coin.c.tx_id,
        coin_lock.c.index == coin.c.index,
        *(() if include is None else (coin_lock.c.spend_id != include,)),
    )
    query = (
        select(coin)
        .where(coin.c.chain == chain, coin.c.wallet == wallet)
        .where(coin.c.state == CoinState.UNSPENT, coin.c.height <= tip.height, mature, ~taken)
        .where(or_(own, store.belongs(MOVABLE, RECEIPTS_MOVABLE)))
        .order_by(coin.c.amount.desc(), coin.c.tx_id, coin.c.index)
        .limit(SPENDABLE_MAX)
    )
    return [store.to_coin(row) for row in await conn.execute(query)]


async def lock(
    conn: AsyncConnection,
    spend_id: UUID,
    outpoints: Collection[Outpoint],
    *,
    chain: str,
    now: datetime,
) -> list[Coin]:
    """Take coins for a transaction of ours; nobody else can until `unlock`. Taking again is no change.

    The rows of the coins are locked first, in one order, so two who want the same coin wait for each
    other and the second one is refused.

    Raises:
        NotPossible: a coin is not ours, not unspent, or another transaction has it.
    """
    if not outpoints:
        return []
    known = await store.lock_coins(conn, chain, outpoints)
    for key in sorted(outpoints):
        found = known.get(key)
        if found is None or found.state is not CoinState.UNSPENT:
            what = "not a coin of ours" if found is None else str(found.state)
            raise NotPossible(f"{key} is {what}", where=f"chain {chain}")
    wanted = [CoinLock(chain, key, spend_id) for key in sorted(outpoints)]
    standing = await store.insert_locks(conn, wanted, now=now)
    for item in standing:
        if item.spend_id != spend_id:
            raise NotPossible(
                f"{item.outpoint} is taken by spend {item.spend_id}",
                where=f"chain {chain}",
                remedy="Choose coins again",
            )
    return [known[key] for key in sorted(outpoints)]


async def unlock(
    conn: AsyncConnection, spend_id: UUID, outpoints: Collection[Outpoint] | None = None
) -> int:
    """Let go of the coins of a spend, all or these; return how many."""
    return await store.delete_locks(conn, spend_id, outpoints)
