"""The manifest: files and what is missing from them, found again; old ones go, evidence stays."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.clock import ManualClock, to_unix_ns
from marketdata.recording.derive import Deriver, describe_parquet
from marketdata.recording.layout import list_parquet, list_segments
from marketdata.recording.manifest import (
    catch_up,
    differences,
    frames_of,
    hold,
    list_files,
    mark_removed,
    record_file,
)
from marketdata.recording.model import (
    FileKind,
    Loss,
    LossReason,
    RecordedFile,
    RetentionPolicy,
    WritePolicy,
)
from marketdata.recording.raw_writer import RawWriter
from marketdata.recording.retention import remove_expired, sweep
from marketdata.recording.testing import TinyMachine, session_items
from marketdata.testing import eth_usdt

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NOW_NS = to_unix_ns(NOW)
DAY_NS = 86_400 * 10**9
LOSSES = (
    Loss(reason=LossReason.DISK, since_ns=NOW_NS, until_ns=NOW_NS + 1, items=3, detail="full"),
    Loss(reason=LossReason.KILLED, since_ns=NOW_NS + 5, until_ns=NOW_NS + 9, size=17),
)


def raw_file(number: int = 1, *, days_old: int = 0, **changes: object) -> RecordedFile:
    at_ns = NOW_NS - days_old * DAY_NS
    file = RecordedFile(
        kind=FileKind.RAW,
        path=f"raw/sim/{number}.raw",
        venue="sim",
        session="1",
        size=100,
        sha256=f"{number:064x}",
        rows=10,
        first_ns=at_ns,
        last_ns=at_ns + 10**9,
    )
    return replace(file, **changes)  # type: ignore[arg-type]


async def test_a_file_and_what_is_missing_from_it_are_found_again(engine: AsyncEngine) -> None:
    file = raw_file(
        kind=FileKind.PARQUET,
        channel="trades",
        symbol="BTC/USD",
        first_sequence="7",
        last_sequence="99",
        gaps=2,
        instrument_version=3,
        losses=LOSSES,
    )
    async with engine.begin() as conn:
        first = await record_file(conn, file, at=NOW)
        again = await record_file(conn, replace(file, rows=11), at=NOW)
        (row,) = await list_files(conn, channel="trades", symbol="BTC/USD")

    assert first == again == row.id
    assert row.file == replace(file, rows=11)
    assert (row.recorded_at, row.held_for, row.removed_at) == (NOW, "", None)


async def test_files_are_found_by_what_was_received_when(engine: AsyncEngine) -> None:
    async with engine.begin() as conn:
        for number in range(5):
            await record_file(conn, raw_file(number, days_old=number), at=NOW)
        await record_file(conn, raw_file(9, venue="other"), at=NOW)
        found = await frames_of(conn, "sim", NOW_NS - 3 * DAY_NS + 10**9, NOW_NS - DAY_NS + 1)
        none = await frames_of(conn, "sim", NOW_NS - 3 * DAY_NS + 10**9 + 1, NOW_NS - 2 * DAY_NS)

    assert [row.file.path for row in found] == ["raw/sim/3.raw", "raw/sim/2.raw", "raw/sim/1.raw"]
    assert none == []


async def test_a_held_file_is_not_removed_and_a_removed_one_not_held(engine: AsyncEngine) -> None:
    async with engine.begin() as conn:
        held = await record_file(conn, raw_file(1), at=NOW)
        gone = await record_file(conn, raw_file(2), at=NOW)
        assert await mark_removed(conn, gone, at=NOW)
        assert await hold(conn, [held, gone], "index price") == 1
        assert not await mark_removed(conn, held, at=NOW)
        assert not await mark_removed(conn, gone, at=NOW)
        (row,) = await list_files(conn)
        assert len(await list_files(conn, removed=True)) == 2
    assert (row.id, row.held_for) == (held, "index price")
    with pytest.raises(IntegrityError, match="ck_recording_file_held"):
        async with engine.begin() as conn:
            await conn.execute(text("UPDATE marketdata.recording_file SET removed_at = now()"))


def recorded(directory: Path) -> None:
    """Write a recording and what is derived from it."""
    items = list(session_items(100, start_ns=ManualClock().now_ns()))
    policy = WritePolicy(free_bytes_min=0, block_bytes=1_000, segment_bytes=5_000)
    with RawWriter(directory, "sim", ManualClock(), policy=policy) as writer:
        writer.write(items)
    machine = TinyMachine()
    with Deriver(directory, "sim", writer.session, [eth_usdt()]) as deriver:
        for item in items:
            deriver.write(machine.take(item))  # type: ignore[arg-type]


async def test_files_that_the_manifest_missed_are_entered_afterwards(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    recorded(tmp_path)
    broken = list_segments(tmp_path)[0]
    content = broken.read_bytes()
    broken.write_bytes(content[:-1])

    entered, damaged = await catch_up(engine, tmp_path, at=NOW)
    broken.write_bytes(content)
    later, none = await catch_up(engine, tmp_path, at=NOW)

    assert damaged == [broken]
    assert none == []
    assert [file.path for file in later] == [broken.relative_to(tmp_path).as_posix()]
    async with engine.connect() as conn:
        rows = await list_files(conn)
    assert len(rows) == len(entered) + 1
    parquet = [row.file for row in rows if row.file.kind is FileKind.PARQUET]
    assert sorted(file.path for file in parquet) == [
        path.relative_to(tmp_path).as_posix() for path in list_parquet(tmp_path)
    ]
    assert all(file == describe_parquet(tmp_path, tmp_path / file.path) for file in parquet)


async def test_what_is_old_is_removed_but_evidence_and_rows_stay(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    recorded(tmp_path)
    await catch_up(engine, tmp_path, at=NOW)
    async with engine.begin() as conn:
        raw = await list_files(conn, kind=FileKind.RAW)
        await hold(conn, [raw[0].id], "index price 17")
    policy = RetentionPolicy(raw=timedelta(days=30), parquet=None)
    files = list_parquet(tmp_path)

    assert await remove_expired(engine, tmp_path, policy, now=raw_day(raw[0].file)) == []
    removed = await remove_expired(engine, tmp_path, policy, now=NOW)

    assert len(raw) > 1
    assert [row.id for row in removed] == [row.id for row in raw[1:]]
    assert list_segments(tmp_path) == [tmp_path / raw[0].file.path]
    assert list_parquet(tmp_path) == files
    assert await catch_up(engine, tmp_path, at=NOW) == ([], [])
    async with engine.connect() as conn:
        every = await list_files(conn, kind=FileKind.RAW, removed=True)
    assert [row.file.sha256 for row in every] == [row.file.sha256 for row in raw]


def raw_day(file: RecordedFile) -> datetime:
    return datetime.fromtimestamp(file.last_ns // 10**9, tz=UTC)


async def test_a_removal_that_was_cut_off_is_completed_and_not_undone(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    recorded(tmp_path)
    await catch_up(engine, tmp_path, at=NOW)
    async with engine.begin() as conn:
        (first, *_) = await list_files(conn, kind=FileKind.RAW)
        await mark_removed(conn, first.id, at=NOW)
    # The process ends here, with the row and without the file being removed.

    assert await catch_up(engine, tmp_path, at=NOW) == ([], [])
    assert await sweep(engine, tmp_path) == 1
    assert not (tmp_path / first.file.path).exists()
    assert await sweep(engine, tmp_path) == 0


async def test_what_a_held_file_needs_to_be_replayed_is_kept_with_it(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    """A book is made of all that came before in its session, so that is evidence too."""
    files = [raw_file(n, days_old=80 - n, session="1") for n in range(1, 5)]
    others = [raw_file(n, days_old=80 - n, session="2") for n in range(5, 7)]
    policy = RetentionPolicy(raw=timedelta(days=30))
    async with engine.begin() as conn:
        ids = [await record_file(conn, file, at=NOW) for file in (*files, *others)]
        await hold(conn, [ids[2]], "price snapshot 2026-01")

    removed = await remove_expired(engine, tmp_path, policy, now=NOW)

    assert {row.id for row in removed} == {ids[3], *ids[4:]}
    async with engine.begin() as conn:
        assert not await mark_removed(conn, ids[0], at=NOW)


async def test_a_session_is_removed_when_all_of_it_is_old(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    """Without its beginning the rest of it could not be read."""
    async with engine.begin() as conn:
        ids = [await record_file(conn, raw_file(n, days_old=32 - n), at=NOW) for n in range(1, 4)]
    policy = RetentionPolicy(raw=timedelta(days=30))

    assert await remove_expired(engine, tmp_path, policy, now=NOW) == []
    removed = await remove_expired(engine, tmp_path, policy, now=NOW + timedelta(days=2))
    assert [row.id for row in removed] == ids


async def test_files_that_are_no_recordings_stop_nobody(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    recorded(tmp_path)
    segment, table = list_segments(tmp_path)[0], list_parquet(tmp_path)[0]
    segment.write_bytes(b"")
    table.write_bytes(table.read_bytes()[:-9])

    entered, damaged = await catch_up(engine, tmp_path, at=NOW)

    assert sorted(damaged) == sorted([segment, table])
    assert len(entered) > 2


async def test_files_that_are_gone_or_changed_are_told(engine: AsyncEngine, tmp_path: Path) -> None:
    recorded(tmp_path)
    await catch_up(engine, tmp_path, at=NOW)
    assert await differences(engine, tmp_path) == []
    segment, table = list_segments(tmp_path)[0], list_parquet(tmp_path)[0]
    segment.unlink()
    table.write_bytes(table.read_bytes() + b"x")

    assert await differences(engine, tmp_path) == [
        f"{table.relative_to(tmp_path).as_posix()}: another size than on record",
        f"{segment.relative_to(tmp_path).as_posix()}: is not there",
    ]
