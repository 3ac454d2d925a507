"""What was derived, as tables of DuckDB: read-only, with prices and quantities as exact decimals.

========== =======================================================================================
trades     each trade once, also where two recordings or a backfill have it
trades_raw every row, without looking for doubles: much faster
book_updates  one row per changed level; ``first`` and ``last`` are the venue's update ids
best, tickers
candles    the newest word on each candle
gaps       each gap once, with its end where it has one
========== =======================================================================================

``received_at`` is our own time of receipt. ``price`` and ``quantity`` are ``DECIMAL(38, 18)``; their
product has no room in DuckDB's decimals, so ``trades`` has it as ``notional``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Timer
from typing import Any, Final

import duckdb

from marketdata.recording.columns import ALL, Table
from marketdata.recording.errors import QueryRefused
from marketdata.recording.layout import parquet_folder

MEMORY_LIMIT: Final = "1GB"
ROWS_MAX: Final = 100_000
"""Rows of an answer, unless asked for more."""
TIME_MAX: Final = timedelta(minutes=5)
"""What takes longer is ended: a mistake, or a question for somebody's own copy of the files."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement gave; `is_cut`: there were more rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    is_cut: bool


def connect(
    directory: Path, *, threads: int | None = None, beside: Path | None = None
) -> duckdb.DuckDBPyConnection:
    """Return a connection that sees what is derived in *directory* now, and nothing else.

    It can read no file of the machine but those, and write none. *beside* is another folder of the
    same shape, whose files are seen with them: see `running`.
    """
    folders = [parquet_folder(one).absolute() for one in (directory, beside) if one is not None]
    config: dict[str, Any] = {
        "memory_limit": MEMORY_LIMIT,
        # What does not fit into memory is refused, not spilled into the folder we happen to be in.
        "temp_directory": "",
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    if threads is not None:
        config["threads"] = threads
    connection = duckdb.connect(":memory:", config=config)
    connection.execute("SET TimeZone = 'UTC'")
    for table in ALL:
        connection.execute(_raw_view(table, folders))
    for statement in _VIEWS:
        connection.execute(statement)
    allowed = ", ".join(_quoted(f"{folder}/") for folder in folders)
    connection.execute(f"SET allowed_directories = [{allowed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def query(
    directory: Path,
    sql: str,
    parameters: Sequence[Any] = (),
    *,
    rows_max: int = ROWS_MAX,
    time_max: timedelta = TIME_MAX,
    threads: int | None = None,
    beside: Path | None = None,
) -> Answer:
    """Run one statement that only looks, and return what it gives.

    Raises:
        QueryRefused: it is not one statement that only looks, or DuckDB cannot run it.
    """
    connection = connect(directory, threads=threads, beside=beside)
    try:
        require_look(sql)
        with _ended_after(connection, time_max):
            relation = connection.execute(sql, list(parameters))
            columns = tuple(str(one[0]) for one in relation.description or ())
            rows = relation.fetchmany(rows_max + 1)
    except duckdb.InterruptException as error:
        raise QueryRefused(f"it takes longer than {time_max}", where=sql.strip()) from error
    except duckdb.Error as error:
        raise QueryRefused(str(error).partition("\n")[0], where=sql.strip()) from error
    finally:
        connection.close()
    return Answer(columns, tuple(map(tuple, rows[:rows_max])), is_cut=len(rows) > rows_max)


@contextmanager
def _ended_after(connection: duckdb.DuckDBPyConnection, time_max: timedelta) -> Iterator[None]:
    timer = Timer(time_max.total_seconds(), connection.interrupt)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def require_look(sql: str) -> None:
    """Let only one SELECT through: what EXPLAIN ANALYZE explains is run, and may be a COPY.

    Raises:
        QueryRefused: it is something else, or DuckDB cannot read it.
    """
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryRefused(str(error).partition("\n")[0], where=sql.strip()) from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise QueryRefused(
            "only one SELECT at a time is answered",
            where=sql.strip(),
            remedy="Recordings are read-only",
        )


_DUCK_TYPES: Final = {
    "int64": "BIGINT",
    "string": "VARCHAR",
    "bool": "BOOLEAN",
    "decimal128(38, 18)": "DECIMAL(38,18)",
}


def _raw_view(table: Table, folders: Sequence[Path]) -> str:
    name = f"{table.channel}_raw"
    patterns = ", ".join(
        _quoted(str(folder / table.channel / "venue=*" / "symbol=*" / "*.parquet"))
        for folder in folders
        if any((folder / table.channel).glob("*/*/*.parquet"))
    )
    if patterns:
        return (
            f"CREATE VIEW {name} AS SELECT *, {_AT} AS received_at FROM read_parquet([{patterns}],"  # noqa: S608  names of ours, and quoted paths
            " hive_partitioning = true, hive_types_autocast = false)"
        )
    columns = ", ".join(
        f"NULL::{_DUCK_TYPES[str(field.type)]} AS {field.name}" for field in table.schema({})
    )
    empty = f"SELECT {columns}, NULL::VARCHAR AS venue, NULL::VARCHAR AS symbol"
    return f"CREATE VIEW {name} AS SELECT *, {_AT} AS received_at FROM ({empty}) WHERE false"  # noqa: S608  names of ours


def _quoted(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def _price(name: str, column: str) -> str:
    exact = f"TRY_CAST(exact ->> '{column}' AS DECIMAL(38,0)) * tick_size"
    return f"COALESCE({column}::DECIMAL(20,0) * tick_size, {exact}) AS {name}"


def _quantity(name: str, column: str) -> str:
    exact = f"TRY_CAST(exact ->> '{column}' AS DECIMAL(38,18))"
    return f"COALESCE({column}::DECIMAL(20,0) * unit_size, {exact}) AS {name}"


def _notional(name: str) -> str:
    """Return price times quantity, which two columns of 18 places each have no room for.

    Exact where 18 places are enough, rounded to them where they are not.
    """
    step = "tick_size * unit_size"
    small = f"({step})::DECIMAL(38,18)"
    plain = (
        f"CASE WHEN {small} = {step}"
        f" THEN (ticks::DECIMAL(19,0) * units::DECIMAL(19,0)) * {small} END"
    )
    price = (
        "COALESCE(ticks::DECIMAL(20,0), TRY_CAST(exact ->> 'ticks' AS DECIMAL(38,0))) * tick_size"
    )
    quantity = (
        "COALESCE(units::DECIMAL(20,0) * unit_size, TRY_CAST(exact ->> 'units' AS DECIMAL(38,18)))"
    )
    exact = (
        "CASE WHEN tick_size::DECIMAL(38,10) = tick_size"
        f" THEN (({price})::DECIMAL(38,10) * {quantity})::DECIMAL(38,18)"
        f" ELSE ({price} * ({quantity})::DECIMAL(38,10))::DECIMAL(38,18) END"
    )
    return f"COALESCE({plain}, {exact}) AS {name}"


def _view(name: str, columns: Sequence[str], *, behind: str = "") -> str:
    chosen = ", ".join(("venue", "symbol", "received_at", *columns))
    return f"CREATE VIEW {name} AS SELECT {chosen} FROM {name}_raw {behind}"  # noqa: S608  names of ours


_AT: Final = "make_timestamp_ns(received_ns)"
_STEPS: Final = ("tick_size", "unit_size", "exact")
_VIEWS: Final = (
    _view(
        "trades",
        (
            "exchange_ns",
            "received_ns",
            "trade_id",
            _price("price", "ticks"),
            _quantity("quantity", "units"),
            _notional("notional"),
            "buyer_is_maker",
            "ticks",
            "units",
            *_STEPS,
        ),
        behind="QUALIFY row_number() OVER (PARTITION BY venue, symbol, trade_id ORDER BY received_ns) = 1",
    ),
    _view(
        "book_updates",
        (
            "exchange_ns",
            "received_ns",
            "first",
            "last",
            "is_snapshot",
            "is_bid",
            _price("price", "ticks"),
            _quantity("quantity", "units"),
            "ticks",
            "units",
            *_STEPS,
        ),
    ),
    _view(
        "best",
        (
            "exchange_ns",
            "received_ns",
            "sequence",
            _price("bid_price", "bid_ticks"),
            _quantity("bid_quantity", "bid_units"),
            _price("ask_price", "ask_ticks"),
            _quantity("ask_quantity", "ask_units"),
            "bid_ticks",
            "bid_units",
            "ask_ticks",
            "ask_units",
            *_STEPS,
        ),
    ),
    _view(
        "tickers",
        (
            "exchange_ns",
            "received_ns",
            _price("last_price", "last_ticks"),
            _price("open_price", "open_ticks"),
            _price("high_price", "high_ticks"),
            _price("low_price", "low_ticks"),
            _quantity("base_quantity", "base_units"),
            *_STEPS,
        ),
    ),
    _view(
        "candles",
        (
            "exchange_ns",
            "received_ns",
            "interval_s",
            "open_ns",
            "make_timestamp_ns(open_ns) AS open_at",
            _price("open_price", "open_ticks"),
            _price("high_price", "high_ticks"),
            _price("low_price", "low_ticks"),
            _price("close_price", "close_ticks"),
            _quantity("base_quantity", "base_units"),
            "trades",
            "is_closed",
            *_STEPS,
        ),
        behind="QUALIFY row_number() OVER (PARTITION BY venue, symbol, interval_s, open_ns"
        " ORDER BY is_closed DESC, received_ns DESC, trades DESC) = 1",
    ),
    _view(
        "gaps",
        (
            "received_ns",
            "channel",
            "reason",
            "since_ns",
            "until_ns",
            "make_timestamp_ns(since_ns) AS since",
            "make_timestamp_ns(until_ns) AS until",
            "detail",
        ),
        behind="QUALIFY row_number() OVER (PARTITION BY venue, symbol, channel, reason, since_ns"
        " ORDER BY until_ns DESC NULLS LAST, received_ns DESC) = 1",
    ),
)
