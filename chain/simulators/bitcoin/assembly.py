"""Which transactions of the pool a new block takes, and in which order. Pure.

Whole packages are compared: a transaction with everything unconfirmed that it spends from, by fee for
size. Source: Bitcoin Core ``src/node/miner.cpp`` (``addPackageTxs``) and
``CompareTxMemPoolEntryByAncestorFee`` of ``src/txmempool.h``.
"""

from __future__ import annotations

import heapq
from fractions import Fraction
from typing import Final

from chain.simulators.bitcoin.blocks import MAX_WEIGHT
from chain.simulators.bitcoin.mempool import Mempool
from chain.simulators.bitcoin.model import Entry

RESERVED_WEIGHT: Final = 8_000
"""Kept for the header and the coinbase."""

_Key = tuple[Fraction, bytes, str]


def choose(pool: Mempool, *, least_rate: int) -> list[Entry]:
    """Return entries for a block, each after those that it spends from, the best packages first.

    Args:
        least_rate: satoshi for 1,000 virtual bytes below which a package is left out.
    """
    before = {tx_id: pool.ancestors([tx_id]) for tx_id in pool.entries}
    heap = [_key(pool, tx_id, before) for tx_id in pool.entries]
    heapq.heapify(heap)
    chosen: list[Entry] = []
    done: set[str] = set()
    room = MAX_WEIGHT - RESERVED_WEIGHT
    while heap:
        key = heapq.heappop(heap)
        tx_id = key[2]
        if tx_id in done:
            continue
        now = _key(pool, tx_id, before)
        if now != key:
            heapq.heappush(heap, now)
            continue
        package = sorted(before[tx_id], key=lambda one: _place(pool, one))
        if _package_rate(pool, before[tx_id]) * 1_000 < least_rate:
            break
        weight = sum(pool.entries[one].packed.weight for one in package)
        if weight > room:
            continue
        room -= weight
        chosen.extend(pool.entries[one] for one in package)
        done.update(package)
        for later in pool.descendants(package) - done:
            before[later] -= done
            heapq.heappush(heap, _key(pool, later, before))
    return chosen


def _key(pool: Mempool, tx_id: str, before: dict[str, set[str]]) -> _Key:
    entry = pool.entries[tx_id]
    own = Fraction(entry.fee, entry.size)
    rate = min(own, _package_rate(pool, before[tx_id]))
    # Equal rates: by the bytes of the id, as they stand in a transaction.
    return -rate, bytes.fromhex(tx_id)[::-1], tx_id


def _package_rate(pool: Mempool, package: set[str]) -> Fraction:
    fee = sum(pool.entries[one].fee for one in package)
    return Fraction(fee, sum(pool.entries[one].size for one in package))


def _place(pool: Mempool, tx_id: str) -> tuple[int, bytes]:
    return len(pool.ancestors([tx_id])), bytes.fromhex(tx_id)[::-1]
