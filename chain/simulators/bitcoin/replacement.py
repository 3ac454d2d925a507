"""When a transaction may take the place of others, and how long its line may be. Pure.

The rules are those of a full-RBF node: a transaction need not say that it may be replaced. Sources:
BIP 125, rules 2 to 5; Bitcoin Core ``src/policy/rbf.cpp`` and ``src/txmempool.cpp``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chain.simulators.bitcoin.errors import RuleRefused
from chain.simulators.bitcoin.mempool import Mempool
from chain.simulators.bitcoin.model import Entry, Packed
from chain.simulators.bitcoin.policy import fee_at, format_money

MAX_REPLACED: Final = 100
MAX_LINE: Final = 25
MAX_LINE_SIZE: Final = 101_000
CARVE_OUT_SIZE: Final = 10_000
"""One small child more than the limit may come, so that a partner cannot fill the line alone."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many entries may hang together, the one that comes included, and their virtual bytes."""

    ancestors: int = MAX_LINE
    ancestor_size: int = MAX_LINE_SIZE
    descendants: int = MAX_LINE
    descendant_size: int = MAX_LINE_SIZE


def check_replacement(pool: Mempool, packed: Packed, fee: int, incremental_rate: int) -> list[str]:
    """Return the entries that leave for *packed*: those it conflicts with and all on them.

    Raises:
        RuleRefused: it pays too little, would replace too many, or brings a new unconfirmed input.
    """
    direct = [pool.entries[tx_id] for tx_id in pool.conflicts(packed)]
    if not direct:
        return []
    start = f"rejecting replacement {packed.tx_id}"
    _check_rate(packed, fee, direct, start)
    counted = sum(len(pool.descendants([entry.packed.tx_id])) for entry in direct)
    if counted > MAX_REPLACED:
        details = f"{start}; too many potential replacements ({counted} > {MAX_REPLACED})"
        raise RuleRefused("too many potential replacements", details)
    _check_inputs(pool, packed, direct)
    leaving = pool.descendants(entry.packed.tx_id for entry in direct)
    _check_fee(packed, fee, sum(pool.entries[one].fee for one in leaving), incremental_rate, start)
    return sorted(leaving)


def check_disjoint(pool: Mempool, packed: Packed) -> None:
    """Refuse a transaction that spends from what it would replace."""
    behind = pool.ancestors(pool.parents(packed))
    for tx_id in pool.conflicts(packed):
        if tx_id in behind:
            raise RuleRefused(
                "bad-txns-spends-conflicting-tx",
                f"{packed.tx_id} spends conflicting transaction {tx_id}",
            )


def check_line(pool: Mempool, packed: Packed) -> None:
    """Refuse a transaction with too many unconfirmed ones before it, or before those.

    Raises:
        RuleRefused: ``too-long-mempool-chain``.
    """
    limits = _limits_for(pool, packed)
    try:
        _check_limits(pool, packed, limits)
    except RuleRefused:
        if packed.virtual_size > CARVE_OUT_SIZE:
            raise
        carved = Limits(
            2,
            limits.ancestor_size,
            limits.descendants + 1,
            limits.descendant_size + CARVE_OUT_SIZE,
        )
        try:
            _check_limits(pool, packed, carved)
        except RuleRefused:
            pass
        else:
            return
        raise


def _limits_for(pool: Mempool, packed: Packed) -> Limits:
    conflicts = pool.conflicts(packed)
    if len(conflicts) != 1:
        return Limits()
    # What is replaced leaves the line: it does not count against the one that comes.
    leaving = pool.descendants(conflicts)
    size = sum(pool.entries[one].size for one in leaving)
    return Limits(descendants=MAX_LINE + 1, descendant_size=MAX_LINE_SIZE + size)


def _check_limits(pool: Mempool, packed: Packed, limits: Limits) -> None:
    refused = "too-long-mempool-chain"
    behind = pool.ancestors(pool.parents(packed))
    if len(behind) + 1 > limits.ancestors:
        details = f"too many unconfirmed ancestors [limit: {limits.ancestors}]"
        raise RuleRefused(refused, details)
    if sum(pool.entries[one].size for one in behind) + packed.virtual_size > limits.ancestor_size:
        raise RuleRefused(refused, f"exceeds ancestor size limit [limit: {limits.ancestor_size}]")
    for tx_id in sorted(behind):
        line = pool.descendants([tx_id])
        if len(line) + 1 > limits.descendants:
            details = f"too many descendants for tx {tx_id} [limit: {limits.descendants}]"
            raise RuleRefused(refused, details)
        size = sum(pool.entries[one].size for one in line)
        if size + packed.virtual_size > limits.descendant_size:
            details = (
                f"exceeds descendant size limit for tx {tx_id} [limit: {limits.descendant_size}]"
            )
            raise RuleRefused(refused, details)


def _check_rate(packed: Packed, fee: int, direct: Sequence[Entry], start: str) -> None:
    rate = fee * 1_000 // packed.virtual_size
    for entry in direct:
        if rate <= entry.rate:
            raise RuleRefused(
                "insufficient fee",
                f"{start}; new feerate {_rate(rate)} <= old feerate {_rate(entry.rate)}",
            )


def _check_inputs(pool: Mempool, packed: Packed, direct: Sequence[Entry]) -> None:
    known = {one.tx_id for entry in direct for one in entry.packed.spends}
    for index, outpoint in enumerate(packed.spends):
        if outpoint.tx_id in pool and outpoint.tx_id not in known:
            raise RuleRefused(
                "replacement-adds-unconfirmed",
                f"replacement {packed.tx_id} adds unconfirmed input, idx {index}",
            )


def _check_fee(packed: Packed, fee: int, replaced: int, incremental_rate: int, start: str) -> None:
    if fee < replaced:
        raise RuleRefused(
            "insufficient fee",
            f"{start}, less fees than conflicting txs; "
            f"{format_money(fee)} < {format_money(replaced)}",
        )
    added, least = fee - replaced, fee_at(incremental_rate, packed.virtual_size)
    if added < least:
        raise RuleRefused(
            "insufficient fee",
            f"{start}, not enough additional fees to relay; "
            f"{format_money(added)} < {format_money(least)}",
        )


def _rate(rate: int) -> str:
    whole, rest = divmod(rate, 100_000_000)
    return f"{whole}.{rest:08d} BTC/kvB"
