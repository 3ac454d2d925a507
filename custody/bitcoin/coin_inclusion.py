"""What a block did to the coins that are ours; called in the transaction of each block.

The table of coins follows the two facts of the chain, the making and the spending of an output, each
by the block that holds it. So whatever blocks come, vanish and come again, and also where a second
reading finds late what the first one missed, the table is what reading the chain anew would give.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.bitcoin.transactions import Outpoint
from chain.model import COINBASE, Block, BlockContents, Movement, Spend
from custody import store as addresses
from custody.bitcoin import coin_store as store
from custody.bitcoin.coin_model import OUTPUT, Coin, new_coin, settled
from custody.model import Address


async def coins_included(conn: AsyncConnection, contents: BlockContents) -> list[Coin]:
    """Write the outputs that a block made for us and those of ours that it spent; return them."""
    chain = contents.block.chain
    ends = {move.recipient for move in contents.movements}
    ends |= {move.sender for move in contents.movements}
    ends |= {spend.address for spend in contents.spends}
    if not ends:
        return []
    ours = {item.address: item for item in await addresses.list_addresses(conn, chain, only=ends)}
    touched = {key for key, _ in _made(contents, ours)}
    touched |= {_outpoint(spend) for spend in contents.spends}
    known = await store.lock_coins(conn, chain, touched)
    coins = dict(known)
    for key, movement in _made(contents, ours):
        coin = coins.get(key) or new_coin(chain, key, ours[movement.recipient], movement.amount)
        coins[key] = replace(
            coin,
            height=contents.block.height,
            block_hash=contents.block.hash,
            coinbase=movement.sender == COINBASE,
            own=movement.sender in ours,
        )
    for spend in contents.spends:
        if spend.address in ours:
            key = _outpoint(spend)
            coin = coins.get(key) or new_coin(chain, key, ours[spend.address], spend.amount)
            coins[key] = _spent(coin, spend, contents.block)
    return await _write(conn, known, coins)


async def coins_orphaned(conn: AsyncConnection, contents: BlockContents) -> list[Coin]:
    """Take back what a block did that is gone; return the coins it had made or spent."""
    block = contents.block
    known = await store.lock_coins_of_block(conn, block.chain, block.hash)
    coins = {}
    for key, coin in known.items():
        after = coin
        if coin.spent_block == block.hash:
            after = replace(after, spent_by=None, spent_height=None, spent_block=None)
        if coin.block_hash == block.hash:
            after = replace(after, height=None, block_hash=None)
        coins[key] = after
    return await _write(conn, known, coins)


def _made(
    contents: BlockContents, ours: Mapping[str, Address]
) -> Iterator[tuple[Outpoint, Movement]]:
    for movement in contents.movements:
        if movement.recipient in ours and movement.position.startswith(OUTPUT):
            index = int(movement.position.removeprefix(OUTPUT))
            yield Outpoint(movement.tx_hash, index), movement


def _outpoint(spend: Spend) -> Outpoint:
    return Outpoint(spend.spent_tx, spend.spent_index)


def _spent(coin: Coin, spend: Spend, block: Block) -> Coin:
    return replace(coin, spent_by=spend.tx_hash, spent_height=block.height, spent_block=block.hash)


async def _write(
    conn: AsyncConnection, known: Mapping[Outpoint, Coin], coins: Mapping[Outpoint, Coin]
) -> list[Coin]:
    after = {key: settled(coin) for key, coin in coins.items()}
    await store.insert_coins(conn, [coin for key, coin in after.items() if key not in known])
    await store.save_coins(conn, [coin for key, coin in after.items() if key in known])
    return list(after.values())
