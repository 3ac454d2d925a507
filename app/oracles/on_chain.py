"""What the chain itself says of our payments and deposits: paid once, credited from blocks that stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.oracles.model import Examined, Finding, Oracle
from app.oracles.outside import ChainView
from app.oracles.snapshots import snapshot
from chain.follow import get_cursor
from chain.model import Block
from kernel.errors import CausewayError, OutsideUnavailable

QUESTIONS_MAX: Final = 5_000
"""Transactions and blocks that a chain is asked about at once, the newest first."""

# On Bitcoin a payout that was freed from one spend goes into another: whether it was paid twice is asked of
# the payout, not of the spend. That a node of Bitcoin finds no transaction says nothing: it finds one
# only while an output of it is unspent.
_ATTEMPTS: Final = """
SELECT a.tx_hash, a.kind, a.built_at, ARRAY[a.payout_id] AS payouts,
       CASE WHEN p.state = 'confirmed' AND a.tx_hash = p.tx_hash THEN p.id END AS confirmed
  FROM custody.payout_attempt a JOIN custody.payout p ON p.id = a.payout_id
 WHERE a.chain = :chain AND a.raw IS NOT NULL
UNION ALL
SELECT a.tx_id, a.kind, a.built_at,
       ARRAY(SELECT payout_id FROM custody.spend_payout sp WHERE sp.spend_id = a.spend_id), NULL
  FROM custody.spend_attempt a
 WHERE a.chain = :chain AND a.raw IS NOT NULL
 ORDER BY built_at DESC
 LIMIT :most
"""
_BLOCKS: Final = """
SELECT height, block_hash, min(where_) AS example, count(*) AS arrivals FROM (
    SELECT height, block_hash, 'custody.deposit ' || id AS where_ FROM custody.deposit
     WHERE chain = :chain AND state IN ('credited', 'held', 'refunding', 'refunded', 'dust',
                                        'unattributed', 'attributed', 'arrived')
    UNION ALL
    SELECT height, block_hash, 'custody.receipt ' || id FROM custody.receipt
     WHERE chain = :chain AND state IN ('final', 'matched')
) arrived
 GROUP BY height, block_hash
 ORDER BY height DESC
 LIMIT :most
"""


async def ask_chains(
    engine: AsyncEngine, chains: Sequence[ChainView], oracle: Oracle, *, most: int = QUESTIONS_MAX
) -> Examined:
    """Ask each chain about its payments that have signed bytes, and the blocks that were credited from.

    A chain that does not answer, or is not yet where our cursor is, is unknown; so is what lies beyond
    the newest *most* transactions and blocks.
    """
    examined, findings, unknown = 0, list[Finding](), list[str]()
    for view in chains:
        try:
            count, found, left = await _ask(engine, view, oracle, most)
        except CausewayError as error:
            unknown.append(f"{view.chain}: {error}")
            continue
        examined += count
        findings += found
        unknown += left
    return Examined(oracle, examined, tuple(findings), tuple(unknown))


async def _ask(
    engine: AsyncEngine, view: ChainView, oracle: Oracle, most: int
) -> tuple[int, list[Finding], list[str]]:
    values = {"chain": view.chain, "most": most}

    async def read(conn: AsyncConnection) -> tuple[Block | None, list[Row[Any]], list[Row[Any]]]:
        cursor = await get_cursor(conn, view.chain)
        attempts = (await conn.execute(text(_ATTEMPTS), values)).all()
        blocks = (await conn.execute(text(_BLOCKS), values)).all()
        return cursor, list(attempts), list(blocks)

    cursor, attempts, blocks = await snapshot(engine, read)
    if cursor is not None and await view.block_hash(cursor.height) is None:
        raise OutsideUnavailable(
            f"the node has no block at height {cursor.height}, which was read before",
            remedy="Ask again when the node has caught up",
        )
    findings = await _payments(view, attempts, oracle)
    for row in blocks:
        now = await view.block_hash(row.height)
        if now != row.block_hash:
            findings.append(
                Finding(
                    oracle.name,
                    row.example,
                    f"{row.arrivals} arrivals are posted from block {row.block_hash} at height"
                    f" {row.height} of {view.chain}, and {now or 'no block'} stands there",
                )
            )
    left = [
        f"{view.chain}: {what} before the newest {most} were not asked about"
        for what, rows in (("transactions", attempts), ("blocks", blocks))
        if len(rows) == most
    ]
    return len(attempts) + len(blocks), findings, left


async def _payments(view: ChainView, attempts: Sequence[Row[Any]], oracle: Oracle) -> list[Finding]:
    paid: dict[UUID, list[str]] = {}
    done: set[UUID] = set()
    mined: set[UUID] = set()
    for row in attempts:
        if row.confirmed is not None:
            done.add(row.confirmed)
        outcome = await view.find_transaction(row.tx_hash)
        if outcome is None:
            continue
        mined.update(row.payouts)
        if outcome.succeeded and row.kind == "pay":
            for payout in row.payouts:
                paid.setdefault(payout, []).append(row.tx_hash)
    twice = [
        (payout, f"paid {len(hashes)} times on {view.chain}: {', '.join(hashes)}")
        for payout, hashes in sorted(paid.items())
        if len(hashes) > 1
    ]
    words = f"it is confirmed, and no transaction of it is in a block of {view.chain}"
    gone = [(payout, words) for payout in sorted(done - mined)]
    return [Finding(oracle.name, f"custody.payout {key}", what) for key, what in [*twice, *gone]]
