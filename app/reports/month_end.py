"""The month-end pack: every file written, the manifest over them kept, the folder given its name.

Everything is written into a folder beside the one that is asked for, which takes its name when all is
there and on record: a pack is whole or not there. What is in it is pinned to the record that closed
the period (of an open period that two people let pass, to the last one there was), so whoever builds the
same month again gets the same manifest.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.reports.standing import read_standing
from kernel.db import transact
from kernel.errors import BadInput
from kernel.money import Asset
from ledger.export.general_ledger import Batch, Period, Rule
from ledger.export.gl_exporting import export_gl
from ledger.queries import trial_balance
from marketdata.errors import SnapshotRefused
from marketdata.price_model import PriceSnapshot
from marketdata.price_snapshots import get_snapshot, month_end
from registry.model import PartyKind
from registry.queries import list_assets, list_parties
from reporting.errors import MonthEndRefused
from reporting.month_end.files import (
    breaks_csv,
    positions_csv,
    prices_csv,
    trial_balance_csv,
    valuation_csv,
)
from reporting.month_end.manifest import file_of, find_differences, manifest_text
from reporting.month_end.model import MonthEnd, Obstacle, Pack, PackFile, Standing, Waiver
from reporting.month_end.obstacles import find_obstacles, require_passed
from reporting.month_end.waivers import list_waivers, record_month_end
from reporting.positions import positions_of
from reporting.statements import issuing
from reporting.statements import model as statements
from reporting.valuation.model import Method, Valuation
from reporting.valuation.runs import record_valuation, value_book
from trading.pnl.model import Marks

MANIFEST: Final = "manifest.json"
CLIENTS_MAX: Final = 10_000
FILE_MAX: Final = 256 * 1024 * 1024
"""Bytes of one file that `check_pack` reads, at most."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a pack is asked for.

    Attributes:
        month: its first day.
        rules: the map of the general ledger.
        currency, method: of the profit and loss.
        draw: makes the PDFs of the clients' statements; None: the pack has their CSV only.
    """

    book: int
    month: date
    rules: Sequence[Rule]
    currency: Asset
    method: Method
    draw: issuing.Draw | None
    by: str

    @property
    def last(self) -> date:
        """Return the last day of the month."""
        return month_end(self.month).date() - timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Built:
    """A pack that was built, with the manifest's files."""

    month_end: MonthEnd
    pack: Pack


async def build_pack(
    engine: AsyncEngine, order: Order, folder: Path, *, now: datetime, progress: Progress
) -> Built:
    """Build the pack of a month in *folder*, which must not be there yet.

    Raises:
        MonthEndRefused: something stands in the way that nobody let pass: names it all.
        BadInput: the folder is there, or cannot be written.
        ExportRefused: the map has no account for one of ours, or a figure is not tied.
        NoRate, NoPrice: something has no price.
    """
    with _whole_folder(folder) as part:
        progress("What stands in the way")
        standing, passed = await transact(engine, lambda conn: _require_ready(conn, order))
        pack = await _write(engine, order, part, standing, passed, now=now, progress=progress)
        manifest = manifest_text(pack)
        _write_file(part, MANIFEST, manifest.encode())
        kept = await transact(
            engine,
            lambda conn: record_month_end(
                conn, order.book, order.month, manifest, by=order.by, now=now
            ),
        )
    return Built(kept, pack)


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """Give a folder beside *folder* to write to; it takes that name when the block ends.

    After an error nothing is left.

    Raises:
        BadInput: the folder is there, or cannot be written.
    """
    if folder.exists():
        raise BadInput(f"{folder} is there already", remedy="Name a folder that is not")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        part.rename(folder)
    except OSError as error:
        raise BadInput(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_file(part: Path, name: str, content: bytes) -> None:
    target = part / name
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(content)


async def read_obstacles(conn: AsyncConnection, book: int, month: date) -> tuple[Obstacle, ...]:
    """Return everything that stands in the way of a month's end now, let pass or not."""
    return find_obstacles(await read_standing(conn, book, month))


def check_pack(folder: Path) -> tuple[str, ...]:
    """Return what is wrong with the files of a pack beside its manifest; needs no database.

    Raises:
        BadInput: the folder or its manifest cannot be read.
        MonthEndRefused: it is not a manifest.
    """
    try:
        manifest = (folder / MANIFEST).read_text(encoding="utf-8")
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        contents = {
            str(path.relative_to(folder)): _read_file(path)
            for path in found
            if path != folder / MANIFEST
        }
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the pack {folder}: {error}") from error
    return find_differences(manifest, contents)


def _read_file(path: Path) -> bytes:
    if path.stat().st_size > FILE_MAX:
        raise BadInput(f"{path} has more than {FILE_MAX} bytes")
    return path.read_bytes()


async def _require_ready(
    conn: AsyncConnection, order: Order
) -> tuple[Standing, tuple[tuple[Obstacle, Waiver], ...]]:
    standing = await read_standing(conn, order.book, order.month)
    waivers = await list_waivers(conn, order.book, order.month)
    return standing, require_passed(find_obstacles(standing), waivers)


async def _write(
    engine: AsyncEngine,
    order: Order,
    part: Path,
    standing: Standing,
    passed: tuple[tuple[Obstacle, Waiver], ...],
    *,
    now: datetime,
    progress: Progress,
) -> Pack:
    assets = await transact(engine, _assets)
    progress("The general ledger")
    batch = await export_gl(
        engine,
        order.book,
        part / "general-ledger.csv",
        Period(order.month, order.last),
        order.rules,
        assets=assets,
    )
    snapshot = await transact(engine, lambda conn: get_snapshot(conn, order.month))
    progress("Profit and loss")
    valuation = await transact(engine, lambda conn: _value(conn, order, snapshot, now=now))
    progress("Trial balance and positions")
    rows = await transact(
        engine,
        lambda conn: trial_balance(
            conn, order.book, at_sequence=batch.frame.sequence, effective_on=order.last
        ),
    )
    for name, content in (
        ("trial-balance.csv", trial_balance_csv(rows, assets)),
        ("positions.csv", positions_csv(positions_of(rows), assets)),
        ("profit-and-loss.csv", valuation_csv(valuation, assets)),
        ("prices.csv", prices_csv(snapshot)),
        ("reconciliation.csv", breaks_csv(standing.breaks)),
    ):
        _write_file(part, name, content)
    await _statements(engine, order, part, now=now, progress=progress)
    return _pack(order, batch, snapshot, valuation, passed, _files(part))


async def _assets(conn: AsyncConnection) -> Mapping[str, Asset]:
    return {asset.code: asset for asset in await list_assets(conn)}


async def _value(
    conn: AsyncConnection, order: Order, snapshot: PriceSnapshot, *, now: datetime
) -> Valuation:
    """Value the month at its locked prices, and keep the result."""
    before = (order.month - timedelta(days=1)).replace(day=1)
    try:
        start = snapshot_marks(await get_snapshot(conn, before), order.currency)
    except SnapshotRefused:
        start = None
    found = await value_book(
        conn,
        order.book,
        since=datetime.combine(order.month, time(), tzinfo=UTC),
        until=snapshot.as_of,
        currency=order.currency,
        method=order.method,
        now=now,
        start=start,
        end=snapshot_marks(snapshot, order.currency),
    )
    await record_valuation(conn, found, by=order.by, now=now)
    return found


def snapshot_marks(snapshot: PriceSnapshot, currency: Asset) -> Marks:
    """Return the locked prices in *currency* as marks."""
    mine = [line for line in snapshot.lines if line.price.quote == currency]
    return Marks(
        currency=currency,
        at=snapshot.as_of,
        prices={line.price.base.code: line.price for line in mine},
        price_ids={line.price.base.code: line.price_id for line in mine},
    )


async def _statements(
    engine: AsyncEngine, order: Order, part: Path, *, now: datetime, progress: Progress
) -> None:
    """Issue and write the statement of every client who has an account with anything on it."""
    parties = await transact(engine, lambda conn: list_parties(conn, PartyKind.CLIENT))
    if len(parties) > CLIENTS_MAX:
        raise MonthEndRefused(f"there are more than {CLIENTS_MAX} clients")
    period = statements.Period(first=order.month, last=order.last)
    for number, party in enumerate(parties, start=1):
        progress(f"Statements, {number} of {len(parties)}")

        async def issue(conn: AsyncConnection, code: str = party.code) -> statements.StatementFile:
            return await issuing.issue_statement(
                conn, order.book, code, period, by=order.by, now=now
            )

        issued = await transact(engine, issue)
        _write_file(part, f"statements/{party.code}.csv", issued.csv)
        if order.draw is not None:
            pdf = await issuing.get_statement_pdf(engine, issued.id, order.draw)
            _write_file(part, f"statements/{party.code}.pdf", pdf)


def _files(part: Path) -> tuple[PackFile, ...]:
    return tuple(
        file_of(str(path.relative_to(part)), path.read_bytes())
        for path in sorted(part.rglob("*"))
        if path.is_file()
    )


def _pack(
    order: Order,
    batch: Batch,
    snapshot: PriceSnapshot,
    valuation: Valuation,
    passed: tuple[tuple[Obstacle, Waiver], ...],
    files: tuple[PackFile, ...],
) -> Pack:
    return Pack(
        book=order.book,
        entity=batch.frame.entity,
        month=order.month,
        sequence=batch.frame.sequence,
        is_final=batch.is_final,
        valuation_id=valuation.id,
        inputs_hash=valuation.inputs_hash,
        lines_hash=valuation.lines_hash,
        snapshot_hash=snapshot.content_hash,
        files=files,
        passed=passed,
    )
