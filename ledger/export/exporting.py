"""Write a book's journal, up to a watermark, as a file for another program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.money import Asset
from ledger.export import journal
from ledger.export.beancount import BeancountRenderer
from ledger.export.columns import CsvRenderer
from ledger.export.files import fingerprint, whole
from ledger.export.hledger import HledgerRenderer
from ledger.export.model import (
    By,
    ExportEvent,
    ExportRefused,
    ExportSummary,
    ExportTransfer,
    Format,
    Frame,
    Renderer,
    Totals,
)

Progress = Callable[[int, int], None]
"""Called with (records written, records to write)."""

Records = Sequence[ExportTransfer | ExportEvent]

UNTIED_NAMED_MAX: Final = 20
"""Accounts that a refusal names."""


class Sink(Protocol):
    """Where the records of an export go, in the journal's order; entered before, left after."""

    def write(self, records: Records) -> None:
        """Write some more records."""
        ...


OpenSink = Callable[[Path, Frame], AbstractContextManager[Sink]]

_RENDERERS: Final[Mapping[Format, Callable[[Frame], Renderer]]] = {
    Format.BEANCOUNT: BeancountRenderer,
    Format.HLEDGER: HledgerRenderer,
    Format.CSV: CsvRenderer,
}


class TextSink:
    """Writes what a renderer says, as UTF-8."""

    def __init__(self, path: Path, renderer: Renderer) -> None:
        self._renderer = renderer
        self._file = path.open("w", encoding="utf-8", newline="")

    def __enter__(self) -> Self:
        """Write what stands before the records."""
        self._file.writelines(self._renderer.head())
        return self

    def write(self, records: Records) -> None:
        """Write some more records."""
        self._file.writelines(
            self._renderer.transfer(record)
            if isinstance(record, ExportTransfer)
            else self._renderer.event(record)
            for record in records
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what stands behind the records, if all went well."""
        with self._file:
            if error is None:
                self._file.writelines(self._renderer.tail())


def open_text(kind: Format) -> OpenSink:
    """Return what opens a sink of a text format."""
    renderer = _RENDERERS[kind]
    return lambda path, frame: TextSink(path, renderer(frame))


async def export_journal(
    engine: AsyncEngine,
    book: int,
    target: Path,
    kind: Format,
    *,
    assets: Mapping[str, Asset],
    by: By = By.EFFECTIVE,
    as_of: datetime | None = None,
    open_sink: OpenSink | None = None,
    progress: Progress = lambda _done, _all: None,
) -> ExportSummary:
    """Write a book's transfers to *target*, up to the last record or the last one by *as_of*.

    What is written is summed on the way; the file appears only if it comes to the trial balance.

    Args:
        engine: any role that may read the ledger.
        assets: the registered assets by code: their scales are the decimal places.
        by: the day under which each transfer is written.
        as_of: a recorded time, whatever *by* is: the file holds what the book knew then.
        open_sink: of a format that is not text (`ledger.export.parquet.open_parquet`).
        progress: told after each part.

    Raises:
        BookNotOpen: there is no such book.
        ExportRefused: an asset is not registered, or the journal does not come to its balances.
        BadInput: the file cannot be written.
    """
    mark = await journal.watermark(engine, book, as_of=as_of)
    frame = await journal.read_frame(engine, mark, assets, by)
    sums = _Sums()
    with whole(target) as part:
        with (open_sink or open_text(kind))(part, frame) as sink:
            async for position, records in journal.stream(engine, frame):
                sums.add(records)
                sink.write(records)
                progress(position, frame.sequence)
        sums.require(frame)
        length, digest = fingerprint(part)
    return ExportSummary(
        book=book,
        entity=frame.entity,
        format=kind,
        by=by,
        sequence=frame.sequence,
        root=frame.root.hex(),
        transfers=sums.transfers,
        accounts=len(frame.accounts),
        bytes=length,
        sha256=digest,
    )


class _Sums:
    """What the transfers come to, by account."""

    def __init__(self) -> None:
        self.transfers = 0
        self._totals: dict[int, Totals] = {}

    def add(self, records: Records) -> None:
        """Add the transfers among *records*."""
        totals, zero = self._totals, Totals()
        for item in records:
            if not isinstance(item, ExportTransfer):
                continue
            self.transfers += 1
            reserved, posted = item.reserved, item.posted
            dp, d, cp, c = totals.get(item.debit.number, zero)
            totals[item.debit.number] = Totals(dp + reserved, d + posted, cp, c)
            dp, d, cp, c = totals.get(item.credit.number, zero)
            totals[item.credit.number] = Totals(dp, d, cp + reserved, c + posted)

    def require(self, frame: Frame) -> None:
        """Refuse what does not come to the trial balance.

        Raises:
            ExportRefused: names accounts with both figures, in smallest units.
        """
        wrong = [
            f"{account.path} {account.asset}: transfers {tuple(found)}, balance {tuple(expected)}"
            for number, account in frame.accounts.items()
            if (found := self._totals.get(number, Totals())) != (expected := frame.totals[number])
        ]
        if wrong:
            raise ExportRefused(
                f"the transfers of {len(wrong)} accounts do not come to their trial balance: "
                + "; ".join(wrong[:UNTIED_NAMED_MAX]),
                remedy="Run `causeway verify`; nothing was written",
            )
