"""The benchmarks by name. A name is a group and a question: ``ledger_hot``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bench import (
    bitcoin_derivation,
    bitcoin_scan,
    bitcoin_selection,
    book_updates,
    day,
    desk_deals,
    desk_quote,
    desk_router,
    duckdb_day,
    evm_catchup,
    evm_deposits,
    evm_payouts,
    evm_reconcile,
    feed_frames,
    feed_latency,
    index_10_venues,
    ledger_1m,
    ledger_asof,
    ledger_batch,
    ledger_caller,
    ledger_growth,
    ledger_hot,
    ledger_verify,
    ledger_writer,
    matching_mixed,
    matching_peers,
    netting_bilateral,
    netting_cycles,
    netting_gridlock,
    orders_path,
    orders_simulator,
    recorder_queue,
    settlement_matching,
    settlement_run,
)
from bench.measure import Benchmark

BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "ledger_batch_1000": ledger_batch.measure_1000,
    "ledger_batch_8192": ledger_batch.measure_8192,
    "ledger_hot": ledger_hot.measure,
    "ledger_1m": ledger_1m.measure,
    "ledger_writer": ledger_writer.measure,
    "ledger_caller": ledger_caller.measure,
    "ledger_asof": ledger_asof.measure,
    "ledger_verify": ledger_verify.measure,
    "ledger_growth": ledger_growth.measure,
    "bitcoin_derivation": bitcoin_derivation.measure,
    "bitcoin_scan": bitcoin_scan.measure,
    "bitcoin_selection": bitcoin_selection.measure,
    "evm_catchup": evm_catchup.measure,
    "evm_deposits": evm_deposits.measure,
    "evm_payouts": evm_payouts.measure,
    "evm_reconcile": evm_reconcile.measure,
    "book_updates": book_updates.measure,
    "feed_frames": feed_frames.measure,
    "feed_latency": feed_latency.measure,
    "index_10_venues": index_10_venues.measure,
    "desk_deals": desk_deals.measure,
    "desk_quote": desk_quote.measure,
    "desk_router": desk_router.measure,
    "matching_mixed": matching_mixed.measure,
    "matching_limit_cancel": matching_peers.measure,
    "netting_bilateral": netting_bilateral.measure,
    "netting_cycles": netting_cycles.measure,
    "netting_gridlock": netting_gridlock.measure,
    "orders_simulator": orders_simulator.measure,
    "orders_path_1": orders_path.measure_1,
    "orders_path_16": orders_path.measure_16,
    "recorder_queue": recorder_queue.measure,
    "settlement_matching": settlement_matching.measure,
    "settlement_run": settlement_run.measure,
    "duckdb_day": duckdb_day.measure,
    "day": day.measure,
}

LONG: Final = frozenset({"day", "ledger_growth"})
"""Run by their full name only: they take longer than a group may."""


def find(name: str) -> list[str]:
    """Return the benchmark of that name, else those whose names begin so."""
    if name in BENCHMARKS:
        return [name]
    return [known for known in BENCHMARKS if known.startswith(name) and known not in LONG]
