"""What is on its way to us: transactions in a pool, shown to people and never posted.

A pending arrival proves nothing. It becomes a deposit only through a block, and what decides that it
never will is what it needs to be mined: the nonce of its sender, on Bitcoin each output that it spends.
Once another transaction has that, it is replaced, also by one that pays us nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, Text, any_, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.ports import BitcoinReader
from chain.bitcoin.transactions import Outpoint
from chain.model import BlockContents, PendingMovement, WatchList
from chain.ports import ChainGateway, ChainReader
from custody import store
from custody.deposit_model import PENDING_STATES, PendingArrival, PendingState
from custody.tables import pending_arrival
from kernel.db import transact
from kernel.events import DomainEvent, list_history, record
from kernel.ids import derive_id
from kernel.rows import insert_rows, update_rows

ENTITY: Final = "pending_arrival"
ACTOR: Final = "system:pool"
DROPPED_AFTER: Final = timedelta(minutes=30)
"""How long no pool may show a transaction before it counts as dropped; pools forget, and hear again."""
WATCHED_MAX: Final = 2_000
"""Transactions in pools that are followed at once, at most; a flood of them is not worth more."""
PAGE_MAX: Final = 500
COUNTS_MAX: Final = 1_000
"""States and tokens counted apart, at most."""


@dataclass(frozen=True, slots=True)
class PoolReport:
    """How many arrivals were seen for the first time, replaced, and dropped."""

    seen: int = 0
    replaced: int = 0
    dropped: int = 0


async def watch_pool(
    engine: AsyncEngine, gateway: ChainGateway, chain: str, watch: WatchList, *, now: datetime
) -> PoolReport:
    """Write what the node's pool holds for us, and what became of what it held before.

    Raises:
        NodeTrouble: the node cannot be relied on now; nothing was concluded.
    """
    return await _watch(
        engine, gateway, chain, watch, lambda missing: _list_spent(gateway, missing), now=now
    )


async def watch_coin_pool(
    engine: AsyncEngine, node: BitcoinReader, chain: str, watch: WatchList, *, now: datetime
) -> PoolReport:
    """Do as `watch_pool` on a chain of outputs.

    Raises:
        NodeTrouble: the node cannot be relied on now; nothing was concluded.
    """
    return await _watch(
        engine, node, chain, watch, lambda missing: _list_conflicting(node, missing), now=now
    )


async def _watch(
    engine: AsyncEngine,
    node: ChainReader,
    chain: str,
    watch: WatchList,
    list_replaced: Callable[[Sequence[PendingArrival]], Awaitable[set[str]]],
    *,
    now: datetime,
) -> PoolReport:
    shown = (await node.pending(watch))[:WATCHED_MAX]
    waiting = await transact(engine, lambda conn: _list(conn, chain, {PendingState.SEEN}))
    hashes = {movement.tx_hash for movement in shown}
    missing = [item for item in waiting if item.tx_hash not in hashes]
    spent = await list_replaced(missing)
    replaced = {item.id for item in missing if item.tx_hash in spent}
    silent = now - DROPPED_AFTER
    dropped = {
        item.id for item in missing if item.id not in replaced and item.last_seen_at <= silent
    }

    async def write(conn: AsyncConnection) -> PoolReport:
        seen = await _see(conn, chain, shown, now)
        gone = await _move(conn, replaced, PendingState.REPLACED, now)
        lost = await _move(conn, dropped, PendingState.DROPPED, now)
        return PoolReport(seen, gone, lost)

    return await transact(engine, write)


async def list_pending(
    conn: AsyncConnection, *, chain: str | None = None, state: PendingState | None = None
) -> list[PendingArrival]:
    """Return what was seen in pools, the newest first."""
    table = pending_arrival
    query = select(table).order_by(table.c.id.desc()).limit(PAGE_MAX)
    if chain is not None:
        query = query.where(table.c.chain == chain)
    if state is not None:
        query = query.where(table.c.state == state)
    return [_pending(row) for row in await conn.execute(query)]


@dataclass(frozen=True, slots=True)
class PendingCount:
    """How much of one token is in one state; *amount* as the chain counts."""

    state: PendingState
    contract: str | None
    count: int
    amount: int
    last_seen_at: datetime


async def count_pending(conn: AsyncConnection, chain: str) -> list[PendingCount]:
    """Return how much pools show, or showed, by state and token; what still waits comes first."""
    table = pending_arrival
    rows = await conn.execute(
        select(
            table.c.state,
            table.c.contract,
            func.count().label("number"),
            func.sum(table.c.amount).label("amount"),
            func.max(table.c.last_seen_at).label("last_seen_at"),
        )
        .where(table.c.chain == chain)
        .group_by(table.c.state, table.c.contract)
        .order_by((table.c.state == PendingState.SEEN).desc(), table.c.state, table.c.contract)
        .limit(COUNTS_MAX)
    )
    return [
        PendingCount(PendingState(r.state), r.contract, r.number, int(r.amount), r.last_seen_at)
        for r in rows
    ]


async def explain_pending(conn: AsyncConnection, pending_id: UUID) -> list[DomainEvent]:
    """Return the life of a pending arrival, oldest event first."""
    return await list_history(conn, ENTITY, pending_id)


async def pending_included(
    conn: AsyncConnection, contents: BlockContents, *, now: datetime
) -> None:
    """Note that a block holds what a pool had shown; in the block's transaction."""
    hashes = {movement.tx_hash for movement in contents.movements}
    found = await _lock_by_hash(conn, contents.block.chain, hashes)
    others = [item for item in found if item.state is not PendingState.INCLUDED]
    await _write(conn, others, PendingState.INCLUDED, now)


async def pending_orphaned(
    conn: AsyncConnection, chain: str, hashes: Collection[str], *, now: datetime
) -> None:
    """Note that the block is gone, so that the transaction waits in a pool again, perhaps."""
    found = await _lock_by_hash(conn, chain, hashes)
    included = [item for item in found if item.state is PendingState.INCLUDED]
    await _write(conn, included, PendingState.SEEN, now)


async def _list_spent(gateway: ChainGateway, missing: Sequence[PendingArrival]) -> set[str]:
    """Return the transactions whose nonce another one has spent."""
    nonces = dict.fromkeys({item.sender for item in missing}, 0)
    for sender in sorted(nonces):
        nonces[sender] = await gateway.next_nonce(sender)
    over = {item.tx_hash for item in missing if item.nonce < nonces[item.sender]}
    # Its own nonce is spent by itself once it is mined, and our follower may not be there yet.
    return {key for key in sorted(over) if await gateway.find_transaction(key) is None}


async def _list_conflicting(node: BitcoinReader, missing: Sequence[PendingArrival]) -> set[str]:
    """Return the transactions of which another one has spent an input."""
    found: set[str] = set()
    for item in {item.tx_hash: item for item in missing}.values():
        # Its inputs are spent by itself once it is mined, and our follower may not be there yet.
        if await node.find_transaction(item.tx_hash) is not None:
            continue
        for tx_id, index in item.inputs:
            if await _is_taken(node, Outpoint(tx_id, index), by_other_than=item.tx_hash):
                found.add(item.tx_hash)
                break
    return found


async def _is_taken(node: BitcoinReader, outpoint: Outpoint, *, by_other_than: str) -> bool:
    spender = await node.pool_spender(outpoint)
    if spender is not None:
        return spender != by_other_than
    if await node.is_unspent(outpoint, with_pool=True):
        return False
    # Nobody in the pool spends it and it is not there: a block spent it, or it was never made.
    return await node.find_transaction(outpoint.tx_id) is not None


async def _see(
    conn: AsyncConnection, chain: str, shown: Sequence[PendingMovement], now: datetime
) -> int:
    ends = {movement.recipient for movement in shown}
    ours = {a.address: a for a in await store.list_addresses(conn, chain, only=ends)}
    known = await _lock_by_hash(conn, chain, {movement.tx_hash for movement in shown})
    by_key = {(item.tx_hash, item.recipient, item.contract): item for item in known}
    fresh: dict[tuple[str, str, str | None], PendingArrival] = {}
    for movement in shown:
        key = (movement.tx_hash, movement.recipient, movement.contract)
        if movement.recipient not in ours or movement.sender in ours or movement.amount <= 0:
            continue
        if key in by_key:
            continue
        # Two transfers of one token to one address in one transaction are shown as their sum.
        amount = movement.amount + (fresh[key].amount if key in fresh else 0)
        fresh[key] = _seen(chain, movement, amount, ours[movement.recipient].party, now)
    await insert_rows(conn, pending_arrival, [_row(item) for item in fresh.values()])
    again = [item for item in known if item.state in _BACK]
    await record(conn, [_event(None, item, now) for item in fresh.values()])
    await _write(conn, again, PendingState.SEEN, now)
    still = [item for item in known if item.state is PendingState.SEEN]
    await update_rows(conn, pending_arrival, [{"id": i.id, "last_seen_at": now} for i in still])
    return len(fresh)


_BACK: Final = frozenset({PendingState.REPLACED, PendingState.DROPPED})


def _seen(
    chain: str, movement: PendingMovement, amount: int, party: str | None, now: datetime
) -> PendingArrival:
    identity = (chain, movement.tx_hash, movement.recipient, movement.contract)
    return PendingArrival(
        id=derive_id(now, ENTITY, *identity),
        chain=chain,
        tx_hash=movement.tx_hash,
        recipient=movement.recipient,
        contract=movement.contract,
        sender=movement.sender,
        nonce=movement.nonce,
        amount=amount,
        party=party,
        state=PendingState.SEEN,
        first_seen_at=now,
        last_seen_at=now,
        inputs=movement.inputs,
    )


async def _move(
    conn: AsyncConnection, ids: Collection[UUID], to: PendingState, now: datetime
) -> int:
    if not ids:
        return 0
    query = (
        select(pending_arrival)
        .where(pending_arrival.c.id.in_(sorted(ids)))
        .where(pending_arrival.c.state == PendingState.SEEN)
        .order_by(pending_arrival.c.id)
        .with_for_update()
    )
    locked = [_pending(row) for row in await conn.execute(query)]
    await _write(conn, locked, to, now)
    return len(locked)


async def _write(
    conn: AsyncConnection, items: Sequence[PendingArrival], to: PendingState, now: datetime
) -> None:
    """Write the next state of locked rows."""
    events, rows = [], []
    for item in items:
        PENDING_STATES.require(item.state, to)
        seen = now if to is PendingState.SEEN else item.last_seen_at
        after = replace(item, state=to, version=item.version + 1, last_seen_at=seen)
        rows.append({"id": after.id, "state": to, "version": after.version, "last_seen_at": seen})
        events.append(_event(item, after, now))
    await update_rows(conn, pending_arrival, rows)
    await record(conn, events)


async def _list(
    conn: AsyncConnection, chain: str, states: Collection[PendingState]
) -> list[PendingArrival]:
    table = pending_arrival
    query = select(table).where(table.c.chain == chain, table.c.state.in_(sorted(states)))
    rows = await conn.execute(query.order_by(table.c.id).limit(WATCHED_MAX))
    return [_pending(row) for row in rows]


async def _lock_by_hash(
    conn: AsyncConnection, chain: str, hashes: Collection[str]
) -> list[PendingArrival]:
    if not hashes:
        return []
    table = pending_arrival
    named = table.c.tx_hash == any_(literal(sorted(hashes), ARRAY(Text)))
    query = select(table).where(table.c.chain == chain, named)
    rows = await conn.execute(query.order_by(table.c.id).with_for_update())
    return [_pending(row) for row in rows]


def _event(before: PendingArrival | None, after: PendingArrival, now: datetime) -> DomainEvent:
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=after.id,
        version=after.version,
        name=f"Arrival{after.state.capitalize()}",
        at=now,
        actor=ACTOR,
        from_state=None if before is None else str(before.state),
        to_state=str(after.state),
        payload={
            "chain": after.chain,
            "tx_hash": after.tx_hash,
            "recipient": after.recipient,
            "contract": after.contract,
            "amount": str(after.amount),
            "party": after.party,
        },
    )


def _row(item: PendingArrival) -> dict[str, Any]:
    values = {f.name: getattr(item, f.name) for f in fields(PendingArrival)}
    return values | {"inputs": [f"{tx_id}:{index}" for tx_id, index in item.inputs]}


def _pending(row: Row[Any]) -> PendingArrival:
    values = dict(row._mapping)  # noqa: SLF001  the public name of a row's mapping
    inputs = tuple((text.partition(":")[0], int(text.partition(":")[2])) for text in row.inputs)
    return PendingArrival(**values | {"state": PendingState(row.state), "inputs": inputs})
