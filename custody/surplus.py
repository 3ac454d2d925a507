"""Coins that nothing brought: booked as nobody's, once two final blocks show them, never credited.

A node without traces does not show internal transfers, so their coins appear at an address without a
movement. What two reconciliations at different final blocks, on which the providers agree, show as
the same surplus becomes an *unattributed* deposit with the position ``delta:<height>``: Dr custody /
Cr suspense:unattributed. Two people may then say whose it is, as of any unattributed deposit.

Should the transfer itself be found later (a provider that traces), it is a deposit of its own, and
the booked surplus is reversed. What is missing is never booked: see `custody.reconciliation`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.follow import is_canonical, require_running
from chain.model import DELTA, Block, Movement, delta_position
from chain.ports import ChainGateway
from custody import arrivals, store, tables
from custody import reconciliation_store as runs
from custody.address_books import IN_THE_BOOKS, list_under_way
from custody.arrivals import Judgement
from custody.books import apply_plan
from custody.deposit_model import (
    HOLD_OPEN,
    POSTED,
    Deposit,
    DepositKind,
    DepositState,
    Observation,
    SourceClass,
)
from custody.model import Address, custody_account, unattributed_account
from custody.plan import Plan
from custody.reconciliation_model import NO_ADDRESS, Difference, DifferenceState
from custody.reversals import reverse, shut_again
from kernel.db import transact
from kernel.events import DomainEvent, next_version
from kernel.ids import canonical
from registry.queries import get_chain_asset, get_wallet

ACTOR: Final = "system:reconciliation"
UNSETTLED: Final = (DepositState.ORPHANED, DepositState.QUARANTINED)
"""Arrivals in these states may be the coins: they are waited for, not booked."""


async def list_bookable(
    engine: AsyncEngine, gateway: ChainGateway, chain: str, *, book: int
) -> list[Difference]:
    """Return the surpluses that two runs at different final blocks show, unchanged.

    Raises:
        NodeTrouble: the node cannot be relied on now; call again.
    """
    finalized = await gateway.finalized_height()
    standing = await transact(
        engine, lambda conn: runs.list_differences(conn, book=book, chain=chain)
    )
    return [item for item in standing if _is_bookable(item, finalized)]


async def book_surpluses(
    engine: AsyncEngine,
    gateway: ChainGateway,
    chain: str,
    *,
    book: int,
    now: datetime,
    bookable: Sequence[Difference] | None = None,
) -> list[Deposit]:
    """Book what two runs at different final blocks show and nothing explains; return it.

    Args:
        bookable: what `list_bookable` returned before a newer run, which is at the tip and so not
            final: booked is what that run still shows as it was. None: what is bookable now.

    Raises:
        ChainHalted: nothing is booked on a chain that people have to look at.
        NodeTrouble: the node cannot be relied on now; call again.
    """
    if bookable is None:
        bookable = await list_bookable(engine, gateway, chain, book=book)
    booked = []
    for item in bookable:
        if not await _is_agreed(gateway, item, now):
            continue
        deposit = await transact(engine, partial(_book, shown=item, now=now))
        if deposit is not None:
            booked.append(deposit)
    return booked


def _is_bookable(item: Difference, finalized: int) -> bool:
    """Tell whether a surplus stood unchanged from one final block to a later one."""
    return (
        item.state is DifferenceState.OPEN
        and item.amount > 0
        and item.address != NO_ADDRESS
        and item.first_height < item.last_height <= finalized
    )


async def _is_agreed(gateway: ChainGateway, item: Difference, now: datetime) -> bool:
    for height, block_hash in (
        (item.first_height, item.first_block),
        (item.last_height, item.last_block),
    ):
        block = Block(item.chain, height, block_hash, "", now)
        if await gateway.has_block(block) < gateway.quorum:
            return False
    return True


async def _book(conn: AsyncConnection, shown: Difference, now: datetime) -> Deposit | None:
    """Write the deposit and its hold, and close the difference; None if it does not stand now.

    Args:
        shown: the difference as two final blocks show it.
    """
    item = await runs.lock_difference(conn, shown.id)
    await require_running(conn, item.chain)
    unchanged = (item.state, item.amount, item.first_block) == (
        *(DifferenceState.OPEN, shown.amount, shown.first_block),
    )
    if not unchanged or not await _stands(conn, item, shown):
        return None
    (address,) = await store.list_addresses(conn, item.chain, only=[item.address])
    deposit = await _deposit(conn, item, address, now)
    await store.insert_arrival(conn, deposit)
    seen = Observation(deposit.id, 1, deposit.block_hash, deposit.height, now)
    await store.insert_observations(conn, [seen])
    closed = replace(
        item,
        state=DifferenceState.CLOSED,
        seen_at=now,
        detail=f"booked as deposit {deposit.id}, which is nobody's",
    )
    await runs.write_difference(conn, closed)
    wallet = await get_wallet(conn, item.wallet)
    plan = Plan()
    plan.need(custody_account(wallet.code), item.asset, owner=wallet.owner)
    plan.post(arrivals.included(deposit))
    plan.tell(
        arrivals.event(
            None, deposit, "DepositIncluded", at=now, actor=ACTOR, reason=deposit.reason
        ),
        await _closed_event(conn, closed, deposit, now),
    )
    await apply_plan(conn, plan, book=item.book, now=now)
    return deposit


async def _stands(conn: AsyncConnection, item: Difference, shown: Difference) -> bool:
    """Tell whether the blocks are on our chain and nothing since or pending explains the coins."""
    for block_hash in (shown.first_block, shown.last_block, item.last_block):
        if not await is_canonical(conn, item.chain, block_hash):
            return False
    moving = await list_under_way(conn, item.chain, item.book)
    if any(item.address in {m.address, m.destination} and m.asset == item.asset for m in moving):
        return False
    table = tables.deposit
    token = await get_chain_asset(conn, item.chain, item.asset)
    waiting = select(table.c.id).where(
        table.c.chain == item.chain,
        table.c.address == item.address,
        # What came before its token was registered names no asset.
        table.c.contract.is_not_distinct_from(token.contract),
        table.c.state.in_([str(state) for state in UNSETTLED]),
    )
    if await conn.scalar(waiting.limit(1)) is not None:
        return False
    return not await _is_found_late(conn, item, token.contract)


async def _is_found_late(conn: AsyncConnection, item: Difference, contract: str | None) -> bool:
    """Tell whether an arrival was written after the last run, in a block that the run had read."""
    table, seen = tables.deposit, tables.observation
    query = (
        select(table.c.id)
        .join(seen, (seen.c.arrival_id == table.c.id) & (seen.c.epoch == table.c.epoch))
        .where(
            table.c.chain == item.chain,
            table.c.address == item.address,
            table.c.contract.is_not_distinct_from(contract),
            table.c.height <= item.last_height,
            seen.c.observed_at > item.seen_at,
        )
    )
    return await conn.scalar(query.limit(1)) is not None


async def _deposit(
    conn: AsyncConnection, item: Difference, address: Address, now: datetime
) -> Deposit:
    token = await get_chain_asset(conn, item.chain, item.asset)
    movement = Movement(
        tx_hash=_identity(item),
        position=delta_position(item.first_height),
        sender="",
        recipient=item.address,
        contract=token.contract,
        amount=item.amount,
    )
    judged = Judgement(
        kind=DepositKind.UNATTRIBUTED,
        credit=unattributed_account(item.chain),
        asset=item.asset,
        amount=item.amount,
        reason=f"balance without a movement, at blocks {item.first_height} and {item.last_height}",
    )
    block = Block(item.chain, item.first_height, item.first_block, "", now)
    return arrivals.first_deposit(movement, block, address, judged, SourceClass.UNKNOWN)


def _identity(item: Difference) -> str:
    """Return what stands for a transaction that nobody has seen: a hash of what was."""
    parts = ("delta", item.chain, item.address, item.asset, item.first_block)
    return "0x" + hashlib.sha256(canonical(parts)).hexdigest()


async def _closed_event(
    conn: AsyncConnection, item: Difference, deposit: Deposit, now: datetime
) -> DomainEvent:
    return DomainEvent(
        entity_type="difference",
        entity_id=item.id,
        version=await next_version(conn, "difference", item.id),
        name="DifferenceBooked",
        at=now,
        actor=ACTOR,
        reason=item.detail,
        from_state=DifferenceState.OPEN,
        to_state=item.state,
        payload={"deposit": str(deposit.id), "amount": str(item.amount), "address": item.address},
    )


# What turns out to be something else.


async def reverse_explained(
    conn: AsyncConnection, chain: str, *, book: int, now: datetime
) -> list[Deposit]:
    """Reverse every booked surplus whose transfers have been found since; return them as they were.

    Found are arrivals at the same address, of the same asset, in a block at or below the surplus's,
    that were written after it; they must add up to it exactly.
    """
    undone = []
    for delta, booked_at in await _booked(conn, chain):
        if await _found_since(conn, delta, booked_at) == delta.amount:
            undone.append(await store.get_arrival(conn, Deposit, delta.id, lock=True))
    if not undone:
        return []
    plan = Plan()
    for item in undone:
        if item.state in HOLD_OPEN:
            gone = arrivals.moved(item, DepositState.ORPHANED)
            await store.save_arrival(conn, gone)
            plan.post(arrivals.orphaned(item))
            plan.tell(
                arrivals.event(item, gone, "DepositOrphaned", at=now, actor=ACTOR, reason=_WHY)
            )
    posted = [item for item in undone if item.state in POSTED]
    shut = await reverse(conn, plan, posted, book=book, now=now)
    await apply_plan(conn, plan, book=book, now=now)
    await shut_again(conn, shut, book=book, now=now)
    return undone


_WHY: Final = "the transfers behind this surplus have been seen since"


async def _booked(conn: AsyncConnection, chain: str) -> list[tuple[Row[Any], datetime]]:
    """Return the surpluses that the books count, and when each was written."""
    table, seen = tables.deposit, tables.observation
    rows = await conn.execute(
        select(table, seen.c.observed_at)
        .join(seen, (seen.c.arrival_id == table.c.id) & (seen.c.epoch == table.c.epoch))
        .where(
            table.c.chain == chain,
            table.c.position.startswith(DELTA),
            table.c.state.in_([str(state) for state in IN_THE_BOOKS]),
        )
        .order_by(table.c.height, table.c.id)
    )
    return [(row, row.observed_at) for row in rows]


async def begin_anew(conn: AsyncConnection, chain: str, address: str, *, now: datetime) -> None:
    """Close what stands open at an address whose books change now: it may be what is booked.

    The rows stay locked, so no surplus is booked beside it; the next run finds what is left.
    """
    for item in await runs.list_differences_at(conn, chain, address):
        closed = replace(
            item,
            state=DifferenceState.CLOSED,
            seen_at=now,
            detail="an arrival was let into the books: counted anew by the next run",
        )
        await runs.write_difference(conn, closed)


async def find_booked(conn: AsyncConnection, deposit: Deposit) -> UUID | None:
    """Return a surplus in the books that counts the coins of an arrival that is not in them."""
    table = tables.deposit
    query = select(table.c.id).where(
        table.c.chain == deposit.chain,
        table.c.address == deposit.address,
        table.c.contract.is_not_distinct_from(deposit.contract),
        table.c.height >= deposit.height,
        table.c.position.startswith(DELTA),
        table.c.state.in_([str(state) for state in IN_THE_BOOKS]),
    )
    found: UUID | None = await conn.scalar(query.limit(1))
    return found


async def _found_since(conn: AsyncConnection, delta: Row[Any], booked_at: datetime) -> int:
    table, seen = tables.deposit, tables.observation
    rows = await conn.execute(
        select(table.c.amount)
        .join(seen, (seen.c.arrival_id == table.c.id) & (seen.c.epoch == table.c.epoch))
        .where(
            table.c.chain == delta.chain,
            table.c.address == delta.address,
            table.c.asset == delta.asset,
            table.c.height <= delta.height,
            table.c.position.not_like(f"{DELTA}%"),
            table.c.state.in_([str(state) for state in IN_THE_BOOKS]),
            seen.c.observed_at > booked_at,
        )
    )
    return sum(int(row.amount) for row in rows)
