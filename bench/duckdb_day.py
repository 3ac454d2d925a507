"""How long does a question about a day of trades take, and how fast is that day derived?

A day of a busy pair's trades is written as a deriver writes it, a file an hour. The question is the
volume-weighted price of every minute, in exact integers; once of every row, once of the view that
looks for doubles first.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

from bench.measure import Measured, Result, Shared, versions
from marketdata.events import TradeSeen
from marketdata.recording.derive import Deriver
from marketdata.recording.layout import list_parquet
from marketdata.recording.views import connect
from marketdata.testing import eth_usdt

TRADES: Final = 2_000_000
"""Of one day: what a busy pair has."""

DAY_NS: Final = 86_400 * 10**9
START_NS: Final = 1_767_571_200 * 10**9
ROUNDS: Final = 5
UNIT: Final = 10**10
QUESTION: Final = """
SELECT date_trunc('minute', received_at) AS minute,
       sum(ticks::HUGEINT * units) AS weighted, sum(units) AS units
FROM {table} WHERE venue = 'binance' AND symbol = 'ETHUSDT' GROUP BY ALL ORDER BY minute"""


def measure(shared: Shared) -> Measured:
    """Derive a day, then ask."""
    count = shared.size or TRADES
    with TemporaryDirectory(prefix="causeway-day-") as name:
        folder = Path(name)
        began = perf_counter()
        with Deriver(folder, "binance", "bench", [eth_usdt("binance")]) as deriver:
            deriver.write(_trades(count))
        derive_rate = count / (perf_counter() - began)
        files = list_parquet(folder)
        size = sum(path.stat().st_size for path in files)
        fast_ms, rows = _asked(folder, QUESTION.format(table="trades_raw"))
        once_ms, again = _asked(folder, QUESTION.format(table="trades"))
    if rows != again or len(rows) != 24 * 60:
        raise AssertionError("the two questions have different answers")
    return Measured(
        results=[
            Result(name="duckdb_day.rows", value=fast_ms, unit="ms"),
            Result(name="duckdb_day.once", value=once_ms, unit="ms"),
            Result(name="duckdb_day.derive", value=derive_rate, unit="trades/s"),
            Result(name="duckdb_day.size", value=size / count, unit="bytes/trade"),
        ],
        conditions={
            "input": f"{count:,} trades of one pair in {len(files)} files, {size / 2**20:,.0f} MiB",
            "question": "the volume-weighted price of each of 1,440 minutes, connection included",
        },
        versions=versions("duckdb", "pyarrow"),
    )


def _asked(folder: Path, question: str) -> tuple[float, list[tuple[object, ...]]]:
    """Return the median time of an answer in milliseconds, opening included, and the answer."""
    times: list[float] = []
    rows: list[tuple[object, ...]] = []
    for _ in range(ROUNDS):
        began = perf_counter()
        connection = connect(folder)
        rows = connection.execute(question).fetchall()
        times.append((perf_counter() - began) * 1000)
        connection.close()
    return median(times), rows


def _trades(count: int) -> Iterator[TradeSeen]:
    step_ns = DAY_NS // count
    for number in range(count):
        at_ns = START_NS + number * step_ns
        yield TradeSeen(
            venue="binance",
            symbol="ETHUSDT",
            trade_id=str(10**9 + number),
            ticks=300_000 + (number * 7_919) % 4_001 - 2_000,
            units=UNIT * (1 + (number * 104_729) % 500_000_000),
            buyer_is_maker=number % 3 == 0,
            exchange_ns=at_ns - 20_000_000,
            received_ns=at_ns,
        )
