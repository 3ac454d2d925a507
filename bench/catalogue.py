"""The benchmarks by name. A name is a group and a question: ``ledger_hot``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bench import (
    bitcoin_derivation,
    bitcoin_scan,
    bitcoin_selection,
    evm_catchup,
    evm_deposits,
    evm_payouts,
    evm_reconcile,
    ledger_1m,
    ledger_asof,
    ledger_batch,
    ledger_caller,
    ledger_growth,
    ledger_hot,
    ledger_verify,
    ledger_writer,
    marketdata_book,
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
    "marketdata_book": marketdata_book.measure,
}

LONG: Final = frozenset({"ledger_growth"})
"""Run by their full name only: they take longer than a group may."""


def find(name: str) -> list[str]:
    """Return the benchmark of that name, else those whose names begin so."""
    if name in BENCHMARKS:
        return [name]
    return [known for known in BENCHMARKS if known.startswith(name) and known not in LONG]
