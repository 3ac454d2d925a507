"""What was derived, as CSV in the layout of Tardis, which other tools read.

Layout: https://docs.tardis.dev/downloadable-csv-files/data-types (comma, line feed, microseconds since
1970 in UTC; where a venue does not say when, our own time stands in its place). An amount of a level
is absolute, 0 removes it; rows of one frame share ``local_timestamp``.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, unique
from heapq import nlargest, nsmallest
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Final

import pyarrow.parquet as pq

from kernel.errors import BadInput
from marketdata.recording.columns import BEST, BOOK_UPDATES, TRADES
from marketdata.recording.layout import (
    PARQUET_SUFFIX,
    UNFINISHED_SUFFIX,
    encoded,
    parquet_folder,
)
from marketdata.recording.model import size_text

NS_PER_US: Final = 1_000
BATCH_ROWS: Final = 16_384
_HEAD: Final = ("exchange", "symbol", "timestamp", "local_timestamp")

Cells = Sequence[str]


@unique
class TardisType(StrEnum):
    """A kind of file of Tardis that can be written."""

    TRADES = "trades"
    INCREMENTAL_BOOK = "incremental_book_L2"
    BOOK_TICKER = "book_ticker"
    """Best levels, as the venue's own stream of them says."""
    QUOTES = "quotes"
    """Best levels of the book."""
    BOOK_5 = "book_snapshot_5"
    BOOK_25 = "book_snapshot_25"


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of a Parquet file, with its numbers as decimals."""

    values: dict[str, Any]
    tick: tuple[int, int]
    unit_scale: int

    def times(self) -> Cells:
        local = self.values["received_ns"] // NS_PER_US
        said = self.values["exchange_ns"]
        return str(local if said is None else said // NS_PER_US), str(local)

    def price(self, name: str) -> str:
        ticks = self._count(name)
        return size_text(int(ticks) * self.tick[0], self.tick[1])

    def quantity(self, name: str) -> str:
        units = self.values[name]
        return self._exact(name) if units is None else size_text(units, self.unit_scale)

    def _count(self, name: str) -> int:
        ticks = self.values[name]
        return int(self._exact(name) if ticks is None else ticks)

    def _exact(self, name: str) -> str:
        return str(json.loads(self.values["exact"])[name])

    def ticks(self, name: str) -> int:
        return self._count(name)


def export(
    directory: Path,
    kind: TardisType,
    path: Path,
    *,
    venue: str,
    symbol: str,
    since_ns: int = 0,
    until_ns: int | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> int:
    """Write a file (gzipped if its name ends with ``.gz``), and return how many rows are in it.

    The file appears when it is whole.

    Args:
        directory: of the recordings.
        kind: what to write.
        path: the file; an existing one is replaced.
        venue, symbol: of whom.
        since_ns, until_ns: received at or after *since*, before *until*.
        progress: told how many rows are written, now and then.

    Raises:
        BadInput: nothing of it is derived, or it cannot be written.
    """
    shape = _SHAPES[kind]
    files = _files(directory, shape.channel, venue, symbol)
    if not files:
        raise BadInput(
            f"nothing is derived of {shape.channel} of {symbol} at {venue}",
            where=str(directory),
            remedy="Derive it: causeway marketdata replay",
        )
    rows = shape.cells(_within(files, since_ns, until_ns))
    unfinished = path.with_name(f".{path.name}{UNFINISHED_SUFFIX}")
    try:
        with _opened(unfinished, path) as stream:
            count = _write(stream, shape.columns, (venue, symbol), rows, progress)
        unfinished.replace(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {os.strerror(error.errno or 0)}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _write(
    stream: IO[str],
    columns: Cells,
    head: Cells,
    rows: Iterator[Cells],
    progress: Callable[[int], object],
) -> int:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow((*_HEAD, *columns))
    count = 0
    for cells in rows:
        writer.writerow((*head, *cells))
        count += 1
        if count % BATCH_ROWS == 0:
            progress(count)
    return count


def _opened(unfinished: Path, path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(unfinished, "wt", encoding="utf-8", newline="")
    return unfinished.open("w", encoding="utf-8", newline="")


def _files(directory: Path, channel: str, venue: str, symbol: str) -> Sequence[Path]:
    folder = parquet_folder(directory) / channel / f"venue={encoded(venue)}"
    return sorted((folder / f"symbol={encoded(symbol)}").glob(f"*{PARQUET_SUFFIX}"))


def _within(files: Sequence[Path], since_ns: int, until_ns: int | None) -> Iterator[_Row]:
    """Yield the rows of files in the order in which they came."""
    for path in files:
        with pq.ParquetFile(path) as file:
            facts = file.schema_arrow.metadata or {}
            whole, _, places = facts.get(b"causeway.tick_size", b"1").decode().partition(".")
            tick = int(whole + places), len(places)
            unit_scale = int(facts.get(b"causeway.unit_scale", b"0"))
            for batch in file.iter_batches(BATCH_ROWS):
                for values in batch.to_pylist():
                    at_ns = values["received_ns"]
                    if at_ns >= since_ns and (until_ns is None or at_ns < until_ns):
                        yield _Row(values, tick, unit_scale)


def _trades(rows: Iterator[_Row]) -> Iterator[Cells]:
    """Yield each trade once: two sessions, or a backfill with its margins, may have the same."""
    seen: set[str] = set()
    for row in rows:
        if row.values["trade_id"] in seen:
            continue
        seen.add(row.values["trade_id"])
        side = "sell" if row.values["buyer_is_maker"] else "buy"
        yield *row.times(), row.values["trade_id"], side, row.price("ticks"), row.quantity("units")


def _incremental(rows: Iterator[_Row]) -> Iterator[Cells]:
    for row in rows:
        if row.values["is_bid"] is not None:
            snapshot = "true" if row.values["is_snapshot"] else "false"
            side = "bid" if row.values["is_bid"] else "ask"
            yield *row.times(), snapshot, side, row.price("ticks"), row.quantity("units")


def _best(rows: Iterator[_Row]) -> Iterator[Cells]:
    for row in rows:
        ask = (row.quantity("ask_units"), row.price("ask_ticks"))
        bid = (row.price("bid_ticks"), row.quantity("bid_units"))
        # A side without any level has no price; 0 would be one.
        yield (
            *row.times(),
            *(ask if row.ticks("ask_ticks") else ("", "")),
            *(bid if row.ticks("bid_ticks") else ("", "")),
        )


@dataclass(slots=True)
class _Sides:
    """A book as the updates have made it: ticks to price and quantity as texts."""

    bids: dict[int, tuple[str, str]] = field(default_factory=dict)
    asks: dict[int, tuple[str, str]] = field(default_factory=dict)
    is_known: bool = False

    def take(self, row: _Row) -> None:
        if row.values["is_bid"] is None:
            return
        side = self.bids if row.values["is_bid"] else self.asks
        ticks, quantity = row.ticks("ticks"), row.quantity("units")
        if quantity == "0":
            side.pop(ticks, None)
        else:
            side[ticks] = (row.price("ticks"), quantity)

    def best(self, depth: int) -> tuple[Sequence[tuple[str, str]], Sequence[tuple[str, str]]]:
        bids = [self.bids[ticks] for ticks in nlargest(depth, self.bids)]
        asks = [self.asks[ticks] for ticks in nsmallest(depth, self.asks)]
        pad = ("", "")
        return (
            [*bids, *[pad] * (depth - len(bids))],
            [*asks, *[pad] * (depth - len(asks))],
        )


def _books(depth: int) -> Callable[[Iterator[_Row]], Iterator[Cells]]:
    """Return what makes a row of the best *depth* levels whenever they have changed."""

    def cells(rows: Iterator[_Row]) -> Iterator[Cells]:
        book, shown = _Sides(), None
        for _, one in groupby(rows, _frame_of):
            frame = list(one)
            if frame[0].values["is_snapshot"]:
                book = _Sides(is_known=True)
            for row in frame:
                book.take(row)
            best = book.best(depth)
            # Before the first snapshot nobody knows what the rest of the book was.
            if book.is_known and best != shown:
                shown = best
                yield *frame[-1].times(), *_levels(best, is_quote=depth == 1)

    return cells


def _levels(
    best: tuple[Sequence[tuple[str, str]], Sequence[tuple[str, str]]], *, is_quote: bool
) -> Iterator[str]:
    for bid, ask in zip(*best, strict=True):
        # Quotes name the amount of the ask first: ask_amount, ask_price, bid_price, bid_amount.
        yield from (*ask[::-1], *bid) if is_quote else (*ask, *bid)


def _frame_of(row: _Row) -> tuple[int, int, int, bool]:
    values = row.values
    return values["received_ns"], values["first"], values["last"], values["is_snapshot"]


@dataclass(frozen=True, slots=True)
class _Shape:
    channel: str
    columns: Cells
    cells: Callable[[Iterator[_Row]], Iterator[Cells]]


def _level_columns(depth: int) -> Cells:
    return [
        f"{side}[{level}].{what}"
        for level in range(depth)
        for side in ("asks", "bids")
        for what in ("price", "amount")
    ]


_QUOTE: Final = ("ask_amount", "ask_price", "bid_price", "bid_amount")
_SHAPES: Final = {
    TardisType.TRADES: _Shape(TRADES.channel, ("id", "side", "price", "amount"), _trades),
    TardisType.INCREMENTAL_BOOK: _Shape(
        BOOK_UPDATES.channel, ("is_snapshot", "side", "price", "amount"), _incremental
    ),
    TardisType.BOOK_TICKER: _Shape(BEST.channel, _QUOTE, _best),
    TardisType.QUOTES: _Shape(BOOK_UPDATES.channel, _QUOTE, _books(1)),
    TardisType.BOOK_5: _Shape(BOOK_UPDATES.channel, _level_columns(5), _books(5)),
    TardisType.BOOK_25: _Shape(BOOK_UPDATES.channel, _level_columns(25), _books(25)),
}
