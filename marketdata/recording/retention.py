"""What is old enough is removed: its row stays, with its hash; what a price rests on stays whole."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import to_unix_ns
from kernel.db import transact
from marketdata.recording.durable import sync_folder
from marketdata.recording.manifest import (
    LOCAL,
    ManifestRow,
    finished_paths,
    list_files,
    mark_removed,
    removed_paths,
)
from marketdata.recording.model import FileKind, RetentionPolicy


async def expired(
    conn: AsyncConnection, policy: RetentionPolicy, *, now: datetime, store: str = LOCAL
) -> list[ManifestRow]:
    """Return what may be removed: old enough, not held; a bounded number, oldest first."""
    found: list[ManifestRow] = []
    for kind in FileKind:
        age = _age(policy, kind)
        if age is not None:
            before_ns = to_unix_ns(now - age)
            found += await list_files(
                conn, kind=kind, store=store, ended_before_ns=before_ns, held=False
            )
    return found


async def remove_expired(
    engine: AsyncEngine,
    directory: Path,
    policy: RetentionPolicy,
    *,
    now: datetime,
    store: str = LOCAL,
) -> list[ManifestRow]:
    """Remove what may be removed, and return it.

    That a file goes is on record before it goes: after a crash in between it is removed the next
    time it is looked for (`sweep`), and never taken for lost.
    """
    async with engine.connect() as conn:
        rows = await expired(conn, policy, now=now, store=store)
    removed: list[ManifestRow] = []
    for row in rows:

        async def work(conn: AsyncConnection, row: ManifestRow = row) -> bool:
            return await mark_removed(conn, row.id, at=now)

        if await transact(engine, work):
            removed.append(row)
    await asyncio.to_thread(_unlink, directory, [row.file.path for row in removed])
    return removed


async def sweep(engine: AsyncEngine, directory: Path, *, store: str = LOCAL) -> int:
    """Remove files that are on record as removed and are there still; return how many."""
    async with engine.connect() as conn:
        removed = await removed_paths(conn, store=store)
    there = await asyncio.to_thread(finished_paths, directory)
    return await asyncio.to_thread(_unlink, directory, sorted(removed & there.keys()))


def _age(policy: RetentionPolicy, kind: FileKind) -> timedelta | None:
    match kind:
        case FileKind.RAW:
            return policy.raw
        case FileKind.PARQUET:
            return policy.parquet


def _unlink(directory: Path, names: Sequence[str]) -> int:
    count = 0
    for name in names:
        path = directory / name
        if path.is_file():
            path.unlink()
            sync_folder(path.parent)
            count += 1
    return count
