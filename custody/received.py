"""Did what a token's contract logged really arrive? The balances before and after the block say.

A contract may log a transfer and move less (a fee), or nothing at all. Native value that a transaction
itself carries needs no second proof; everything else is held against the balance of its address, at
deposit addresses and settlement addresses alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final, TypeAlias, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain import received as by_balance
from chain.errors import BlockGone, UnreadableAnswer
from chain.follow import get_block
from chain.jsonrpc import RpcRefusal
from chain.model import Block
from chain.ports import ChainGateway
from custody import store
from custody.arrivals import Token
from custody.books import apply_plan
from custody.deposit_model import (
    REASON_LENGTH_MAX,
    Deposit,
    DepositKind,
    DepositState,
    Receipt,
    ReceiptState,
)
from custody.inclusion import load_tokens
from custody.plan import Plan
from custody.remainders import Piece, move_pieces
from kernel.db import transact
from kernel.errors import ungrouped

READS_AT_ONCE: Final = 8

A = TypeVar("A", Deposit, Receipt)
_WAITS: Final[Mapping[type[Deposit | Receipt], str]] = {
    Deposit: DepositState.CONFIRMED,
    Receipt: ReceiptState.INCLUDED,
}
"""The state in which an arrival waits for its proof."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where and in which block several arrivals of one token count together."""

    address: str
    contract: str | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What arrived of an arrival, as the chain counts; None: nobody can say, and *why*."""

    arrival_id: UUID
    amount: int | None
    why: str = ""


Groups: TypeAlias = Mapping[tuple[str, Place], Sequence[Deposit | Receipt]]
"""By hash of the block and place: all that arrived there, in its order."""


async def prove(
    engine: AsyncEngine,
    gateway: ChainGateway,
    chain: str,
    kind: type[A],
    *,
    book: int,
    tip: Block,
    now: datetime,
) -> list[Measured]:
    """Ask the balances what really arrived of a page of arrivals, and write it down.

    What arrived in pieces of a unit is moved along with it.

    Raises:
        NodeTrouble: the node cannot be relied on now.
    """
    waits = _WAITS[kind]
    waiting = await transact(
        engine, lambda conn: store.list_unproven(conn, kind, chain, waits, tip=tip.height)
    )
    if not waiting:
        return []
    measured = await measure(engine, gateway, chain, waiting)
    asked = {item.id: item.epoch for item in waiting}
    work = partial(_write, chain=chain, kind=kind, asked=asked, found=measured, book=book, now=now)
    await transact(engine, work)
    return measured


async def _write(
    conn: AsyncConnection,
    *,
    chain: str,
    kind: type[A],
    asked: Mapping[UUID, int],
    found: Sequence[Measured],
    book: int,
    now: datetime,
) -> None:
    tokens = await load_tokens(conn, chain)
    by_id = {item.arrival_id: item for item in found}
    rows: list[Deposit | Receipt] = []
    pieces: list[Piece] = []
    for item in await store.lock_arrivals(conn, kind, by_id, {_WAITS[kind]}):
        said, token = by_id[item.id], tokens.get(item.contract)
        if item.epoch != asked[item.id] or token is None:
            continue
        if said.amount is None:
            rows.append(replace(item, waiting_for=said.why))
            continue
        units, rest = token.split(said.amount)
        pieces.append(Piece(item.wallet, item.contract, rest - item.rest))
        rows.append(replace(item, received=units, received_rest=rest, waiting_for=""))
    await store.save_arrivals(conn, rows)
    plan = Plan()
    await move_pieces(conn, plan, pieces, tokens, now=now)
    await apply_plan(conn, plan, book=book, now=now)


async def measure(
    engine: AsyncEngine, gateway: ChainGateway, chain: str, arrivals: Sequence[Deposit | Receipt]
) -> list[Measured]:
    """Return what the balances say arrived of each of these arrivals, in the chain's units.

    Raises:
        NodeTrouble: the node cannot be relied on now; ask again.
    """
    blocks, groups, tokens = await transact(engine, lambda conn: _load(conn, chain, arrivals))
    seats = asyncio.Semaphore(READS_AT_ONCE)
    found: list[Measured] = []

    async def one(block: Block, place: Place, items: Sequence[Deposit | Receipt]) -> None:
        token = tokens.get(place.contract)
        if token is None:
            return
        claims = [_claimed(token, item) for item in items]
        async with seats:
            shares = await _received(gateway, block, place, claims)
        if isinstance(shares, str):
            found.extend(Measured(item.id, None, shares) for item in items)
            return
        found.extend(Measured(item.id, part) for item, part in zip(items, shares, strict=True))

    with ungrouped():
        async with asyncio.TaskGroup() as group:
            for (block_hash, place), items in groups.items():
                if block_hash in blocks:
                    group.create_task(one(blocks[block_hash], place, items))
    asked = {item.id for item in arrivals}
    return [item for item in found if item.arrival_id in asked]


def _claimed(token: Token, item: Deposit | Receipt) -> int:
    """Return what was logged, in the chain's units; it may be nobody's yet, which counts as those."""
    if isinstance(item, Deposit) and item.kind is DepositKind.QUARANTINED and item.received is None:
        return item.amount
    return token.on_the_chain(item.amount, item.remainder)


async def _load(
    conn: AsyncConnection, chain: str, arrivals: Collection[Deposit | Receipt]
) -> tuple[dict[str, Block], Groups, dict[str | None, Token]]:
    blocks: dict[str, Block] = {}
    for height in sorted({item.height for item in arrivals}):
        block = await get_block(conn, chain, height)
        if block is not None:
            blocks[block.hash] = block
    # Everything that arrived there in that block counts against the one balance.
    hashes = {item.block_hash for item in arrivals}
    beside: list[Deposit | Receipt] = [
        *await store.list_in_blocks(conn, Deposit, chain, hashes),
        *await store.list_in_blocks(conn, Receipt, chain, hashes),
    ]
    groups: dict[tuple[str, Place], list[Deposit | Receipt]] = {}
    wanted = {(item.block_hash, Place(item.address, item.contract)) for item in arrivals}
    for item in beside:
        key = (item.block_hash, Place(item.address, item.contract))
        if key in wanted:
            groups.setdefault(key, []).append(item)
    return blocks, groups, await load_tokens(conn, chain)


async def _received(
    gateway: ChainGateway, block: Block, place: Place, claims: Sequence[int]
) -> list[int] | str:
    """Return what arrived of each, or in words why that cannot be said of this token and block."""
    try:
        return await by_balance.received(
            gateway, place.address, place.contract, claims, block=block
        )
    except BlockGone:
        return f"the node has no longer the state of block {block.height}"
    except (RpcRefusal, UnreadableAnswer) as trouble:
        # One token that is paused or broken must not keep every other arrival waiting.
        return f"the token does not tell its balances: {trouble.what}"[:REASON_LENGTH_MAX]
