"""The benchmarks by name. A name is a group and a question: ``ledger.posting``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from bench import ledger_posting, marketdata_book
from bench.measure import Measured

BENCHMARKS: Final[Mapping[str, Callable[[], Measured]]] = {
    "ledger.posting": ledger_posting.measure,
    "marketdata.book": marketdata_book.measure,
}
