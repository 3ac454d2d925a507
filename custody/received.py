"""Did what a token's contract logged really arrive? The balances before and after the block say.

A contract may log a transfer and move less (a fee), or nothing at all. Native value that a transaction
itself carries needs no second proof; everything else is held against the balance of its address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.errors import BlockGone, UnreadableAnswer
from chain.follow import get_block
from chain.jsonrpc import RpcRefusal
from chain.model import Block, WatchList
from chain.ports import ChainGateway
from custody import store
from custody.arrivals import Token
from custody.deposit_model import REASON_LENGTH_MAX, Deposit, DepositKind
from custody.inclusion import load_tokens
from kernel.db import transact
from kernel.errors import ungrouped

READS_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Place:
    """Where and in which block several arrivals of one token count together."""

    address: str
    contract: str | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What arrived of a deposit, as the chain counts; None: nobody can say, and *why*."""

    deposit_id: UUID
    amount: int | None
    why: str = ""


def share(claimed: Sequence[int], arrived: int) -> list[int]:
    """Return how much of each claim really arrived, the first one first; pure.

    More than all of them is not theirs: it came without a log, and reconciliation names it.
    """
    left, shares = max(0, arrived), []
    for claim in claimed:
        shares.append(min(claim, left))
        left -= shares[-1]
    return shares


async def measure(
    engine: AsyncEngine, gateway: ChainGateway, chain: str, deposits: Sequence[Deposit]
) -> list[Measured]:
    """Return what the balances say arrived of each of these deposits, in the chain's units.

    Raises:
        NodeTrouble: the node cannot be relied on now; ask again.
    """
    blocks, groups, tokens = await transact(engine, lambda conn: _load(conn, chain, deposits))
    seats = asyncio.Semaphore(READS_AT_ONCE)
    found: list[Measured] = []

    async def one(block: Block, parent: Block, place: Place, items: list[Deposit]) -> None:
        token = tokens.get(place.contract)
        if token is None:
            return
        claimed = [_claimed(token, item) for item in items]
        async with seats:
            arrived = await _arrived(gateway, block, parent, place, sum(claimed))
        if isinstance(arrived, str):
            found.extend(Measured(item.id, None, arrived) for item in items)
            return
        shares = share(claimed, arrived)
        found.extend(Measured(item.id, part) for item, part in zip(items, shares, strict=True))

    with ungrouped():
        await _all(one, blocks, groups)
    asked = {item.id for item in deposits}
    return [item for item in found if item.deposit_id in asked]


def _claimed(token: Token, item: Deposit) -> int:
    """Return what was logged, in the chain's units; it may be nobody's yet, which counts as those."""
    if item.kind is DepositKind.QUARANTINED and item.received is None:
        return item.amount
    return token.on_the_chain(item.amount, item.remainder)


async def _all(
    one: Callable[[Block, Block, Place, list[Deposit]], Coroutine[None, None, None]],
    blocks: Mapping[str, tuple[Block, Block]],
    groups: Mapping[tuple[str, Place], list[Deposit]],
) -> None:
    async with asyncio.TaskGroup() as group:
        for (block_hash, place), items in groups.items():
            ends = blocks.get(block_hash)
            if ends is not None:
                group.create_task(one(*ends, place, items))


async def _load(
    conn: AsyncConnection, chain: str, deposits: Sequence[Deposit]
) -> tuple[
    dict[str, tuple[Block, Block]],
    dict[tuple[str, Place], list[Deposit]],
    dict[str | None, Token],
]:
    blocks: dict[str, tuple[Block, Block]] = {}
    for height in sorted({item.height for item in deposits}):
        block, parent = (
            await get_block(conn, chain, height),
            await get_block(conn, chain, height - 1),
        )
        if block is not None and parent is not None:
            blocks[block.hash] = (block, parent)
    # Everything that arrived there in that block counts against the one balance.
    beside = await store.list_in_blocks(conn, chain, {item.block_hash for item in deposits})
    groups: dict[tuple[str, Place], list[Deposit]] = {}
    wanted = {(item.block_hash, Place(item.address, item.contract)) for item in deposits}
    for item in beside:
        key = (item.block_hash, Place(item.address, item.contract))
        if key in wanted:
            groups.setdefault(key, []).append(item)
    return blocks, groups, await load_tokens(conn, chain)


async def _arrived(
    gateway: ChainGateway, block: Block, parent: Block, place: Place, claimed: int
) -> int | str:
    """Return what arrived, or in words why that cannot be said of this token and block."""
    try:
        before = await gateway.balance(place.address, place.contract, at=parent)
        after = await gateway.balance(place.address, place.contract, at=block)
        if after - before == claimed:
            return claimed
        # Something may have left the address in the same block: a sweep, or gas paid from it.
        left = await _left(gateway, block, place)
    except BlockGone:
        return f"the node has no longer the state of block {block.height}"
    except (RpcRefusal, UnreadableAnswer) as trouble:
        # One token that is paused or broken must not keep every other deposit waiting.
        return f"the token does not tell its balances: {trouble.what}"[:REASON_LENGTH_MAX]
    return after - before + left


async def _left(gateway: ChainGateway, block: Block, place: Place) -> int:
    contracts = frozenset({place.contract} - {None})
    watch = WatchList(frozenset({place.address}), contracts)  # type: ignore[arg-type]  # None is taken out
    contents = await gateway.contents(block, watch)
    gone = sum(
        move.amount
        for move in contents.movements
        if move.sender == place.address and move.contract == place.contract
    )
    if place.contract is None:
        gone += sum(item.fee for item in contents.outcomes if item.sender == place.address)
    return gone
