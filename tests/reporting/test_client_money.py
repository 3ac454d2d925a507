"""Client money is watched block by block: each change is an event, exactly once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from structlog.testing import capture_logs

from app.workers.client_money import ClientMoneyWatch
from kernel.clock import ManualClock
from kernel.db import transact
from kernel.errors import CommitUnknown
from kernel.events import list_history
from kernel.ids import stable_id
from ledger.coverage import coverage
from ledger.errors import BookNotOpen
from ledger.posting import post, require_applied
from ledger.queries import head
from ledger.scenarios import START, Story, parse_transfer, play
from reporting.client_money import follow_client_money
from reporting.client_money_watch import ENTITY, list_client_money, watch_client_money
from reporting.model import ClientMoney, ClientMoneyState, WatchedPage

NOW = START + timedelta(days=1)
SOUND = """
own custody:client client
a  move  custody:client  client:a  10 X   -> created
b  move  custody:client  client:b  5 Y    -> created
"""
TAKEN = "x  move  expense:loss  custody:client  3 X        -> created\n"
WORSE = "w  move  expense:loss  custody:client  1 X        -> created\n"
BETTER = "y  move  custody:client  equity:capital  2 X      -> created\n"
RESTORED = "z  move  custody:client  equity:capital  2 X      -> created\n"

BACK = "m  move  custody:client  expense:loss  3 X"

Told = tuple[str, str, int, str, str]
"""Name, asset, height, holdings, liabilities."""


@pytest.fixture
def story() -> Story:
    return Story(1)


@pytest.fixture
async def sound(engine: AsyncEngine, story: Story) -> AsyncEngine:
    """Clients of book 1 are owed 10 X and 5 Y, and covered to the unit."""
    assert await play(engine, SOUND, story=story) == SOUND
    return engine


async def watch(engine: AsyncEngine, book: int = 1) -> WatchedPage:
    return await transact(engine, lambda conn: watch_client_money(conn, book, now=NOW))


async def watch_all(engine: AsyncEngine, book: int = 1) -> list[ClientMoney]:
    changes: list[ClientMoney] = []
    while True:
        page = await watch(engine, book)
        changes += page.changes
        if page.is_last:
            return changes


async def outbox(engine: AsyncEngine, book: int = 1) -> list[Told]:
    """What consumers will be told, in their order."""
    async with engine.connect() as conn:
        rows = await conn.execute(text("SELECT type, payload FROM kernel.outbox ORDER BY position"))
        return [
            (r.type, p["asset"], p["height"], p["holdings"], p["liabilities"])
            for r in rows
            if (p := r.payload)["book"] == book
        ]


async def height(engine: AsyncEngine) -> int:
    async with engine.connect() as conn:
        return (await head(conn, 1)).height


async def cursor(engine: AsyncEngine) -> int | None:
    async with engine.connect() as conn:
        query = text("SELECT height FROM reporting.client_money_watch WHERE book = 1")
        return (await conn.execute(query)).scalar_one_or_none()


async def test_short_and_restored_within_one_page_are_two_events(
    sound: AsyncEngine, story: Story
) -> None:
    """What happens while it stays short is no news."""
    heights = []
    for part in (TAKEN, WORSE, BETTER, RESTORED):
        assert await play(sound, part, story=story) == part
        heights.append(await height(sound))

    await watch_all(sound)

    assert await outbox(sound) == [
        ("ClientMoneyShort", "X", heights[0], "7", "10"),
        ("ClientMoneyRestored", "X", heights[3], "10", "10"),
    ]
    async with sound.connect() as conn:
        events = await list_history(conn, ENTITY, stable_id(ENTITY, 1, "X"))
    assert [(e.version, e.from_state, e.to_state) for e in events] == [
        (1, "covered", "short"),
        (2, "short", "covered"),
    ]
    assert (events[0].at, events[0].payload["shortfall"]) == (NOW, "3")
    assert events[0].payload["recorded_at"] == START.isoformat()


async def test_a_state_lasts_from_page_to_page(sound: AsyncEngine, story: Story) -> None:
    told = []
    for part in (TAKEN, WORSE, BETTER, RESTORED):
        await play(sound, part, story=story)
        told.append([c.state for c in await watch_all(sound)])
        assert await watch(sound) == WatchedPage(await height(sound), (), is_last=True)

    assert told == [[ClientMoneyState.SHORT], [], [], [ClientMoneyState.COVERED]]
    assert len(await outbox(sound)) == 2


async def test_what_is_short_only_between_the_transfers_of_a_block_is_no_event(
    sound: AsyncEngine, story: Story
) -> None:
    chain = """
+ lent    move  client:b  custody:client  5 Y              -> created
+ gone    move  expense:loss  custody:client  4 X          -> created
+ back    move  custody:client  equity:capital  4 X        -> created
  again   move  custody:client  client:b  5 Y              -> created

  first   move  expense:loss  custody:client  9 X          -> created
  second  move  custody:client  equity:capital  9 X        -> created
"""
    assert await play(sound, chain, story=story) == chain
    await watch_all(sound)

    assert await outbox(sound) == []
    assert await cursor(sound) == await height(sound)


async def test_each_asset_stands_on_its_own(sound: AsyncEngine, story: Story) -> None:
    both = TAKEN + "v  move  expense:loss  custody:client  5 Y  -> created\n"
    assert await play(sound, both, story=story) == both
    short = await height(sound)
    assert await play(sound, BETTER, story=story) == BETTER
    y = "u  move  custody:client  equity:capital  5 Y  -> created\n"
    assert await play(sound, y, story=story) == y
    restored = await height(sound)
    await watch_all(sound)

    assert await outbox(sound) == [
        ("ClientMoneyShort", "X", short, "7", "10"),
        ("ClientMoneyShort", "Y", short, "0", "5"),
        ("ClientMoneyRestored", "Y", restored, "5", "5"),
    ]
    async with sound.connect() as conn:
        states = {item.asset: item.state for item in await list_client_money(conn, 1)}
    assert states == {"X": ClientMoneyState.SHORT, "Y": ClientMoneyState.COVERED}


async def test_holds_and_the_houses_own_money_are_nobodys_news(
    sound: AsyncEngine, story: Story
) -> None:
    other = """
h  hold  custody:client  client:a  9 X  purpose=deposit         -> created
i  hold  expense:loss  custody:client  9 X  purpose=network-fee -> created
k  move  custody:house  equity:capital  9 X                     -> created
l  move  expense:loss  custody:house  9 X                       -> created
"""
    assert await play(sound, other, story=story) == other
    await watch_all(sound)

    assert await outbox(sound) == []


async def test_an_asset_may_begin_short(engine: AsyncEngine) -> None:
    owed = "a  move  equity:opening  client:a  1 X  -> created\n"
    assert await play(engine, owed) == owed
    await watch_all(engine)

    assert await outbox(engine) == [("ClientMoneyShort", "X", 2, "0", "1")]


async def test_books_are_watched_apart(sound: AsyncEngine, story: Story) -> None:
    await play(sound, TAKEN, story=story)
    other = "a2  move  equity:opening  client:a  1 X  -> created\n"
    assert await play(sound, other, book=2) == other

    await watch_all(sound, 2)
    assert (await outbox(sound), len(await outbox(sound, 2))) == ([], 1)
    await watch_all(sound)
    assert (len(await outbox(sound)), len(await outbox(sound, 2))) == (1, 1)


async def test_a_book_that_is_not_open_is_not_watched(engine: AsyncEngine) -> None:
    with pytest.raises(BookNotOpen):
        await watch(engine)

    assert await cursor(engine) is None


async def wild(engine: AsyncEngine, story: Story, moves: int) -> list[Told]:
    """Play a long story of losses and repairs; return what has to be told about it, block by block."""
    dice = random.Random(7)
    spare = {"X": 0, "Y": 0}
    lines = []
    for number in range(moves):
        asset, amount = dice.choice("XY"), dice.randint(1, 9)
        if dice.random() < 0.25:
            places = dice.choice(["custody:client  client:a", "custody:house  equity:capital"])
        elif spare[asset] < 0:
            places, spare[asset] = "custody:client  equity:capital", spare[asset] + amount
        else:
            taken = ["expense:loss  custody:client", "equity:capital  client:b"]
            places, spare[asset] = dice.choice(taken), spare[asset] - amount
        lines.append(f"n{number}  move  {places}  {amount} {asset}  -> created\n")
        if dice.random() < 0.6:
            lines.append("\n")
    wanted = "own custody:client client\n" + "".join(lines)
    assert await play(engine, wanted, story=story) == wanted
    told: list[Told] = []
    was: dict[str, bool] = {}
    async with engine.connect() as conn:
        for block in range(1, (await head(conn, 1)).height + 1):
            for item in await coverage(conn, 1, at_block=block):
                if item.covered is not was.get(item.asset, True):
                    name = "ClientMoneyRestored" if item.covered else "ClientMoneyShort"
                    figures = str(item.holdings), str(item.liabilities)
                    told.append((name, item.asset, block, *figures))
                was[item.asset] = item.covered
    assert len(told) > 10
    return told


@pytest.mark.parametrize(("window", "changes_max"), [(100_000, 500), (1, 500), (7, 500), (30, 2)])
async def test_a_backfilled_book_is_told_from_its_first_block_whatever_the_pages(
    engine: AsyncEngine,
    story: Story,
    monkeypatch: pytest.MonkeyPatch,
    window: int,
    changes_max: int,
) -> None:
    monkeypatch.setattr("ledger.coverage.WINDOW", window)
    monkeypatch.setattr("reporting.client_money_watch.CHANGES_MAX", changes_max)
    told = await wild(engine, story, 60)

    changes = await watch_all(engine)

    assert await outbox(engine) == told
    assert len(changes) == len(told)
    async with engine.connect() as conn:
        kept = {k.asset: (k.holdings, k.liabilities) for k in await list_client_money(conn, 1)}
        now = {c.asset: (c.holdings, c.liabilities) for c in await coverage(conn, 1)}
    assert kept == now


async def test_the_second_watcher_waits_for_the_first_and_doubles_nothing(
    sound: AsyncEngine, story: Story
) -> None:
    await watch_all(sound)
    await play(sound, TAKEN, story=story)
    async with sound.connect() as first, asyncio.TaskGroup() as group:
        await watch_client_money(first, 1, now=NOW)
        second = group.create_task(watch(sound))
        _, waiting = await asyncio.wait([second], timeout=0.3)
        assert waiting == {second}
        await first.commit()

    assert second.result().changes == ()
    assert len(await outbox(sound)) == 1


async def test_many_watchers_at_once_tell_everything_once_and_in_order(
    engine: AsyncEngine, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.coverage.WINDOW", 2)
    told = await wild(engine, story, 60)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(watch_all(engine)) for _ in range(4)]

    assert await outbox(engine) == told
    assert sum(len(task.result()) for task in tasks) == len(told)


class CrashError(Exception):
    """The process ends here."""


@contextmanager
def crash_at(engine: AsyncEngine, statement: int) -> Iterator[list[str]]:
    """Let the process end before its n-th statement; give the statements that it came to."""
    seen: list[str] = []

    def before(_conn: Any, _cursor: Any, sql: str, *_: Any) -> None:
        seen.append(sql)
        if len(seen) == statement:
            raise CrashError

    event.listen(engine.sync_engine, "before_cursor_execute", before)
    try:
        yield seen
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", before)


async def test_a_crash_before_any_statement_loses_and_doubles_nothing(
    sound: AsyncEngine, story: Story
) -> None:
    await watch_all(sound)
    before = await cursor(sound)
    for part in (TAKEN, RESTORED, BETTER):
        await play(sound, part, story=story)
    statement = 0
    while True:
        statement += 1
        with crash_at(sound, statement) as seen:
            try:
                await watch(sound)
            except CrashError:
                assert (await cursor(sound), await outbox(sound)) == (before, [])
                continue
        break

    assert any("outbox" in sql for sql in seen)
    assert any("UPDATE reporting.client_money_watch" in sql for sql in seen)
    assert [name for name, *_ in await outbox(sound)] == ["ClientMoneyShort", "ClientMoneyRestored"]
    assert await watch_all(sound) == []


async def test_a_session_that_ends_before_its_commit_has_told_nothing(
    sound: AsyncEngine, story: Story, owner_engine: AsyncEngine
) -> None:
    await play(sound, TAKEN, story=story)

    async def work(conn: AsyncConnection) -> None:
        await watch_client_money(conn, 1, now=NOW)
        pid = await conn.scalar(text("SELECT pg_backend_pid()"))
        async with owner_engine.connect() as other:
            await other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

    with pytest.raises((CommitUnknown, DBAPIError)):
        await transact(sound, work, attempts_max=1)
    assert (await cursor(sound), await outbox(sound)) == (None, [])

    await watch_all(sound)
    assert len(await outbox(sound)) == 1


async def test_the_worker_warns_once_and_goes_on_page_by_page(
    sound: AsyncEngine, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.coverage.WINDOW", 1)
    for part in (TAKEN, BETTER, RESTORED):
        await play(sound, part, story=story)
    worker = ClientMoneyWatch(engine=sound, clock=ManualClock(NOW), book=1)

    with capture_logs() as logs:
        assert [c.state.value for c in await worker.turn()] == ["short", "covered"]
        assert await worker.turn() == []

    assert [(entry["log_level"], entry["event"], entry["shortfall"]) for entry in logs] == [
        ("warning", "ClientMoneyShort", "3"),
        ("warning", "ClientMoneyRestored", "0"),
    ]


async def test_postings_do_not_wait_for_the_watcher_nor_it_for_them(
    sound: AsyncEngine, story: Story
) -> None:
    """And what is not committed is not watched."""
    async with sound.connect() as watching:
        await watch_client_money(watching, 1, now=NOW)
        assert await play(sound, TAKEN, story=story) == TAKEN
        await watching.commit()
    async with sound.connect() as posting:
        require_applied(await post(posting, 1, [parse_transfer(BACK, set())], now=story.at))
        [change] = await watch_all(sound)
        await posting.commit()

    assert change.state is ClientMoneyState.SHORT
    assert [change.state for change in await watch_all(sound)] == [ClientMoneyState.COVERED]


async def test_the_database_refuses_a_state_that_its_figures_deny(
    sound: AsyncEngine, story: Story
) -> None:
    await play(sound, TAKEN, story=story)
    await watch_all(sound)

    with pytest.raises(DBAPIError, match="ck_client_money_state"):
        async with sound.begin() as conn:
            await conn.execute(text("UPDATE reporting.client_money SET state = 'covered'"))
    with pytest.raises(DBAPIError, match="permission denied"):
        async with sound.begin() as conn:
            await conn.execute(text("DELETE FROM reporting.client_money"))


def end(block: int, holdings: int, liabilities: int = 1, asset: str = "X") -> ClientMoney:
    return ClientMoney(
        asset=asset,
        height=block,
        sequence=block * 10,
        recorded_at=START,
        holdings=holdings,
        liabilities=liabilities,
    )


def test_the_decision_stops_at_the_end_of_a_block() -> None:
    ends = [end(3, 0), end(3, 0, asset="Y"), end(4, 0, asset="Z"), end(5, 1)]

    first = follow_client_money({}, ends, through=9, changes_max=1)
    assert (first.height, first.changes) == (3, tuple(ends[:2]))

    short = {item.asset: item.state for item in first.figures}
    rest = follow_client_money(short, ends[2:], through=9, changes_max=2)
    assert (rest.height, rest.changes) == (9, tuple(ends[2:]))
