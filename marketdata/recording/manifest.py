"""The manifest: which files of recordings there are, what is in them, what is missing from them.

Files are the truth and the manifest follows them: a recorder goes on while PostgreSQL does not, and
`catch_up` enters afterwards whatever finished files are not in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Row, delete, exists, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql.selectable import NamedFromClause

from kernel.db import transact
from kernel.ids import stable_id
from marketdata.recording.derive import describe_parquet
from marketdata.recording.errors import NotARecording, RecordingDamaged
from marketdata.recording.layout import list_parquet, list_segments
from marketdata.recording.model import FileKind, Loss, LossReason, RecordedFile
from marketdata.recording.raw_reader import describe
from marketdata.recording.tables import recording_file, recording_loss

LOCAL: Final = "local"
FILES_MAX: Final = 1_000
DETAIL_LENGTH_MAX: Final = 500
NUMBER_LENGTH: Final = len("000001.raw")
"""The end of a segment's path that says which of its session it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """A file on record.

    Attributes:
        held_for: why it is kept whatever its age; empty: it is not.
        removed_at: since when the file is not there any more.
    """

    id: UUID
    store: str
    file: RecordedFile
    recorded_at: datetime
    held_for: str
    removed_at: datetime | None


async def record_file(
    conn: AsyncConnection, file: RecordedFile, *, at: datetime, store: str = LOCAL
) -> UUID:
    """Enter a finished file, or what has taken its place, and return its id."""
    file_id = stable_id("recording-file", store, file.path)
    values = {
        "kind": str(file.kind),
        "venue": file.venue,
        "channel": file.channel,
        "symbol": file.symbol,
        "session": file.session,
        "size": file.size,
        "sha256": file.sha256,
        "rows": file.rows,
        "first_ns": file.first_ns,
        "last_ns": file.last_ns,
        "first_sequence": file.first_sequence,
        "last_sequence": file.last_sequence,
        "gaps": file.gaps,
        "instrument_version": file.instrument_version,
        "recorded_at": at,
        "removed_at": None,
    }
    await conn.execute(
        insert(recording_file)
        .values(id=file_id, store=store, path=file.path, **values)
        .on_conflict_do_update(index_elements=["store", "path"], set_=values)
    )
    await conn.execute(delete(recording_loss).where(recording_loss.c.file_id == file_id))
    if file.losses:
        await conn.execute(
            insert(recording_loss),
            [_loss_values(file_id, number, loss) for number, loss in enumerate(file.losses, 1)],
        )
    return file_id


async def list_files(
    conn: AsyncConnection,
    *,
    kind: FileKind | None = None,
    venue: str | None = None,
    channel: str | None = None,
    symbol: str | None = None,
    store: str | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    ended_before_ns: int | None = None,
    held: bool | None = None,
    removed: bool = False,
    limit: int = FILES_MAX,
) -> list[ManifestRow]:
    """Return files with something received in a stretch of time, oldest first.

    Args:
        conn: any connection.
        kind, venue, channel, symbol, store: None: any.
        since_ns, until_ns: received at or after *since*, before *until*; None: any.
        ended_before_ns: nothing in it was received then or later, and nothing later of its session
            is held or was received then: all that may be removed.
        held: only files that are held, or only others.
        removed: also files that are not there any more.
        limit: at most so many, and at most `FILES_MAX`.
    """
    table = recording_file.c
    wanted = {
        table.kind: kind,
        table.venue: venue,
        table.channel: channel,
        table.symbol: symbol,
        table.store: store,
    }
    statement = select(recording_file).where(
        *[column == str(value) for column, value in wanted.items() if value is not None]
    )
    if since_ns is not None:
        statement = statement.where(table.last_ns >= since_ns)
    if until_ns is not None:
        statement = statement.where(table.first_ns < until_ns)
    if ended_before_ns is not None:
        later = recording_file.alias("later")
        statement = statement.where(
            table.last_ns < ended_before_ns, ~_is_needed(later, ended_before_ns)
        )
    if held is not None:
        statement = statement.where((table.held_for != "") == held)
    if not removed:
        statement = statement.where(table.removed_at.is_(None))
    ordered = statement.order_by(table.first_ns, table.path).limit(min(limit, FILES_MAX))
    rows = list(await conn.execute(ordered))
    losses = await _losses(conn, [row.id for row in rows])
    return [_row_of(row, losses.get(row.id, ())) for row in rows]


async def frames_of(
    conn: AsyncConnection, venue: str, since_ns: int, until_ns: int
) -> list[ManifestRow]:
    """Return the raw files that hold what a venue said in a stretch of time: a price's evidence."""
    return await list_files(
        conn, kind=FileKind.RAW, venue=venue, since_ns=since_ns, until_ns=until_ns
    )


async def hold(conn: AsyncConnection, file_ids: Sequence[UUID], reason: str) -> int:
    """Keep files, and what came before in their sessions, whatever their age.

    Return how many of them are there to be kept.
    """
    await _lock_sessions(conn, file_ids)
    done = await conn.execute(
        update(recording_file)
        .where(recording_file.c.id.in_(file_ids), recording_file.c.removed_at.is_(None))
        .values(held_for=reason)
    )
    return int(done.rowcount)


async def mark_removed(conn: AsyncConnection, file_id: UUID, *, at: datetime) -> bool:
    """Record that a file is about to be removed.

    False: it is held, or what is held cannot be read without it, or it was removed before.
    """
    await _lock_sessions(conn, [file_id])
    done = await conn.execute(
        update(recording_file)
        .where(
            recording_file.c.id == file_id,
            recording_file.c.held_for == "",
            recording_file.c.removed_at.is_(None),
            ~_is_needed(recording_file.alias("later"), None),
        )
        .values(removed_at=at)
    )
    return bool(done.rowcount)


async def _lock_sessions(conn: AsyncConnection, file_ids: Sequence[UUID]) -> None:
    """Let nobody hold or remove files of the same sessions meanwhile."""
    table, named = recording_file, recording_file.alias("named")
    same = (table.c.store, table.c.venue, table.c.session)
    wanted = select(named.c.store, named.c.venue, named.c.session).where(named.c.id.in_(file_ids))
    await conn.execute(
        select(table.c.id)
        .where(tuple_(*same).in_(wanted), table.c.kind == str(FileKind.RAW))
        .order_by(table.c.id)
        .with_for_update()
    )


def _is_needed(later: NamedFromClause, ended_before_ns: int | None) -> ColumnElement[bool]:
    """Tell whether a raw file is needed to read a later one of its session that stays.

    A machine begins with a session, and a book is made of all that came before.
    """
    table = recording_file.c
    stays = later.c.held_for != ""
    if ended_before_ns is not None:
        stays |= later.c.last_ns >= ended_before_ns
    return (
        exists()
        .where(
            table.kind == str(FileKind.RAW),
            later.c.kind == table.kind,
            later.c.store == table.store,
            later.c.venue == table.venue,
            later.c.session == table.session,
            # By their numbers: the days in their paths may go back with a clock.
            func.right(later.c.path, NUMBER_LENGTH) > func.right(table.path, NUMBER_LENGTH),
            later.c.removed_at.is_(None),
            stays,
        )
        .correlate(recording_file)
    )


async def removed_paths(conn: AsyncConnection, *, store: str = LOCAL) -> set[str]:
    """Return the paths of files that were removed, or were about to be."""
    table = recording_file.c
    found = await conn.execute(
        select(table.path).where(table.store == store, table.removed_at.is_not(None))
    )
    return {row.path for row in found}


async def catch_up(
    engine: AsyncEngine, directory: Path, *, at: datetime, store: str = LOCAL
) -> tuple[list[RecordedFile], list[Path]]:
    """Enter every finished file that is not in the manifest yet.

    Return what was entered, and files that cannot be: they are not what was written.
    """
    paths = await asyncio.to_thread(finished_paths, directory)
    async with engine.connect() as conn:
        found = await conn.execute(
            select(recording_file.c.path).where(recording_file.c.store == store)
        )
        known = {row.path for row in found}
    entered: list[RecordedFile] = []
    damaged: list[Path] = []
    for name, path in paths.items():
        if name in known:
            continue
        try:
            file = await asyncio.to_thread(_described, directory, path)
        except (NotARecording, RecordingDamaged):
            damaged.append(path)
            continue

        async def work(conn: AsyncConnection, file: RecordedFile = file) -> UUID:
            return await record_file(conn, file, at=at, store=store)

        await transact(engine, work)
        entered.append(file)
    return entered, damaged


async def differences(engine: AsyncEngine, directory: Path, *, store: str = LOCAL) -> list[str]:
    """Say which files on record are not there, or not of the size on record, by their paths.

    Bytes are not read: that a file is what was written is checked by whoever reads it.
    """
    table = recording_file.c
    async with engine.connect() as conn:
        rows = await conn.execute(
            select(table.path, table.size)
            .where(table.store == store, table.removed_at.is_(None))
            .order_by(table.path)
        )
        known = {row.path: row.size for row in rows}
    return await asyncio.to_thread(_compared, directory, known)


def _compared(directory: Path, known: Mapping[str, int]) -> list[str]:
    found = []
    for name, size in known.items():
        path = directory / name
        if not path.is_file():
            found.append(f"{name}: is not there")
        elif path.stat().st_size != size:
            found.append(f"{name}: another size than on record")
    return found


def finished_paths(directory: Path) -> dict[str, Path]:
    """Return every finished file by its name in the manifest."""
    paths = [*list_segments(directory), *list_parquet(directory)]
    return {path.relative_to(directory).as_posix(): path for path in paths}


def _described(directory: Path, path: Path) -> RecordedFile:
    raw = path.relative_to(directory).parts[0] == "raw"
    return describe(directory, path) if raw else describe_parquet(directory, path)


async def _losses(conn: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, tuple[Loss, ...]]:
    found: dict[UUID, tuple[Loss, ...]] = {}
    rows = await conn.execute(
        select(recording_loss)
        .where(recording_loss.c.file_id.in_(ids))
        .order_by(recording_loss.c.file_id, recording_loss.c.number)
    )
    for row in rows:
        loss = Loss(
            reason=LossReason(row.reason),
            since_ns=row.since_ns,
            until_ns=row.until_ns,
            items=row.items,
            size=row.size,
            detail=row.detail,
        )
        found[row.file_id] = (*found.get(row.file_id, ()), loss)
    return found


def _loss_values(file_id: UUID, number: int, loss: Loss) -> dict[str, Any]:
    return {
        "file_id": file_id,
        "number": number,
        "reason": str(loss.reason),
        "since_ns": loss.since_ns,
        "until_ns": loss.until_ns,
        "items": loss.items,
        "size": loss.size,
        "detail": loss.detail[:DETAIL_LENGTH_MAX],
    }


def _row_of(row: Row[Any], losses: tuple[Loss, ...]) -> ManifestRow:
    return ManifestRow(
        id=row.id,
        store=row.store,
        file=RecordedFile(
            kind=FileKind(row.kind),
            path=row.path,
            venue=row.venue,
            session=row.session,
            size=row.size,
            sha256=row.sha256,
            rows=row.rows,
            first_ns=row.first_ns,
            last_ns=row.last_ns,
            channel=row.channel,
            symbol=row.symbol,
            first_sequence=row.first_sequence,
            last_sequence=row.last_sequence,
            gaps=row.gaps,
            instrument_version=row.instrument_version,
            losses=losses,
        ),
        recorded_at=row.recorded_at,
        held_for=row.held_for,
        removed_at=row.removed_at,
    )
