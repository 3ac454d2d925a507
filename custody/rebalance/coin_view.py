"""Gathering what a plan is made from on a chain of coins (Bitcoin): the books, and what blocks cost.

The coins are rows that are exact at the cursor, and a reconciliation of their own compares them with
the node; so a plan asks the node for prices alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.fees import OVERHEAD_WEIGHT, fee_of
from chain.bitcoin.model import RateSource
from chain.bitcoin.ports import BitcoinReader
from chain.follow import require_running
from chain.model import Block
from custody.address_books import UnderWay, list_under_way
from custody.bitcoin.cold_keys import input_weight
from custody.bitcoin.consolidation import OUTPUT_WEIGHT
from custody.bitcoin.spend_plan import CHANGE_MIN, Market, SpendPolicy, count_brought
from custody.bitcoin.spend_steps import list_free_coins
from custody.rebalance.model import (
    CoinStock,
    Fees,
    OpenTransfer,
    TreasuryView,
)
from custody.rebalance.view import read_cursor, read_levels, read_wallets, to_open
from registry.queries import get_chain, get_wallet

FEES_WORTH: Final = 4
"""A transfer of less than so many times its fee is not made."""


async def look_at_coins(
    engine: AsyncEngine, node: BitcoinReader, *, chain: str, book: int
) -> tuple[TreasuryView, Block]:
    """Return what is to be seen of a chain of coins, and the block at which it is.

    Raises:
        ChainHalted: nothing is planned on a chain that people have to look at.
        NotPossible: no block was ever read.
        NodeTrouble: the node cannot be relied on now; ask again.
    """
    found = await node.fee_rate(SpendPolicy().target_blocks)
    market = Market(found.rate, await node.min_relay_rate(), await node.incremental_rate())
    async with engine.connect() as plain:
        # Cursor, balances and rows must be of one moment.
        conn = await plain.execution_options(isolation_level="REPEATABLE READ")
        async with conn.begin():
            view, free, block = await _read(conn, market, chain, book)
    # Where the node has no data, its price is a guess: nobody knows that blocks are cheap.
    known = market.asked if found.source is RateSource.NODE else None
    return replace(view, rate=known, coins=free), block


async def _read(
    conn: AsyncConnection, market: Market, chain: str, book: int
) -> tuple[TreasuryView, Mapping[str, CoinStock], Block]:
    await require_running(conn, chain)
    block = await read_cursor(conn, chain)
    native = (await get_chain(conn, chain)).native_asset
    wallets = await read_wallets(conn, chain)
    available, held = await read_levels(conn, book, wallets)
    free = {code: await list_free_coins(conn, chain, code) for code in wallets}
    weights = {code: input_weight(await get_wallet(conn, code)) for code in wallets}
    under_way = await list_under_way(conn, chain, book)
    fee = fee_of(OVERHEAD_WEIGHT + 2 * OUTPUT_WEIGHT, market.asked)
    view = TreasuryView(
        native_asset=native,
        wallets=wallets,
        available=available,
        held=held,
        hot={(code, native): count_brought(coins, market) for code, coins in free.items()},
        # What the inputs cost is taken off already.
        fees=Fees(native=fee, token=0),
        open_transfers=tuple(_to_open(item) for item in under_way),
        smallest=CHANGE_MIN + FEES_WORTH * fee,
        of_coins=True,
    )
    stocks = {
        code: CoinStock(tuple(coin.amount for coin in coins), weights[code])
        for code, coins in free.items()
    }
    return view, stocks, block


def _to_open(item: UnderWay) -> OpenTransfer:
    return replace(to_open(item), taken=item.taken)
