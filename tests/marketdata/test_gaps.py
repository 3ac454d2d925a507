"""Gaps and states of streams on record."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import ManualClock, from_unix_ns, to_unix_ns
from kernel.db import transact
from marketdata.events import Channel, GapReason, GapSeen
from marketdata.gaps import GapRow, end_gap, list_gaps, mark_filled, open_gap, open_gaps
from marketdata.model import StreamState, StreamStatus
from marketdata.status import list_status, write_status

NOW = ManualClock().now()
SECOND = timedelta(seconds=1)
GAP = GapSeen(
    venue="binance",
    symbol="ETHUSDT",
    channel=Channel.TRADES,
    reason=GapReason.SEQUENCE,
    since_ns=to_unix_ns(NOW),
    until_ns=0,
    detail="12 to 14 are missing",
    received_ns=to_unix_ns(NOW),
)


async def found(conn: AsyncConnection, *, unfilled: bool = False, **changes: Any) -> list[GapRow]:
    asked: dict[str, Any] = {
        "venue": None,
        "symbol": None,
        "channel": None,
        "since": NOW - timedelta(hours=1),
        "until": NOW + timedelta(hours=1),
    } | changes
    return await list_gaps(conn, *asked.values(), unfilled=unfilled)


async def test_a_gap_is_one_row_from_its_opening_to_its_end(engine: AsyncEngine) -> None:
    async def work(conn: AsyncConnection) -> list[list[GapRow]]:
        opened = await open_gap(conn, GAP)
        assert await open_gap(conn, GAP) == opened
        states = [await found(conn)]
        ended = replace(GAP, until_ns=GAP.since_ns + 3 * 10**9, detail="they came")
        assert await open_gap(conn, ended) == opened
        states.append(await found(conn))
        await open_gap(conn, GAP)
        states.append(await found(conn))
        return states

    (opened,), (ended,), (again,) = await transact(engine, work)

    assert (opened.since, opened.until, opened.detail) == (NOW, None, GAP.detail)
    assert (ended.until, ended.detail) == (NOW + 3 * SECOND, "they came")
    assert again.until == ended.until, "what has ended is never open again"


@pytest.mark.parametrize(("until", "recorded"), [(5, 5), (-5, 0)])
async def test_a_gap_never_ends_before_it_began(
    engine: AsyncEngine, until: int, recorded: int
) -> None:
    async def work(conn: AsyncConnection) -> list[GapRow]:
        await end_gap(conn, await open_gap(conn, GAP), NOW + until * SECOND)
        return await found(conn)

    (row,) = await transact(engine, work)

    assert row.until == NOW + recorded * SECOND


async def test_only_an_ended_gap_is_filled_and_only_once(engine: AsyncEngine) -> None:
    async def work(conn: AsyncConnection) -> list[GapRow]:
        gap_id = await open_gap(conn, GAP)
        await mark_filled(conn, gap_id, by="too early", rows=1, at=NOW)
        assert len(await found(conn, unfilled=True)) == 1
        await end_gap(conn, gap_id, NOW + SECOND)
        await mark_filled(conn, gap_id, by="backfill 1", rows=12, at=NOW)
        await mark_filled(conn, gap_id, by="backfill 2", rows=0, at=NOW)
        assert await found(conn, unfilled=True) == []
        return await found(conn)

    (row,) = await transact(engine, work)

    assert (row.filled_by, row.rows) == ("backfill 1", 12)


async def test_gaps_are_found_by_venue_symbol_channel_and_time(engine: AsyncEngine) -> None:
    async def work(conn: AsyncConnection) -> None:
        ended = await open_gap(conn, GAP)
        await end_gap(conn, ended, NOW + SECOND)
        await open_gap(conn, replace(GAP, venue="kraken"))
        await open_gap(conn, replace(GAP, channel=Channel.BOOK))

        assert len(await found(conn)) == 3
        assert len(await found(conn, venue="kraken")) == 1
        assert len(await found(conn, channel=Channel.BOOK)) == 1
        assert await found(conn, symbol="BTCUSDT") == []
        assert len(await found(conn, since=NOW + 2 * SECOND)) == 2, "open ones last until now"
        assert await found(conn, until=NOW) == []
        assert [row.venue for row in await open_gaps(conn, "kraken")] == ["kraken"]

    await transact(engine, work)


def status(**changes: Any) -> StreamStatus:
    usual: dict[str, Any] = {
        "venue": "binance",
        "symbol": "ETHUSDT",
        "channel": Channel.BOOK,
        "state": StreamState.LIVE,
        "since": NOW,
        "last_event_at": from_unix_ns(to_unix_ns(NOW)),
        "sequence": 2**70,
        "gaps": 1,
        "reconnects": 2,
        "messages": 3,
        "detail": "",
    }
    return StreamStatus(**(usual | changes))


async def test_the_newest_word_on_a_stream_counts(engine: AsyncEngine) -> None:
    async def work(conn: AsyncConnection) -> list[tuple[StreamStatus, datetime]]:
        await write_status(conn, [status(), status(channel=Channel.TRADES)], at=NOW)
        await write_status(conn, [status(state=StreamState.DOWN)], at=NOW + 5 * SECOND)
        await write_status(conn, [status(messages=9)], at=NOW + SECOND)
        await write_status(conn, [], at=NOW)
        assert await list_status(conn, "kraken") == []
        return await list_status(conn)

    assert await transact(engine, work) == [
        (status(state=StreamState.DOWN), NOW + 5 * SECOND),
        (status(channel=Channel.TRADES), NOW),
    ]
