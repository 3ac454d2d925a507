"""A journal as rows: the columns that CSV and Parquet share, and the text of CSV.

One row is one transfer. ``posted`` and ``reserved`` are what it does: the posted balance of an
account is the sum of ``posted`` where it is debited less the sum where it is credited; its pending
columns are the sums of ``reserved``, which is negative where a hold ends. So each account's four columns
follow from the file alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, Final

from ledger.export.model import ExportEvent, ExportTransfer, Frame, exact, stamp

COLUMNS: Final = (
    "sequence",
    "id",
    "kind",
    "flags",
    "debit",
    "credit",
    "asset",
    "scale",
    "amount",
    "posted",
    "reserved",
    "code",
    "pending_id",
    "reverses",
    "purpose",
    "timeout_us",
    "reference",
    "correlation",
    "recorded_at",
    "effective_at",
    "day",
    "metadata",
)


def row_of(item: ExportTransfer, frame: Frame) -> tuple[Any, ...]:
    """Return a transfer's cells in the order of `COLUMNS`; amounts as decimals in text.

    ``day`` is the one asked for; ``effective_at`` is None where it is when it was recorded.
    """
    scale = frame.assets[item.asset].scale
    return (
        item.sequence,
        str(item.id),
        item.kind.name.lower(),
        item.flag_words,
        item.debit.path,
        item.credit.path,
        item.asset,
        scale,
        exact(item.amount, scale),
        exact(item.posted, scale),
        exact(item.reserved, scale),
        item.code,
        None if item.pending_id is None else str(item.pending_id),
        None if item.reverses is None else str(item.reverses),
        item.purpose,
        item.timeout_us,
        item.reference,
        None if item.correlation is None else str(item.correlation),
        item.recorded_at,
        item.effective_at,
        item.at(frame.by).date(),
        item.metadata,
    )


_TIMES: Final = (COLUMNS.index("recorded_at"), COLUMNS.index("effective_at"))


class CsvRenderer:
    """CSV as RFC 4180 has it, but with a line feed alone; UTF-8; absent is an empty cell."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def head(self) -> Iterator[str]:
        """Return the column names."""
        yield csv_line(COLUMNS)

    def transfer(self, item: ExportTransfer) -> str:
        """Return a row."""
        cells = list(row_of(item, self._frame))
        for place in _TIMES:
            if cells[place] is not None:
                cells[place] = stamp(cells[place])
        return csv_line(cells)

    def event(self, item: ExportEvent) -> str:  # noqa: ARG002  the protocol's
        """Return nothing: each row is a transfer."""
        return ""

    def tail(self) -> Iterator[str]:
        """Return nothing: a row of totals would be summed by whoever sums the column."""
        yield from ()


def csv_line(cells: Any) -> str:
    """Return one line of CSV."""
    text = io.StringIO()
    # Only the characters of its own line end make the writer quote a cell, before Python 3.13.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"
