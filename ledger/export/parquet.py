"""A journal as a Parquet file. Needs pyarrow (the extra ``exports``); nothing else imports this.

Amounts are text, as in CSV: Parquet's largest decimal has 76 digits, DuckDB's 38, and an amount has
up to 78. A reader casts them to what the sums need, and is told if that is too small.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from ledger.export.columns import COLUMNS, row_of
from ledger.export.model import ExportEvent, ExportTransfer, Frame

GROUP_ROWS: Final = 65_536
"""Rows of one row group: what is held in memory."""

_TIME: Final = pa.timestamp("us", tz="UTC")
_TYPES: Final[dict[str, Any]] = {
    "sequence": pa.int64(),
    "scale": pa.int8(),
    "timeout_us": pa.int64(),
    "recorded_at": _TIME,
    "effective_at": _TIME,
    "day": pa.date32(),
}
_NULLABLE: Final = frozenset(
    {"pending_id", "reverses", "timeout_us", "correlation", "effective_at"}
)


def schema(frame: Frame) -> Any:
    """Return the schema; its metadata says which book this is, and up to which record."""
    facts = {
        "causeway.book": str(frame.book),
        "causeway.entity": frame.entity,
        "causeway.sequence": str(frame.sequence),
        "causeway.root": frame.root.hex(),
        "causeway.by": str(frame.by),
    }
    return pa.schema(
        [
            pa.field(name, _TYPES.get(name, pa.string()), nullable=name in _NULLABLE)
            for name in COLUMNS
        ],
        metadata=facts,
    )


class ParquetSink:
    """Writes row groups of a fixed number of transfers."""

    def __init__(self, path: Path, frame: Frame) -> None:
        self._frame = frame
        self._schema = schema(frame)
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[tuple[Any, ...]] = []

    def __enter__(self) -> Self:
        """Nothing stands before the records."""
        return self

    def write(self, records: Sequence[ExportTransfer | ExportEvent]) -> None:
        """Write some more transfers."""
        self._rows += [row_of(r, self._frame) for r in records if isinstance(r, ExportTransfer)]
        while len(self._rows) >= GROUP_ROWS:
            self._write_group()

    def _write_group(self) -> None:
        rows, self._rows = self._rows[:GROUP_ROWS], self._rows[GROUP_ROWS:]
        columns = zip(*rows, strict=True)
        arrays = [
            pa.array(column, type=field.type)
            for column, field in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_table(pa.table(arrays, schema=self._schema), row_group_size=GROUP_ROWS)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the last group and the footer."""
        if error is None and self._rows:
            self._write_group()
        self._writer.close()


def open_parquet(path: Path, frame: Frame) -> ParquetSink:
    """Open the sink of an export."""
    return ParquetSink(path, frame)
