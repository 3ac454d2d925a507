"""Which block may be confirmed against: the highest of our books that a quorum has by hash.

Following a chain decides what the books say; agreement decides what may be *relied on*. The books
may follow a block that only some providers have; nothing is confirmed against it until a quorum
has it. A quorum that has a block has all blocks below it, so the highest common one is found by
steps that double and then halve.

Nothing is asked of a provider inside a transaction. A dispute that lasts longer than `PATIENCE` is
recorded as an event once, and its end as well; the row remembers it across restarts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.agreement_store import (
    AgreementRow,
    ensure_agreement,
    load_agreement,
    write_agreement,
)
from chain.disputes import Agreement, News, Survey, weigh
from chain.model import Block
from chain.ports import ChainReader
from chain.store import load_canonical
from kernel.db import transact
from kernel.events import DomainEvent, next_version, record

PATIENCE: Final = timedelta(seconds=60)
"""Longer than two blocks found at once, or a slow provider, ever take on a healthy chain."""
DEPTH_MAX: Final = 1_024
"""How far below the books a common block is looked for."""
ACTOR: Final = "system:agreement"


async def agreed_tip(
    engine: AsyncEngine,
    gateway: ChainReader,
    chain: str,
    cursor: Block,
    now: datetime,
    *,
    patience: timedelta = PATIENCE,
) -> Block | None:
    """Return the highest canonical block at or below *cursor* that a quorum has by hash.

    Nothing may be confirmed against any other block; None means against none at all.

    Raises:
        NodeTrouble: the providers cannot be asked now; nothing was concluded.
    """
    search = _Search(engine, gateway, chain)
    heads = await gateway.heads()
    holders = await gateway.has_block(cursor)
    tip = cursor if holders >= gateway.quorum else await search.below(cursor)
    survey = Survey(cursor, heads, holders, tip)

    async def work(conn: AsyncConnection) -> None:
        await _take(conn, chain, survey, now, patience)

    await transact(engine, work)
    return tip


async def get_agreement(conn: AsyncConnection, chain: str) -> Agreement:
    """Return how it stood between the chain's providers when they were asked last."""
    row = await load_agreement(conn, chain)
    return Agreement() if row is None else row.agreement


@dataclass(frozen=True, slots=True)
class _Search:
    engine: AsyncEngine
    gateway: ChainReader
    chain: str

    async def below(self, cursor: Block) -> Block | None:
        """Return the highest block below *cursor* that a quorum has."""
        bad, good = cursor.height, None
        step = 1
        while bad > 0 and cursor.height - bad < DEPTH_MAX:
            height = max(0, cursor.height - step)
            good = await self._agreed_at(height)
            if good is not None:
                break
            bad, step = height, step * 2
        if good is None:
            return None
        while bad - good.height > 1:
            middle = (bad + good.height) // 2
            found = await self._agreed_at(middle)
            if found is None:
                bad = middle
            else:
                good = found
        return good

    async def _agreed_at(self, height: int) -> Block | None:
        async def work(conn: AsyncConnection) -> Block | None:
            return await load_canonical(conn, self.chain, height)

        block = await transact(self.engine, work)
        if block is None or await self.gateway.has_block(block) < self.gateway.quorum:
            return None
        return block


async def _take(
    conn: AsyncConnection, chain: str, survey: Survey, now: datetime, patience: timedelta
) -> None:
    """Write how it stands, and an event when it is news."""
    row = await load_agreement(conn, chain, lock=True)
    if row is None:
        await ensure_agreement(conn, chain, now=now)
        row = await load_agreement(conn, chain, lock=True)
    if row is None:
        raise AssertionError(f"{chain} has no row of agreement after it was made")
    after, news = weigh(survey, row.agreement, now=now, patience=patience)
    if after != row.agreement:
        await write_agreement(conn, chain, after)
    if news is not None:
        await _tell(conn, row, news, after, now)


async def _tell(
    conn: AsyncConnection, row: AgreementRow, news: News, after: Agreement, now: datetime
) -> None:
    since = row.agreement.disputed_since or now
    event = DomainEvent(
        entity_type="agreement",
        entity_id=row.id,
        version=await next_version(conn, "agreement", row.id),
        name=news,
        at=now,
        actor=ACTOR,
        reason=after.detail,
        payload={
            "chain": row.chain,
            "since": since.isoformat(),
            "tip_height": after.tip_height,
        },
    )
    await record(conn, [event])
